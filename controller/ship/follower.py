"""Follow the journal: the durable records after a cursor, in order, each checked.

A record is read once the journal's mark covers the record: before, a crash can lose the record and
give its seq to another. Following ends with an error if a record doesn't continue the record before,
or differs from the record of the cursor: the journal was changed, or replaced by an older copy.
Following also ends if a record is missing, unless retention pruned the record: otherwise a hole
would look like an idle journal.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final, NamedTuple, cast

from controller.core.records.record import GENESIS, LINE_MAX_BYTES, BadLine, parse, parse_or_none
from controller.journal.store.chain import (
    BASE_MAX_BYTES,
    BASE_NAME,
    BadBase,
    PrunedBase,
    parse_base,
)
from controller.journal.store.segments import (
    COMPRESSED,
    MARK_NAME,
    UNPACK_ERRORS,
    BadMark,
    DurableMark,
    parse_mark,
)
from controller.model.errors import StateError
from controller.model.records import Record
from controller.ship.fd_server import JournalFiles

_MARK_READ: Final = 4096


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last delivered record; seq 0 before the first."""

    seq: int = 0
    hash: str = GENESIS


class Shipped(NamedTuple):
    """A record and its line, without a newline."""

    record: Record
    line: bytes

    @property
    def cursor(self) -> Cursor:
        """The cursor after this record."""
        return Cursor(self.record.seq, self.record.hash)


class Diverged(StateError):
    """The journal differs from the shipped records, or is incomplete.

    A single observation proves nothing: files can be moving at that moment.
    """


class Follower:
    """Reads on from a cursor. ``missing`` is the number of records pruned before they were read."""

    def __init__(self, files: JournalFiles, cursor: Cursor) -> None:
        self._files = files
        self._cursor = cursor
        self._segment: _Segment | None = None
        self._counted = 0  # the last record included in ``missing``
        self.missing = 0

    @property
    def cursor(self) -> Cursor:
        """The last record read."""
        return self._cursor

    def mark(self) -> DurableMark | None:
        """Return the mark of the last durable record, or None while there is no journal.

        Raises:
            Diverged: records were shipped, and the mark is missing or malformed.
            OSError: the mark can't be read, or is empty since the writer failed to write the mark.
        """
        try:
            handle = self._files.open(MARK_NAME)
        except FileNotFoundError:
            if self._cursor.seq:
                raise _diverged("its mark is gone") from None
            if not self._any_segment():
                return None
            raise OSError("its mark is missing, so nothing counts as durable") from None
        try:
            mark = parse_mark(os.pread(handle, _MARK_READ, 0))
        except BadMark as error:
            raise _diverged(f"its mark can't be read: {error}") from error
        finally:
            os.close(handle)
        if mark is None:
            raise OSError("its mark is empty, so nothing counts as durable")
        return mark

    def batch(self, mark: DurableMark, *, records: int, size: int) -> list[Shipped]:
        """Return the next records, at most *records* and about *size* bytes.

        Raises:
            Diverged: a record doesn't continue the record before, or is missing.
            OSError: the journal can't be read.
        """
        before = self._cursor
        if mark.seq == before.seq and mark.hash != before.hash:
            raise _diverged(f"record {before.seq} was shipped, and its mark knows another")
        if mark.seq <= before.seq:
            # After a loss of power the mark lags behind: check the last record itself.
            self._check_last_record()
            return []
        batch: list[Shipped] = []
        while self._cursor.seq < mark.seq and len(batch) < records and size > 0:
            shipped = self._next()
            if shipped is None:
                break
            batch.append(shipped)
            size -= len(shipped.line)
        if self._cursor.seq == mark.seq and self._cursor.hash != mark.hash:
            raise _diverged(f"record {mark.seq} isn't the one that its mark knows")
        if not batch:
            raise _diverged(f"it ends at {mark.seq}, and has no record {self._cursor.seq + 1}")
        return batch

    def rewind(self, cursor: Cursor) -> None:
        """Continue from another cursor."""
        self.close()
        self._cursor = cursor

    def close(self) -> None:
        """Close the open segment."""
        if self._segment is not None:
            self._segment.close()
            self._segment = None

    def _any_segment(self) -> bool:
        try:
            return bool(self._files.names())
        except FileNotFoundError:
            return False  # the folder is missing too

    def _check_last_record(self) -> None:
        """Check that the last shipped record still exists.

        Raises:
            Diverged: the record is missing, or another.
            OSError: the journal can't be read.
        """
        if self._segment is not None and not self._segment.is_there():
            self.close()  # compressed or removed since: look up the names again
        if self._segment is None:
            self._segment = self._open_segment()
        if self._segment is None:
            raise _diverged(f"record {self._cursor.seq} was shipped, and isn't there any more")

    def _next(self) -> Shipped | None:
        if self._segment is None:
            self._segment = self._open_segment()
        line = None if self._segment is None else self._segment.line()
        if line is None:
            # The segment's end, or a new writer opened another segment: look up the names again.
            following = self._open_segment(after=self._segment)
            if following is None:
                return None
            self.close()
            self._segment = following
            line = following.line()
        return None if line is None else self._check(line)

    def _open_segment(self, *, after: _Segment | None = None) -> _Segment | None:
        """Open the segment with the next record, at that record; return None if there is none."""
        wanted = self._cursor.seq + 1
        names = self._files.names()
        if not names:
            return None
        firsts = {int(name.partition(".")[0]): name for name in names}
        lowest = min(firsts)
        if lowest > wanted:
            self._skip_pruned(lowest)
            wanted = lowest
        first = max(number for number in firsts if number <= wanted)
        if after is not None and first == after.first:
            return None
        try:
            handle = self._files.open(firsts[first])
        except FileNotFoundError:
            return None  # compressed or pruned just now: the next look finds it
        segment = _Segment(handle, firsts[first], first)
        try:
            is_there = self._skip(segment, wanted - first)
        except BaseException:
            segment.close()
            raise
        if not is_there:
            segment.close()
            return None
        return segment

    def _skip(self, segment: _Segment, count: int) -> bool:
        """Skip *count* lines; return False if the segment has fewer.

        Raises:
            Diverged: the last skipped line is not the record of the cursor.
        """
        line: bytes | None = None
        for _ in range(count):
            line = segment.line()
            if line is None:
                return False
        record = None if line is None else parse_or_none(line)
        shipped_hash = record.hash if record is not None else ""
        if line is not None and self._cursor.hash and shipped_hash != self._cursor.hash:
            raise _diverged(f"record {self._cursor.seq} isn't the one that was shipped")
        return True

    def _skip_pruned(self, lowest: int) -> None:
        """Move to the first remaining record, and count each missing record once.

        Raises:
            Diverged: the records weren't removed by retention.
            OSError: the pruned base can't be read.
        """
        base = self._base()
        if base is None or base.record.seq < lowest - 1:
            until = base.record.seq if base is not None else 0
            raise _diverged(f"it begins at record {lowest}, and was pruned until {until}")
        self.missing += max(0, lowest - 1 - max(self._cursor.seq, self._counted))
        self._counted = max(self._counted, lowest - 1)
        # During a removal, the base can lie after the first remaining record: its prev is unknown.
        known = base.record.hash if base.record.seq == lowest - 1 else ""
        self._cursor = Cursor(lowest - 1, known)

    def _base(self) -> PrunedBase | None:
        """Return the pruned base, or None if nothing was pruned."""
        try:
            handle = self._files.open(BASE_NAME)
        except FileNotFoundError:
            return None
        with os.fdopen(handle, "rb") as file:
            try:
                return parse_base(file.read(BASE_MAX_BYTES))
            except BadBase as error:
                raise _diverged(f"the pruned records are unknown: {error}") from error

    def _check(self, line: bytes) -> Shipped:
        before = self._cursor
        try:
            record = parse(line)
        except BadLine as error:
            raise _diverged(f"record {before.seq + 1} is damaged: {error}") from error
        if record.seq != before.seq + 1 or (before.hash and record.prev != before.hash):
            raise _diverged(f"record {record.seq} doesn't follow the one that was read before it")
        shipped = Shipped(record, line)
        self._cursor = shipped.cursor
        return shipped


