"""Dialogues with the gate: the commands it should give, each with the answer that it gets.

What is compared is whole: every command, in order, and the answer at the end.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl

from controller.broker.gate.commands import (
    Command,
    CommandResult,
    Forward,
    Lost,
    QueryJournal,
    ReadEngine,
    WriteRecord,
    encode_list,
)
from controller.broker.gate.state import GateState
from controller.core.records.inventory import fold
from controller.model.inventory import Inventory
from controller.model.policy.document import Policy
from controller.model.records import Actor, Entry, Record, Reply, Request, Role
from controller.ports import EngineFacts

POLICY = Policy(name="strict")
TIME = "2026-01-01T12:00:00.000Z"
NOON = 1767268800.0
INSTANCE = "i1"
ENGINE = EngineFacts("engine-1", "26.1.5", "1.45", 4, 8 * 1024**3)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.passed = 0.0
        self.jumped = 0.0

    def now(self) -> float:
        return NOON + self.passed + self.jumped

    def monotonic(self) -> float:
        return 1000.0 + self.passed


def state(
    inventory: Inventory | None = None, *, policy: Policy | None = None, start_seq: int = 0
) -> GateState:
    """Return a gate's state; ids are ``id-1``, ``id-2`` and so on."""
    count = 0

    def new_id() -> str:
        nonlocal count
        count += 1
        return f"id-{count}"

    return GateState(
        policy=policy or POLICY,
        inventory=inventory or Inventory(),
        instance=INSTANCE,
        engine=ENGINE,
        clock=Clock(),
        new_id=new_id,
        start_seq=start_seq,
        start_monotonic=1000.0,
    )


CONTROLLER = Actor(990, 990, 11, Role.CONTROLLER)
OPERATOR = Actor(0, 0, 12, Role.OPERATOR)
ALICE = Actor(1000, 1000, 13, Role.CLIENT, owner="alice")
BOB = Actor(1001, 1001, 14, Role.CLIENT, owner="bob")
#: base64url of {"cause":"c"}
CONTEXT = ("trimtab-context", "eyJjYXVzZSI6ImMifQ")


def request(
    method: str,
    target: str,
    *,
    actor: Actor = ALICE,
    body: object = None,
    headers: Sequence[tuple[str, str]] = (),
) -> Request:
    """Return a request; *body* is sent as JSON, bytes as they are."""
    path, _, query = target.partition("?")
    sent = tuple(headers)
    if actor.role is Role.CONTROLLER and not any(name == CONTEXT[0] for name, _ in sent):
        sent = (*sent, CONTEXT)
    if body is None:
        data = b""
    elif isinstance(body, bytes):
        data = body
    else:
        data = json.dumps(body).encode()
        sent = (*sent, ("content-type", "application/json"))
    return Request(method, path, query, sent, data, actor)


def reply(value: object, status: int = 200) -> Reply:
    """Return an engine's answer of JSON."""
    return Reply(status, json.dumps(value).encode(), (("content-type", "application/json"),))


NOT_FOUND = reply({"message": "no such object"}, 404)
NO_CONTENT = Reply(204)


@dataclass(frozen=True)
class _Journal:
    """Answers of a Write: recorded, or not (the journal can't be written)."""

    works: bool


RECORDED = _Journal(works=True)
UNRECORDED = _Journal(works=False)
#: What a step of a dialogue is: the command, and its answer.
Step = tuple[object, object]


@dataclass
class Told:
    """What came of a dialogue."""

    value: Any
    entries: list[Entry] = field(default_factory=list)

    @property
    def status(self) -> int:
        assert isinstance(self.value, Reply), self.value
        return self.value.status

    @property
    def json(self) -> Any:
        assert isinstance(self.value, Reply), self.value
        return json.loads(self.value.body)

    @property
    def rule(self) -> str:
        return str(self.json["trimtab"]["rule"])


def drive(
    steps: Generator[Command, CommandResult, Any], answer: Callable[[Command], CommandResult]
) -> Any:
    """Answer each command of the gate, and return its reply to the client."""
    given: CommandResult = None
    while True:
        try:
            command = steps.send(given)
        except StopIteration as stop:
            return stop.value
        given = answer(command)


