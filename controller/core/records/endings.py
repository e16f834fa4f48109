"""Endings: who ended a container's last run, or removed the container.

The broker folds endings from its records. The controller reads them with the inventory. There is
no ending for a program that exits by itself. For a stop past the gate the journal has none either:
the controller adds it to a snapshot if the engine's events showed the stop (``with_asked``).

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from controller.core.engine_api.timestamps import seconds
from controller.model.mutations import Mutation
from controller.model.observed import Container, ContainerState, Ending, Observed

#: The number of endings to keep; beyond it the oldest is dropped.
ENDINGS_MAX = 256
REASON_MAX = 300
#: The role of an ending past the gate, which no record has.
OUTSIDE = "outside"
#: The grace period of a container without one of its own.
_GRACE_S = 10
#: Seconds between the end of a run and its record or event: the times are of several places.
_APART_S = 2.0
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


def is_asked(action: str, signal: str) -> bool:
    """Return True if an event of the engine shows that somebody asked a container to end.

    *signal* is the number in the event of a kill. A program that ends by itself only dies.
    """
    return action == "stop" or (action == "kill" and signal != "" and signal in _FATAL)


def with_asked(observed: Observed, asked: Mapping[str, int]) -> Observed:
    """Return a snapshot with an ending for each container that ended as *asked* past the gate.

    *asked* is the time of the last such event by the container's id, in nanoseconds since the epoch.
    """
    stop = Mutation.CONTAINER_STOP
    ended = {
        each.id: replace(each, ending=Ending(each.id, stop, OUTSIDE, -1, each.finished_at))
        for each in observed.containers
        if each.id in asked
        and _ended_as_asked(each, asked[each.id] / 1e9, observed.endings.get(each.id))
    }
    if not ended:
        return observed
    containers = tuple(ended.get(each.id, each) for each in observed.containers)
    return replace(observed, containers=containers)


def _ended_as_asked(container: Container, asked: float, recorded: Ending | None) -> bool:
    """Return True if a container's last run ended soon after *asked*, and the gate did not ask."""
    started, ended = seconds(container.started_at), seconds(container.finished_at)
    is_down = container.state is ContainerState.EXITED and container.ending is None
    if not is_down or container.oom_killed or started is None or ended is None:
        return False
    if recorded is not None and (seconds(recorded.time) or 0.0) >= asked - _APART_S:
        return False
    grace_s = _GRACE_S if container.stop_grace_s is None else container.stop_grace_s
    return started <= asked <= ended + _APART_S and ended <= asked + grace_s + _APART_S


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
