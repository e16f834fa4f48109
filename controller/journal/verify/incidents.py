"""Incidents that records report: torn tails, outages, lost keys and rejected snapshots."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from controller.core.records.checkpoint import is_key_lost, read_key, rejected_snapshot
from controller.core.records.parts import ResultPart
from controller.model.records import Record


@dataclass(frozen=True, slots=True)
class Repair:
    """A recorded incident."""

    seq: int  # of the record
    what: str


def repairs_of_opening(record: Record) -> Iterator[Repair]:
    """Yield the torn tail and the outage that a segment record reports."""
    result = ResultPart.read(record.entry.result)
    repair, outage = result.repair, result.outage
    if repair.reason:
        lost = ", and an acknowledged record was lost" if repair.durable else ""
        what = f"{repair.bytes} torn bytes were moved aside: {repair.reason}{lost}"
        yield Repair(record.seq, what)
    if outage.since:
        what = f"not writable from {outage.since} to {record.time}: {outage.error}"
        yield Repair(record.seq, f"{what}; {outage.refused} entries refused")


def repairs_of_act(record: Record) -> Iterator[Repair]:
    """Yield a key that replaced a lost one, unsigned by the previous key, or a rejected snapshot."""
    if reason := rejected_snapshot(record):
        yield Repair(record.seq, reason)
    key = read_key(record)
    if key is not None and is_key_lost(record):
        what = (
            f"the key before was lost, so that it didn't sign for {key}, which signs from here on"
        )
        yield Repair(record.seq, what)
