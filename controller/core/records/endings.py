"""Endings: who ended a container's last run, or removed it, as far as the broker's journal shows.

The broker folds them from its records, and the controller reads them with the inventory. An ending
says nothing of an exit of the program's own, nor of what is done past the gate.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from controller.model.mutations import Mutation
from controller.model.observed import Ending

#: So many endings are kept; beyond that the oldest goes.
ENDINGS_MAX = 256
REASON_MAX = 300
#: Mutations that end a run, and the word for each.
_ENDS: Mapping[str, str] = {
    Mutation.CONTAINER_STOP: "stopped",
    Mutation.CONTAINER_KILL: "killed",
    Mutation.CONTAINER_REMOVE: "removed",
}
_BEGINS = frozenset({Mutation.CONTAINER_START, Mutation.CONTAINER_RESTART})
#: Signals of a kill that ask a program to end.
_FATAL = frozenset({"", "KILL", "9", "TERM", "15", "INT", "2", "QUIT", "3"})


def changed(
    endings: Mapping[str, Ending], ending: Ending, *, signal: object = ""
) -> Mapping[str, Ending]:
    """Return the endings after a mutation that took effect; *ending* is what it would be one of.

    A start forgets the ending before it. What the broker does to end a violation is no ending
    besides that violation.
    """
    known = endings.get(ending.container)
    if ending.route in _BEGINS:
        return _without(endings, ending.container) if known is not None else endings
    word = str(signal or "").upper().removeprefix("SIG")
    if ending.route not in _ENDS or word not in _FATAL:
        return endings
    if ending.role == "broker" and known is not None:
        return endings
    return added(endings, ending)


def added(endings: Mapping[str, Ending], ending: Ending) -> Mapping[str, Ending]:
    """Return the endings with one more."""
    kept = {**_without(endings, ending.container), ending.container: ending}
    return dict([*kept.items()][-ENDINGS_MAX:])


def violation(
    container: str, rules: Iterable[object], found: Iterable[object], time: str
) -> Ending:
    """Return the ending of a container that the broker ends, since it didn't run as admitted."""
    rule = next(iter(map(str, rules)), "effective.violated")
    reason = f"{rule}: {'; '.join(map(str, found))}"[:REASON_MAX]
    return Ending(container, Mutation.CONTAINER_KILL, "broker", -1, time, reason)


def describe(ending: Ending) -> str:
    """Return the words that follow a container's name: ``was stopped by uid:0 through the gate``."""
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
