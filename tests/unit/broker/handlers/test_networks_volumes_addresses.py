"""Addresses at the gate: the broker chooses them, for the slots of the controller's containers alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from controller.broker.gate.commands import EndConnections, ReadEngine
from controller.broker.gate.state import GateState
from controller.model.inventory import OwnedObject
from controller.model.observed import Settings
from controller.model.records import Actor, Reply
from tests.unit.broker.dialogue import (
    ALICE,
    CONTROLLER,
    NOT_FOUND,
    OPERATOR,
    RECORDED,
    Step,
    Told,
    reply,
    state,
)
from tests.unit.broker.handlers.test_container_create import (
    LOOK_IMAGE,
    SLOT_LABELS,
    Forwarded,
    create,
)
from tests.unit.broker.handlers.test_networks_volumes import Sent, ask, changed
from tests.unit.broker.world import (
    REFERENCE,
    SERVICE,
    SLOT,
    inspect,
    inventory,
    labels,
    network,
    policy,
)

PLATFORM, NAME = "77" * 32, "platform-network"
POOL = {"Subnet": "10.208.0.0/21", "IPRange": "10.208.4.0/22", "Gateway": "10.208.0.1"}
WEB1 = "default/web/1"


def world(**addresses: str) -> GateState:
    """Return a state with a replica in the namespace's network, and remembered addresses."""
    known = inventory()
    slot = replace(
        known.containers[SLOT], service="web", admitted=Settings(name=SERVICE, networks=(NAME,))
    )
    owned = OwnedObject(PLATFORM, NAME, "default", "team", "controller", "i0")
    return state(
        replace(
            known,
            containers={**known.containers, SLOT: slot},
            networks={**known.networks, PLATFORM: owned},
            addresses={PLATFORM: addresses} if addresses else {},
        )
    )


def shown(**held: str) -> Step:
    members = {container: {"IPv4Address": f"{at}/21"} for at, container in held.items()}
    made = network(PLATFORM, NAME, "team", IPAM={"Driver": "default", "Config": [POOL]})
    stamp = labels("team", origin="controller", namespace="default")
    return ReadEngine(f"/networks/{NAME}"), reply({**made, "Labels": stamp, "Containers": members})


def found(*networks: str, aliases: tuple[str, ...] = ()) -> Step:
    joined: dict[str, Any] = {"Networks": {name: {"Aliases": [*aliases]} for name in networks}}
    seen = inspect(SLOT, SERVICE, "team", NetworkSettings=joined)
    seen["Config"]["Labels"] = labels("team", origin="controller")
    seen["HostConfig"]["NetworkMode"] = NAME
    seen["State"]["Pid"] = 4242
    return ReadEngine(f"/containers/{SLOT}/json"), reply(seen)


def join(knows: GateState, *steps: Any, actor: Actor = CONTROLLER, **end: object) -> Told:
    body = {"Container": SLOT, "EndpointConfig": {"Aliases": ["web"], **end}}
    dialogue = [found(), *steps]
    return ask("POST", f"/networks/{NAME}/connect", dialogue, knows, body=body, actor=actor)


def test_with_the_name_of_its_service_a_container_gets_the_address_of_its_slot() -> None:
    knows, sent = world(), Sent(f"/networks/{PLATFORM}/connect", Container=SLOT)
    answer = join(knows, shown(), *changed(sent, Reply(200)))
    assert answer.status == 200
    assert sent.body["EndpointConfig"] == {
        "Aliases": ["web"],
        "IPAMConfig": {"IPv4Address": "10.208.0.2"},
    }
    summary: Any = answer.entries[0].request["summary"]
    assert summary["slotAddresses"] == {PLATFORM: "10.208.0.2"}
    assert knows.inventory.addresses == {PLATFORM: {WEB1: "10.208.0.2"}}


@pytest.mark.parametrize(("aliases", "held"), [([], {}), (["web"], {"10.208.0.9": "predecessor"})])
def test_without_the_name_or_before_a_predecessor_leaves_the_engine_chooses(
    aliases: list[str], held: dict[str, str]
) -> None:
    knows, sent = world(**{WEB1: "10.208.0.9"}), Sent(f"/networks/{PLATFORM}/connect")
    join(knows, shown(**held), *changed(sent, Reply(200)), Aliases=aliases)
    assert "IPAMConfig" not in (sent.body.get("EndpointConfig") or {})
    assert knows.inventory.addresses == {PLATFORM: {WEB1: "10.208.0.9"}}


