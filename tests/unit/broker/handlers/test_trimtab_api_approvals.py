"""Approvals by the broker: it shows what it knows, and takes an approval of exactly that."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.broker.dispatch import handle
from controller.broker.gate.state import VIEWS_MAX, GateState
from controller.model.inventory import Inventory, OwnedObject
from controller.model.records import Actor
from tests.unit.broker.dialogue import (
    ALICE,
    CONTROLLER,
    OPERATOR,
    RECORDED,
    Step,
    Told,
    converse,
    request,
    state,
)
from tests.unit.broker.world import item

PLAN = "be" * 32
WEB, GUEST, ABSENT = "11" * 32, "22" * 32, "33" * 32
DATA = "volume:data"


def known() -> GateState:
    containers = {
        WEB: item(WEB, "web.1-0", "team", origin="controller", namespace="default", service="web"),
        GUEST: item(GUEST, "guest", "alice"),
    }
    data = OwnedObject("data", "data", "default", "team", "controller", "i0")
    return state(Inventory(seq=7, containers=containers, volumes={"data": data}))


def look(knows: GateState, *objects: Any, actor: Actor = OPERATOR, **more: Any) -> Told:
    body = {"plan": PLAN, "objects": list(objects), **more}
    steps: list[Step] = [] if actor is OPERATOR and not more else [("refusal", RECORDED)]
    asked = request("POST", "/trimtab/v1/approvals", actor=actor, body=body)
    return converse(handle(asked, knows), steps, knows)


def approve(knows: GateState, shown: object, *objects: str, step: str = "operator") -> Told:
    body = {"act": "approve", "plan": PLAN, "objects": list(objects), "shown": shown, "note": ""}
    asked = request("POST", "/trimtab/v1/records", actor=OPERATOR, body=body)
    return converse(handle(asked, knows), [(step, RECORDED)], knows)


def reason(told: Told) -> str:
    return str(told.json["trimtab"]["reason"])


def test_the_broker_shows_its_own_words_and_takes_an_approval_of_them() -> None:
    knows = known()
    shown = look(knows, DATA, WEB, ABSENT, GUEST).json
    assert [(each["id"], each["kind"], each["name"]) for each in shown["objects"]] == [
        (WEB, "container", "web.1-0"),
        (DATA, "volume", "data"),
    ]
    assert [each["id"] for each in shown["unknown"]] == [GUEST, ABSENT]
    told = approve(knows, shown["digest"], WEB, DATA)
    assert told.status == 200
    (entry,) = told.entries
    assert entry.request["summary"]["shown"] == shown["digest"]  # type: ignore[index]
    assert knows.inventory.approvals[told.json["id"]].objects == (WEB, DATA)


@pytest.mark.parametrize("identifier", [ABSENT, GUEST, "volume:none"])
def test_what_the_broker_does_not_know_is_not_approved(identifier: str) -> None:
    knows = known()
    shown = look(knows, WEB, identifier).json["digest"]
    told = approve(knows, shown, WEB, identifier, step="refusal")
    assert (told.status, told.rule) == (409, "approval.unknown")
    assert identifier in reason(told)
    assert knows.inventory.approvals == {}


def test_an_object_that_changed_since_is_not_approved() -> None:
    knows = known()
    shown = look(knows, WEB, DATA).json["digest"]
    data = replace(knows.inventory.volumes["data"], intent="i9")
    knows.inventory = replace(knows.inventory, volumes={"data": data})
    told = approve(knows, shown, WEB, DATA, step="refusal")
    assert (told.status, told.rule) == (409, "approval.changed")
    assert reason(told) == "volume data is another one, made since"
    assert told.json["trimtab"]["remedy"] == "look again with 'trimtab approve'"
    knows.inventory = replace(knows.inventory, containers={})
    assert approve(knows, shown, WEB, DATA, step="refusal").rule == "approval.unknown"
    assert knows.inventory.approvals == {}


def test_an_approval_of_more_than_was_shown_is_refused() -> None:
    knows = known()
    shown = look(knows, WEB).json["digest"]
    told = approve(knows, shown, WEB, DATA, step="refusal")
    assert (told.rule, reason(told)) == ("approval.changed", "volume data wasn't shown")


def test_an_approval_outlives_the_memory_of_its_view_but_not_the_words_of_its_refusal() -> None:
    knows = known()
    shown = look(knows, WEB, DATA).json["digest"]
    for number in range(VIEWS_MAX):
        look(knows, WEB, f"volume:v{number}")
        knows.inventory.volumes[f"v{number}"] = OwnedObject(f"v{number}", "v", "d", "t", "c", "i")
        look(knows, WEB, f"volume:v{number}")
    assert len(knows.approvals.shown) == VIEWS_MAX
    assert approve(knows, shown, WEB, DATA).status == 200
    told = approve(knows, shown, WEB, step="refusal")
    assert reason(told) == "the broker showed something else, or showed it before its start"


@pytest.mark.parametrize("shown", [None, "", "AB" * 32, 1])
def test_an_approval_without_a_digest_of_what_was_shown_is_refused(shown: object) -> None:
    knows = known()
    told = approve(knows, shown, WEB, step="refusal")
    assert (told.status, told.rule) == (400, "approval.invalid")


@pytest.mark.parametrize("actor", [ALICE, CONTROLLER])
def test_only_operators_look(actor: Actor) -> None:
    assert look(known(), WEB, actor=actor).rule == "role.denied"


@pytest.mark.parametrize("more", [{"objects": []}, {"plan": 1}, {"more": 1}])
def test_a_question_of_another_shape_is_refused(more: dict[str, Any]) -> None:
    assert look(known(), WEB, **more).rule == "approval.invalid"
