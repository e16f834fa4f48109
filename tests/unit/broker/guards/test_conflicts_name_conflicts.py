"""What one client can learn of another's containers, or take from them, by names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.broker.dispatch import handle
from controller.broker.gate.commands import Forward, ReadEngine
from controller.broker.gate.state import GateState
from controller.model.inventory import OpenIntent, OwnedObject
from controller.model.observed import Settings
from tests.unit.broker.dialogue import (
    BOB,
    CONTROLLER,
    NO_CONTENT,
    NOT_FOUND,
    OPERATOR,
    RECORDED,
    Step,
    Told,
    converse,
    reply,
    request,
    state,
)
from tests.unit.broker.world import (
    DB,
    NETWORK,
    SLOT,
    STRAY,
    WEB,
    inspect,
    inventory,
    item,
    network,
)

SHARED = "platform-network"
CONFLICT = (
    f'Conflict. The container name "/x1" is already in use by container "{DB}". '
    "You have to remove (or rename) that container to be able to reuse that name."
)


def ask(method: str, target: str, dialogue: list[Step], knows: GateState, **more: Any) -> Told:
    return converse(handle(request(method, target, **more), knows), dialogue, knows)


def looked(identifier: str, name: str, owner: str, **more: Any) -> Step:
    return (
        ReadEngine(f"/containers/{identifier}/json"),
        reply(inspect(identifier, name, owner, **more)),
    )


def renaming(name: str, holder: object) -> list[Step]:
    return [
        looked(WEB, "alice-web", "alice"),
        (ReadEngine(f"/containers/{name}/json"), holder),
    ]


@pytest.mark.parametrize(
    "holder",
    [
        reply(inspect(DB, "x1", "bob")),
        reply(inspect(SLOT, "x1", "team")),
        reply(inspect(STRAY, "x1", "alice", Config={"Labels": {}})),
        reply(inspect(STRAY, "x1", "alice")),  # labelled as the client's own, and not ours
    ],
)
def test_a_name_that_is_taken_is_refused_alike_whoever_holds_it(holder: object) -> None:
    dialogue = [*renaming("x1", holder), ("refusal", RECORDED)]
    answer = ask("POST", f"/containers/{WEB}/rename?name=x1", dialogue, state(inventory()))
    assert (answer.status, answer.rule) == (409, "name.taken")
    assert answer.json["message"] == 'Conflict. The container name "/x1" is already in use.'
    assert not any(each in answer.value.body.decode() for each in (DB, SLOT, STRAY, "bob", "team"))


def test_who_sees_all_of_ours_gets_the_engines_own_conflict() -> None:
    # Also the client, of its own: it knows that id.
    knows = state(inventory(containers={WEB: item(WEB, "alice-web", "alice")}))
    forward = Forward("POST", f"/containers/{WEB}/rename?name=x1")
    conflict = reply({"message": CONFLICT}, 409)
    dialogue = [
        *renaming("x1", reply(inspect(DB, "x1", "bob"))),
        ("intent", RECORDED),
        (forward, conflict),
        ("outcome", RECORDED),
    ]
    answer = ask("POST", f"/containers/{WEB}/rename?name=x1", dialogue, knows, actor=OPERATOR)
    assert answer.value == conflict


def test_an_engines_conflict_that_came_in_between_tells_a_client_no_id() -> None:
    forward = Forward("POST", f"/containers/{WEB}/rename?name=x1")
    dialogue = [
        *renaming("x1", NOT_FOUND),
        ("intent", RECORDED),
        (forward, reply({"message": CONFLICT}, 409)),
        ("outcome", RECORDED),
    ]
    answer = ask("POST", f"/containers/{WEB}/rename?name=x1", dialogue, state(inventory()))
    assert answer.json["message"] == CONFLICT.replace(DB, "…")
    # The journal has it whole: operators read that.
    assert answer.entries[-1].result["error"] == CONFLICT


def test_an_engines_error_names_nothing_of_others_to_a_client() -> None:
    knows = state(inventory())
    told = (
        f'error: network alice-net id {NETWORK} has active endpoints (name:"bob-db" id:"{DB[:12]}" '
        f'name:"stray" id:"{STRAY[:12]}" name:"alice-web" id:"{WEB[:12]}"), see bob-db'
    )
    dialogue: list[Step] = [
        (ReadEngine("/networks/alice-net"), reply(network(NETWORK, "alice-net", "alice"))),
        ("intent", RECORDED),
        (Forward("DELETE", f"/networks/{NETWORK}", deadline_s=15.0), reply({"message": told}, 403)),
        ("outcome", RECORDED),
    ]
    answer = ask("DELETE", "/networks/alice-net", dialogue, knows)
    assert answer.json == {
        "message": f'error: network alice-net id {NETWORK} has active endpoints (name:"…" id:"…" '
        f'name:"…" id:"…" name:"alice-web" id:"{WEB[:12]}"), see …'
    }


# Names that resolve


def sharing(**more: Any) -> GateState:
    """Return a gate where alice, bob and the controller's team share a network."""
    there = Settings(name="bob-db", networks=(SHARED,))
    bobs = replace(
        item(DB, "bob-db", "bob"), admitted=there, aliases=("Cache", "db-host"), service="store"
    )
    alices = replace(
        item(WEB, "alice-web", "alice"), admitted=Settings("alice-web", networks=(SHARED,))
    )
    slot = inventory().containers[SLOT]
    slot = replace(slot, service="api", admitted=replace(slot.admitted, networks=(SHARED,)))
    known = inventory(containers={WEB: alices, DB: bobs, SLOT: slot})
    return state(replace(known, **more))


