"""Services that are replaced once their dependency was replaced, and only then."""

from __future__ import annotations

from controller.model import names
from tests.sim.doomed import DoomedWorld
from tests.sim.places import label
from tests.sim.stories import CELLAR, FRONT, STORIES, edit, engine_restart

TALE = STORIES["restarted with its dependency"]


def _created(world: DoomedWorld) -> dict[str, list[str]]:
    """Return the ids of the containers that there have been, by service."""
    found: dict[str, list[str]] = {}
    for event in world.engine.events:
        if event["Type"] == "container" and event["Action"] == "create":
            service = event["Actor"]["Attributes"][names.SERVICE]
            found.setdefault(service, []).append(event["Actor"]["ID"])
    return found


def test_a_service_is_replaced_once_after_its_dependency() -> None:
    world = DoomedWorld(TALE)
    world.run()
    created = _created(world)
    assert (len(created[CELLAR.name]), len(created[FRONT.name])) == (2, 2)
    (front,) = (
        c for c in world.engine.containers.values() if label(c, names.SERVICE) == FRONT.name
    )
    assert front.id == created[FRONT.name][-1]


def test_a_restart_and_a_further_replica_replace_no_dependent() -> None:
    then = ((20, engine_restart), (40, edit(CELLAR, replicas=2)))
    world = DoomedWorld(type(TALE)(TALE.does, TALE.begin, then))
    world.run()
    assert len(_created(world)[FRONT.name]) == 1
