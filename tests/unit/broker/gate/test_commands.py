"""Looks that will follow are named with the first one, so that a driver can ask for all at once."""

from __future__ import annotations

from dataclasses import replace

from controller.broker.dispatch import handle
from controller.broker.gate.commands import CommandResult, ReadEngine
from controller.broker.gate.state import GateState
from controller.model.confinement import Confinement, ExpectedMount
from controller.model.observed import Settings
from controller.model.records import Reply, Request
from tests.unit.broker.dialogue import ALICE, BOB, NOT_FOUND, reply, request, state
from tests.unit.broker.world import (
    NETWORK,
    REFERENCE,
    WEB,
    image,
    inspect,
    inventory,
    item,
    network,
)

CONTAINER = f"/containers/{WEB}/json"


def looks(asked: Request, knows: GateState, engine: dict[str, Reply]) -> list[ReadEngine]:
    """Return the looks of a request up to whatever it does besides."""
    found: list[ReadEngine] = []
    steps = handle(asked, knows)
    answer: CommandResult = None
    while isinstance(command := steps.send(answer), ReadEngine):
        found.append(command)
        answer = engine.get(command.path, NOT_FOUND)
    steps.close()
    return found


def told(found: list[ReadEngine]) -> tuple[list[str], tuple[str, ...]]:
    """Return what was looked at, and what the first look named ahead."""
    return [each.path for each in found], found[0].ahead


def with_web(confined: Confinement, *networks: str) -> GateState:
    """Return what is known when alice's container has these networks and mounts."""
    known = inventory()
    web = replace(
        item(WEB, "alice-web", "alice"),
        admitted=Settings("alice-web", networks=networks),
        confined=confined,
    )
    return state(replace(known, containers={**known.containers, WEB: web}))


def test_a_create_names_its_networks_and_whoever_has_its_name() -> None:
    asked = request("POST", "/containers/create?name=job", body={"Image": REFERENCE})
    engine = {
        f"/images/{REFERENCE}/json": reply(image()),
        "/networks/platform-network": reply(network(NETWORK, "platform-network", "alice")),
    }
    following = ("/networks/platform-network", "/containers/job/json")
    paths, ahead = told(looks(asked, state(inventory()), engine))
    assert (paths, ahead) == ([f"/images/{REFERENCE}/json", *following], following)


def test_a_start_names_the_networks_and_volumes_of_its_container_to_its_owner_alone() -> None:
    volume = ExpectedMount(target="/v", type="volume", source="data")
    knows = with_web(Confinement(mounts=(volume,)), "alice-net")
    engine = {
        CONTAINER: reply(inspect(WEB, "alice-web", "alice")),
        "/networks/alice-net": reply(network(NETWORK, "alice-net", "alice")),
    }
    following = ("/networks/alice-net", "/volumes/data")
    for verb in ("start", "restart"):
        asked = request("POST", f"/containers/{WEB}/{verb}", actor=ALICE)
        assert told(looks(asked, knows, engine)) == ([CONTAINER, *following], following)
        others = request("POST", f"/containers/{WEB}/{verb}", actor=BOB)
        assert told(looks(others, knows, engine)) == ([CONTAINER], ())
