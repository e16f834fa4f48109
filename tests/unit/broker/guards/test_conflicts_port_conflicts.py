"""Host ports at a create: what another owner's container holds is refused, in any of its states."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.broker.dispatch import handle
from controller.broker.gate.commands import ReadEngine
from controller.broker.gate.state import GateState
from controller.model.inventory import OpenIntent
from controller.model.records import Actor
from tests.unit.broker.dialogue import (
    ALICE,
    NOT_FOUND,
    OPERATOR,
    RECORDED,
    Step,
    Told,
    converse,
    lost,
    reply,
    request,
    state,
)
from tests.unit.broker.guards.test_recovery import lists
from tests.unit.broker.handlers.test_container_create import MADE, Forwarded
from tests.unit.broker.world import (
    ALL_NETWORKS,
    ALL_VOLUMES,
    DB,
    NETWORK,
    REFERENCE,
    image,
    inventory,
    item,
    labels,
    network,
)

NET = "platform-bridge"
PORT = "127.0.0.1:18555:8080/tcp"
BODY = {
    "Image": REFERENCE,
    "HostConfig": {
        "NetworkMode": "bridge",
        "PortBindings": {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": "18555"}]},
    },
}


def gate(**more: Any) -> GateState:
    """Return a gate with the network that publishes ports."""
    known = inventory()
    bridge = replace(known.networks[NETWORK], name=NET, namespace="default")
    return state(replace(known, networks={NETWORK: bridge}, **more))


def holding() -> GateState:
    """Return a gate where bob's container holds a port; nothing says whether it runs."""
    return gate(containers={DB: replace(item(DB, "bob-db", "bob"), ports=(PORT,))})


#: No object is forgotten while the engine doesn't answer.
AWAY: Step = (ReadEngine("/info"), lost())


def create(knows: GateState, *ends: Step, actor: Actor = ALICE) -> Told:
    looked: list[Step] = [
        (ReadEngine(f"/images/{REFERENCE}/json"), reply(image())),
        (ReadEngine(f"/networks/{NET}"), reply(network(NETWORK, NET, "alice", Internal=False))),
        (ReadEngine("/containers/job/json"), NOT_FOUND),
    ]
    asked = request("POST", "/containers/create?name=job", body=BODY, actor=actor)
    return converse(handle(asked, knows), [*looked, *ends], knows)


def test_a_client_gets_no_port_of_another_owner_and_does_not_learn_whose() -> None:
    knows = holding()
    answer = create(knows, AWAY, ("refusal", RECORDED))
    assert (answer.status, answer.rule) == (409, "port.taken")
    assert "18555" in answer.value.body.decode()
    assert "bob" not in answer.value.body.decode()
    assert knows.reservations.ports == {}


def test_an_operator_learns_the_holder() -> None:
    answer = create(holding(), AWAY, ("refusal", RECORDED), actor=OPERATOR)
    assert "the container bob-db of bob" in answer.value.body.decode()


@pytest.mark.parametrize("ports", [(), ("127.0.0.1:18556:8080/tcp",)])
def test_a_port_is_free_once_no_container_holds_it(ports: tuple[str, ...]) -> None:
    knows = holding()
    bobs = replace(knows.inventory.containers[DB], ports=ports)
    knows.inventory = replace(knows.inventory, containers={DB: bobs})
    sent = Forwarded("/containers/create?name=job")
    answer = create(knows, ("intent", RECORDED), (sent, MADE), ("outcome", RECORDED))
    assert answer.status == 201
    made = next(each for each in knows.inventory.containers.values() if each.owner == "alice")
    assert (made.ports, knows.reservations.ports) == ((PORT,), {})


def test_a_create_in_progress_holds_its_ports() -> None:
    summary: dict[str, object] = {"name": "soon", "labels": labels("bob"), "ports": [PORT]}
    intent = OpenIntent(9, "", "client", {"route": "container.create", "summary": summary})
    assert create(gate(open={"i9": intent}), AWAY, ("refusal", RECORDED)).rule == "port.taken"


def test_a_port_is_free_at_once_if_its_holder_was_removed_past_the_broker() -> None:
    knows = holding()
    volumes = [{"Name": name} for name in knows.inventory.volumes]
    steps: list[Step] = [
        *lists(**{ALL_NETWORKS: [{"Id": NETWORK}], ALL_VOLUMES: {"Volumes": volumes}}),
        (ReadEngine(f"/containers/{DB}/json"), NOT_FOUND),
        ("read", RECORDED),
    ]
    sent = Forwarded("/containers/create?name=job")
    answer = create(knows, *steps, ("intent", RECORDED), (sent, MADE), ("outcome", RECORDED))
    assert answer.status == 201
    assert DB not in knows.inventory.containers
