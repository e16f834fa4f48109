from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from controller.broker.dispatch import handle
from controller.broker.gate.commands import Forward, ReadEngine
from controller.broker.gate.state import GateState
from controller.broker.guards.recovery import intents_to_settle
from controller.model.records import Entry, Reply
from tests.unit.broker.dialogue import (
    ALICE,
    BOB,
    CONTEXT,
    CONTROLLER,
    NO_CONTENT,
    NOT_FOUND,
    OPERATOR,
    RECORDED,
    UNRECORDED,
    Step,
    Told,
    converse,
    lost,
    reply,
    request,
    state,
)
from tests.unit.broker.world import (
    ALLOWED,
    DB,
    LOOK_AT_ALL,
    SLOT,
    STRAY,
    WEB,
    actor,
    inspect,
    inventory,
    told,
)

LOOK: Step = (ReadEngine(f"/containers/{WEB}/json"), reply(inspect(WEB, "alice-web", "alice")))
STOP = Forward("POST", f"/containers/{WEB}/stop?t=5")
PLACE = {"name": "alice-web", "owner": "alice", "namespace": "", "service": "web"}


def ask(
    method: str, target: str, dialogue: list[Step], *, knows: GateState | None = None, **more: Any
) -> Told:
    """Send one request through the gate."""
    knows = knows or state(inventory())
    return converse(handle(request(method, target, **more), knows), dialogue, knows)


def test_a_change_is_recorded_forwarded_and_recorded_again() -> None:
    knows = state(inventory())
    answer = ask(
        "POST",
        f"/v1.45/containers/{WEB}/stop?t=5",
        [LOOK, ("intent", RECORDED), (STOP, NO_CONTENT), ("outcome", RECORDED)],
        knows=knows,
    )
    assert answer.value == NO_CONTENT
    assert answer.entries == [
        Entry(
            "id-1",
            "intent",
            actor=actor(1000, 13, "client"),
            request=told(
                "POST",
                "container.stop",
                WEB,
                {**PLACE, "graceS": 5, "before": "0001-01-01T00:00:00Z"},
            ),
            verdict=ALLOWED,
        ),
        Entry(
            "id-1",
            "outcome",
            actor=actor(1000, 13, "client"),
            result={"status": 204, "error": "", "durationMs": 0},
        ),
    ]
    assert (knows.inventory.open, knows.intents.in_flight, knows.intents.recorded_at) == (
        {},
        set(),
        {},
    )


def test_the_controllers_claims_are_recorded_and_not_forwarded() -> None:
    claims = {
        "cause": "web is gone\n",
        "source": {"file": "web.yaml", "line": 3, "commit": "abc"},
        "plan": "p1",
        "onBehalfOf": "uid 0",
    }
    header = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode()
    answer = ask(
        "POST",
        f"/containers/{SLOT}/stop",
        [
            (ReadEngine(f"/containers/{SLOT}/json"), reply(inspect(SLOT, "x", "team"))),
            (ReadEngine(LOOK_AT_ALL), reply([{"Id": SLOT}])),
            ("intent", RECORDED),
            (Forward("POST", f"/containers/{SLOT}/stop"), Reply(304)),
            ("outcome", RECORDED),
        ],
        actor=CONTROLLER,
        headers=[(CONTEXT[0], header)],
    )
    assert answer.status == 304
    assert answer.entries[0].claims == {**claims, "cause": "web is gone\\u000a"}
    assert answer.entries[0].actor == actor(990, 11, "controller")


def test_without_a_journal_nothing_is_forwarded_and_reads_go_on() -> None:
    answer = ask("POST", f"/containers/{WEB}/stop", [LOOK, ("intent", UNRECORDED)])
    assert (answer.status, answer.rule) == (503, "journal.unavailable")
    path = f"/containers/{WEB}/json"
    again = ask("GET", path, [LOOK, ("read", UNRECORDED)], actor=OPERATOR)
    assert again.status == 200


def test_a_refusal_that_cannot_be_recorded_is_answered_and_counted() -> None:
    knows = state(inventory())
    for _ in range(2):
        answer = ask("POST", "/commit", [("refusal", UNRECORDED)], knows=knows)
        assert (answer.status, answer.rule) == (403, "route.denied")
    assert knows.health.unrecorded_refusals == 2


