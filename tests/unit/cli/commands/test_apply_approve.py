"""An approval is of what goes: it holds while the rest of the plan moves on, and for nothing else."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
import pytest

from controller.cli.commands.apply import TRIES
from controller.settings import StateFolder
from tests.unit.cli.commands.test_service import Both, run
from tests.unit.cli.commands.test_service import state as state  # noqa: PLC0414 - a fixture

FIRST, SECOND, THIRD = "1" * 64, "2" * 64, "3" * 64
STATUS: dict[str, Any] = {"resources": [], "problems": []}
DONE = {
    "converged": True,
    "seconds": 1.5,
    "summary": {"text": "1 removed"},
    "acts": [{}],
    "status": STATUS,
}
#: What is done meanwhile, and how far pulls are.
PROGRESS: dict[str, Any] = {"acts": [], "last": 0, "working": {}}
CHANGED = {"error": {"code": "plan.changed", "message": "it is another one now", "remedy": "look"}}


def shown(digest: str, *going: str) -> dict[str, Any]:
    rows = [{"id": one, "service": "web", "container": one, "why": "gone"} for one in going]
    return {"plan": {"digest": digest}, "going": rows}


def item(identifier: str, **more: Any) -> dict[str, Any]:
    """An object, as the broker's inventory has it."""
    volume = identifier.startswith("volume:")
    return {
        "id": identifier,
        "kind": "volume" if volume else "container",
        "name": identifier.removeprefix("volume:") if volume else f"web.1-{identifier}",
        "namespace": "default",
        "service": "" if volume else "web",
        "owner": "team",
        "since": "2026-01-01T12:00:00Z",
        "intent": f"made-{identifier}",
        "mounts": ["web.1-a"] if volume else [],
        **more,
    }


class Scripted(Both):
    """A controller that answers its questions in this order, and the last ever again.

    The broker knows ``a`` to ``c`` and the volume ``data``; ``views`` are its answers about
    objects, by id, and each is used up by one look until the last.
    """

    def __init__(self, state: StateFolder, *answers: dict[str, Any]) -> None:
        self.answers = list(answers)
        self.views: list[dict[str, dict[str, Any]]] = [
            {each: item(each) for each in ("a", "b", "c", "volume:data")}
        ]
        #: The status and the body of the answers to approvals, in order; then all are taken.
        self.refusals: list[tuple[int, dict[str, Any]]] = []
        super().__init__(state, {}, {})

    def _record(self, peer: socket.socket) -> None:
        file = peer.makefile("rb")
        route = file.readline().split()[1].decode()
        length = 0
        while (line := file.readline().strip().lower()) != b"":
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        asked = json.loads(file.read(length))
        status, answer = 200, {"id": "record-1"}
        if route.endswith("/approvals"):
            answer = self._look(asked)
        else:
            self.said.append(("broker", asked))
            if self.refusals:
                status, answer = self.refusals.pop(0)
        data = json.dumps(answer).encode()
        head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(data)}\r\n\r\n"
        peer.sendall(head.encode() + data)

    def _look(self, asked: dict[str, Any]) -> dict[str, Any]:
        known = self.views.pop(0) if len(self.views) > 1 else self.views[0]
        objects = [known[each] for each in asked["objects"] if each in known]
        absent = [each for each in asked["objects"] if each not in known]
        unknown = [{"id": each, "why": "the broker doesn't know it"} for each in absent]
        digest = "-".join(each["intent"] for each in objects)
        return {"plan": asked["plan"], "objects": objects, "unknown": unknown, "digest": digest}

    def _control(self, peer: socket.socket) -> None:
        line = peer.makefile("rb").readline()
        if not line:  # somebody looks whether a controller is there
            return
        question = json.loads(line)
        if question["do"] == "progress":
            told = PROGRESS
        else:
            told = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            self.said.append(("controller", question.get("approved", question["do"])))
        peer.sendall(json.dumps(told).encode() + b"\n")


