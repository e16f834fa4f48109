"""A batch: entries that get consecutive places in the chain, for one write."""

from __future__ import annotations

from controller.core.records.record import Prepared
from controller.model.records import Record


class Batch:
    """The records of one write, in order. None is durable yet, and the batch can be abandoned."""

    def __init__(self, *, seq: int, prev: str, time: str) -> None:
        self._seq = seq
        self._prev = prev
        self._time = time
        self.records: list[Record] = []
        self.lines: list[bytes] = []

    def add(self, prepared: Prepared) -> bytes:
        """Give an entry the next place in the chain; return its line, without the newline."""
        self._seq += 1
        record, line = prepared.seal(seq=self._seq, time=self._time, prev=self._prev)
        self._prev = record.hash
        self.records.append(record)
        self.lines.append(line)
        return line

    def data(self) -> bytes:
        """Return the lines as bytes to write."""
        return b"".join(line + b"\n" for line in self.lines)
