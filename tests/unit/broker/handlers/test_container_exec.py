"""Execs, command by command: made, started once by their maker, looked after to their end."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from controller.broker.dispatch import handle
from controller.broker.gate.commands import EndProcess, Forward, ReadAccounts, ReadEngine, Relay
from controller.broker.gate.state import CreatedExec, GateState
from controller.broker.guards.recovery import settle
from controller.broker.handlers import container_exec
from controller.core.effective import Accounts
from controller.core.encoding.json_values import digest
from controller.core.records.inventory_json import from_json, to_json
from controller.model.confinement import Confinement
from controller.model.inventory import ExecSession
from controller.model.records import Actor, Entry, Reply, Role
from tests.unit.broker.dialogue import (
    ALICE,
    CONTROLLER,
    NOT_FOUND,
    OPERATOR,
    RECORDED,
    TIME,
    UNRECORDED,
    Step,
    Told,
    at,
    converse,
    lost,
    reply,
    request,
    state,
)
from tests.unit.broker.handlers.test_networks_volumes import Sent
from tests.unit.broker.world import DB, STRAY, WEB, inspect, inventory, policy

EXEC = "ee" * 32
OTHER = Actor(1002, 1002, 15, Role.OPERATOR)
MADE = f"/containers/{WEB}/exec"
START = f"/exec/{EXEC}/start"
LOOK = ReadEngine(f"/containers/{WEB}/json")
LOOK_EXEC = ReadEngine(f"/exec/{EXEC}/json")
SINCE = {"Status": "running", "Running": True, "StartedAt": "2026-01-01T11:00:00Z"}
UPGRADE = (("connection", "Upgrade"), ("upgrade", "tcp"))
SEEN = reply(inspect(WEB, "alice-web", "alice", State=SINCE))
CREATE = Forward(
    "POST",
    MADE,
    json.dumps(
        {
            "AttachStdin": False,
            "AttachStdout": True,
            "AttachStderr": False,
            "Tty": False,
            "Cmd": ["echo", "hunter2"],
            "Env": ["TOKEN=hunter3"],
        }
    ).encode(),
)
BODY = {"Cmd": ["echo", "hunter2"], "Env": ["TOKEN=hunter3"], "AttachStdout": True}
ATTACHED = Relay(
    "POST",
    START,
    b'{"Detach": false, "Tty": false}',
    hijack=True,
    mutates=True,
    within_s=3600.0,
    exec=EXEC,
)
DETACHED = Forward("POST", START, b'{"Detach": true, "Tty": false}')


def exec_of(container: str = WEB, **more: Any) -> Reply:
    """Return the engine's inspect of the exec."""
    told = {
        "ID": EXEC,
        "Running": False,
        "ExitCode": None,
        "ContainerID": container,
        "Pid": 0,
        "CanRemove": False,
        "ProcessConfig": {"entrypoint": "echo", "privileged": False, "secret": "x"},
        **more,
    }
    return reply(told)


def ask(knows: GateState, method: str, target: str, dialogue: list[Step], **more: Any) -> Told:
    more.setdefault("actor", OPERATOR)
    return converse(handle(request(method, target, **more), knows), dialogue, knows)


def made(knows: GateState, container: str = WEB) -> Told:
    dialogue: list[Step] = [
        (LOOK, SEEN),
        ("intent", RECORDED),
        (CREATE, reply({"Id": EXEC}, 201)),
        ("outcome", RECORDED),
    ]
    told = ask(knows, "POST", f"/containers/{container}/exec", dialogue, body=BODY)
    assert (told.status, told.json) == (201, {"Id": EXEC})
    return told


def made_with(key: bytes) -> Entry:
    """Return the intent of an exec that is made where the broker has this key."""
    knows = state(inventory())
    knows.hash_key = key
    return made(knows).entries[0]


