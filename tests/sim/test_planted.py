"""Each planted bug is found by some world, by the checker of its invariant."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.sim.conftest import FINDINGS, Finding
from tests.sim.parallel import mapped
from tests.sim.planted import PLANTS, Plant
from tests.sim.violation import Violation
from tests.sim.world import World

WORLDS = 300
#: The invariants of DESIGN section 4, that what people hold by hand is left so, and the order among
#: services.
CHECKED = range(1, 15)


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
def test_each_planted_bug_is_found(pytestconfig: pytest.Config) -> None:
    findings = list(mapped(hunt, [plant.patch for plant in PLANTS], chunk=1))
    pytestconfig.stash[FINDINGS] = findings
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
