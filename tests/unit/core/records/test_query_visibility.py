"""Who may read what of the journal: a table, and how a client is told of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.core.records.query import (
    EVERYTHING,
    QueryResult,
    Reader,
    RecordSubject,
    may_read,
    redact_record,
    redact_subject,
)
from controller.core.records.record import GENESIS
from controller.model.records import Entry, Record, Role, Stage, ViewerScope

ALICE = Reader(Role.CLIENT, 1001, "team-a")
ALICES_COLLEAGUE = Reader(Role.CLIENT, 1003, "team-a")
BOB = Reader(Role.CLIENT, 1002, "team-b")
NOBODY = Reader(Role.CLIENT, 1001, "")
CONTROLLER = Reader(Role.CONTROLLER, 990)
#: Reads about team-b, as a uid that is a client's elsewhere.
VIEWER = Reader(Role.VIEWER, 1001, "", ViewerScope(frozenset({"team-b"}), frozenset({"team-b"})))
ALL_VIEWER = Reader(Role.VIEWER, 1004, "", ViewerScope(None))
READERS = {
    "operator": EVERYTHING,
    "controller": CONTROLLER,
    "alice": ALICE,
    "colleague": ALICES_COLLEAGUE,
    "bob": BOB,
    "nobody": NOBODY,
    "viewer": VIEWER,
    "all-viewer": ALL_VIEWER,
}
BY = {
    "controller": {"uid": 990, "gid": 990, "pid": 5, "role": "controller"},
    "operator": {"uid": 0, "gid": 0, "pid": 6, "role": "operator"},
    "alice": {"uid": 1001, "gid": 1001, "pid": 7, "role": "client"},
    "broker": {"uid": 0, "gid": 0, "pid": 0, "role": "broker"},
    "viewer": {"uid": 1001, "gid": 1001, "pid": 9, "role": "viewer"},
    "stranger": {"uid": 1001, "gid": 1, "pid": 8, "role": "none"},
}


def found(stage: Stage, by: str, owner: str, **parts: dict[str, object]) -> QueryResult:
    entry = Entry("i", stage, actor=dict(BY[by]), **parts)
    about = RecordSubject(
        owner=owner, name="web.1", id="a" * 64, action="container.stop", method="POST"
    )
    return QueryResult(Record(7, "2026-01-01T12:00:00.000Z", entry, GENESIS, "h"), about)


@pytest.mark.parametrize(
    ("stage", "by", "owner", "readers"),
    [
        # Changes: whose they are, whoever asked for them.
        ("intent", "controller", "team-a", "operator controller alice colleague all-viewer"),
        ("intent", "operator", "team-a", "operator controller alice colleague all-viewer"),
        ("outcome", "operator", "team-b", "operator controller bob viewer all-viewer"),
        ("recovered", "broker", "team-a", "operator controller alice colleague all-viewer"),
        ("violation", "broker", "team-b", "operator controller bob viewer all-viewer"),
        ("intent", "controller", "", "operator controller all-viewer"),
        # What was looked at is its owner's to know; not the controller's, if somebody else did.
        ("read", "operator", "team-a", "operator alice colleague all-viewer"),
        ("read", "alice", "team-a", "operator alice colleague nobody all-viewer"),
        ("read", "controller", "team-b", "operator controller bob viewer all-viewer"),
        # Refusals tell of who was refused: nobody else's business.
        ("refusal", "alice", "team-b", "operator alice nobody"),
        ("refusal", "operator", "team-a", "operator"),
        ("refusal", "controller", "team-a", "operator controller"),
        ("refusal", "stranger", "", "operator"),
        ("summary", "alice", "", "operator alice nobody"),
        ("read", "viewer", "team-a", "operator alice colleague viewer all-viewer"),
        ("refusal", "viewer", "team-a", "operator viewer"),
        # How the broker and its operators work.
        ("operator", "operator", "team-a", "operator"),
        ("policy", "broker", "", "operator"),
        ("segment", "broker", "", "operator"),
        ("checkpoint", "broker", "", "operator"),
    ],
)
def test_who_may_read_a_record(stage: Stage, by: str, owner: str, readers: str) -> None:
    record, about = found(stage, by, owner)
    allowed = [name for name, reader in READERS.items() if may_read(reader, record, about)]
    assert allowed == readers.split()


@pytest.mark.parametrize(
    ("stage", "owner", "readers"),
    [
        ("operator", "team-a", "operator controller alice colleague all-viewer"),
        ("operator", "", "operator controller all-viewer"),
        ("refusal", "team-a", "operator"),
    ],
)
def test_an_adoption_is_read_as_the_create_that_it_stands_for(
    stage: Stage, owner: str, readers: str
) -> None:
    record, about = found(stage, "operator", owner)
    about = replace(about, action="instance.adopt")
    allowed = [name for name, reader in READERS.items() if may_read(reader, record, about)]
    assert allowed == readers.split()
    assert redact_record(record, ALICE)["actor"] == {"role": "operator"}


def test_a_client_reads_the_role_of_others_and_no_identity() -> None:
    claims: dict[str, object] = {"cause": "slot 1 is stale", "onBehalfOf": "uid:1000 carol"}
    asked: dict[str, object] = {"route": "container.stop", "object": "a" * 64}
    record, _ = found("intent", "operator", "team-a", claims=claims, request=asked)
    assert redact_record(record, ALICE) == {
        "seq": 7,
        "id": "i",
        "time": "2026-01-01T12:00:00.000Z",
        "stage": "intent",
        "actor": {"role": "operator"},
        "request": asked,
        "claims": {"cause": "slot 1 is stale"},
    }


def test_of_its_own_a_client_reads_all_but_the_chain() -> None:
    record, _ = found("refusal", "alice", "team-b", verdict={"decision": "deny"})
    assert redact_record(record, ALICE)["actor"] == BY["alice"]
    assert not {"prev", "hash"} & redact_record(record, ALICE).keys()
    assert redact_record(record, ALICES_COLLEAGUE)["actor"] == {"role": "client"}


@pytest.mark.parametrize("reader", [ALICE, ALICES_COLLEAGUE, CONTROLLER])
def test_only_operators_read_the_hashes_that_confirm_a_guess(reader: Reader) -> None:
    asked: dict[str, object] = {"route": "container.create", "summary": {"digest": "sha256:1"}}
    hashed: dict[str, object] = {"digest": "d", "secrets": {"DB": "h"}}
    record, _ = found("intent", "alice", "team-a", request={**asked, **hashed})
    assert redact_record(record, reader)["request"] == asked


def test_the_controller_is_told_who_asked_and_not_the_chain() -> None:
    claims: dict[str, object] = {"cause": "held", "onBehalfOf": "uid:1000 carol"}
    record, _ = found("intent", "operator", "team-a", claims=claims)
    shown = redact_record(record, CONTROLLER)
    assert (shown["actor"], shown["claims"]) == (BY["operator"], claims)
    assert not {"prev", "hash"} & shown.keys()


def test_what_a_client_was_refused_does_not_tell_whose_it_was() -> None:
    refused = found("refusal", "alice", "team-b", request={"object": "shop"})
    assert redact_subject(refused, ALICE) == RecordSubject(
        name="shop", action="container.stop", method="POST"
    )
    assert redact_subject(refused, EVERYTHING) == refused.about
    mine = found("intent", "controller", "team-a")
    assert redact_subject(mine, ALICE) == mine.about
