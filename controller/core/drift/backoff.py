"""Backoff: how long a slot with a failing container waits before the next attempt.

A failure is a container's own exit, a failed start, or a container that the broker ended for a
violation. A stop or removal from outside is drift, and ``core.drift.contention`` paces its repair.
Instants are seconds since the epoch, given by the caller. Histories outlive the controller, so no
clock that restarts can serve. After a clock that jumped back, no wait is longer than the longest
pause.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import AfterValidator, Field

from controller.core.encoding.stored_form import StoredForm

#: The pause after each failure in a row, in seconds. The last value repeats.
PAUSES_S = (1, 5, 10, 20, 40, 80, 160, 300)
#: A run this long, in seconds, clears the history.
RESET_AFTER_S = 600
#: This many failures within ``RESET_AFTER_S`` are a crash loop.
LOOP_FAILURES = 5
#: A bound for counts in a state file, above any useful value.
_COUNT_MAX = 1_000_000
_CAUSE_MAX = 300
_Cause = Annotated[str, AfterValidator(lambda cause: cause[:_CAUSE_MAX])]
_Instant = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, slots=True)
class SlotHistory:
    """The failures of one slot."""

    #: Failures in a row.
    count: Annotated[int, Field(ge=0, le=_COUNT_MAX)] = 0
    #: The instants of the last failures, at most ``LOOP_FAILURES``, oldest first.
    recent: Annotated[tuple[_Instant, ...], Field(max_length=LOOP_FAILURES)] = ()
    #: True once a crash loop was detected, until ten minutes pass in a run or without a
    #: failure. Pauses of five minutes would hide the loop otherwise: ten minutes have no room
    #: for five failures.
    crash_looping: bool = False
    #: The cause of the last failure, if known.
    cause: _Cause = ""
    #: The id of the broker's record if the last failure was a violation.
    violation: _Cause = ""


CLEAN = SlotHistory()
FORM = StoredForm(SlotHistory)


def record_failure(
    history: SlotHistory, now: float, *, up_s: float = 0.0, cause: str = "", violation: str = ""
) -> SlotHistory:
    """Return the history after a failure at *now* of a container with a run of *up_s* seconds.

    A failure without a known cause keeps the cause before. *violation* is the id of the broker's
    record if the broker ended the container.
    """
    before = reset_after_run(history, up_s)
    recent = (*_recent(before, now), now)[-LOOP_FAILURES:]
    return SlotHistory(
        count=min(before.count + 1, _COUNT_MAX),
        recent=recent,
        crash_looping=before.crash_looping or len(recent) >= LOOP_FAILURES,
        cause=(cause or before.cause)[:_CAUSE_MAX],
        violation=violation,
    )


def reset_after_run(history: SlotHistory, up_s: float) -> SlotHistory:
    """Return the history of a slot whose container has run for *up_s* seconds."""
    return CLEAN if up_s >= RESET_AFTER_S else history


def without_future(history: SlotHistory, now: float) -> SlotHistory:
    """Return the history with instants in the future set to *now*.

    Such an instant is from before the clock was set back. Store the result: otherwise the pause
    would restart at each observation, until the clock reaches the former time.
    """
    if all(at <= now for at in history.recent):
        return history
    return replace(history, recent=tuple(min(at, now) for at in history.recent))


def pause_s(history: SlotHistory) -> int:
    """Return the pause after the last failure, in seconds; 0 without a failure."""
    return PAUSES_S[min(history.count, len(PAUSES_S)) - 1] if history.count else 0


def not_before(history: SlotHistory, now: float) -> float:
    """Return the instant of the next attempt: at most *now* plus the pause."""
    if not history.recent:
        return 0.0
    return min(history.recent[-1], now) + pause_s(history)


def frequency(history: SlotHistory, now: float) -> str:
    """Return how often a slot failed: ``5 times in 10 min``, or ``8 times in a row`` for more."""
    if history.count == len(_recent(history, now)):
        return f"{history.count} times in {RESET_AFTER_S // 60} min"
    return f"{history.count} times in a row"


def is_crash_looping(history: SlotHistory, now: float) -> bool:
    """Return True if a slot is in a crash loop."""
    return history.crash_looping and bool(_recent(history, now))


def _recent(history: SlotHistory, now: float) -> tuple[float, ...]:
    # An instant in the future is from before the clock was set back: it counts as now.
    return tuple(min(at, now) for at in history.recent if now - at < RESET_AFTER_S)