def start(knows: GateState, dialogue: list[Step], **more: Any) -> Told:
    more.setdefault("headers", UPGRADE)
    more.setdefault("body", {"Detach": False, "Tty": False})
    return ask(knows, "POST", START, dialogue, **more)


def begun(knows: GateState) -> Told:
    dialogue: list[Step] = [
        (LOOK, SEEN),
        (LOOK_EXEC, exec_of()),
        ("intent", RECORDED),
        (ATTACHED, Reply(101)),
        ("outcome", RECORDED),
    ]
    return start(knows, dialogue)


def looked_after(knows: GateState, *dialogue: Step) -> Told:
    return converse(container_exec.supervise(knows, EXEC), dialogue, knows)


def test_an_exec_is_made_and_recorded_without_arguments_and_values() -> None:
    knows = state(inventory())
    told = ask(
        knows,
        "POST",
        MADE,
        [
            (LOOK, SEEN),
            ("intent", RECORDED),
            (CREATE, reply({"Id": EXEC}, 201)),
            ("outcome", RECORDED),
        ],
        body=BODY,
    )
    assert told.entries[0].request["summary"] == {
        "name": "alice-web",
        "owner": "alice",
        "namespace": "",
        "service": "web",
        "program": "echo",
        "arguments": 1,
        "user": "",
        "workingDir": "",
        "env": ["TOKEN"],
        "tty": False,
        "stdin": False,
    }
    assert told.entries[1].result == {"status": 201, "error": "", "durationMs": 0, "exec": EXEC}
    assert "hunter" not in repr(told.entries)


def test_an_error_that_repeats_the_command_is_recorded_without_it() -> None:
    failed = reply({"message": 'exec: "echo": hunter2, TOKEN=hunter3: not found'}, 400)
    step: list[Step] = [("intent", RECORDED), (CREATE, failed), ("outcome", RECORDED)]
    told = ask(state(inventory()), "POST", MADE, [(LOOK, SEEN), *step], body=BODY)
    error = 'exec: "echo": [withheld], TOKEN=[withheld]: not found'
    assert told.entries[1].result["error"] == error
    assert told.value.body == failed.body, "who sent it reads what the engine says"


def test_an_error_of_an_exec_s_start_is_recorded_without_the_command() -> None:
    knows = state(inventory())
    made(knows)
    failed = reply({"message": "OCI runtime exec failed: echo hunter2"}, 400)
    told = start(
        knows,
        [(LOOK, SEEN), (LOOK_EXEC, exec_of()), ("intent", RECORDED), (DETACHED, failed),
         ("outcome", RECORDED)],
        body={"Detach": True},
        headers=(),
    )  # fmt: skip
    assert told.entries[1].result["error"] == "OCI runtime exec failed: echo [withheld]"


def test_arguments_can_not_be_found_by_trying_them_on_the_digest() -> None:
    keys = [bytes(32), bytes(32), bytes(31) + b"x", b""]
    one, same, other, none = (dict(made_with(key).request) for key in keys)
    body = {**json.loads(CREATE.body), "Env": ["TOKEN"]}
    guess = digest({"summary": one["summary"], "body": body})
    assert one["digest"] == same["digest"]
    assert len({one["digest"], other["digest"], none["digest"], guess}) == 4
    assert none["digest"] == digest({"summary": one["summary"], "body": {}})


@pytest.mark.parametrize(
    ("who", "rule"),
    [(ALICE, "exec.client"), (CONTROLLER, "role.denied")],
    ids=["client", "controller"],
)
@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", MADE),
        ("POST", START),
        ("GET", f"/exec/{EXEC}/json"),
        ("POST", f"/exec/{EXEC}/resize"),
    ],
)
def test_execs_are_for_operators_alone(who: Actor, rule: str, method: str, target: str) -> None:
    knows = state(inventory())
    body = {MADE: BODY, START: {}}.get(target)
    told = ask(knows, method, target, [("refusal", RECORDED)], actor=who, body=body)
    assert told.rule == rule