def test_an_outcome_that_cannot_be_recorded_is_answered_and_left_to_recovery() -> None:
    knows = state(inventory())
    answer = ask(
        "POST",
        f"/containers/{WEB}/stop?t=5",
        [LOOK, ("intent", RECORDED), (STOP, NO_CONTENT), ("outcome", UNRECORDED)],
        knows=knows,
    )
    assert answer.status == 204
    assert intents_to_settle(knows) == ("id-1",)


def test_after_a_lost_answer_the_object_is_held() -> None:
    knows = state(inventory())
    answer = ask(
        "POST",
        f"/containers/{WEB}/stop?t=5",
        [LOOK, ("intent", RECORDED), (STOP, lost())],
        knows=knows,
    )
    assert (answer.status, answer.rule) == (504, "outcome.unknown")
    assert intents_to_settle(knows) == ("id-1",)
    held = ask("POST", f"/containers/{WEB}/kill", [LOOK, ("refusal", RECORDED)], knows=knows)
    assert (held.status, held.rule) == (409, "held")
    # Others' objects aren't.
    other = ask(
        "POST",
        f"/containers/{DB}/pause",
        [
            (ReadEngine(f"/containers/{DB}/json"), reply(inspect(DB, "bob-db", "bob"))),
            ("intent", RECORDED),
            (Forward("POST", f"/containers/{DB}/pause"), NO_CONTENT),
            ("outcome", RECORDED),
        ],
        knows=knows,
        actor=BOB,
    )
    assert other.status == 204


def test_what_was_never_sent_is_closed_at_once() -> None:
    knows = state(inventory())
    answer = ask(
        "POST",
        f"/containers/{WEB}/stop?t=5",
        [LOOK, ("intent", RECORDED), (STOP, lost(sent=False)), ("outcome", RECORDED)],
        knows=knows,
    )
    assert (answer.status, answer.rule) == (502, "engine.unavailable")
    assert answer.entries[1].result["status"] == 502
    assert answer.entries[1].result["settled"] == "not-applied"
    assert intents_to_settle(knows) == ()


def test_the_engines_own_refusal_is_the_outcome_and_the_answer() -> None:
    conflict = reply({"message": "is not running\x1b[1m"}, 409)
    answer = ask(
        "POST",
        f"/containers/{WEB}/stop?t=5",
        [LOOK, ("intent", RECORDED), (STOP, conflict), ("outcome", RECORDED)],
    )
    assert answer.value == conflict
    assert answer.entries[1].result == {
        "status": 409,
        "error": "is not running\\u001b[1m",
        "durationMs": 0,
    }


def test_an_engine_that_does_not_answer_is_no_refusal() -> None:
    answer = ask("POST", f"/containers/{WEB}/stop", [(LOOK[0], lost())])
    assert (answer.status, answer.rule) == (502, "engine.unavailable")


# Whose is what


@pytest.mark.parametrize(
    ("name", "look", "inspected"),
    [
        (DB, DB, inspect(DB, "bob-db", "bob")),
        ("bob-db", "bob-db", inspect(DB, "bob-db", "bob")),
        (DB[:12], DB, inspect(DB, "bob-db", "bob")),
        (STRAY, STRAY, inspect(STRAY, "stray", "alice")),
        # In the inventory, but without our label: another engine's container of that id?
        (WEB, WEB, inspect(WEB, "alice-web", "alice", Config={"Labels": {}})),
        # A name that the engine takes for a prefix.
        ("a1a", "a1a", inspect(WEB, "alice-web", "alice")),
        (WEB.upper(), WEB.upper(), inspect(WEB, "alice-web", "alice")),
    ],
)
def test_another_owners_object_appears_missing(
    name: str, look: str, inspected: dict[str, Any]
) -> None:
    dialogue: list[Step] = [
        (ReadEngine(f"/containers/{look}/json"), reply(inspected)),
        ("refusal", RECORDED),
    ]
    answer = ask("POST", f"/containers/{name}/stop", dialogue)
    assert answer.status == 404
    assert answer.json["message"] == f"No such container: {name}"
    assert answer.entries[0].verdict["rules"] == ["foreign"]
    missing = ask(
        "POST",
        f"/containers/{name}/stop",
        [(ReadEngine(f"/containers/{name}/json"), NOT_FOUND), ("refusal", RECORDED)],
        knows=state(),
    )
    assert missing.json == answer.json


