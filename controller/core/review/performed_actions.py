"""Performed actions, and how long the last replacement of a slot took."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from controller.model.desired.plan import AnyAction, StartContainer, StopContainer
from controller.model.names import Key

#: A longer interruption, in seconds, included a wait for something else.
DOWN_MAX_S = 600.0


@dataclass(frozen=True, slots=True)
class PerformedAction:
    """A performed action. ``error`` is the message of a failed action, and None after a success."""

    number: int
    #: Seconds since the epoch.
    at: float
    action: AnyAction
    error: str | None = None


def down_s(acts: Iterable[PerformedAction], key: Key) -> float | None:
    """Return for how long a slot was down when it was last stopped for its replacement, in seconds.

    The time is from the action before the stop until after the start. None if no such stop is
    known.
    """
    measured_s = None
    before: float | None = None
    began: dict[int, float | None] = {}
    for act in acts:
        if act.action.object != key:
            continue
        match act.action:
            case StopContainer(slot=slot):
                began[slot] = before
            case StartContainer(slot=slot) if (start := began.pop(slot, None)) is not None:
                measured_s = act.at - start if 0 <= act.at - start <= DOWN_MAX_S else measured_s
            case _:
                pass
        before = act.at
    return measured_s
