"""Services that are replaced once their dependency was replaced, and only then."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from controller.model import names
from tests.sim.doomed import DoomedWorld
from tests.sim.places import label
from tests.sim.stories import CELLAR, FRONT, STORIES, edit, engine_killed, engine_restart
from tests.sim.world import World

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


# Sidecars


def _ends(world: DoomedWorld) -> None:
    """The sidecar shares the network of the container that runs, and joined it after its start."""
    cellar, front = (
        next(c for c in world.engine.containers.values() if label(c, names.SERVICE) == key.name)
        for key in (CELLAR, FRONT)
    )
    assert (cellar.status, front.status) == ("running", "running")
    assert front.host["NetworkMode"] == f"container:{cellar.id}"
    assert front.networks == {}
    assert front.up_since >= cellar.up_since


def _cellar_again(world: World) -> str:
    """The program of the cellar ends, and the engine restarts the container."""
    (cellar,) = (
        c for c in world.engine.containers.values() if label(c, names.SERVICE) == CELLAR.name
    )
    world.engine._exited(cellar, 1)
    return "the cellar ends"


SIDECAR = STORIES["sidecar"]


def test_a_sidecar_follows_the_rollout_of_its_service() -> None:
    world = DoomedWorld(SIDECAR)
    world.run()
    created = _created(world)
    assert (len(created[CELLAR.name]), len(created[FRONT.name])) == (2, 2)
    _ends(world)


@pytest.mark.parametrize("happens", [_cellar_again, engine_restart, engine_killed])
def test_a_sidecar_shares_again_after_a_restart(happens: Callable[[World], str]) -> None:
    world = DoomedWorld(type(SIDECAR)(SIDECAR.does, SIDECAR.begin, ((20, happens),)))
    world.run()
    _ends(world)