FOR_CLIENTS = policy(exec={"clients": True})
MINE = inventory(containers={WEB: replace(inventory().containers[WEB], uid=ALICE.uid)})


def test_a_client_runs_commands_in_a_container_of_its_own_where_the_policy_says_so() -> None:
    knows = state(MINE, policy=FOR_CLIENTS)
    dialogue: list[Step] = [
        (LOOK, SEEN),
        ("intent", RECORDED),
        (CREATE, reply({"Id": EXEC}, 201)),
        ("outcome", RECORDED),
    ]
    assert ask(knows, "POST", MADE, dialogue, body=BODY, actor=ALICE).status == 201
    # Another one doesn't start it, not even an operator, or a client of the same owner.
    for who in (OPERATOR, replace(ALICE, uid=1009)):
        told = ask(knows, "POST", START, [("refusal", RECORDED)], actor=who, body={})
        assert (told.status, told.rule) == (404, "exec.unknown")
    # The policy of the start decides.
    knows.policy = policy()
    told = ask(knows, "POST", START, [("refusal", RECORDED)], actor=ALICE, body={})
    assert told.rule == "exec.client"


BIND = {"Type": "bind", "Source": "/srv/alice", "Destination": "/srv"}


@pytest.mark.parametrize(
    ("more", "mounts", "user", "rule"),
    [
        ({}, [], "0:0", ""),
        ({}, [BIND], "", ""),
        ({}, [BIND], "1000:1000", ""),
        ({}, [{"Type": "volume"}, BIND], "0:0", "exec.client"),
        ({}, [{"Type": "other"}], "5:5", "exec.client"),
        ({}, None, "0:0", "exec.client"),
        ({"origin": "controller"}, [], "", "exec.client"),
        ({"uid": 1009}, [], "", "exec.client"),
        ({"uid": -1}, [], "", "exec.client"),
    ],
)
def test_a_client_runs_commands_in_what_it_made_itself_and_with_folders_as_its_user(
    more: dict[str, Any], mounts: object, user: str, rule: str
) -> None:
    mine = replace(inventory().containers[WEB], **{"uid": ALICE.uid, **more})
    rules = policy(exec={"clients": True, "root": True})
    knows = state(inventory(containers={WEB: mine}), policy=rules)
    config = {**inspect(WEB, "alice-web", "alice")["Config"], "User": "1000:1000"}
    seen = inspect(WEB, "alice-web", "alice", State=SINCE, Mounts=mounts, Config=config)
    sent = Sent(MADE, **({"User": user} if user else {}))
    steps: list[Step] = [
        ("intent", RECORDED),
        (sent, reply({"Id": EXEC}, 201)),
        ("outcome", RECORDED),
    ]
    dialogue: list[Step] = [(LOOK, reply(seen)), *([("refusal", RECORDED)] if rule else steps)]
    told = ask(knows, "POST", MADE, dialogue, body={**BODY, "User": user}, actor=ALICE)
    assert told.status == (403 if rule else 201)
    assert not rule or told.rule == rule


@pytest.mark.parametrize(
    ("user", "is_admitted"), [("", True), ("4242:4242", True), ("4242:5", False), ("1000", False)]
)
def test_a_command_in_an_observer_runs_as_its_own_user(user: str, is_admitted: bool) -> None:
    seen_by_the_gate = Confinement(user="4242:4242", observer=True)
    watching = replace(inventory().containers[WEB], confined=seen_by_the_gate)
    knows = state(inventory(containers={WEB: watching}))
    sent = Sent(MADE, **({"User": user} if user else {}))
    admitted: list[Step] = [
        ("intent", RECORDED),
        (sent, reply({"Id": EXEC}, 201)),
        ("outcome", RECORDED),
    ]
    steps = admitted if is_admitted else [("refusal", RECORDED)]
    told = ask(knows, "POST", MADE, [(LOOK, SEEN), *steps], body={**BODY, "User": user})
    assert told.status == (201 if is_admitted else 403)
    assert is_admitted or told.rule == "observer"


