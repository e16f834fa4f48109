"""Secrets at the gate: opened by command, answered by id, delivered as ciphertext."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from controller.broker.dispatch import handle
from controller.broker.gate.commands import OpenSecret, SecretNotOpened, SecretOpened, StoreContent
from controller.core.secrets.declared import GeneratedSource, SecretName
from controller.model.delivery import FileSet, StoredContent, StoredFiles
from controller.model.inventory import Inventory
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

ID = f"hmac:{'a' * 64}"
FILES = FileSet("secret", "shop", "db")
BODY = {"owner": "team", "source": {"generate": {"pw": 32}}}
BOUND = SecretName("shop", "team", "db")
OPEN = OpenSecret(BOUND, GeneratedSource({"pw": 32}))
OPENED = SecretOpened(ID, ("pw",), b"stored ciphertext")
ASK, PUT = ("POST", "/trimtab/v1/secrets/shop/db"), ("PUT", "/trimtab/v1/files/secret/shop/db")


def talk(
    target: tuple[str, str],
    dialogue: list[Step],
    *,
    body: Any = BODY,
    actor: Actor = CONTROLLER,
    **more: Any,
) -> Told:
    knows = state(**more)
    return converse(handle(request(*target, actor=actor, body=body), knows), dialogue, knows)


def test_a_new_content_is_recorded_and_answered_by_its_id() -> None:
    told = talk(ASK, [(OPEN, OPENED), ("read", RECORDED)])
    assert told.json == {"Content": ID, "Keys": ["pw"]}
    (entry,) = told.entries
    assert "stored ciphertext" not in json.dumps(entry.request)
    assert ID in json.dumps(entry.request)


def test_a_new_content_that_cant_be_recorded_isnt_answered() -> None:
    told = talk(ASK, [(OPEN, OPENED), ("read", UNRECORDED)])
    assert told.status == 503
    assert ID not in told.value.body.decode()


def test_a_known_content_is_no_new_record() -> None:
    stored = Inventory(files={str(FILES): StoredFiles(FILES, (StoredContent(ID, "team"),))})
    command = OpenSecret(BOUND, GeneratedSource({"pw": 32}), frozenset({ID}))
    opened = SecretOpened(ID, ("pw",), b"stored ciphertext", is_new=False)
    assert talk(ASK, [(command, opened)], inventory=stored).json["Content"] == ID


@pytest.mark.parametrize("target", [ASK, PUT])
def test_a_secret_that_cant_be_opened_is_refused_with_its_reason(target: tuple[str, str]) -> None:
    failed = SecretNotOpened("secret.wrong-key", "not for this key", "encrypt it again")
    told = talk(target, [(OPEN, failed), ("refusal", RECORDED)])
    assert (told.status, told.rule) == (403, "secret.wrong-key")


def test_a_delivery_stores_ciphertext_and_records_no_content() -> None:
    store = StoreContent(FILES, ID, b"stored ciphertext")
    told = talk(PUT, [(OPEN, OPENED), ("intent", RECORDED), (store, ""), ("outcome", RECORDED)])
    assert told.status == 201
    intent = json.dumps(told.entries[0].request)
    assert ID in intent
    assert "stored ciphertext" not in intent


@pytest.mark.parametrize("target", [ASK, PUT])
@pytest.mark.parametrize("actor", [ALICE, OPERATOR])
def test_nobody_but_the_controller_asks(target: tuple[str, str], actor: Actor) -> None:
    told = talk(target, [("refusal", RECORDED)], actor=actor)
    assert told.status == 403


@pytest.mark.parametrize("target", [ASK, PUT])
@pytest.mark.parametrize(
    "body",
    [
        {"owner": "team"},
        {**BODY, "content": ID},
        {**BODY, "owner": 5},
        {**BODY, "owner": "No Owner"},
        {"owner": "team", "source": {"file": {"pw": "../other"}}},
        {"owner": "team", "files": {"pw": "QQ=="}},
    ],
)
def test_a_malformed_question_opens_nothing(target: tuple[str, str], body: Any) -> None:
    told = talk(target, [("refusal", RECORDED)], body=body)
    assert told.status in {400, 403}


def test_values_are_doubted_where_objects_of_a_lost_state_folder_are() -> None:
    doubted = replace(OPEN, doubted=True)
    told = talk(
        ASK,
        [(doubted, OPENED), ("read", RECORDED)],
        inventory=Inventory(taken_over=frozenset({"shop"})),
    )
    assert told.json["Content"] == ID
    knows = state()
    knows.split_brain.unknown_namespaces = frozenset({"shop"})
    asked = handle(request(*ASK, actor=CONTROLLER, body=BODY), knows)
    assert converse(asked, [(doubted, OPENED), ("read", RECORDED)], knows).json["Content"] == ID
    other = Inventory(taken_over=frozenset({"other"}))
    assert talk(ASK, [(OPEN, OPENED), ("read", RECORDED)], inventory=other).status == 200
