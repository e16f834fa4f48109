"""A client that changes too much, or writes too much into the journal, is told when to go on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.broker.dispatch import handle
from controller.broker.gate.commands import ReadEngine
from controller.broker.gate.state import GateState
from controller.broker.guards import client_shares
from controller.model.records import Actor
from tests.unit.broker.dialogue import (
    ALICE,
    BOB,
    CONTROLLER,
    NOT_FOUND,
    OPERATOR,
    RECORDED,
    Step,
    Told,
    at,
    converse,
    request,
    state,
)
from tests.unit.broker.world import inventory, policy

MIB = 1024 * 1024


def rules(**quotas: Any) -> GateState:
    return state(inventory(), policy=policy(quotas=quotas))


def make(knows: GateState, dialogue: list[Step], actor: Actor = ALICE) -> Told:
    """Ask for a container that isn't there to be removed."""
    beyond = not client_shares.take_mutation(knows, actor)
    asked = request("DELETE", "/containers/nothing", actor=actor)
    asked = replace(asked, is_beyond_share=beyond)
    return converse(handle(asked, knows), dialogue, knows)


LOOK: Step = (ReadEngine("/containers/nothing/json"), NOT_FOUND)


def test_a_client_that_changes_too_much_is_refused_until_its_turn_comes() -> None:
    knows = rules(mutationsPerSecond=1)
    for _ in range(50):
        assert make(knows, [LOOK, ("refusal", RECORDED)]).status == 404
    told = make(knows, [("refusal", RECORDED)])
    assert (told.status, told.rule) == (429, "client.mutations")
    assert ("retry-after", "1") in told.value.headers
    assert told.json["trimtab"]["remedy"] == "try again in 1 s"
    # Another client, and those who are trusted with the host, go on.
    assert make(knows, [LOOK, ("refusal", RECORDED)], BOB).status == 404
    for _ in range(60):
        assert make(knows, [LOOK], OPERATOR).status == 404
        assert make(knows, [LOOK], CONTROLLER).status == 404
    at(knows, 2.0)
    assert make(knows, [LOOK, ("refusal", RECORDED)]).status == 404


def test_a_client_that_asks_too_often_gets_its_share_all_the_same() -> None:
    knows = rules(mutationsPerSecond=2)
    for _ in range(100):
        make(knows, [LOOK, ("refusal", RECORDED)])
    passed = 0
    for _ in range(100):  # ten a second
        at(knows, 0.1)
        refused = bool(client_shares.waiting(knows))
        told = make(knows, [("refusal", RECORDED)] if refused else [LOOK, ("refusal", RECORDED)])
        assert (told.status == 429) is refused
        passed += told.status == 404
    assert passed in {19, 20}


def test_a_client_that_fills_the_journal_changes_nothing_more_and_reads_on() -> None:
    knows = rules(journalPerDay="1Mi")
    client_shares.count_record(knows, ALICE.uid, MIB + 10 * 1024)
    assert client_shares.is_journal_spent(knows, ALICE.uid)
    told = make(knows, [("refusal", RECORDED)])
    assert (told.status, told.rule) == (429, "client.journal")
    assert "1Mi of the journal a day" in told.json["trimtab"]["reason"]
    assert client_shares.waiting(knows) == {str(ALICE.uid): pytest.approx(864, abs=30)}
    wait = int(dict(told.value.headers)["retry-after"])
    assert 800 < wait < 900
    read = request("GET", "/trimtab/v1/whoami")
    assert converse(handle(read, knows), [], knows).status == 200
    assert make(knows, [LOOK, ("refusal", RECORDED)], BOB).status == 404
    at(knows, wait)
    assert make(knows, [LOOK, ("refusal", RECORDED)]).status == 404


@pytest.mark.parametrize("actor", [CONTROLLER, OPERATOR])
def test_who_is_no_client_has_no_share(actor: Actor) -> None:
    knows = rules(journalPerDay="1Mi", mutationsPerSecond=1)
    assert make(knows, [LOOK], actor).status == 404
    assert knows.shares.mutations == {}