def test_a_client_has_a_few_execs_at_a_time_and_operators_have_others() -> None:
    knows = state(MINE, policy=FOR_CLIENTS)
    for number in range(container_exec.EXECS_OF_CLIENT_MAX):
        knows.execs.created[f"{number:064x}"] = CreatedExec(
            container=WEB,
            uid=ALICE.uid,
            role=ALICE.role,
            created_at=knows.clock.monotonic(),
            container_started="",
            request=None,
            started_at=knows.clock.monotonic(),
        )
    told = ask(knows, "POST", MADE, [(LOOK, SEEN), ("refusal", RECORDED)], body=BODY, actor=ALICE)
    assert (told.status, told.rule) == (429, "exec.too-many")
    made(knows)


@pytest.mark.parametrize("name", [STRAY, "stray"])
def test_what_is_not_ours_has_no_exec(name: str) -> None:
    stray = reply(inspect(STRAY, "stray", "x", State=SINCE))
    told = ask(
        state(inventory()),
        "POST",
        f"/containers/{name}/exec",
        [(ReadEngine(f"/containers/{name}/json"), stray), ("refusal", RECORDED)],
        body=BODY,
    )
    assert (told.status, told.rule) == (404, "foreign")


@pytest.mark.parametrize(
    "shown",
    [
        {"Status": "exited", "Running": False},
        {"Status": "paused", "Running": True, "Paused": True},
        {"Status": "created", "Running": False},
    ],
)
def test_only_what_runs_has_execs(shown: dict[str, object]) -> None:
    seen = reply(inspect(WEB, "alice-web", "alice", State=shown))
    told = ask(state(inventory()), "POST", MADE, [(LOOK, seen), ("refusal", RECORDED)], body=BODY)
    assert (told.status, told.rule) == (409, "exec.not-running")


def test_privileged_is_refused_before_anything_is_forwarded() -> None:
    told = ask(
        state(inventory()),
        "POST",
        MADE,
        [(LOOK, SEEN), ("refusal", RECORDED)],
        body={**BODY, "Privileged": True},
    )
    assert told.rule == "exec.privileged"


def test_a_start_is_recorded_handed_over_and_becomes_a_session() -> None:
    knows = state(inventory())
    made(knows)
    told = begun(knows)
    assert told.value == ATTACHED
    assert told.entries[0].request["summary"] == {
        "name": "alice-web",
        "owner": "alice",
        "namespace": "",
        "service": "web",
        "exec": EXEC,
        "detach": False,
        "tty": False,
    }
    assert knows.inventory.open == {}
    assert knows.inventory.sessions == {EXEC: ExecSession(EXEC, WEB, 0, told.entries[0].id, TIME)}


def test_a_detached_start_is_forwarded_whole() -> None:
    knows = state(inventory())
    made(knows)
    told = start(
        knows,
        [
            (LOOK, SEEN),
            (LOOK_EXEC, exec_of()),
            ("intent", RECORDED),
            (DETACHED, Reply(200)),
            ("outcome", RECORDED),
        ],
        body={"Detach": True},
        headers=(),
    )
    assert told.status == 200
    assert list(knows.inventory.sessions) == [EXEC]


def test_without_a_journal_nothing_is_started() -> None:
    knows = state(inventory())
    made(knows)
    told = start(knows, [(LOOK, SEEN), (LOOK_EXEC, exec_of()), ("intent", UNRECORDED)])
    assert (told.status, knows.inventory.sessions) == (503, {})


