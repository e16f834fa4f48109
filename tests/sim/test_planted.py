"""Each planted bug is found by some world, by the checker of its invariant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pytest

from tests.sim.parallel import mapped
from tests.sim.planted import PLANTS, Plant
from tests.sim.violation import Violation
from tests.sim.world import World

WORLDS = 300
#: The invariants of DESIGN section 4, that what people hold by hand is left so, and the order among
#: services.
CHECKED = range(1, 15)


@dataclass(frozen=True, slots=True)
class Finding:
    """A planted bug, and the first world that found it."""

    invariant: int
    patch: str
    what: str
    seed: int | None


def findings_table(findings: Iterable[Finding]) -> list[str]:
    """Return the table of planted bugs as lines."""
    head = ("invariant", "patch", "first seed", "what")
    rows = [
        (str(f.invariant), f.patch, "none" if f.seed is None else str(f.seed), f.what)
        for f in sorted(findings, key=lambda f: (f.invariant, f.patch))
    ]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(3)]
    return [
        "  ".join([*(f"{row[i]:<{widths[i]}}" for i in range(3)), row[3]]) for row in [head, *rows]
    ]


def hunt(patch: str) -> Finding:
    """Live worlds with a planted bug until one finds it."""
    plant = next(each for each in PLANTS if each.patch == patch)
    with plant.growing():
        for seed in range(WORLDS):
            try:
                World(seed).run()
            except Violation as violation:
                if violation.invariant == plant.invariant:
                    return _finding(plant, seed)
                # A patch that doesn't fit the code any more plants nothing.
                assert violation.invariant, f"{patch} only breaks the program: {violation}"
    return _finding(plant, None)


def _finding(plant: Plant, seed: int | None) -> Finding:
    return Finding(plant.invariant, plant.patch, plant.what, seed)


def test_at_least_two_bugs_are_planted_for_each_invariant_that_is_checked() -> None:
    planted = Counter(plant.invariant for plant in PLANTS)
    assert set(planted) == set(CHECKED)
    assert min(planted.values()) >= 2


@pytest.mark.timeout(1800)
def test_each_planted_bug_is_found(record_property: Callable[[str, object], None]) -> None:
    findings = list(mapped(hunt, [plant.patch for plant in PLANTS], chunk=1))
    record_property("planted bugs", findings_table(findings))
    missed = [finding.patch for finding in findings if finding.seed is None]
    assert not missed, f"no world found {missed}"


def test_a_plant_leaves_nothing_behind() -> None:
    def code() -> list[object]:
        return [getattr(owner, name) for plant in PLANTS for owner, name, _wrong in plant.places]

    before = code()
    for plant in PLANTS:
        with plant.growing():
            assert code() != before
    assert code() == before
