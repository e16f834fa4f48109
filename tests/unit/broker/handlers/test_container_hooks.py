"""Hooks, command by command: the recorded ones alone, within their time, each end in the journal."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from controller.broker.dispatch import handle
from controller.broker.gate import redact
from controller.broker.gate.commands import (
    Command,
    CommandResult,
    EndProcess,
    Forward,
    InspectPaths,
    ReadAccounts,
    ReadEngine,
    ReadProcess,
    WriteRecord,
)
from controller.broker.gate.state import GateState
from controller.broker.handlers import container_exec, container_hooks
from controller.core.effective import Accounts
from controller.model.confinement import NotReadable
from controller.model.inventory import ExecSession, OpenIntent
from controller.model.observed import HOOKS_PENDING, HOOKS_SUCCEEDED
from controller.model.records import Entry, Reply
from tests.unit.broker.dialogue import (
    NO_CONTENT,
    OPERATOR,
    Clock,
    drive,
    record,
    reply,
    request,
    state,
)
from tests.unit.broker.world import SERVICE, SLOT, inspect, inventory

KEY = b"k" * 32
TEXT = (
    '{"PostStart":[{"Cmd":["warm","hunter2"],"TimeoutMs":5000}],'
    '"PreStop":[{"Cmd":["drain"],"TimeoutMs":60000}]}'
)
SUCCEEDED, FAILED = "succeeded", "failed"


def knows(text: str = TEXT, post_start: str = HOOKS_PENDING) -> GateState:
    """Return a gate whose controller's container has hooks."""
    known = inventory()
    item = known.containers[SLOT]
    digest = redact.keyed_digest(KEY, [text])
    item = replace(item, hooks=digest, post_start=post_start)
    gate = state(replace(known, containers={**known.containers, SLOT: item}))
    gate.hash_key = KEY
    return gate


class Engine:
    """An engine in which execs end with the codes of ``codes`` by program; None never ends."""

    def __init__(self, gate: GateState, *, label: str = TEXT, **codes: int | None) -> None:
        self.gate, self.label, self.codes = gate, label, codes
        self.running = True
        self.entries: list[Entry] = []
        self.asked: list[str] = []
        self.deadlines: list[float] = []
        self.made: list[tuple[str, ...]] = []
        self.users: list[str] = []
        self.accounts: Accounts | None = None
        self.ended = False

    def answer(self, command: Command) -> CommandResult:
        """Carry a command out."""
        match command:
            case WriteRecord(entry):
                self.entries.append(entry)
                return record(self.gate, entry)
            case ReadEngine(path):
                assert isinstance(self.gate.clock, Clock)
                self.gate.clock.passed += command.after_s
                return reply(self._exec() if path.startswith("/exec/") else self._container())
            case Forward(_, path, body):
                self.asked.append(path)
                self.deadlines.append(command.deadline_s)
                if path.endswith("/exec"):
                    self.made.append(tuple(json.loads(body)["Cmd"]))
                    self.users.append(json.loads(body).get("User", ""))
                    return reply({"Id": f"{len(self.made):064x}"}, 201)
                return NO_CONTENT
            case EndProcess():
                self.ended = True
                return ""
            case ReadProcess():
                return NotReadable("not here")
            case ReadAccounts():
                return self.accounts
            case InspectPaths():
                return ()
            case _:
                raise AssertionError(f"unexpected: {command!r}")

    def _exec(self) -> dict[str, Any]:
        code = self.codes.get(self.made[-1][0])
        return {"Running": code is None, "ExitCode": code, "Pid": 7, "ContainerID": SLOT}

    def _container(self) -> dict[str, Any]:
        shown = inspect(SLOT, SERVICE, "team")
        labels = {**shown["Config"]["Labels"], "io.trimtab.hooks": self.label}
        shown["Config"] = {**shown["Config"], "Labels": labels, "StopTimeout": 10}
        return shown | {"State": {"Running": self.running, "Status": "running"}}

    @property
    def results(self) -> list[tuple[str, str, str]]:
        """The records of hooks: the event, the outcome and the reason."""
        ends = [e for e in self.entries if e.request.get("route") == "hook.end"]
        summaries: list[Any] = [e.request["summary"] for e in ends]
        return [
            (s["hook"], s["outcome"], str(e.result.get("reason", "")))
            for s, e in zip(summaries, ends, strict=True)
        ]


