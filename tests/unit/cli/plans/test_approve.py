"""An approval is of what goes: it holds while the rest of the plan moves on, and for nothing else."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from controller.cli.plans.approve import TRIES
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


class Scripted(Both):
    """A controller that answers its questions in this order, and the last ever again."""

    def __init__(self, state: StateFolder, *answers: dict[str, Any]) -> None:
        self.answers = list(answers)
        super().__init__(state, {}, {})

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
