"""Tags of operators: a trusted image gets another admitted name, and the trust follows its id."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from controller.broker.dispatch import handle
from controller.broker.gate.commands import Forward, ReadEngine
from controller.broker.gate.state import GateState
from controller.model.inventory import TrustedImage
from controller.model.records import Actor, Reply
from tests.unit.broker.dialogue import (
    ALICE,
    CONTROLLER,
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
from tests.unit.broker.world import IMAGE, REFERENCE, image, inventory, policy

REPOSITORY = "ghcr.io/platformnetwork/app"
TARGET = f"{REPOSITORY}:2"
ASKED = f"/images/{REFERENCE}/tag?repo={quote(REPOSITORY, safe='')}&tag=2"
LOOK = ReadEngine(f"/images/{REFERENCE}/json")
LOOK_TARGET = ReadEngine(f"/images/{TARGET}/json")
FORWARD = Forward("POST", f"/images/{IMAGE}/tag?repo={quote(REPOSITORY, safe='')}&tag=2")
OTHER = "sha256:" + "33" * 32


def tag(knows: GateState, *dialogue: Step, actor: Actor = OPERATOR, target: str = ASKED) -> Told:
    return converse(handle(request("POST", target, actor=actor), knows), list(dialogue), knows)


def done(before: Any = NOT_FOUND, after: str = IMAGE) -> list[Step]:
    return [
        (LOOK, reply(image())),
        (LOOK_TARGET, before),
        ("intent", RECORDED),
        (FORWARD, Reply(201)),
        (LOOK_TARGET, reply(image(Id=after))),
        ("outcome", RECORDED),
    ]


@pytest.mark.parametrize("owner", ["", "alice"])
def test_the_trust_follows_the_id_with_the_owner_of_what_was_built(owner: str) -> None:
    ledger = {REFERENCE: TrustedImage(REFERENCE, IMAGE, "", owner)}
    knows = state(inventory(ledger=ledger))
    told = tag(knows, *done())
    assert told.status == 201
    assert knows.inventory.ledger == {**ledger, TARGET: TrustedImage(TARGET, IMAGE, "", owner)}
    intent, outcome = told.entries
    assert (intent.request["route"], intent.request["object"]) == ("image.tag", TARGET)
    assert intent.request["summary"] == {"reference": TARGET, "before": ""}
    assert outcome.result["id"] == IMAGE


def test_a_name_that_meant_another_image_means_the_new_one() -> None:
    ledger = {
        REFERENCE: TrustedImage(REFERENCE, IMAGE),
        TARGET: TrustedImage(TARGET, OTHER),
    }
    knows = state(inventory(ledger=ledger))
    told = tag(knows, *done(reply(image(Id=OTHER))))
    assert told.entries[0].request["summary"] == {"reference": TARGET, "before": OTHER}
    assert knows.inventory.ledger[TARGET].id == IMAGE


def test_a_name_that_another_program_moved_meanwhile_is_not_trusted() -> None:
    knows = state(inventory())
    tag(knows, *done(after=OTHER))
    assert TARGET not in knows.inventory.ledger


def test_an_image_that_nobody_vouches_for_gets_no_name() -> None:
    for ledger in ({}, {REFERENCE: TrustedImage(REFERENCE, OTHER)}):
        knows = state(inventory(ledger=ledger))
        told = tag(knows, (LOOK, reply(image())), ("refusal", RECORDED))
        assert (told.status, told.rule) == (403, "image.untrusted")


@pytest.mark.parametrize(
    ("query", "rule"),
    [
        ("repo=docker.io%2Fevil&tag=2", "image.not-allowed"),
        (f"repo={REPOSITORY}%40sha256%3A{'1' * 64}", "image.invalid"),
        ("repo=&tag=2", "image.invalid"),
        ("tag=2", "image.invalid"),
        (f"repo={REPOSITORY}&tag=a%20b", "image.invalid"),
    ],
)
def test_the_name_is_an_admitted_one(query: str, rule: str) -> None:
    target = f"/images/{REFERENCE}/tag?{query}"
    told = tag(state(inventory()), ("refusal", RECORDED), target=target)
    assert told.rule == rule


def test_only_operators_tag() -> None:
    for who in (ALICE, CONTROLLER):
        told = tag(state(inventory()), ("refusal", RECORDED), actor=who)
        assert (told.status, told.rule) == (403, "role.denied")


def test_an_image_that_the_policy_does_not_admit_is_not_there() -> None:
    strict = policy(images={"allow": [f"{REPOSITORY}"]})
    told = tag(state(inventory(), policy=strict), ("refusal", RECORDED))
    assert told.status == 404