def completed(gate: GateState, engine: Engine) -> str:
    """Run the hooks of the start, and return what the inventory has of them."""
    drive(container_hooks.complete(gate, SLOT), engine.answer)
    return gate.inventory.containers[SLOT].post_start


def stopped(gate: GateState, engine: Engine, target: str = "stop") -> Reply:
    asked = request("POST", f"/containers/{SLOT}/{target}", actor=OPERATOR)
    told: Reply = drive(handle(asked, gate), engine.answer)
    return told


def test_a_start_is_complete_once_its_hooks_succeeded() -> None:
    gate = knows()
    engine = Engine(gate, warm=0)
    assert completed(gate, engine) == HOOKS_SUCCEEDED
    assert engine.made == [("warm", "hunter2")]
    assert engine.results == [("postStart", SUCCEEDED, "")]
    assert "hunter2" not in repr(engine.entries)
    assert gate.inventory.sessions == {}
    assert [e.stage for e in engine.entries] == [
        *("intent", "outcome", "intent", "outcome", "operator", "operator")
    ]


def test_a_failing_hook_is_the_reason_that_a_container_is_not_ready() -> None:
    gate = knows()
    assert completed(gate, Engine(gate, warm=3)) == "postStart hook 1 (warm) exited with 3"


def test_a_hook_that_takes_too_long_is_ended() -> None:
    gate = knows()
    engine = Engine(gate, warm=None)
    assert completed(gate, engine) == "postStart hook 1 (warm) took longer than 5 s"
    assert engine.ended
    assert isinstance(gate.clock, Clock)
    assert round(gate.clock.passed, 3) == 5


def test_hooks_of_another_label_than_the_recorded_one_are_not_run() -> None:
    gate = knows()
    engine = Engine(gate, label=TEXT.replace("warm", "evil"), evil=0)
    assert "isn't the recorded one" in completed(gate, engine)
    assert engine.made == []


NAMED = '{"PostStart":[{"Cmd":["warm"],"TimeoutMs":5000,"User":"app"}]}'


def test_where_groups_are_bounded_a_hook_runs_with_the_numbers_of_its_user() -> None:
    gate = knows(NAMED)
    engine = Engine(gate, label=NAMED, warm=0)
    engine.accounts = Accounts("app:x:1000:1001\n", "disk:x:6:app\n")
    assert completed(gate, engine) == HOOKS_SUCCEEDED
    assert engine.users == ["1000:1001"]


def test_a_hook_of_a_user_that_the_container_does_not_tell_is_refused_there() -> None:
    gate = knows(NAMED)
    engine = Engine(gate, label=NAMED, warm=0)
    assert "is refused by the policy: User: only the image says" in completed(gate, engine)
    assert engine.made == []


def with_session(gate: GateState, *, hook: str) -> GateState:
    session = ExecSession("e", SLOT, 0, "i", "2026-01-01T11:59:30Z", hook)
    gate.inventory = replace(gate.inventory, sessions={"e": session})
    return gate


def test_hooks_wait_for_a_hook_of_an_earlier_broker_and_for_no_exec() -> None:
    gate = with_session(knows(), hook="postStart")
    engine = Engine(gate, warm=0)
    assert drive(container_hooks.complete(gate, SLOT), engine.answer) is True
    assert engine.made == []
    gate = with_session(knows(), hook="")
    assert completed(gate, Engine(gate, warm=0)) == HOOKS_SUCCEEDED


def supervised(gate: GateState, engine: Engine) -> bool:
    """Return True if the reaper of execs ends the hook."""
    engine.made.append(("warm",))
    drive(container_exec.supervise(gate, "e"), engine.answer)
    return engine.ended


def test_a_hook_of_an_earlier_broker_is_ended_after_the_time_of_hooks() -> None:
    gate = with_session(knows(), hook="postStart")
    assert not supervised(gate, Engine(gate, warm=None))
    assert isinstance(gate.clock, Clock)
    gate.clock.passed = 60
    assert supervised(gate, Engine(gate, warm=None))


def test_a_broker_that_runs_for_long_ends_no_hook_of_its_own_early() -> None:
    gate = with_session(knows(), hook="postStart")
    gate.execs.attached.add("e")
    assert isinstance(gate.clock, Clock)
    gate.clock.passed = 100_000
    assert not supervised(gate, Engine(gate, warm=None))