@pytest.mark.parametrize("who", [OPERATOR, CONTROLLER])
def test_who_sees_all_of_ours_is_told_that_there_is_none(who: Any) -> None:
    dialogue: list[Step] = [(ReadEngine("/containers/nothing/json"), NOT_FOUND)]
    answer = ask("POST", "/containers/nothing/stop", dialogue, actor=who)
    assert (answer.status, answer.json) == (404, {"message": "No such container: nothing"})


@pytest.mark.parametrize(
    ("name", "look"), [(WEB, WEB), (WEB[:12], WEB), (WEB[:40], WEB), ("alice-web", "alice-web")]
)
@pytest.mark.parametrize("who", [ALICE, OPERATOR])
def test_containers_are_acted_on_by_full_id(name: str, look: str, who: Any) -> None:
    answer = ask(
        "POST",
        f"/containers/{name}/pause",
        [
            (ReadEngine(f"/containers/{look}/json"), reply(inspect(WEB, "alice-web", "alice"))),
            ("intent", RECORDED),
            (Forward("POST", f"/containers/{WEB}/pause"), NO_CONTENT),
            ("outcome", RECORDED),
        ],
        actor=who,
    )
    assert answer.status == 204


def test_a_prefix_of_two_containers_is_none() -> None:
    twin = WEB[:12] + "f" * 52
    known = inventory()
    knows = state(inventory(containers={**known.containers, twin: known.containers[WEB]}))
    answer = ask(
        "POST",
        f"/containers/{WEB[:12]}/stop",
        [
            (ReadEngine(f"/containers/{WEB[:12]}/json"), reply({"message": "ambiguous"}, 400)),
            ("refusal", RECORDED),
        ],
        knows=knows,
    )
    assert answer.status == 404


@pytest.mark.parametrize("query", ["t=5", "t=5&Cmd=a&Cmd=%0A&signals=HUP"])
@pytest.mark.parametrize("body", [b"", b"{}", b"null", b" {}\n", b'{"t":5,"Force":true}', b"[1]"])
def test_what_no_engine_reads_is_dropped(query: str, body: bytes) -> None:
    answer = ask(
        "POST",
        f"/v1.45/containers/{WEB}/stop?{query}",
        [LOOK, ("intent", RECORDED), (STOP, NO_CONTENT), ("outcome", RECORDED)],
        body=body,
        headers=[("content-type", "application/json")],
    )
    assert answer.value == NO_CONTENT


def test_what_is_gone_is_taken_off_the_inventory_when_somebody_looks() -> None:
    knows = state(inventory())
    answer = ask(
        "POST",
        f"/containers/{WEB}/stop",
        [(LOOK[0], NOT_FOUND), ("read", RECORDED), ("refusal", RECORDED)],
        knows=knows,
    )
    assert answer.json["message"] == f"No such container: {WEB}"
    assert WEB not in knows.inventory.containers


# What is refused before anything is looked at


