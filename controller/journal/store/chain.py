"""A walk along the hash chain: each record must continue the record before.

The writer walks its last segment when it opens. Readers walk the part they need, and ``verify``
walks the whole chain.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Final

from controller.core.records.parts import ResultPart
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
#: Segments to search for one record. A stray file can bear a number inside another segment's range.
_OVERLAPS_MAX: Final = 3


class ChainFault(StrEnum):
    """The kinds of faults in a journal."""

    CHANGED = "changed"  # a record was changed, or doesn't continue the record before
    GAP = "gap"  # a record is missing, or stands in another's place
    SIGNATURE = "signature"  # a checkpoint isn't signed by the expected key
    ROOT = "root"  # the records differ from the signed ones
    CUT = "cut"  # the end is missing
    UNREADABLE = "unreadable"
    INVENTORY = "inventory"  # all records are good, an inventory file isn't the described one
    LIFE = "life"  # an intent is closed twice, or is missing; or an id is used again


class Damage(Exception):
    """The first place where the chain is broken.

    - ``seq``: the record expected at that place.
    - ``line``: counted from 1; ``offset``: in bytes.
    - ``unreadable``: True if no record could be read, False if a wrong record was read.
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
    """Return the member of a ``segment`` record that names the record before, and its segment.

    All values are zeros in the first segment of a journal.
    """
    return {"segment": segment, "seq": seq, "hash": digest}


def binding_flaw(record: Record, *, segment: int) -> str:
    """Return the fault in a segment's first record, or ''.

    *segment* is the first seq of the segment before. The caller has checked ``prev``.
    """
    result = ResultPart.read(record.entry.result)
    if result.format != FORMAT:
        return "its segment's format isn't known to this version"
    expected = binding(segment=segment, seq=record.seq - 1, digest=record.prev)
    if result.previous != expected:
        return "its segment doesn't continue the one before it"
    return ""


class ChainWalk:
    """One reading of the journal, from its start or after a record, in constant memory.

    Iterating yields the records, and raises ``Damage`` at the first broken place. An unfinished
    last line is damage only if the durable mark covers it: a writer can be at work, or was killed.

    - ``seq``, ``hash``, ``data``: the last accepted record, and its line.
    - ``file``, ``line``, ``offset``: the place right after the last accepted record.
    - ``unfinished``: the size in bytes of an unfinished last line.
    """

    def __init__(self, folder: Path, *, after: int = 0) -> None:
        # Read the mark before listing: the listed segments then hold every record it covers.
        self._bad_file = ""
        self.mark: DurableMark | None = None
        self.base: PrunedBase | None = None
        try:
            self.mark = read_mark(folder)
            self.base = read_base(folder)
        except (BadMark, BadBase) as error:
            self._bad_file = str(error)
        self.segments = self._without_pruned(list_segments(folder))
        self._after = after
        self.seq = 0
        self.hash = GENESIS
        self.data = b""
        self.file = ""
        self.line = 1
        self.offset = 0
        self.unfinished = 0

    def check_files(self) -> None:
        """Check the durable mark and the base of pruned segments.

        Raises:
            Damage: a file is not in the form in which the writer leaves it.
        """
        if self._bad_file:
            raise self.damage(self._bad_file)

    def __iter__(self) -> Iterator[Record]:
        self.check_files()
        start, skip = self._start()
        for index in range(start, len(self.segments)):
            yield from self._segment(index, skip)
            skip = 0
        if self._is_durable(self.seq + 1):
            assert self.mark is not None
            text = f"it is missing: records up to {self.mark.seq} were durable"
            raise self.damage(text, ChainFault.CUT, unreadable=True)

    def hash_before(self) -> str:
        """Return the hash of the record to begin after.

        Raises:
            Damage: the record is missing.
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

    def _without_pruned(self, segments: tuple[Path, ...]) -> tuple[Path, ...]:
        """Leave out pruned segments whose files are left: the process died before their removal."""
        if self.base is None:
            return segments
        return tuple(path for path in segments if first_seq_of(path) > self.base.record.seq)

    def _start(self) -> tuple[int, int]:
        """Return the index of the segment to begin with, and the number of lines to skip.

        The record before the first one read is trusted.
        """
        if self.base is not None and self._after <= self.base.record.seq:
            self.seq, self.hash = self.base.record.seq, self.base.record.hash
            return 0, 0
        holding = [i for i, path in enumerate(self.segments) if first_seq_of(path) <= self._after]
        if not holding or not self._after:
            return 0, 0
        first_damage: Damage | None = None
        for index in holding[: -1 - _OVERLAPS_MAX : -1]:
            try:
                return index, self._skip_to(index)
            except Damage as damage:
                first_damage = first_damage or damage
        assert first_damage is not None, "at least one segment was searched"
        raise first_damage

    def _skip_to(self, index: int) -> int:
        """Accept the record to begin after; return the number of lines up to and including it."""
        self.seq = self._after - 1
        skip = self._after - first_seq_of(self.segments[index])
        self._enter(index, skip)
        try:
            line = next(read_lines(self.segments[index], skip=skip), None)
        except BadSegment as error:
            raise self.damage(str(error), ChainFault.UNREADABLE, unreadable=True) from None
        if line is None or not line.whole:
            raise self.damage("it is missing", ChainFault.CUT)
        record = self._parse(line)
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
                    if index < len(self.segments) - 1 or self._is_durable(self.seq + 1):
                        raise self.damage("its line is cut short", ChainFault.CUT, unreadable=True)
                    self.unfinished = path.stat().st_size - line.offset
                    return
                record = self._parse(line)
                self._check_place(record, line, index)
                self._accept(record, line)
                yield record
        except BadSegment as error:
            raise self.damage(str(error), ChainFault.UNREADABLE, unreadable=True) from None

    def _enter(self, index: int, skip: int) -> None:
        self.file = self.segments[index].name
        self.line = skip + 1
        self.offset = 0 if not skip else self.offset

    def _parse(self, line: Line) -> Record:
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
        """Return the first seq of the segment before the segment at *index*; 0 if there is none."""
        if index:
            return first_seq_of(self.segments[index - 1])
        return self.base.segment if self.base is not None else 0

    def _accept(self, record: Record, line: Line) -> None:
        self.seq = record.seq
        self.hash = record.hash
        self.data = line.data
        self.line = line.number + 1
        self.offset = line.offset + len(line.data) + 1

    def _is_durable(self, seq: int) -> bool:
        return self.mark is not None and seq <= self.mark.seq
