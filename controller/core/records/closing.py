"""Closing records: an intent with the record that closes it, and whether the mutation took effect.

The stage of a closing record is ``outcome``, or ``recovered`` after a crash.
"""

from __future__ import annotations

from dataclasses import dataclass

from controller.core.records.parts import RequestPart, ResultPart, SummaryPart
from controller.model.inventory import OpenIntent
from controller.model.records import Record

SWITCHING_PROTOCOLS = 101  # the engine handed over an exec's connection
#: The engine's answer to the start of a running container, or the stop of a stopped one.
NOT_MODIFIED = 304
_NOT_FOUND = 404


@dataclass(frozen=True, slots=True)
class Closing:
    """An intent with the record that closes it."""

    id: str
    seq: int  # of the intent
    role: str
    object: str
    summary: SummaryPart  # of the intent's request
    result: ResultPart
    recovered: bool
    applied: bool
    time: str = ""  # of the intent
    uid: int = -1

    @classmethod
    def of(cls, intent: OpenIntent, record: Record) -> Closing:
        """Return an intent together with its closing record."""
        request = RequestPart(intent.request)
        return cls(
            id=record.entry.id,
            seq=intent.seq,
            role=intent.role,
            object=request.object,
            summary=request.summary,
            result=ResultPart(record.entry.result),
            recovered=record.entry.stage == "recovered",
            applied=is_applied(record),
            time=intent.time,
            uid=intent.uid,
        )

    @property
    def is_gone(self) -> bool:
        """Return True if a removal succeeded, or found no object: both leave none."""
        return self.applied or self.result.status == _NOT_FOUND


def is_applied(record: Record) -> bool:
    """Return True if a closing record says that its intent took effect."""
    result = ResultPart(record.entry.result)
    if record.entry.stage == "recovered":
        return result.settled == "applied"
    status = result.status
    return status is not None and (
        200 <= status < 300 or status in {SWITCHING_PROTOCOLS, NOT_MODIFIED}
    )


def is_removed(record: Record) -> bool:
    """Return True if the closing record of a removal says that the object no longer exists."""
    return is_applied(record) or ResultPart(record.entry.result).status == _NOT_FOUND