@pytest.mark.parametrize(
    ("method", "target", "more", "status", "rule"),
    [
        ("POST", "/v1.45/containers%2Fcreate", {}, 400, "path.malformed"),
        ("GET", "/v1.43/info", {}, 400, "api.version"),
        ("GET", "/metrics", {}, 404, "route.unknown"),
        ("POST", "/swarm/init", {}, 403, "route.denied"),
        ("GET", "/system/df", {}, 403, "role.denied"),
        ("POST", f"/containers/{SLOT}/attach", {"actor": CONTROLLER}, 403, "role.denied"),
        ("POST", "/trimtab/v1/trust", {"actor": CONTROLLER}, 403, "role.denied"),
        ("GET", "/trimtab/v1/whoami?x=1", {}, 400, "query.unknown"),
        ("GET", "/containers/json?All=1", {}, 400, "query.unknown"),
        ("GET", "/containers/json?all=1&all=1", {}, 400, "query.repeated"),
        ("GET", "/containers/json?all=2", {}, 400, "query.invalid"),
        ("GET", "/containers/json?all=%", {}, 400, "query.malformed"),
        ("GET", "/containers/json?filters=[]", {}, 400, "filters.malformed"),
        ("GET", f"/containers/{WEB}/top?ps_args=auxe", {}, 400, "query.invalid"),
        ("POST", f"/containers/{WEB}/start", {"body": b"{}"}, 400, "body.unexpected"),
        (
            "POST",
            f"/containers/{WEB}/start",
            {"body": b'{"a":0', "headers": [("content-type", "application/json")]},
            400,
            "body.malformed",
        ),
        (
            "POST",
            f"/containers/{WEB}/stop?t=1",
            {"body": {"t": 2}},
            400,
            "query.repeated",
        ),
        ("POST", "/containers/create?name=a", {"body": {"name": "b"}}, 400, "query.repeated"),
        ("POST", "/containers/create", {"body": b"{}"}, 400, "body.media-type"),
        (
            "POST",
            "/containers/create",
            {"body": b"{}", "headers": [("content-type", "application/json; charset=utf-16")]},
            400,
            "body.media-type",
        ),
        (
            "POST",
            f"/containers/{WEB}/stop?t=10",
            {
                "body": b"t=-1",
                "headers": [("content-type", "application/x-www-form-urlencoded")],
            },
            400,
            "body.unexpected",
        ),
        (
            "POST",
            "/containers/create",
            {"body": {}, "headers": [("content-encoding", "gzip")]},
            400,
            "body.encoded",
        ),
        (
            "POST",
            "/containers/create",
            {"body": b'{"A":1,"a":1}', "headers": [("content-type", "application/json")]},
            400,
            "body.malformed",
        ),
        (
            "POST",
            "/networks/create",
            {"body": {"Name": "x" * 65536}},
            400,
            "body.malformed",
        ),
        (
            "POST",
            "/images/create?fromImage=a",
            {"headers": [("x-registry-auth", "A" * 8193)]},
            400,
            "header.too-long",
        ),
        ("GET", "/info", {"headers": [("trimtab-context", "?")]}, 400, "context.malformed"),
        ("POST", f"/containers/{WEB}/start?checkpoint=x", {}, 403, "start.checkpoint"),
        ("POST", "/containers/create", {"body": {"Image": "alpine"}}, 403, "image.not-allowed"),
        (
            "POST",
            "/images/create?fromSrc=-&repo=ghcr.io/platformnetwork/web",
            {},
            403,
            "image.import",
        ),
        ("POST", f"/containers/{WEB}/kill?signal=NOSUCH", {}, 400, "signal.invalid"),
        ("GET", "/nodes", {}, 503, "route.denied"),
        ("POST", "/swarm/leave?force=1", {}, 503, "route.denied"),
    ],
)
def test_each_refusal_is_journaled_with_its_rule_and_nothing_else_happens(
    method: str, target: str, more: dict[str, Any], status: int, rule: str
) -> None:
    dialogue: list[Step] = [("refusal", RECORDED)]
    if "checkpoint" in target:
        dialogue.insert(0, LOOK)
    answer = ask(method, target, dialogue, **more)
    assert (answer.status, answer.rule) == (status, rule)
    [entry] = answer.entries
    assert entry.id == answer.json["trimtab"]["id"]
    assert entry.verdict["decision"] == "deny"
    assert rule in entry.verdict["rules"]  # type: ignore[operator]
    assert entry.result == {"status": status, "error": answer.json["trimtab"]["reason"]}


def test_the_message_of_a_refusal_tells_rule_reason_and_remedy() -> None:
    answer = ask("POST", "/swarm/init", [("refusal", RECORDED)])
    assert answer.json["message"] == (
        "route.denied: POST /swarm/init isn't served to any role (change the desired state instead)"
    )


def test_the_policy_of_a_request_is_the_one_it_began_with() -> None:
    knows = state(inventory())
    before = knows.policy
    steps = handle(request("POST", f"/containers/{WEB}/stop"), knows)
    assert steps.send(None) == LOOK[0]
    knows.policy = before.model_copy(update={"name": "other"})
    intent: Any = steps.send(LOOK[1])  # type: ignore[arg-type]
    assert intent.entry.verdict["policy"] == before.digest != knows.policy.digest
