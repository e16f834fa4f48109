"""Preconditions: what the controller requires is checked before an intent is written."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from controller.broker.dispatch import handle
from controller.broker.gate.commands import Forward, ReadEngine
from controller.model.inventory import OwnedObject
from controller.model.records import Actor
from tests.unit.broker.dialogue import (
    CONTEXT,
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
    LOOK_AT_ALL,
    NETWORK,
    REVISION,
    SERVICE,
    SLOT,
    WEB,
    inspect,
    inventory,
    labels,
    network,
)

LOOK = ReadEngine(f"/containers/{SLOT}/json")
SHARED = OwnedObject(NETWORK, "lan", "default", "team", "controller", "i0")


def ask(
    method: str,
    target: str,
    dialogue: list[Step],
    required: dict[str, str],
    *,
    actor: Actor = CONTROLLER,
    body: object = None,
) -> Told:
    claims = json.dumps({"cause": "c", "precondition": required}).encode()
    header = (CONTEXT[0], base64.urlsafe_b64encode(claims).decode())
    knows = state(inventory(networks={NETWORK: SHARED}))
    asked = request(method, target, actor=actor, body=body, headers=[header])
    return converse(handle(asked, knows), dialogue, knows)


def unmet(answer: Told) -> str:
    assert (answer.status, answer.rule) == (409, "precondition.unmet")
    assert [e.stage for e in answer.entries if e.stage != "read"] == ["refusal"]
    return str(answer.json["trimtab"]["reason"])


@pytest.mark.parametrize(
    ("required", "reason"),
    [
        ({"id": WEB}, f"the object is {SLOT}"),
        ({"id": SLOT, "revision": "v2:other"}, f"{SLOT} is of revision {REVISION}"),
    ],
)
def test_another_container_than_required_is_not_changed(
    required: dict[str, str], reason: str
) -> None:
    dialogue: list[Step] = [(LOOK, reply(inspect(SLOT, SERVICE, "team"))), ("refusal", RECORDED)]
    answer = ask("DELETE", f"/containers/{SLOT}", dialogue, required)
    assert unmet(answer) == reason


def test_a_required_container_that_is_gone_is_no_plain_404() -> None:
    dialogue: list[Step] = [(LOOK, NOT_FOUND), ("read", RECORDED), ("refusal", RECORDED)]
    answer = ask("POST", f"/containers/{SLOT}/stop", dialogue, {"id": SLOT})
    assert unmet(answer) == f"the container {SLOT} is gone"
    plain: list[Step] = [(LOOK, NOT_FOUND), ("read", RECORDED)]
    assert ask("POST", f"/containers/{SLOT}/stop", plain, {}).status == 404


def test_the_required_container_is_changed() -> None:
    look: Step = (LOOK, reply(inspect(SLOT, SERVICE, "team")))
    answer = ask(
        "DELETE",
        f"/containers/{SLOT}",
        [
            look,
            (ReadEngine(LOOK_AT_ALL), reply([{"Id": SLOT}])),
            *changed("DELETE", f"/containers/{SLOT}"),
        ],
        {"id": SLOT, "revision": REVISION},
    )
    assert answer.status == 204
    assert answer.entries[0].claims == {
        "cause": "c",
        "source": {"file": "", "line": 0, "commit": ""},
        "plan": "",
        "onBehalfOf": "",
    }, "a precondition is no claim"


def changed(method: str, path: str) -> list[Step]:
    return [("intent", RECORDED), (Forward(method, path), NO_CONTENT), ("outcome", RECORDED)]


def test_a_network_that_is_required_to_be_absent_is_not_created_again() -> None:
    there: Any = reply(network(NETWORK, "lan", "team"))
    dialogue: list[Step] = [(ReadEngine("/networks/lan"), there), ("refusal", RECORDED)]
    answer = ask("POST", "/networks/create", dialogue, {"absent": "lan"}, body={"Name": "lan"})
    assert unmet(answer) == "lan is there already"


def test_a_volume_that_is_required_to_be_absent_is_not_answered_as_if_created() -> None:
    volume = {"Name": "alice-data", "Driver": "local", "Labels": labels("alice")}
    dialogue: list[Step] = [
        (ReadEngine("/volumes/alice-data"), reply(volume)),
        ("refusal", RECORDED),
    ]
    body = {"Name": "alice-data"}
    answer = ask("POST", "/volumes/create", dialogue, {"absent": "alice-data"}, body=body)
    assert unmet(answer) == "alice-data is there already"


def test_a_network_that_is_gone_is_not_removed() -> None:
    dialogue: list[Step] = [
        (ReadEngine(f"/networks/{NETWORK}"), NOT_FOUND),
        ("read", RECORDED),
        ("refusal", RECORDED),
    ]
    answer = ask("DELETE", f"/networks/{NETWORK}", dialogue, {"id": NETWORK})
    assert unmet(answer) == f"the network {NETWORK} is gone"


def test_only_the_controllers_requests_have_preconditions() -> None:
    look: Step = (LOOK, reply(inspect(SLOT, SERVICE, "team")))
    dialogue = [look, *changed("DELETE", f"/containers/{SLOT}")]
    answer = ask("DELETE", f"/containers/{SLOT}", dialogue, {"id": WEB}, actor=OPERATOR)
    assert answer.status == 204