@pytest.mark.parametrize(("runs", "chosen"), [(True, False), (False, True)])
def test_what_cannot_leave_a_network_has_the_address_until_its_end(
    runs: bool, chosen: bool
) -> None:
    knows, old = world(**{WEB1: "10.208.0.9"}), "99" * 32
    items = {**knows.inventory.containers}
    items[old] = replace(items[SLOT], id=old)
    knows.inventory = replace(knows.inventory, containers=items)
    stale = inspect(
        old, "web.1-old", "team", NetworkSettings={"Networks": {NAME: {"NetworkID": PLATFORM}}}
    )
    stale["State"]["Running"] = runs
    looked: Step = (ReadEngine(f"/containers/{old}/json"), reply(stale))
    sent = Sent(f"/networks/{PLATFORM}/connect")
    join(knows, shown(), looked, *changed(sent, Reply(200)))
    assert ("IPAMConfig" in sent.body["EndpointConfig"]) is chosen
    assert knows.inventory.addresses == {PLATFORM: {WEB1: "10.208.0.9"}}


class Meanwhile:
    """Stands for the intent of a request, before which other requests are answered."""

    def __init__(self, others: Callable[[], object]) -> None:
        self._others = others

    def __eq__(self, stage: object) -> bool:
        if stage == "intent":
            self._others()
        return stage == "intent"

    __hash__ = None  # type: ignore[assignment]


def of_slot(number: int, knows: GateState, *before: Step) -> Forwarded:
    """Create the container of a slot in the network of its namespace; return what is forwarded."""
    name = f"web.{number}-01234567"
    body = {
        "Image": REFERENCE,
        "Labels": {**SLOT_LABELS, "io.trimtab.slot": f"{number}"},
        "HostConfig": {"NetworkMode": NAME},
        "NetworkingConfig": {"EndpointsConfig": {NAME: {"Aliases": ["web"]}}},
    }
    free: Step = (ReadEngine(f"/containers/{name}/json"), NOT_FOUND)
    sent = Forwarded(f"/containers/create?name={name}")
    made = reply({"Id": f"{number}" * 64, "Warnings": []}, 201)
    steps = [*(before or [("intent", RECORDED)]), (sent, made), ("outcome", RECORDED)]
    answer = create(
        [LOOK_IMAGE, shown(), free, *steps], knows=knows, body=body, name=name, actor=CONTROLLER
    )
    assert answer.status == 201, answer
    return sent


def test_requests_at_the_same_time_choose_different_addresses() -> None:
    knows, others = world(), []

    def meanwhile() -> None:
        others.append(of_slot(3, knows))
        sent = Sent(f"/networks/{PLATFORM}/connect")
        join(knows, shown(), *changed(sent, Reply(200)))

    first = of_slot(2, knows, (Meanwhile(meanwhile), RECORDED))
    chosen = [
        sent.body["NetworkingConfig"]["EndpointsConfig"][NAME]["IPAMConfig"]["IPv4Address"]
        for sent in (first, *others)
    ]
    assert chosen == ["10.208.0.2", "10.208.0.3"]
    assert knows.inventory.addresses == {
        PLATFORM: {
            "default/web/3": "10.208.0.3",
            WEB1: "10.208.0.4",
            "default/web/2": "10.208.0.2",
        }
    }
    assert knows.reservations.addresses == {}


def test_a_join_keeps_its_address_from_a_create_at_the_same_time() -> None:
    knows, others = world(), []
    sent = Sent(f"/networks/{PLATFORM}/connect")
    first = Meanwhile(lambda: others.append(of_slot(2, knows)))
    join(knows, shown(), (first, RECORDED), (sent, Reply(200)), ("outcome", RECORDED))
    (other,) = others
    end = other.body["NetworkingConfig"]["EndpointsConfig"][NAME]
    assert sent.body["EndpointConfig"]["IPAMConfig"]["IPv4Address"] == "10.208.0.2"
    assert end["IPAMConfig"]["IPv4Address"] == "10.208.0.3"


@pytest.mark.parametrize("actor", [CONTROLLER, OPERATOR, ALICE])
def test_nobody_names_an_address(actor: Actor) -> None:
    chosen = {"IPAMConfig": {"IPv4Address": "10.208.0.9"}}
    steps = () if actor is ALICE else (shown(),)
    answer = join(world(), *steps, ("refusal", RECORDED), actor=actor, **chosen)
    assert answer.status in {403, 404}
    if actor is not ALICE:
        assert answer.entries[0].verdict["rules"] == ["network.address"]


def leave(
    knows: GateState, *steps: Any, actor: Actor = CONTROLLER, aliases: tuple[str, ...] = ()
) -> Told:
    dialogue, path = [found(NAME, aliases=aliases), *steps], f"/networks/{NAME}/disconnect"
    return ask("POST", path, dialogue, knows, body={"Container": SLOT}, actor=actor)