def test_the_end_of_hooks_of_an_earlier_start_says_nothing_about_a_later_start() -> None:
    gate = knows()
    engine = Engine(gate, warm=137)
    restarted = False

    def answer(command: Command) -> CommandResult:
        nonlocal restarted
        if isinstance(command, ReadEngine) and command.path.startswith("/exec/") and not restarted:
            restarted = True  # meanwhile an operator restarts the container, and its hooks succeed
            later = Engine(gate, warm=0)
            run = container_hooks.run_post_start(gate, SLOT, gate.policy, has_started=True)
            drive(run, later.answer)
            assert later.results == [("postStart", SUCCEEDED, "")]
        return engine.answer(command)

    drive(container_hooks.complete(gate, SLOT), answer)
    assert engine.results == []
    assert gate.inventory.containers[SLOT].post_start == HOOKS_SUCCEEDED


def test_a_second_start_lets_nobody_else_run_the_hooks_of_the_first() -> None:
    gate = knows()
    with container_hooks.reserved(gate, SLOT):
        with container_hooks.reserved(gate, SLOT):
            pass
        assert drive(container_hooks.complete(gate, SLOT), Engine(gate).answer) is True
    assert not gate.execs.hooked


def test_hooks_wait_for_the_outcome_of_a_start() -> None:
    """A lost reply: only recovery knows, after the event of the start, that hooks are due."""
    gate = knows(post_start=HOOKS_SUCCEEDED)
    request: dict[str, object] = {"route": "container.start", "object": SLOT}
    intent = OpenIntent(seq=9, time="2026-01-01T11:59:30Z", role="controller", request=request)
    gate.inventory = replace(gate.inventory, open={"id-9": intent})
    assert drive(container_hooks.complete(gate, SLOT), Engine(gate).answer) is True
    gate.inventory = replace(gate.inventory, open={})
    assert drive(container_hooks.complete(gate, SLOT), Engine(gate).answer) is False


def _grace_left(engine: Engine) -> str:
    return engine.asked[-1].partition("?")[2]


def test_a_stop_comes_after_its_hooks_and_has_the_rest_of_the_grace_period() -> None:
    gate = knows(post_start=HOOKS_SUCCEEDED)
    engine = Engine(gate, drain=0)
    assert stopped(gate, engine).status == 204
    assert engine.made == [("drain",)]
    assert _grace_left(engine) == "t=9"
    assert engine.entries[0].request["route"] == "container.stop"  # counted before the hooks run
    assert engine.results == [("preStop", SUCCEEDED, "")]


def test_a_hook_that_hangs_or_fails_does_not_hold_up_a_stop() -> None:
    for code, reason in ((None, "took longer than 8 s"), (1, "exited with 1")):
        gate = knows(post_start=HOOKS_SUCCEEDED)
        engine = Engine(gate, drain=code)
        assert stopped(gate, engine).status == 204
        assert engine.results == [("preStop", FAILED, f"preStop hook 1 (drain) {reason}")]
        assert engine.deadlines[:2] == [8, 8]  # nor does an engine that doesn't answer
        assert _grace_left(engine) == ("t=2" if code is None else "t=9")


def test_a_second_stop_waits_for_the_hooks_of_the_first_within_its_own_time() -> None:
    gate = knows(post_start=HOOKS_SUCCEEDED)
    engine, second = Engine(gate, drain=0), Engine(gate, drain=0)

    def answer(command: Command) -> CommandResult:
        if (
            isinstance(command, ReadEngine)
            and command.path.startswith("/exec/")
            and not second.asked
        ):
            assert stopped(gate, second).status == 204
        return engine.answer(command)

    drive(handle(request("POST", f"/containers/{SLOT}/stop", actor=OPERATOR), gate), answer)
    assert (engine.made, second.made) == ([("drain",)], [])
    assert _grace_left(second) == "t=2"
    assert not gate.execs.stopping


def _without_hooks(act: Callable[[GateState, Engine], Reply]) -> None:
    gate = knows(post_start=HOOKS_SUCCEEDED)
    engine = Engine(gate)
    assert act(gate, engine).status == 204
    assert engine.made == []


def test_a_kill_and_a_stop_without_grace_run_no_hook() -> None:
    _without_hooks(lambda gate, engine: stopped(gate, engine, "kill"))
    _without_hooks(lambda gate, engine: stopped(gate, engine, "stop?t=0"))
