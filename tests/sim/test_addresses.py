"""The address of a slot that somebody takes past the gate: the service runs at another one meanwhile."""

from __future__ import annotations

from dataclasses import replace

from controller.model import names
from tests.sim.doomed import DoomedWorld
from tests.sim.places import label
from tests.sim.stories import DB, STORIES, WEB
from tests.sim.world import World


def _at(world: World) -> dict[str, str]:
    """Return the addresses of the services that run."""
    return {
        label(container, names.SERVICE): end.address
        for container in world.people.ours()
        for end in container.networks.values()
        if container.running
    }


def test_a_service_whose_address_is_taken_runs_at_another_one_and_takes_its_own_back() -> None:
    seen: list[dict[str, str]] = []

    def look(world: World) -> None:
        seen.append(_at(world))

    tale = STORIES["a taken address"]
    looks = tuple((at, look) for at in (10, 50, 80, 110))
    world = DoomedWorld(replace(tale, then=(*tale.then, *looks)))
    world.run()
    first, web_taken, web_back, db_taken = seen
    assert first.keys() == web_taken.keys() == db_taken.keys() == {WEB.name, DB.name}
    assert (web_taken[WEB.name] != first[WEB.name], web_taken[DB.name]) == (True, first[DB.name])
    assert (db_taken[DB.name] != first[DB.name], db_taken[WEB.name]) == (True, first[WEB.name])
    assert web_back == _at(world) == first
