"""Forgetting generated values: an operator's recorded act."""

from __future__ import annotations

import pytest

from controller.broker.dispatch import handle
from controller.broker.gate.commands import ForgetSecret
from controller.model.delivery import FileSet
from controller.model.records import Actor
from tests.unit.broker.dialogue import (
    ALICE,
    CONTROLLER,
    OPERATOR,
    RECORDED,
    UNRECORDED,
    Step,
    Told,
    converse,
    request,
    state,
)

FORGET = ForgetSecret(FileSet("secret", "shop", "session"))
ACT = {"act": "secret.forget", "object": "Secret/shop/session", "note": "it leaked"}


def post(*dialogue: Step, actor: Actor = OPERATOR, body: object = None) -> Told:
    asked = request("POST", "/trimtab/v1/records", actor=actor, body=ACT if body is None else body)
    knows = state()
    return converse(handle(asked, knows), list(dialogue), knows)


@pytest.mark.parametrize("found", [True, False])
def test_an_operators_act_is_recorded_before_the_values_are_forgotten(found: bool) -> None:
    told = post(("operator", RECORDED), (FORGET, found))
    assert (told.status, told.json["forgotten"]) == (200, found)
    (entry,) = told.entries
    assert (entry.request["route"], entry.request["object"]) == (
        "secret.forget",
        "Secret/shop/session",
    )


def test_without_a_record_nothing_is_forgotten() -> None:
    assert post(("operator", UNRECORDED)).status == 503


def test_values_that_cannot_be_removed_are_said() -> None:
    told = post(("operator", RECORDED), (FORGET, "Read-only file system"), ("refusal", RECORDED))
    assert told.rule == "secret.unforgotten"


@pytest.mark.parametrize("actor", [CONTROLLER, ALICE])
def test_only_operators_forget(actor: Actor) -> None:
    assert post(("refusal", RECORDED), actor=actor).status == 403


@pytest.mark.parametrize("name", ["shop/session", "Secret/shop/../x", "Config/shop/site", 1])
def test_the_act_names_a_secret(name: object) -> None:
    told = post(("refusal", RECORDED), body={"act": "secret.forget", "object": name})
    assert told.status == 400
