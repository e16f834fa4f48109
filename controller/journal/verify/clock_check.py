"""Jumps of the clock between records: back, or more than a year ahead.

Such a jump is no fault, since the broker records the time that its host has, and records are
ordered by their numbers. But times of records around a jump prove little.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from controller.core.records.record import is_clock_jump

#: The most jumps that are listed: a clock can jump with every record.
JUMPS_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class ClockJump:
    """A record whose time doesn't follow the time of the record before."""

    seq: int
    before: str  # the time of the record before
    time: str


class ClockCheck:
    """The first jumps of the clock, up to ``JUMPS_MAX``, and the time of the last record."""

    def __init__(self) -> None:
        self.jumps: list[ClockJump] = []
        self.first = ""  # time of the first record
        self.last = ""

    def observe(self, seq: int, time: str) -> None:
        """Compare the next record with the record before."""
        self.first = self.first or time
        if self.last and is_clock_jump(self.last, time):
            self.extend([ClockJump(seq, self.last, time)])
        self.last = time

    def join(self, seq: int, right: ClockCheck) -> None:
        """Append the check of the records from *seq* on."""
        if right.first:
            self.observe(seq, right.first)
            self.extend(right.jumps)
            self.last = right.last

    def take(self, upto: int) -> list[ClockJump]:
        """Remove and return the jumps up to a record."""
        taken = [each for each in self.jumps if each.seq <= upto]
        self.jumps = self.jumps[len(taken) :]
        return taken

    def extend(self, jumps: Iterable[ClockJump]) -> None:
        """Add jumps after the present ones."""
        self.jumps = [*self.jumps, *jumps][:JUMPS_MAX]
