"""Seeded worlds: whatever goes wrong, the invariants hold, and all converges afterwards."""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import pytest

from tests.sim.conftest import TALLY
from tests.sim.faults import CELLS, Action, Fault, holes
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
    try:
        world.run()
    except Violation as violation:
        lines = world.trace.lines[-SHOWN:]
        return Lived(seed, world.faults.met, str(violation), "\n".join(lines))
    return Lived(seed, world.faults.met)


def live_all(seeds: Iterable[int]) -> Iterator[Lived]:
    """Live worlds side by side, on all processors: each is alone in its own."""
    everyone = list(seeds)
    if len(everyone) == 1:
        yield live(everyone[0])
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=spawn) as pool:
        yield from pool.map(live, everyone, chunksize=CHUNK)


@pytest.mark.timeout(1800)
def test_all_worlds_stay_safe_and_converge(seeds: list[int], pytestconfig: pytest.Config) -> None:
    met: Counter[tuple[Fault, Action]] = Counter()
    failed: list[Lived] = []
    for lived in live_all(seeds):
        met += lived.met
        if lived.problem:
            failed.append(lived)
    pytestconfig.stash[TALLY] = (len(seeds), met)
    if failed:
        first = failed[0]
        others = ", ".join(str(lived.seed) for lived in failed[1:10])
        pytest.fail(
            f"{len(failed)} of {len(seeds)} worlds failed"
            f"{f' (also {others})' if others else ''}.\n"
            f"seed {first.seed}: {first.problem}\n{first.trace}\n"
            f'replay it: make sim ARGS="--seed {first.seed}"',
            pytrace=False,
        )
    if len(seeds) >= len(CELLS):
        missed = holes(met)
        assert not missed, f"no world met {missed}"