def converse(
    steps: Generator[Command, CommandResult, Any], dialogue: Sequence[Step], knows: GateState
) -> Told:
    """Play a dialogue through to its end.

    A step's command is compared whole, the query of a read as a value; a ``WriteRecord`` only by its
    stage (its entry is in the result): ``("intent", RECORDED)``. A look at what the engine dropped of
    a create or an update finds nothing, unless the dialogue has the look as a step.
    """
    told = Told(None)
    rest = list(dialogue)
    changed: ReadEngine | None = None
    answer: CommandResult = None
    while True:
        try:
            command = steps.send(answer)
        except StopIteration as stop:
            assert not rest, f"the gate ended before {rest[0][0]!r}"
            told.value = stop.value
            return told
        if changed is not None and command == changed and not (rest and rest[0][0] == changed):
            changed, answer = None, NOT_FOUND
            continue
        assert rest, f"an unexpected command: {command!r}"
        expected, given = rest.pop(0)
        if isinstance(command, WriteRecord):
            assert expected == command.entry.stage, f"not {expected!r}: {command!r}"
            assert isinstance(given, _Journal)
            answer = record(knows, command.entry) if given.works else None
            told.entries.append(command.entry)
            continue
        # A step may judge the command by itself.
        same = command == expected or as_value(command) == as_value(expected)
        assert same, f"\nexpected {expected!r}\ngot      {command!r}"
        answer = shaped(command, given)
        changed = _look_after(command, answer)


def as_value(command: object) -> object:
    """Return a read with its query as a value: the order of names and of an object's members says nothing."""
    if not isinstance(command, ReadEngine):
        return command
    path, _, query = command.path.partition("?")
    pairs = sorted(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
    values = [(name, json.loads(text) if text.startswith("{") else text) for name, text in pairs]
    return replace(command, path=path), values


def _look_after(command: Command, answer: CommandResult) -> ReadEngine | None:
    """Return the look with which the gate learns what the engine dropped of a create or an update."""
    if not isinstance(command, Forward) or not isinstance(answer, Reply) or answer.status >= 400:
        return None
    path = command.path.partition("?")[0]
    if path == "/containers/create":
        return ReadEngine(f"/containers/{json.loads(answer.body)['Id']}/json")
    return ReadEngine(path.removesuffix("update") + "json") if path.endswith("/update") else None


def shaped(command: Command, given: object) -> CommandResult:
    """Return the answer to a command, as a driver shapes it."""
    rows = command.rows if isinstance(command, ReadEngine) else None
    if rows is not None and isinstance(given, Reply) and given.status < 400:
        try:
            return Reply(given.status, encode_list(rows, given.body), given.headers)
        except ValueError as error:
            return Lost(str(error), unreadable=True)
    return given  # type: ignore[return-value]


def record(knows: GateState, entry: Entry) -> Record:
    """Do what the books do: make a record and fold it."""
    # What a reader of the line sees, not what the gate goes on holding.
    seen = Entry(**json.loads(json.dumps(entry, default=vars_of)))
    made = Record(knows.inventory.seq + 1, TIME, seen, "", "")
    knows.inventory = fold(knows.inventory, made)
    knows.remember_time(entry.id)
    return made


def vars_of(entry: Entry) -> dict[str, object]:
    return {name: getattr(entry, name) for name in entry.__dataclass_fields__}


def lost(*, sent: bool = True) -> Lost:
    return Lost("the connection broke", sent=sent)


def at(knows: GateState, seconds: float) -> None:
    """Let time pass."""
    assert isinstance(knows.clock, Clock)
    knows.clock.passed += seconds


__all__ = [
    "ALICE",
    "BOB",
    "CONTROLLER",
    "NOT_FOUND",
    "NO_CONTENT",
    "OPERATOR",
    "RECORDED",
    "UNRECORDED",
    "QueryJournal",
    "as_value",
    "at",
    "converse",
    "lost",
    "replace",
    "reply",
    "request",
    "state",
]
