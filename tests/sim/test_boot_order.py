"""Boot in order: after a restart of the engine the controller alone starts services, one after the other."""

from __future__ import annotations

import pytest

from controller.core.planning import rollout_waves
from controller.model import names
from controller.model.desired.desired import Service
from controller.model.mutations import Mutation
from tests.sim.doomed import DoomedWorld
from tests.sim.orders import ORDER
from tests.sim.places import label
from tests.sim.planted import Plant, always
from tests.sim.stories import CELLAR, FRONT, STORIES, WEB
from tests.sim.violation import Violation

BOOT = "boot"
BEHIND = 10
PLANTS = (
    Plant(
        BEHIND,
        "boot-by-the-engine",
        "the engine restarts containers although their service boots in order",
        ((Service, "is_boot_ordered", always(False)),),
    ),
    Plant(
        ORDER,
        "boot-without-order",
        "a start of a service waits for nothing that it depends on",
        ((rollout_waves, "_blocker_of", always(lambda _slot, _context: None)),),
    ),
)


def _policies(world: DoomedWorld) -> dict[str, str]:
    return {label(c, names.SERVICE): c.policy for c in world.engine.containers.values()}


def test_services_in_boot_order_are_started_by_the_controller_alone() -> None:
    world = DoomedWorld(STORIES[BOOT])
    world.run()
    assert _policies(world) == {CELLAR.name: "no", FRONT.name: "no", WEB.name: "always"}
    running = [each.name for each in world.engine.containers.values() if each.status == "running"]
    assert len(running) == 3


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.patch)
def test_a_planted_bug_about_boot_is_found(plant: Plant) -> None:
    with plant.growing(), pytest.raises(Violation) as found:
        DoomedWorld(STORIES[BOOT]).run()
    assert found.value.invariant == plant.invariant


def test_a_stop_past_the_gate_is_no_failure_of_a_service_in_boot_order() -> None:
    world = DoomedWorld(STORIES["stops past the gate"])
    world.run()
    assert world.controller is not None
    assert all(not state.history.count for state in world.controller.store.troubled().values())
    causes = [
        str(record.entry.claims.get("cause", ""))
        for record in world.journal.records()
        if record.entry.stage == "intent"
        and record.entry.request.get("route") == Mutation.CONTAINER_START
    ]
    stops = [c for c in causes if "was stopped on the engine's own socket: it exited" in c]
    assert len(stops) == 2, causes
