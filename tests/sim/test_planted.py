"""Each planted bug is found by some world, by the checker of its invariant.

Which world found it is noted in ``found.json``, and lived first; where that doesn't find it any more,
all are lived. ``--anew`` lives worlds in any case, and writes the note.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.sim.checkers import ADDRESSES
from tests.sim.parallel import mapped
from tests.sim.planted import PLANTS, Plant
from tests.sim.promptness import LATE
from tests.sim.violation import Violation
from tests.sim.world import World

WORLDS = 300
#: ``--anew`` lives so many worlds after the first that finds a bug, and notes the one that finds it soonest.
FURTHER = 20
FOUND = Path(__file__).with_name("found.json")
#: The numbers of the invariants (``checkers``, ``orders``, ``promptness``).
CHECKED = (*range(1, 15), LATE, ADDRESSES)


@dataclass(frozen=True, slots=True)
class Finding:
    """A planted bug, the world that found it, and the one that was noted."""

    invariant: int
    patch: str
    what: str
    seed: int | None
    noted: int | None


def findings_table(findings: Iterable[Finding]) -> list[str]:
    """Return the table of planted bugs as lines."""
    head = ("invariant", "patch", "seed", "what")
    rows = [
        (str(f.invariant), f.patch, _seed_told(f), f.what)
        for f in sorted(findings, key=lambda f: (f.invariant, f.patch))
    ]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(3)]
    return [
        "  ".join([*(f"{row[i]:<{widths[i]}}" for i in range(3)), row[3]]) for row in [head, *rows]
    ]


def _seed_told(finding: Finding) -> str:
    """Return the seed, and the noted one if that is another: then a search takes long each time."""
    told = "none" if finding.seed is None else str(finding.seed)
    return told if finding.noted in {finding.seed, None} else f"{told}, noted: {finding.noted}"


def hunt(patch: str, noted: dict[str, int]) -> Finding:
    """Live worlds with a planted bug until one finds it, the noted one first."""
    plant = next(each for each in PLANTS if each.patch == patch)
    hint = noted.get(patch)
    worlds_left = FURTHER if hint is None else 0
    #: How much happened until a world found it, and its seed.
    soonest: tuple[int, int] | None = None
    with plant.growing():
        for seed in sorted(range(WORLDS), key=lambda seed: seed != hint):
            happened = _find(plant, seed)
            if happened is not None:
                soonest = min(soonest or (happened, seed), (happened, seed))
            if soonest is not None:
                if worlds_left == 0:
                    break
                worlds_left -= 1
    return Finding(plant.invariant, patch, plant.what, soonest and soonest[1], hint)


def _find(plant: Plant, seed: int) -> int | None:
    """Live a world; return how much happened until it found a planted bug, None if it didn't."""
    world = World(seed)
    try:
        world.run()
    except Violation as violation:
        if violation.invariant == plant.invariant:
            return len(world.trace.lines)
        # A patch that doesn't fit the code any more plants nothing.
        assert violation.invariant, f"{plant.patch} only breaks the program: {violation}"
    return None


def test_at_least_two_bugs_are_planted_for_each_invariant_that_is_checked() -> None:
    planted = Counter(plant.invariant for plant in PLANTS)
    assert set(planted) == set(CHECKED)
    assert min(planted.values()) >= 2


@pytest.mark.timeout(1800)
def test_each_planted_bug_is_found(
    pytestconfig: pytest.Config, record_property: Callable[[str, object], None]
) -> None:
    anew = pytestconfig.getoption("anew")
    noted: dict[str, int] = {} if anew else json.loads(FOUND.read_text())
    patches = [plant.patch for plant in PLANTS]
    findings = list(mapped(partial(hunt, noted=noted), patches, chunk=1))
    record_property("planted bugs", findings_table(findings))
    missed = [finding.patch for finding in findings if finding.seed is None]
    assert not missed, f"no world found {missed}"
    if anew:
        found = {finding.patch: finding.seed for finding in findings}
        FOUND.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


def test_a_plant_leaves_nothing_behind() -> None:
    def code() -> list[object]:
        return [getattr(owner, name) for plant in PLANTS for owner, name, _wrong in plant.places]

    before = code()
    for plant in PLANTS:
        with plant.growing():
            assert code() != before
    assert code() == before