@pytest.mark.parametrize(("at", "aliases"), [("10.208.0.9", ()), ("10.208.4.9", ("web",))])
def test_connections_end_after_the_intent_and_before_the_address_leaves(
    at: str, aliases: tuple[str, ...]
) -> None:
    knows = world(**{WEB1: "10.208.0.9"})
    sent = Sent(f"/networks/{PLATFORM}/disconnect", Container=SLOT)
    ends = EndConnections(4242, SLOT, at)
    running = {"Id": SLOT, "Status": "Up 2 hours"}
    counted: Step = (AnyList(), reply([running]))
    intent, forward, outcome = changed(sent, Reply(200))
    steps = [shown(**{at: SLOT}), counted, intent, (ends, ""), forward, outcome]
    answer = leave(knows, *steps, (replace(ends, address=""), ""), aliases=aliases)
    assert answer.status == 200
    summary: Any = answer.entries[0].request["summary"]
    assert summary["takesDown"] == "service"


def test_without_the_name_connections_elsewhere_go_on() -> None:
    knows, sent = world(**{WEB1: "10.208.0.9"}), Sent(f"/networks/{PLATFORM}/disconnect")
    counted: Step = (AnyList(), reply([{"Id": SLOT, "Status": "Up 2 hours"}]))
    answer = leave(knows, shown(**{"10.208.4.9": SLOT}), counted, *changed(sent, Reply(200)))
    assert answer.status == 200


def test_what_an_operator_disconnects_keeps_its_connections() -> None:
    knows, sent = world(**{WEB1: "10.208.0.9"}), Sent(f"/networks/{PLATFORM}/disconnect")
    answer = leave(knows, shown(**{"10.208.0.9": SLOT}), *changed(sent, Reply(200)), actor=OPERATOR)
    assert answer.status == 200


class AnyList:
    """Stands for a list of running containers."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ReadEngine) and other.path.startswith("/containers/json")

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("actor", "told"),
    [
        (CONTROLLER, {"10.208.0.2": "guest"}),
        (OPERATOR, {"10.208.0.2": "guest"}),
        (replace(ALICE, owner="team"), None),
    ],
)
def test_a_container_of_others_at_the_address_of_a_slot_is_named_to_those_who_can_act(
    actor: Actor, told: dict[str, str] | None
) -> None:
    ends = {
        "guest": "10.208.0.2",  # a slot's
        "visitor": "10.208.4.2",
        SLOT: "10.208.0.3",  # of the instance
        f"ep-{'7' * 64}": "10.208.0.4",  # starting: the engine doesn't say whose it is
    }
    path, made = shown()
    assert isinstance(made, Reply)
    seen = json.loads(made.body)
    seen["Containers"] = {n: {"Name": n, "IPv4Address": f"{at}/21"} for n, at in ends.items()}
    slots = {WEB1: "10.208.0.2", "default/web/2": "10.208.0.3", "default/web/3": "10.208.0.4"}
    knows = world(**slots)
    answer = ask("GET", f"/networks/{NAME}", [(path, reply(seen))], knows, actor=actor)
    assert answer.json.get("TrimtabHeld") == told
    assert [*answer.json["Containers"]] == [SLOT]


@pytest.mark.parametrize("asked", [[], [{"Subnet": "fd12:3456:789a::/64"}]])
def test_a_network_of_documents_gets_a_subnet_that_no_other_network_has(
    asked: list[dict[str, str]],
) -> None:
    knows = state(inventory(), policy=policy(networks={"ipv6": True}))
    other = {**network(PLATFORM, NAME, "alice"), "IPAM": {"Config": [POOL]}}
    chosen = {"Subnet": "10.208.8.0/21", "IPRange": "10.208.12.0/22", "Gateway": "10.208.8.1"}
    sent = Sent("/networks/create", IPAM={"Driver": "default", "Config": [chosen, *asked]})
    dialogue: list[Step] = [
        (ReadEngine("/networks/six"), NOT_FOUND),
        (ReadEngine("/networks"), reply([other])),
        *changed(sent, reply({"Id": "66" * 32}, 201)),
    ]
    body = {
        "Name": "six",
        "Internal": True,
        "EnableIPv6": bool(asked),
        "IPAM": {"Config": asked},
        "Labels": {"io.trimtab.owner": "alice", "io.trimtab.namespace": "default"},
    }
    answer = ask("POST", "/networks/create", dialogue, knows, actor=CONTROLLER, body=body)
    assert answer.status == 201