@pytest.mark.parametrize("name", ["api", "API", "cache", "db-host"])
def test_no_container_is_renamed_to_what_anothers_answers_to(name: str) -> None:
    dialogue = [*renaming(name, NOT_FOUND), ("refusal", RECORDED)]
    answer = ask("POST", f"/containers/{WEB}/rename?name={name}", dialogue, sharing())
    assert (answer.status, answer.rule) == (403, "network.name-taken")
    assert not any(each in answer.value.body.decode() for each in ("bob", "team", DB, SLOT))


@pytest.mark.parametrize("name", ["free", "store"])
def test_a_name_that_nobody_answers_to_is_free(name: str) -> None:
    # A client's service is a label, and resolves only as an alias.
    dialogue = [
        *renaming(name, NOT_FOUND),
        ("intent", RECORDED),
        (Forward("POST", f"/containers/{WEB}/rename?name={name}"), NO_CONTENT),
        ("outcome", RECORDED),
    ]
    knows = sharing()
    answer = ask("POST", f"/containers/{WEB}/rename?name={name}", dialogue, knows)
    assert (answer.status, knows.reservations.names) == (204, {})


def test_a_name_is_anothers_also_while_that_one_is_being_made() -> None:
    summary: dict[str, object] = {
        "name": "soon",
        "labels": {"io.trimtab.owner": "bob", "io.trimtab.origin": "client"},
        "settings": {"networks": [SHARED]},
        "answersTo": ["also-soon"],
    }
    intent = OpenIntent(9, "", "client", {"route": "container.create", "summary": summary})
    for name in ("soon", "also-soon"):
        dialogue = [*renaming(name, NOT_FOUND), ("refusal", RECORDED)]
        answer = ask(
            "POST",
            f"/containers/{WEB}/rename?name={name}",
            dialogue,
            sharing(open={"i9": intent}),
        )
        assert answer.rule == "network.name-taken"


def test_joining_a_network_takes_no_name_that_anothers_answers_to_there() -> None:
    known = sharing().inventory
    joined = OwnedObject(NETWORK, "alice-net", "default", "alice", "client", "i0")
    bobs = known.containers[DB]
    bobs = replace(bobs, admitted=replace(bobs.admitted, networks=("alice-net",)))
    named = replace(known.containers[WEB], service="cache")
    knows = state(replace(known, containers={WEB: named, DB: bobs}, networks={NETWORK: joined}))
    body = {"Container": WEB, "EndpointConfig": {"Aliases": ["cache"]}}
    bridged = {"HostConfig": {"NetworkMode": SHARED}}
    dialogue: list[Step] = [
        looked(WEB, "alice-web", "alice", **bridged),
        (ReadEngine("/networks/alice-net"), reply(network(NETWORK, "alice-net", "alice"))),
    ]
    refused = ask(
        "POST",
        "/networks/alice-net/connect",
        [*dialogue, ("refusal", RECORDED)],
        knows,
        body=body,
    )
    assert (refused.status, refused.rule) == (403, "network.name-taken")
    # The host name that it was made with resolves there, too.
    hosted = {"Config": {**inspect(WEB, "alice-web", "alice")["Config"], "Hostname": "db-host"}}
    dialogue[0] = looked(WEB, "alice-web", "alice", **bridged, **hosted)
    refused = ask(
        "POST",
        "/networks/alice-net/connect",
        [*dialogue, ("refusal", RECORDED)],
        knows,
        body={"Container": WEB},
    )
    assert refused.rule == "network.name-taken"


def test_bob_keeps_his_own_names() -> None:
    knows = sharing()
    dialogue: list[Step] = [
        looked(DB, "bob-db", "bob"),
        (ReadEngine("/containers/cache/json"), NOT_FOUND),
        ("intent", RECORDED),
        (Forward("POST", f"/containers/{DB}/rename?name=cache"), NO_CONTENT),
        ("outcome", RECORDED),
    ]
    answer = ask("POST", f"/containers/{DB}/rename?name=cache", dialogue, knows, actor=BOB)
    assert answer.status == 204


def test_a_name_given_back_by_the_controller_is_its_own() -> None:
    knows = sharing()
    name = knows.inventory.containers[SLOT].admitted.name
    dialogue: list[Step] = [
        looked(SLOT, "other", "team"),
        (ReadEngine(f"/containers/{name}/json"), NOT_FOUND),
        ("intent", RECORDED),
        (Forward("POST", f"/containers/{SLOT}/rename?name={name}"), NO_CONTENT),
        ("outcome", RECORDED),
    ]
    target = f"/containers/{SLOT}/rename?name={name}"
    assert ask("POST", target, dialogue, knows, actor=CONTROLLER).status == 204
