"""Seeded worlds: whatever goes wrong, the invariants hold, and all converges afterwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.sim.faults import CELLS, Action, Fault, holes, table
from tests.sim.parallel import mapped
from tests.sim.violation import Violation
from tests.sim.world import World

SHOWN = 60
CHUNK = 4


@dataclass(frozen=True, slots=True)
class Lived:
    """How one world ended."""

    seed: int
    met: Counter[tuple[Fault, Action]]
    problem: str = ""
    trace: str = ""


def live(seed: int) -> Lived:
    """Live one world."""
    world = World(seed)
    problem = ""
    try:
        world.run()
    except Violation as violation:
        problem = str(violation)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told with its seed
        problem = f"{type(error).__name__}: {error}"
    if problem:
        lines = world.trace.lines[-SHOWN:]
        return Lived(seed, world.faults.met, problem, "\n".join(lines))
    return Lived(seed, world.faults.met)


@pytest.mark.timeout(1800)
def test_all_worlds_stay_safe_and_converge(
    seeds: list[int], record_property: Callable[[str, object], None]
) -> None:
    met: Counter[tuple[Fault, Action]] = Counter()
    failed: list[Lived] = []
    for lived in mapped(live, seeds, chunk=CHUNK):
        met += lived.met
        if lived.problem:
            failed.append(lived)
    record_property(f"faults met in {len(seeds)} worlds", table(met))
    if failed:
        first = failed[0]
        others = ", ".join(str(lived.seed) for lived in failed[1:10])
        pytest.fail(
            f"{len(failed)} of {len(seeds)} worlds failed"
            f"{f' (also {others})' if others else ''}.\n"
            f"seed {first.seed}: {first.problem}\n{first.trace}\n"
            f"replay it: .venv/bin/python -m pytest tests/sim -k worlds --seed {first.seed}",
            pytrace=False,
        )
    if len(seeds) >= len(CELLS):
        missed = holes(met)
        assert not missed, f"no world met {missed}"
