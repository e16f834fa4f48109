"""Remade networks in worlds of their own: services keep their containers, wherever a process dies."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from controller.core.planning import images_networks_volumes
from tests.sim.doomed import DoomedWorld
from tests.sim.faults import Action
from tests.sim.files import Doc
from tests.sim.places import label
from tests.sim.planted import Plant, always
from tests.sim.stories import DB, HERD, LAN, WEB, Tale, approve, edit, service
from tests.sim.test_crash_sweep import Death, some
from tests.sim.violation import Violation
from tests.sim.world import World

#: Deaths of an ordinary run.
DEATHS = 7
CONVERGES = 10
ON_LAN = {"mode": "declared", "attach": ["lan"]}
REMADE = Tale(
    frozenset({Action.CONNECT, Action.DISCONNECT, Action.REMOVE_NETWORK}),
    (
        Doc(LAN, {"internal": True}),
        service(WEB, replicas=2, network={"attach": ["lan"]}),
        service(DB, "db:1", network=ON_LAN),
    ),
    ((15, edit(LAN, internal=False)), (45, edit(LAN, internal=True))),
)
#: While the network waits for an approval, a further container is declared.
SCALED = (30, edit(HERD[0]._replace(namespace="default"), replicas=2))
#: More services are on the network than may be down at a time.
CROWDED = replace(
    REMADE,
    begin=(
        Doc(LAN, {"internal": True}),
        *(service(key._replace(namespace="default"), network={"attach": ["lan"]}) for key in HERD),
    ),
    then=((15, edit(LAN, internal=False)), (60, approve)),
)
PLANT = Plant(
    CONVERGES,
    "a-network-left-as-it-is",
    "a network with other settings than declared counts as the declared one",
    ((images_networks_volumes.NetworkShape, "differences", always(lambda *_: ())),),
)


def _make_anew(world: World) -> str:
    """By hand, make the network anew with a way out, under its name and labels, and join all to it."""
    (lan,) = (each for each in world.engine.networks.values() if each.name == "lan")
    on_it = [c for c in world.engine.containers.values() if "lan" in c.networks]
    labels = dict(lan.labels)
    for container in on_it:
        _by_hand(world, f"/networks/{lan.id}/disconnect", {"Container": container.id})
    world.engine.call("DELETE", f"/networks/{lan.id}", None)
    _by_hand(world, "/networks/create", {"Name": "lan", "Labels": labels})
    for container in on_it:
        _by_hand(world, "/networks/lan/connect", {"Container": container.id})
    world.checkers.breaching = True
    (opened,) = (each for each in world.engine.networks.values() if each.name == "lan")
    world.marks.foreign.add(opened.id)
    world.broker.check_containers()
    return "somebody makes lan anew, with a way out"


def _by_hand(world: World, path: str, body: object) -> None:
    status, told = world.engine.call("POST", path, json.dumps(body).encode())
    assert status < 300, (path, told)


def _processes(world: World) -> dict[str, int]:
    return {container.id: container.pid for container in world.engine.containers.values()}


def _lan(world: World) -> str:
    (network,) = (each for each in world.engine.networks.values() if each.name == "lan")
    on_it = sorted(
        str(label(container, "io.trimtab.service"))
        for container in world.engine.containers.values()
        for end in container.networks.values()
        if end.network == network.id and end.id
    )
    return f"{'internal' if network.internal else 'open'}: {' '.join(on_it)}"


def test_a_remade_network_has_its_containers_again() -> None:
    world = DoomedWorld(REMADE)
    world.run()
    assert world.did >= REMADE.does
    assert not world.did & {Action.STOP, Action.REMOVE}
    assert _lan(world) == "internal: db web web"


def test_a_network_of_many_services_is_remade_after_an_approval() -> None:
    seen: list[str] = []

    def look(world: World) -> str:
        seen.append(_lan(world))
        return "a look at the network"

    world = DoomedWorld(replace(CROWDED, then=(*CROWDED.then, SCALED, (59, look))))
    world.run()
    assert (*seen, _lan(world)) == ("internal: s0 s1 s2 s3 s4", "open: s0 s0 s1 s2 s3 s4")
    assert not world.did & {Action.STOP, Action.REMOVE}


def test_containers_leave_a_network_that_people_made_anew_before_it_is_remade() -> None:
    seen: list[str] = []
    processes: list[dict[str, int]] = []

    def make_anew(world: World) -> str:
        processes.append(_processes(world))
        return _make_anew(world)

    def look(world: World) -> str:
        seen.append(_lan(world))
        return "a look at the network"

    def put_away(world: World) -> str:
        (lan,) = (each for each in world.engine.networks.values() if each.name == "lan")
        world.engine.call("DELETE", f"/networks/{lan.id}", None)
        return "somebody removes the network"

    world = DoomedWorld(replace(REMADE, then=((15, make_anew), (30, look), (31, put_away))))
    world.run()
    assert (*seen, _lan(world)) == ("open: ", "internal: db web web")
    assert processes == [_processes(world)]


def test_a_planted_bug_about_remakes_is_found() -> None:
    with PLANT.growing(), pytest.raises(Violation) as found:
        DoomedWorld(replace(REMADE, then=REMADE.then[:1])).run()
    assert found.value.invariant == PLANT.invariant


def _die(at: int) -> str:
    world = DoomedWorld(REMADE, at)
    try:
        world.run()
    except Violation as violation:
        return f"{at} ({world.moments[at]}): {violation}"
    return "" if _lan(world) == "internal: db web web" else f"{at}: {_lan(world)}"


def test_wherever_a_process_dies_the_network_is_remade() -> None:
    world = DoomedWorld(REMADE)
    world.run()
    moments = {Death("remade", at): moment for at, moment in enumerate(world.moments)}
    problems = [problem for death in some(moments, DEATHS) if (problem := _die(death.at))]
    assert problems == []
