"""Backoff: how long a slot whose container fails is left alone before it is tried again.

A failure is a container's own exit, a start that failed, or a container that the broker ended for a
violation. One that was removed or stopped from outside is drift, and ``core.drift.contention``'s to pace. Instants are seconds since the epoch, given by
the caller: histories outlive the controller, so they can't rest on a clock that starts anew. A
clock that jumped back never makes a wait longer than the longest pause from the next look on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

#: The pause after each failure in a row, in seconds; the last one holds for all that follow.
PAUSES_S = (1, 5, 10, 20, 40, 80, 160, 300)
#: Having run this long, a container starts with a clean slate.
RESET_AFTER_S = 600
#: So many failures within ``RESET_AFTER_S`` are a crash loop.
LOOP_FAILURES = 5
#: More than any pause can need: a bound for what a state file may claim.
_COUNT_MAX = 1_000_000
_CAUSE_MAX = 300


@dataclass(frozen=True, slots=True)
class SlotHistory:
    """The failures of one slot: how many in a row, when the last ones were, and why the last one
    was, as far as anybody saw it.

    ``crash_looping`` stays once a crash loop was seen, until a run of ten minutes or as long without a
    failure: with pauses of five minutes, five failures don't fit into ten any more.
    """

    count: int = 0
    recent: tuple[float, ...] = ()  # the last LOOP_FAILURES at most, oldest first
    crash_looping: bool = False
    cause: str = ""
    violation: str = ""  # the record for which the broker ended it the last time, if it did


CLEAN = SlotHistory()


def record_failure(
    history: SlotHistory, now: float, *, up_s: float = 0.0, cause: str = "", violation: str = ""
) -> SlotHistory:
    """Return the history after one more failure at *now*, of a container that ran for *up_s*.

    A failure that nobody saw a cause of is taken to have that of the one before. *violation* is the
    record of the broker's that ended the container.
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
    """Return the history of a slot whose container runs since *up_s* seconds."""
    return CLEAN if up_s >= RESET_AFTER_S else history


def without_future(history: SlotHistory, now: float) -> SlotHistory:
    """Return the history as of a look: a failure in the future is one before the clock was set back.

    It counts as of now, and so must be remembered: else its pause would begin anew at each look, until
    the clock is where it was.
    """
    if all(at <= now for at in history.recent):
        return history
    return replace(history, recent=tuple(min(at, now) for at in history.recent))


def pause_s(history: SlotHistory) -> int:
    """Return the pause after the last failure, in seconds; 0 without one."""
    return PAUSES_S[min(history.count, len(PAUSES_S)) - 1] if history.count else 0


def not_before(history: SlotHistory, now: float) -> float:
    """Return the instant before which the slot isn't tried; never after *now* and the pause."""
    if not history.recent:
        return 0.0
    return min(history.recent[-1], now) + pause_s(history)


def frequency(history: SlotHistory, now: float) -> str:
    """Return how often a slot failed: ``5 times in 10 min``, and more as ``8 times in a row``."""
    if history.count == len(_recent(history, now)):
        return f"{history.count} times in {RESET_AFTER_S // 60} min"
    return f"{history.count} times in a row"


def is_crash_looping(history: SlotHistory, now: float) -> bool:
    """Tell whether a slot is in a crash loop."""
    return history.crash_looping and bool(_recent(history, now))


def _recent(history: SlotHistory, now: float) -> tuple[float, ...]:
    # A failure in the future is one before the clock was set back: it counts as of now.
    return tuple(min(at, now) for at in history.recent if now - at < RESET_AFTER_S)


def to_json(history: SlotHistory) -> dict[str, object]:
    """Return a history as JSON, in whole milliseconds."""
    return {
        "count": history.count,
        "recentMs": [round(at * 1000) for at in history.recent],
        "looping": history.crash_looping,
        **({"cause": history.cause} if history.cause else {}),
        **({"violation": history.violation} if history.violation else {}),
    }


def from_json(value: Mapping[str, object]) -> SlotHistory:
    """Read back what ``to_json`` wrote.

    Raises:
        ValueError: *value* isn't a history.
    """
    match value:
        case {"count": int(count), "recentMs": list(recent), "looping": bool(crash_looping)}:
            pass
        case _:
            raise ValueError(f"not a slot's history: {value!r}")
    cause = value.get("cause", "")  # files of earlier versions have none
    fits = 0 <= count <= _COUNT_MAX and len(recent) <= LOOP_FAILURES
    if (
        not fits
        or not isinstance(cause, str)
        or not all(type(at) is int and at >= 0 for at in recent)
    ):
        raise ValueError(f"not a slot's history: {value!r}")
    return SlotHistory(
        count=count,
        recent=tuple(at / 1000 for at in recent),
        crash_looping=crash_looping,
        cause=cause[:_CAUSE_MAX],
        violation=str(value.get("violation", ""))[:_CAUSE_MAX],
    )