@pytest.mark.parametrize("who", [OTHER, Actor(0, 0, 9, Role.CONTROLLER)])
def test_an_exec_counts_for_its_maker_alone(who: Actor) -> None:
    knows = state(inventory())
    made(knows)
    told = start(knows, [("refusal", RECORDED)], actor=who)
    rule = "exec.unknown" if who is OTHER else "role.denied"
    assert told.rule == rule
    if who is OTHER:
        assert (told.status, told.json["message"]) == (404, f"No such exec instance: {EXEC}")


def test_an_exec_that_was_made_elsewhere_reads_as_if_there_were_none() -> None:
    for method, target in (("POST", START), ("GET", f"/exec/{EXEC}/json")):
        body: object = {} if method == "POST" else None
        told = ask(state(inventory()), method, target, [("refusal", RECORDED)], body=body)
        assert (told.status, told.rule) == (404, "exec.unknown")


def test_an_exec_is_started_once_and_within_a_minute() -> None:
    knows = state(inventory())
    made(knows)
    begun(knows)
    assert start(knows, [("refusal", RECORDED)]).rule == "exec.started"
    late = state(inventory())
    made(late)
    at(late, 60.1)
    assert start(late, [("refusal", RECORDED)]).rule == "exec.expired"


ANEW = reply(
    inspect(WEB, "alice-web", "alice", State={**SINCE, "StartedAt": "2026-01-01T12:30:00Z"})
)
STOPPED = reply(inspect(WEB, "alice-web", "alice", State={"Status": "exited", "Running": False}))


@pytest.mark.parametrize(
    ("dialogue", "rule"),
    [
        ([(LOOK, ANEW)], "exec.changed"),
        ([(LOOK, STOPPED)], "exec.not-running"),
        ([(LOOK, NOT_FOUND), ("read", RECORDED)], "exec.changed"),
        ([(LOOK, SEEN), (LOOK_EXEC, NOT_FOUND)], "exec.changed"),
        ([(LOOK, SEEN), (LOOK_EXEC, exec_of(DB))], "exec.changed"),
        ([(LOOK, SEEN), (LOOK_EXEC, exec_of(Running=True))], "exec.changed"),
        (
            [(LOOK, SEEN), (LOOK_EXEC, exec_of(ProcessConfig={"privileged": True}))],
            "exec.changed",
        ),
    ],
)
def test_an_exec_of_a_changed_container_is_not_started(dialogue: list[Step], rule: str) -> None:
    knows = state(inventory())
    made(knows)
    told = start(knows, [*dialogue, ("refusal", RECORDED)])
    assert (told.status, told.rule) == (409, rule)


def test_the_policy_in_force_at_the_start_decides() -> None:
    knows = state(inventory())
    made(knows)
    knows.policy = policy(env={"denied": ["TOKEN"]})
    told = start(knows, [(LOOK, SEEN), (LOOK_EXEC, exec_of()), ("refusal", RECORDED)])
    assert told.rule == "env.denied"


def test_there_is_an_end_to_how_many_execs_are_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container_exec, "EXECS_MAX", 1)
    knows = state(inventory())
    made(knows)
    full: list[Step] = [(LOOK, SEEN), ("refusal", RECORDED)]
    assert ask(knows, "POST", MADE, full, body=BODY).rule == "exec.too-many"
    at(knows, 60.1)  # what wasn't started by now never is
    made(knows)


def test_its_maker_sees_what_it_came_to_and_no_more() -> None:
    knows = state(inventory())
    made(knows)
    told = ask(knows, "GET", f"/exec/{EXEC}/json", [(LOOK_EXEC, exec_of(ExitCode=3))])
    assert told.json == {
        "ID": EXEC,
        "Running": False,
        "ExitCode": 3,
        "ContainerID": WEB,
        "ProcessConfig": {"entrypoint": "echo", "privileged": False},
    }
    resized = ask(knows, "POST", f"/exec/{EXEC}/resize?h=24&w=80", [])
    assert resized.value == Relay("POST", f"/exec/{EXEC}/resize?h=24&w=80")


