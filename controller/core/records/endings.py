"""Endings: who ended a container's last run, or removed the container, by the broker's journal.

The broker folds endings from its records. The controller reads them with the inventory. There is
no ending for a program that exits by itself, nor for a change past the gate.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from controller.model.mutations import Mutation
from controller.model.observed import Ending

#: The number of endings to keep; beyond it the oldest is dropped.
ENDINGS_MAX = 256
REASON_MAX = 300
#: Mutations that end a run, with the word for each in messages.
_ENDS: Mapping[str, str] = {
    Mutation.CONTAINER_STOP: "stopped",
    Mutation.CONTAINER_KILL: "killed",
    Mutation.CONTAINER_REMOVE: "removed",
}
_BEGINS = frozenset({Mutation.CONTAINER_START, Mutation.CONTAINER_RESTART})
#: Signals of a kill that ask a program to end.
_FATAL = frozenset({"", "KILL", "9", "TERM", "15", "INT", "2", "QUIT", "3"})


def update(
    endings: Mapping[str, Ending], ending: Ending, *, signal: object = ""
) -> Mapping[str, Ending]:
    """Return the endings after an applied mutation.

    *ending* describes the mutation: it counts only if the mutation ends a run. A start removes the
    container's ending. The broker's own stop after a violation does not replace the violation.
    """
    known = endings.get(ending.container)
    if ending.route in _BEGINS:
        return _without(endings, ending.container) if known is not None else endings
    name = str(signal or "").upper().removeprefix("SIG")
    if ending.route not in _ENDS or name not in _FATAL:
        return endings
    if ending.role == "broker" and known is not None:
        return endings
    return add(endings, ending)


def is_sure(signal: str) -> bool:
    """Return True if a signal ends a container whatever its program does with signals."""
    return signal.upper().removeprefix("SIG") in {"", "KILL", "9"}


def add(endings: Mapping[str, Ending], ending: Ending) -> Mapping[str, Ending]:
    """Return the endings with one added, and beyond the limit without the oldest."""
    grown = {**_without(endings, ending.container), ending.container: ending}
    return dict([*grown.items()][-ENDINGS_MAX:])


def violation(
    container: str, rules: Iterable[object], differences: Iterable[object], time: str
) -> Ending:
    """Return the ending of a container that the broker stops because its kernel state differs."""
    rule = next(iter(map(str, rules)), "effective.violated")
    reason = f"{rule}: {'; '.join(map(str, differences))}"[:REASON_MAX]
    return Ending(container, Mutation.CONTAINER_KILL, "broker", -1, time, reason)


def describe(ending: Ending) -> str:
    """Return the text after a container's name: ``was stopped by uid:0 through the gate``."""
    if ending.reason:
        return f"was ended by the broker: {ending.reason}"
    word = _ENDS[ending.route]
    match ending.role:
        case "controller":
            return f"was {word} by trimtab"
        case "broker":
            return f"was {word} by the broker"
        case _:
            return f"was {word} by uid:{ending.uid} through the gate"


def _without(endings: Mapping[str, Ending], container: str) -> dict[str, Ending]:
    return {each: ending for each, ending in endings.items() if each != container}
