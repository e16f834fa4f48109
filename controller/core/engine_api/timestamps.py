"""Instants in the notation of the engine, and the end of a run at an instant."""

from __future__ import annotations

from datetime import datetime

from controller.model.observed import Ending

#: The engine's notation of no time: a container that never started or never ended.
ZERO_TIME = "0001-01-01T00:00:00Z"
#: The most seconds that a record precedes the end of its run; the two have different clocks.
_RECORDED_S = 2.0


def is_of_last_run(ending: Ending, finished_at: str) -> bool:
    """Return True if *ending* is the end of the run that ended at *finished_at*."""
    ended, recorded = seconds(finished_at), seconds(ending.time)
    return ended is not None and recorded is not None and ended <= recorded + _RECORDED_S


def seconds(instant: str) -> float | None:
    """Return an instant in the engine's notation (RFC 3339) in seconds since the epoch."""
    head, dot, tail = instant.partition(".")
    # datetime reads at most six digits of a second; the engine writes up to nine.
    digits = len(tail) - len(tail.lstrip("0123456789"))
    text = f"{head}.{tail[:digits][:6]}{tail[digits:]}" if dot else instant
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