class _Segment:
    """An open segment, positioned at a line."""

    def __init__(self, handle: int, name: str, first: int) -> None:
        self.first = first
        self._name = name
        self._file = cast("BinaryIO", os.fdopen(handle, "rb"))
        self._reader = self._file
        if name.endswith(COMPRESSED):
            self._reader = cast("BinaryIO", gzip.GzipFile(fileobj=self._file))

    def line(self) -> bytes | None:
        """Return the next whole line, or None if there is none yet.

        Raises:
            Diverged: the line is too long, or the compressed segment is damaged.
        """
        try:
            place = self._reader.tell()
            line = self._reader.readline(LINE_MAX_BYTES + 2)
            if line.endswith(b"\n"):
                return line[:-1]
            if len(line) > LINE_MAX_BYTES:
                raise _diverged(f"{self._name} has a line of more than {LINE_MAX_BYTES} bytes")
            self._reader.seek(place)  # an unfinished line: a writer can be at work
        except UNPACK_ERRORS as error:
            raise _diverged(f"{self._name} is damaged: {error}") from error
        return None

    def is_there(self) -> bool:
        """Return True if the file is still in the folder, and no shorter than the bytes read."""
        facts = os.fstat(self._file.fileno())
        packed = self._reader is not self._file
        return facts.st_nlink > 0 and (packed or facts.st_size >= self._file.tell())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _diverged(why: str) -> Diverged:
    return Diverged(
        "ship.diverged",
        f"the journal differs from the shipped journal: {why}",
        remedy="find out who changed it ('trimtab journal verify'); to ship another journal from "
        "its beginning, remove the cursors in STATE/ship",
    )


def checkpoints(batch: list[Shipped]) -> Iterator[Shipped]:
    """Yield the checkpoints in a batch."""
    return (shipped for shipped in batch if shipped.record.entry.stage == "checkpoint")
