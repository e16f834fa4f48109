"""Worlds in which somebody edits limits, up and down, whatever else goes wrong."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import pytest

from controller.core.encoding.json_values import digest
from controller.core.manifests import parse
from controller.core.manifests.revision_hash import VERSION, slot_spec
from controller.core.planning import slot_plan
from controller.model.desired.spec.service import ServiceSpec
from controller.model.names import Key
from tests.sim.faults import Faults
from tests.sim.ground import Event
from tests.sim.planted import Plant, always
from tests.sim.scenario import WEB, Scenario
from tests.sim.violation import Violation
from tests.sim.world import World

if TYPE_CHECKING:
    from collections.abc import Iterable

WORLDS = 5


def _revision_with_limits(owner: str, key: Key, spec: ServiceSpec, contents: object = ()) -> str:
    return f"{VERSION}:{digest([owner, str(key), slot_spec(spec), contents])}"


PLANTS = (
    Plant(
        7,
        "limits-in-revisions",
        "other limits are another revision, so that containers are replaced for them",
        ((parse, "revision_of", always(_revision_with_limits)),),
    ),
    Plant(
        10,
        "limits-overlooked",
        "a container keeps its limits, whatever its document says",
        ((slot_plan, "limit_actions", always(lambda _container, _context: [])),),
    ),
)


class Thrifty(Scenario):
    """A scenario in which the limits of a service change."""

    def __init__(self, seed: int, faults: Faults) -> None:
        super().__init__(seed, {action for _fault, action in faults.aims})
        self._draw = random.Random(f"limits {seed}")

    def events(self, world: World) -> Iterator[Event]:
        yield from super().events(world)
        for begin in (5, 25, 60):
            if self._draw.random() < 0.6:
                memory = self._draw.choice(("32Mi", "64Mi", "96Mi", "128Mi"))
                at = self._draw.uniform(begin, begin + 15)
                yield at, "edit: web's limits", partial(_edit, world, memory)


def _edit(world: World, memory: str) -> None:
    """Declare other memory; later, if there is no file to edit."""
    if not world.files.present or world.files.emptied:
        world.at(15.0, "edit again", partial(_edit, world, memory))
    elif WEB in world.files.docs:
        world.files.change(WEB, resources={"memory": memory})
        world.files_changed()


def world_of(seed: int) -> World:
    faults = Faults(seed)
    return World(seed, story=Thrifty(seed, faults), faults=faults)


@pytest.mark.parametrize("seed", range(WORLDS))
def test_other_limits_replace_nothing_and_come_true(seed: int) -> None:
    world_of(seed).run()


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.patch)
def test_a_planted_bug_about_limits_is_found(plant: Plant) -> None:
    with plant.growing():
        # World 1 is short, and finds both.
        assert plant.invariant in _found(range(1, WORLDS)), plant.what


def _found(seeds: Iterable[int]) -> Iterator[int]:
    """Yield the invariants that worlds break."""
    for seed in seeds:
        try:
            world_of(seed).run()
        except Violation as violation:
            yield violation.invariant
