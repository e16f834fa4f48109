"""The address of a slot that somebody takes past the gate: the service runs at another one meanwhile."""

from __future__ import annotations

from dataclasses import replace

from controller.model import names
from tests.sim.doomed import DoomedWorld
from tests.sim.places import label
from tests.sim.stories import DB, STORIES, WEB, Tale, edit, service
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


def test_what_crashes_at_each_start_leaves_its_name_and_its_address_to_its_correction() -> None:
    """The engine doubles the pause before each restart: at the hand-over the crashing one is in one."""
    seen: list[dict[str, str]] = []

    def crash(world: World) -> None:
        for each in world.people.ours():
            if each.alive and each.image == world.engine.images["trimtab.local/web:1"]:
                world.engine.crash(each.id)

    def look(world: World) -> None:
        seen.append({each.name: each.status for each in world.people.ours()})

    corrected = edit(WEB, image="trimtab.local/web:2", rollout={"minHealthy": "4s"})
    crashes = tuple((at, crash) for at in (10, 11, 12, 13, 14))
    looks = ((15, look), (17, look))
    world = DoomedWorld(Tale(frozenset(), (service(WEB),), ((11.5, corrected), *crashes, *looks)))
    world.run()
    before, after = seen
    assert sorted(before.values()) == ["restarting", "running"]
    assert after == {name: word for name, word in before.items() if word == "running"}
    assert _at(world).keys() == {WEB.name}
