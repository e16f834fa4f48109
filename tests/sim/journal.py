"""The broker's journal in memory: the real line form and chain, on a disk that can be full."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from controller.core.records.record import GENESIS, parse, prepare, timestamp
from controller.model.errors import JournalUnavailable
from controller.model.records import Entry, Record
from tests.sim.clock import VirtualClock


class SimJournal:
    """A ``ports.Journal``. What it returned is durable: it outlives every broker."""

    def __init__(self, clock: VirtualClock, written: Callable[[Record, bytes], None]) -> None:
        self._clock = clock
        self._written = written
        self._records: list[Record] = []
        self.full = False

    def append(self, entry: Entry) -> Record:
        if self.full:
            raise JournalUnavailable("journal.unwritable", "No space left on device")
        record, line = prepare(entry).seal(
            seq=len(self._records) + 1,
            time=timestamp(self._clock.now()),
            prev=self._records[-1].hash if self._records else GENESIS,
        )
        assert parse(line) == record, "a record isn't what its line says"
        self._records.append(record)
        self._written(record, line)
        return record

    def records(self, *, after: int = 0) -> Iterator[Record]:
        yield from self._records[after:]

    def lose(self) -> None:
        """Begin anew, with nothing."""
        self._records = []

    @property
    def last_seq(self) -> int:
        return len(self._records)