# The end


def test_what_a_session_came_to_is_recorded_under_the_id_of_its_start() -> None:
    knows = state(inventory())
    made(knows)
    intent = begun(knows).entries[0]
    told = looked_after(knows, (LOOK_EXEC, exec_of(ExitCode=7)), ("operator", RECORDED))
    assert [(e.id, e.request["route"], e.result) for e in told.entries] == [
        (intent.id, "exec.end", {"exitCode": 7})
    ]
    assert knows.inventory.sessions == {}
    looked_after(knows)


def test_a_session_within_its_time_is_left_alone() -> None:
    knows = state(inventory())
    made(knows)
    begun(knows)
    looked_after(knows, (LOOK_EXEC, exec_of(Running=True, Pid=77)))
    looked_after(knows, (LOOK_EXEC, lost()))
    looked_after(knows, (LOOK_EXEC, reply({"message": "x"}, 500)))
    knows.execs.attached.add(EXEC)
    looked_after(knows)
    assert list(knows.inventory.sessions) == [EXEC]


def test_when_its_time_is_over_it_is_recorded_and_then_ended() -> None:
    knows = state(inventory())
    made(knows)
    begun(knows)
    knows.execs.attached.add(EXEC)
    at(knows, 3600.0)
    running = (LOOK_EXEC, exec_of(Running=True, Pid=77))
    looked_after(knows, running, ("operator", UNRECORDED))
    cut = looked_after(knows, running, ("operator", RECORDED), (EndProcess(77, WEB), ""))
    assert [(e.request["route"], e.result) for e in cut.entries] == [
        ("exec.cut", {"reason": "it took longer than 3600 s"})
    ]
    end = looked_after(knows, (LOOK_EXEC, exec_of(ExitCode=137)), ("operator", RECORDED))
    assert [e.result for e in end.entries] == [{"exitCode": 137, "cut": True}]
    assert (knows.inventory.sessions, knows.execs.end_attempts) == ({}, {})


def test_two_looks_at_once_record_each_event_of_a_session_once() -> None:
    knows = state(inventory())
    made(knows)
    begun(knows)
    at(knows, 3600.0)
    first, second = (container_exec.supervise(knows, EXEC) for _ in range(2))
    assert next(first) == LOOK_EXEC
    with pytest.raises(StopIteration):
        next(second)
    first.close()  # as a look that failed
    assert next(container_exec.supervise(knows, EXEC)) == LOOK_EXEC


def test_a_process_that_cannot_be_ended_is_told_and_not_tried_for_ever() -> None:
    knows = state(inventory())
    made(knows)
    begun(knows)
    at(knows, 3600.0)
    running = (LOOK_EXEC, exec_of(Running=True, Pid=77))
    told = looked_after(
        knows,
        running,
        ("operator", RECORDED),
        (EndProcess(77, WEB), "process 77 can't be reached"),
        ("operator", RECORDED),
    )
    left = "cut, and left running: process 77 can't be reached"
    assert told.entries[1].result == {"error": left, "cut": True}
    assert knows.inventory.sessions == {}


def test_one_that_the_engine_forgot_is_closed_as_that() -> None:
    knows = state(inventory())
    made(knows)
    begun(knows)
    told = looked_after(knows, (LOOK_EXEC, NOT_FOUND), ("operator", RECORDED))
    assert told.entries[0].result == {"error": "the engine doesn't have it any more"}


def test_a_session_of_an_earlier_broker_has_its_time_by_the_wall_clock() -> None:
    known = inventory(sessions={EXEC: ExecSession(EXEC, WEB, 0, "i9", TIME)})
    knows = state(known)
    running = (LOOK_EXEC, exec_of(Running=True, Pid=77))
    looked_after(knows, running)
    knows.clock.jumped = 3600.0  # type: ignore[attr-defined]
    looked_after(knows, running, ("operator", RECORDED), (EndProcess(77, WEB), ""))


