"""A viewer at the gate: it reads what the policy lists for it, and every other route is refused."""

from __future__ import annotations

import json

import pytest

from controller.broker.dispatch import handle
from controller.broker.gate.commands import QueryJournal, ReadEngine, Relay
from controller.broker.gate.routes import OWN_PREFIX, ROUTES, Route
from controller.core.records.query import Filter, Page, QueryResult, Question, Reader, RecordSubject
from controller.core.records.record import GENESIS
from controller.model.records import Actor, Entry, Record, Role, ViewerScope
from tests.unit.broker.dialogue import (
    NOT_FOUND,
    RECORDED,
    TIME,
    UNRECORDED,
    Step,
    Told,
    converse,
    reply,
    request,
    state,
)
from tests.unit.broker.world import DB, SLOT, WEB, inspect, inventory

#: Reads about alice and team, and the output of alice's containers.
SCOPE = ViewerScope(frozenset({"alice", "team"}), frozenset({"alice"}))
VIEWER = Actor(1100, 1100, 15, Role.VIEWER, scope=SCOPE)
EVERYTHING = Actor(1101, 1101, 16, Role.VIEWER, scope=ViewerScope(None))
OPEN = {"own.whoami", "own.metrics", "own.journal", "own.journal.follow", "container.logs"}
NAMES = {
    "container": WEB,
    "exec": "e1",
    "image": "web",
    "network": "n",
    "volume": "v",
    "kind": "config",
    "namespace": "default",
    "name": "web",
}


def ask(target: str, dialogue: list[Step], actor: Actor = VIEWER, *, method: str = "GET") -> Told:
    knows = state(inventory())
    return converse(handle(request(method, target, actor=actor), knows), dialogue, knows)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: str(route.name))
def test_a_viewer_uses_five_routes_and_no_other(route: Route) -> None:
    assert (Role.VIEWER in route.roles) == (route.name in OPEN)
    if route.name in OPEN:
        return
    path = (OWN_PREFIX if route.own else "/v1.45") + route.template.format(**NAMES)
    for viewer in (VIEWER, EVERYTHING):
        told = ask(path, [("refusal", RECORDED)], viewer, method=route.method)
        assert (told.status, told.rule) == (403, "role.denied")


def looked_at(identifier: str, name: str, owner: str) -> Step:
    return ReadEngine(f"/containers/{identifier}/json"), reply(inspect(identifier, name, owner))


@pytest.mark.parametrize("record", [RECORDED, UNRECORDED])
def test_output_of_a_listed_owner_is_read_and_each_read_recorded(record: object) -> None:
    told = ask(
        f"/containers/{WEB}/logs?follow=1&stdout=1",
        [looked_at(WEB, "alice-web", "alice"), ("read", record)],
    )
    assert told.value == Relay("GET", f"/containers/{WEB}/logs?follow=1&stdout=1")
    (entry,) = told.entries
    assert (entry.actor["uid"], entry.actor["role"]) == (1100, "viewer")
    assert (entry.request["route"], entry.request["object"]) == ("container.logs", WEB)


def test_output_of_an_owner_that_is_only_seen_is_refused_by_name() -> None:
    told = ask(
        f"/containers/{SLOT}/logs?stdout=1",
        [looked_at(SLOT, "web.1-01234567", "team"), ("refusal", RECORDED)],
    )
    assert (told.status, told.rule) == (403, "viewer.logs")
    assert "team" in told.json["trimtab"]["remedy"]
    assert told.entries[0].request["object"] == SLOT


def test_a_container_of_another_owner_reads_as_one_that_is_missing() -> None:
    other = ask(
        f"/containers/{DB}/logs?stdout=1",
        [looked_at(DB, "bob-db", "bob"), ("refusal", RECORDED)],
    )
    missing = ask(
        "/containers/nothing/logs?stdout=1",
        [(ReadEngine("/containers/nothing/json"), NOT_FOUND), ("refusal", RECORDED)],
    )
    assert (other.status, other.rule) == (missing.status, missing.rule) == (404, "foreign")
    assert missing.json["message"].replace("nothing", DB) == other.json["message"]


def test_variables_and_labels_beside_the_lines_are_refused() -> None:
    told = ask(f"/containers/{WEB}/logs?stdout=1&details=1", [("refusal", RECORDED)])
    assert (told.status, told.rule) == (403, "viewer.details")


def test_metrics_are_for_viewers_of_all_owners() -> None:
    assert ask("/trimtab/v1/metrics", [], EVERYTHING).status == 200
    told = ask("/trimtab/v1/metrics", [("refusal", RECORDED)])
    assert (told.status, told.rule) == (403, "viewer.metrics")


def test_a_viewer_is_told_its_scope() -> None:
    told = ask("/trimtab/v1/whoami", []).json
    assert (told["role"], told["owners"], told["logs"]) == ("viewer", ["alice", "team"], ["alice"])
    assert ask("/trimtab/v1/whoami", [], EVERYTHING).json["owners"] == "all"


def test_records_come_in_the_form_for_clients() -> None:
    entry = Entry(
        "i",
        "outcome",
        actor={"uid": 0, "gid": 0, "pid": 4, "role": "operator"},
        request={"route": "container.start", "digest": "d", "secrets": {"A": "h"}},
        claims={"cause": "c", "onBehalfOf": "uid:0 carol"},
        result={"status": 409, "error": f"bob-db ({DB}) holds the port of alice-web ({WEB})"},
    )
    about = RecordSubject(owner="alice", name="alice-web", id=WEB)
    page = Page((QueryResult(Record(9, TIME, entry, GENESIS, "h"), about),))
    question = Question(Filter(), Reader(Role.VIEWER, 1100, "", SCOPE), limit=200)
    told = ask("/trimtab/v1/journal?limit=500", [(QueryJournal(question), page)]).value.body
    assert json.loads(told) == {
        "seq": 9,
        "id": "i",
        "time": TIME,
        "stage": "outcome",
        "actor": {"role": "operator"},
        "request": {"route": "container.start"},
        "claims": {"cause": "c"},
        "result": {"status": 409, "error": f"… (…) holds the port of alice-web ({WEB})"},
    }
