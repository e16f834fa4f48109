"""Instants as the engine writes them, and which end of a run an instant belongs to."""

from __future__ import annotations

from datetime import datetime

from controller.model.observed import Ending

#: The end of a run is recorded so many seconds before it, by another clock, at most.
_RECORDED_S = 2.0


def is_of_last_run(ending: Ending, finished_at: str) -> bool:
    """Return True if *ending* is that of the run that ended at *finished_at*."""
    ended, recorded = seconds(finished_at), seconds(ending.time)
    return ended is not None and recorded is not None and ended <= recorded + _RECORDED_S


def seconds(instant: str) -> float | None:
    """Return the seconds since the epoch of an instant as the engine writes it (RFC 3339)."""
    head, dot, tail = instant.partition(".")
    # datetime reads six digits of a second at most; the engine writes up to nine.
    digits = len(tail) - len(tail.lstrip("0123456789"))
    text = f"{head}.{tail[:digits][:6]}{tail[digits:]}" if dot else instant
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
