"""A walk along the chain: each record is checked to continue the one before it.

The writer walks its last segment when it opens, readers walk what they need, ``verify`` walks all.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Final

from controller.core.records.record import GENESIS, BadLine, parse
from controller.journal.store.pruned_base import BadBase, PrunedBase, read_base
from controller.journal.store.segments import (
    BadMark,
    BadSegment,
    DurableMark,
    Line,
    first_seq_of,
    list_segments,
    read_lines,
    read_mark,
)
from controller.model.records import Record

FORMAT = 1
#: Segments that are looked at for one record: somebody may have added one under a number in another.
_OVERLAPS_MAX: Final = 3


class ChainFault(StrEnum):
    """What kind of thing is wrong with a journal, by how it shows."""

    CHANGED = "changed"  # a record isn't as it was written, or doesn't continue the one before
    GAP = "gap"  # a record is missing, or stands where another belongs
    SIGNATURE = "signature"  # a checkpoint isn't signed by the key that it should be
    ROOT = "root"  # the records aren't those that were signed
    CUT = "cut"  # the end is missing
    UNREADABLE = "unreadable"
    LIFE = "life"  # an intent is closed twice, or without being there; an id is used again


class Damage(Exception):
    """The first place where the chain doesn't hold.

    ``seq`` is the record that belongs there; ``line`` counts from 1, ``offset`` in bytes.
    ``unreadable`` tells that no record could be read there, as opposed to a wrong one.
    """

    def __init__(
        self,
        reason: str,
        fault: ChainFault = ChainFault.CHANGED,
        *,
        seq: int,
        file: str,
        line: int,
        offset: int = 0,
        unreadable: bool = False,
    ) -> None:
        super().__init__(f"record {seq} ({file or 'no file'}, line {line}): {reason}")
        self.fault = fault
        self.seq = seq
        self.file = file
        self.line = line
        self.offset = offset
        self.reason = reason
        self.unreadable = unreadable


def binding(*, segment: int, seq: int, digest: str) -> dict[str, object]:
    """Return what a ``segment`` record says of the record before it, and of its segment.

    All are zeros in the first.
    """
    return {"segment": segment, "seq": seq, "hash": digest}


def binding_flaw(record: Record, *, segment: int) -> str:
    """Return what is wrong with a segment's first record, or ''.

    *segment* is the first seq of the segment before it. The record continues the one before.
    """
    if record.entry.result.get("format") != FORMAT:
        return "its segment's format isn't known to this version"
    expected = binding(segment=segment, seq=record.seq - 1, digest=record.prev)
    if record.entry.result.get("previous") != expected:
        return "its segment doesn't continue the one before it"
    return ""


class ChainWalk:
    """One reading of the journal, from its start or after a record, in constant memory.

    Iterating yields the records and raises ``Damage`` at the first place that doesn't hold. A last
    line that isn't finished is no damage unless the mark vouches for it: a writer may be at work,
    or was killed; ``unfinished`` then counts its bytes. ``seq`` and ``hash`` are those of the
    last record that was accepted, ``file``, ``line`` and ``offset`` the place right after it.
    """

    def __init__(self, folder: Path, *, after: int = 0) -> None:
        # The mark first: all that it vouches for is then in the segments that are listed.
        self._bad = ""
        self.mark: DurableMark | None = None
        self.base: PrunedBase | None = None
        try:
            self.mark = read_mark(folder)
            self.base = read_base(folder)
        except (BadMark, BadBase) as error:
            self._bad = str(error)
        self.segments = self._kept(list_segments(folder))
        self._after = after
        self.seq = 0
        self.hash = GENESIS
        self.data = b""
        self.file = ""
        self.line = 1
        self.offset = 0
        self.unfinished = 0

    def check_files(self) -> None:
        """Check what the writer keeps beside the segments.

        Raises:
            Damage: it isn't as the writer leaves it.
        """
        if self._bad:
            raise self.damage(self._bad)

    def __iter__(self) -> Iterator[Record]:
        self.check_files()
        start, skip = self._start()
        for index in range(start, len(self.segments)):
            yield from self._segment(index, skip)
            skip = 0
        if self._vouched(self.seq + 1):
            assert self.mark is not None
            text = f"it is missing: records up to {self.mark.seq} were durable"
            raise self.damage(text, ChainFault.CUT, unreadable=True)

    def hash_before(self) -> str:
        """Return the hash of the record to begin after.

        Raises:
            Damage: it isn't there.
        """
        self._start()
        return self.hash

    def damage(
        self, reason: str, fault: ChainFault = ChainFault.CHANGED, *, unreadable: bool = False
    ) -> Damage:
        """Return damage at the place right after the last accepted record."""
        return Damage(
            reason,
            fault,
            seq=self.seq + 1,
            file=self.file,
            line=self.line,
            offset=self.offset,
            unreadable=unreadable,
        )

    def _kept(self, segments: tuple[Path, ...]) -> tuple[Path, ...]:
        """Leave out what was pruned and is still there: a start got no further."""
        if self.base is None:
            return segments
        return tuple(path for path in segments if first_seq_of(path) > self.base.record.seq)

    def _start(self) -> tuple[int, int]:
        """Find the segment to begin with and the lines to skip; take the record before as given."""
        if self.base is not None and self._after <= self.base.record.seq:
            self.seq, self.hash = self.base.record.seq, self.base.record.hash
            return 0, 0
        holding = [i for i, path in enumerate(self.segments) if first_seq_of(path) <= self._after]
        if not holding or not self._after:
            return 0, 0
        found: Damage | None = None
        for index in holding[: -1 - _OVERLAPS_MAX : -1]:
            try:
                return index, self._skip_to(index)
            except Damage as damage:
                found = found or damage
        assert found is not None, "one was looked at"
        raise found

    def _skip_to(self, index: int) -> int:
        """Accept the record to begin after, in a segment; return how many lines lead there."""
        self.seq = self._after - 1
        skip = self._after - first_seq_of(self.segments[index])
        self._enter(index, skip)
        try:
            line = next(read_lines(self.segments[index], skip=skip), None)
        except BadSegment as error:
            raise self.damage(str(error), ChainFault.UNREADABLE, unreadable=True) from None
        if line is None or not line.whole:
            raise self.damage("it is missing", ChainFault.CUT)
        record = self._parsed(line)
        if record.seq != self._after:
            raise self.damage(f"it is record {record.seq}", ChainFault.GAP)
        self._accept(record, line)
        return skip + 1

    def _segment(self, index: int, skip: int) -> Iterator[Record]:
        self._enter(index, skip)
        path = self.segments[index]
        first = first_seq_of(path)
        if not skip and first != self.seq + 1:
            text = f"it is missing: the file begins with record {first}"
            raise self.damage(text, ChainFault.GAP)
        try:
            for line in read_lines(path, skip=skip):
                if not line.whole:
                    if index < len(self.segments) - 1 or self._vouched(self.seq + 1):
                        raise self.damage("its line is cut short", ChainFault.CUT, unreadable=True)
                    self.unfinished = path.stat().st_size - line.offset
                    return
                record = self._parsed(line)
                self._check_place(record, line, index)
                self._accept(record, line)
                yield record
        except BadSegment as error:
            raise self.damage(str(error), ChainFault.UNREADABLE, unreadable=True) from None

    def _enter(self, index: int, skip: int) -> None:
        self.file = self.segments[index].name
        self.line = skip + 1
        self.offset = 0 if not skip else self.offset

    def _parsed(self, line: Line) -> Record:
        try:
            return parse(line.data)
        except BadLine as error:
            raise self.damage(str(error), unreadable=True) from None

    def _check_place(self, record: Record, line: Line, index: int) -> None:
        if record.seq != self.seq + 1:
            raise self.damage(f"it is record {record.seq}", ChainFault.GAP)
        if record.prev != self.hash:
            raise self.damage("it doesn't continue the record before it (prev)")
        if (line.number == 1) != (record.entry.stage == "segment"):
            raise self.damage("a segment begins with its segment record, and has no other")
        if line.number == 1 and (flaw := binding_flaw(record, segment=self.before(index))):
            raise self.damage(flaw)
        if self.mark and record.seq == self.mark.seq and record.hash != self.mark.hash:
            raise self.damage("it isn't the record that was made durable")

    def before(self, index: int) -> int:
        """Return the first seq of the segment before the one at *index*; 0 where there is none."""
        if index:
            return first_seq_of(self.segments[index - 1])
        return self.base.segment if self.base is not None else 0

    def _accept(self, record: Record, line: Line) -> None:
        self.seq = record.seq
        self.hash = record.hash
        self.data = line.data
        self.line = line.number + 1
        self.offset = line.offset + len(line.data) + 1

    def _vouched(self, seq: int) -> bool:
        return self.mark is not None and seq <= self.mark.seq