def test_an_exec_whose_output_was_cut_is_no_success() -> None:
    """A client asks for the exit code when the output ends: there is none while the command goes on."""
    known = inventory(sessions={EXEC: ExecSession(EXEC, WEB, 0, "i9", TIME)})
    knows = state(known)
    target = f"/exec/{EXEC}/json"
    running = (LOOK_EXEC, exec_of(Running=True, Pid=77))
    told = ask(knows, "GET", target, [running, ("refusal", RECORDED)])
    assert (told.status, told.rule) == (409, "exec.interrupted")
    ended = ask(knows, "GET", target, [(LOOK_EXEC, exec_of(ExitCode=3))])
    assert (ended.status, ended.json["ExitCode"]) == (200, 3)
    detached = ExecSession(EXEC, WEB, 0, "i9", TIME, detached=True)
    shown = ask(state(inventory(sessions={EXEC: detached})), "GET", target, [running])
    assert (shown.status, shown.json["Running"]) == (200, True)


def test_a_start_whose_answer_was_lost_is_recovered_and_looked_after() -> None:
    knows = state(inventory())
    made(knows)
    told = start(
        knows,
        [(LOOK, SEEN), (LOOK_EXEC, exec_of()), ("intent", RECORDED), (ATTACHED, lost())],
    )
    assert (told.status, knows.inventory.sessions) == (504, {})
    identifier = told.entries[0].id
    at(knows, 11.0)
    closed = converse(settle(knows, identifier, earlier=None), [("recovered", RECORDED)], knows)
    assert closed.entries[0].result == {"settled": "unknown", "evidence": "none"}
    assert list(knows.inventory.sessions) == [EXEC]
    looked_after(knows, (LOOK_EXEC, exec_of(ExitCode=0)), ("operator", RECORDED))
    assert knows.inventory.sessions == {}


def test_sessions_are_in_the_snapshot() -> None:
    known = inventory(sessions={EXEC: ExecSession(EXEC, WEB, 0, "i9", TIME)})
    written = json.loads(json.dumps(to_json(known)))
    assert from_json(written).sessions == known.sessions


# Users by name


def made_as(user: str, *looks: Step, rules: dict[str, Any] | None = None) -> tuple[Told, Any]:
    """Create an exec as a user; return the answer, and the user that reached the engine."""
    sent, body = Sent(MADE), {"Cmd": ["id"], "User": user}
    knows = state(inventory(), policy=policy(**(rules or {})))
    running = reply(inspect(WEB, "alice-web", "alice", State={**SINCE, "Pid": 4242}))
    steps = [
        (LOOK, running),
        *looks,
        ("intent", RECORDED),
        (sent, MADE_EXEC),
        ("outcome", RECORDED),
    ]
    if not looks or looks[-1][0] != "refusal":
        answer = ask(knows, "POST", MADE, steps, body=body)
        return answer, sent.body.get("User")
    return ask(knows, "POST", MADE, [(LOOK, running), *looks], body=body), None


MADE_EXEC = reply({"Id": EXEC}, 201)
FILES = ReadAccounts(("/proc/4242/root/.",))
APP = Accounts("app:x:1000:1001\n", "disk:x:6:app\n")


def test_where_groups_are_bounded_a_user_by_name_is_looked_up_in_the_container() -> None:
    _, user = made_as("app", (FILES, APP))
    assert user == "1000:1001"
    _, user = made_as("1000")
    assert user == "1000:1000"
    _, user = made_as("app", rules={"security": {"groupAdd": True}})
    assert user == "app"


@pytest.mark.parametrize("found", [None, Accounts()])
def test_a_name_that_the_container_does_not_tell_is_refused_there(found: Accounts | None) -> None:
    answer, _ = made_as("app", (FILES, found), ("refusal", RECORDED))
    assert (answer.status, answer.rule) == (403, "user.groups")