@contextmanager
def answering(state: StateFolder, *answers: dict[str, Any]) -> Iterator[Scripted]:
    both = Scripted(state, *answers)
    try:
        yield both
    finally:
        both.close()


def approved(both: Both) -> list[tuple[str, list[str]]]:
    """Return the approvals that were recorded: of which plan, for which containers."""
    return [(told["plan"], told["objects"]) for who, told in both.said if who == "broker"]


COMMANDS = (("approve", "--yes"), ("apply", "/d", "--approve-prune"))


@pytest.mark.parametrize("command", COMMANDS)
def test_it_holds_while_the_rest_of_the_plan_moves_on(
    state: StateFolder, command: tuple[str, ...]
) -> None:
    answers = (shown(FIRST, "a", "b"), CHANGED, shown(SECOND, "b", "a"), DONE)
    with answering(state, *answers) as both:
        assert run(state, *command) == 0
    assert approved(both) == [(FIRST, ["a", "b"]), (SECOND, ["a", "b"])]
    asked = [told for who, told in both.said if who == "controller"]
    assert asked == ["plan", FIRST, "plan", SECOND]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("now", [("a", "b", "c"), ("a", "c"), ("c",)])
def test_it_does_not_hold_once_something_else_would_go(
    state: StateFolder,
    command: tuple[str, ...],
    now: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:
    with answering(state, shown(FIRST, "a", "b"), CHANGED, shown(SECOND, *now), DONE) as both:
        assert run(state, *command) == 1
    assert approved(both) == [(FIRST, ["a", "b"])]
    assert "plan.changed" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("left", [(), ("a",)])
def test_it_holds_for_what_is_left_once_the_controller_removed_the_rest(
    state: StateFolder, command: tuple[str, ...], left: tuple[str, ...]
) -> None:
    """Another service was declared meanwhile, so that the last one may stop without an approval."""
    with answering(state, shown(FIRST, "a", "b"), CHANGED, shown(SECOND, *left), DONE) as both:
        assert run(state, *command) == 0
    first = (FIRST, ["a", "b"])
    assert approved(both) == ([first, (SECOND, ["a"])] if left else [first])


@pytest.mark.parametrize(
    "command", [("approve", FIRST, "--yes"), ("apply", "/d", "--plan", FIRST, "--approve-prune")]
)
def test_a_plan_that_was_reviewed_is_approved_or_none(
    state: StateFolder, command: tuple[str, ...]
) -> None:
    with answering(state, shown(FIRST, "a"), CHANGED, shown(SECOND, "a"), DONE) as both:
        assert run(state, *command) == 1
    assert approved(both) == [(FIRST, ["a"])]
    for path in (state.controller_socket, state.broker_socket):
        path.unlink()
    with answering(state, shown(SECOND, "a"), DONE) as both:
        assert run(state, *command) == 64
    assert approved(both) == []


def test_a_plan_that_never_rests_is_given_up(state: StateFolder) -> None:
    turns = [each for _ in range(TRIES) for each in (shown(THIRD, "a"), CHANGED)]
    with answering(state, *turns) as both:
        assert run(state, "approve", "--yes") == 1
    assert approved(both) == [(THIRD, ["a"])] * TRIES


def refusal(rule: str, reason: str) -> tuple[int, dict[str, Any]]:
    return 409, {"message": reason, "trimtab": {"rule": rule, "reason": reason, "remedy": "look"}}


def test_the_brokers_words_are_shown_and_the_controllers_as_claims(
    state: StateFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = shown(FIRST, "a", "volume:data", "x")
    for row in plan["going"]:
        row |= {"service": "Service/default/old-canary", "container": "old-canary.1-00000000"}
        row["why"] = "its document is gone\nroot# all is well"
    with answering(state, plan, DONE) as both:
        assert run(state, "approve", "--yes") == 0
    (told,) = [told for who, told in both.said if who == "broker"]
    assert (told["objects"], told["shown"]) == (["a", "volume:data"], "made-a-made-volume:data")
    out = capsys.readouterr().out
    assert "old-canary" not in out
    assert "root#" not in [line.split(" ")[0] for line in out.splitlines()]
    claim = "its document is gone\\u000aroot# all is well"
    assert out.splitlines()[:9] == [
        "SERVICE               CONTAINER   OWNER   SINCE                  THE CONTROLLER SAYS",
        f"Service/default/web   web.1-a     team    2026-01-01T12:00:00Z   {claim}",
        "Volumes, with all their data:",
        "VOLUME   NAMESPACE   OWNER   SINCE                  MOUNTED BY   THE CONTROLLER SAYS",
        f"data     default     team    2026-01-01T12:00:00Z   web.1-a      {claim}",
        "These can't be approved:",
        "ID   BECAUSE                      THE CONTROLLER SAYS",
        f"x    the broker doesn't know it   {claim}",
        f"plan {FIRST}",
    ]


def test_volumes_are_red_on_a_terminal(
    state: StateFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(click.utils, "should_strip_ansi", lambda *_: False)
    with answering(state, shown(FIRST, "a", "volume:data"), DONE):
        assert run(state, "approve", "--yes") == 0
    lines = capsys.readouterr().out.splitlines()
    red = [line for line in lines if line.startswith("\x1b[31m")]
    assert len(red) == 3
    assert any("data " in line for line in red)
    assert not any("web.1-a " in line and "default" not in line for line in red)


def test_json_has_the_same_fields(state: StateFolder, capsys: pytest.CaptureFixture[str]) -> None:
    with answering(state, shown(FIRST, "volume:data", "x"), DONE):
        assert run(state, "approve", "--yes", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["plan"] == FIRST
    assert told["approved"] == [
        {**item("volume:data"), "service": "", "container": "", "why": "gone"}
    ]
    assert told["unknown"] == [{"id": "x", "reason": "the broker doesn't know it", "why": "gone"}]
    assert told["converged"] is True


def test_nothing_but_unknown_objects_can_not_be_approved(
    state: StateFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(state, shown(FIRST, "x"), DONE) as both:
        assert run(state, "approve", "--yes") == 4
    assert approved(both) == []
    assert "Nothing of this can be approved." in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_an_object_that_changed_since_is_not_approved_unseen(
    state: StateFolder, command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    changed = refusal("approval.changed", "container web.1-a is another one")
    with answering(state, shown(FIRST, "a", "b"), shown(FIRST, "a", "b"), DONE) as both:
        both.refusals = [changed]
        both.views.append({"a": item("a", intent="again"), "b": item("b")})
        assert run(state, *command) == 4
    assert approved(both) == [(FIRST, ["a", "b"])]
    err = capsys.readouterr().err
    assert "approval.changed" in err
    assert "container web.1-a is another one" in err


@pytest.mark.parametrize("command", COMMANDS)
def test_objects_that_are_gone_meanwhile_leave_the_others_approved(
    state: StateFolder, command: tuple[str, ...]
) -> None:
    gone = refusal("approval.unknown", "a can't be approved: the broker doesn't know it")
    with answering(state, shown(FIRST, "a", "b"), shown(SECOND, "b"), DONE) as both:
        both.refusals = [gone]
        assert run(state, *command) == 0
    assert approved(both) == [(FIRST, ["a", "b"]), (SECOND, ["b"])]


def test_a_volume_needs_more_than_approve_prune(
    state: StateFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(state, shown(FIRST, "a", "volume:data"), DONE) as both:
        assert run(state, "apply", "/d", "--approve-prune") == 0
    (told,) = [told for who, told in both.said if who == "broker"]
    assert (told["objects"], told["shown"]) == (["a"], "made-a")
    assert "a removal or move of data needs 'trimtab approve'" in capsys.readouterr().out
