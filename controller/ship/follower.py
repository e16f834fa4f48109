"""Following the journal: its durable records after a cursor, in order, each checked.

A record counts once the journal's mark says that it is durable: what is written and not yet
synced may be gone after a crash, and another may take its number. A record that doesn't follow the
one before, or isn't the one that the cursor knows, ends the following: somebody changed the
journal, or put an older one in its place. So does one that should be there and isn't, unless
retention says that it removed it: a hole looks like a journal at rest to whoever only waits.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final, NamedTuple, cast

from controller.core.records.record import GENESIS, LINE_MAX_BYTES, BadLine, parse
from controller.journal.store.pruned_base import (
    BASE_MAX_BYTES,
    BASE_NAME,
    BadBase,
    PrunedBase,
    parse_base,
)
from controller.journal.store.segments import (
    COMPRESSED,
    MARK_NAME,
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
    """The last record that was delivered; seq 0: none."""

    seq: int = 0
    hash: str = GENESIS


class Shipped(NamedTuple):
    """A record and its line, without a newline."""

    record: Record
    line: bytes

    @property
    def cursor(self) -> Cursor:
        """Where one is after it."""
        return Cursor(self.record.seq, self.record.hash)


class Diverged(StateError):
    """The journal isn't the one that was shipped so far, or isn't whole.

    Somebody may have been at work on its files just then: one look alone proves nothing.
    """


class Follower:
    """Reads on from a cursor. ``missing`` counts records that were pruned before they were read."""

    def __init__(self, files: JournalFiles, cursor: Cursor) -> None:
        self._files = files
        self._cursor = cursor
        self._segment: _Segment | None = None
        self._counted = 0  # the last record that counts as missing
        self.missing = 0

    @property
    def cursor(self) -> Cursor:
        """The last record that was read."""
        return self._cursor

    def mark(self) -> DurableMark | None:
        """Return the last durable record, None while there is no journal.

        Raises:
            Diverged: records were shipped, and the mark is gone or can't be one.
            OSError: it can't be read, or is empty: its writer couldn't write it.
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
        """Return what follows, at most so many records and about so many bytes.

        Raises:
            Diverged: it doesn't follow what was read before, or isn't all there.
            OSError: it can't be read.
        """
        before = self._cursor
        if mark.seq == before.seq and mark.hash != before.hash:
            raise _diverged(f"record {before.seq} was shipped, and its mark knows another")
        if mark.seq <= before.seq:
            # The mark lags behind after a loss of power: it is the record itself that counts.
            self._look_at_the_end()
            return []
        found: list[Shipped] = []
        while self._cursor.seq < mark.seq and len(found) < records and size > 0:
            shipped = self._next()
            if shipped is None:
                break
            found.append(shipped)
            size -= len(shipped.line)
        if self._cursor.seq == mark.seq and self._cursor.hash != mark.hash:
            raise _diverged(f"record {mark.seq} isn't the one that its mark knows")
        if not found:
            raise _diverged(f"it ends at {mark.seq}, and has no record {self._cursor.seq + 1}")
        return found

    def rewind(self, cursor: Cursor) -> None:
        """Read from another place on."""
        self.close()
        self._cursor = cursor

    def close(self) -> None:
        """Let go what is open."""
        if self._segment is not None:
            self._segment.close()
            self._segment = None

    def _any_segment(self) -> bool:
        try:
            return bool(self._files.names())
        except FileNotFoundError:
            return False  # not even a folder

    def _look_at_the_end(self) -> None:
        """Make sure that what was shipped last is there still.

        Raises:
            Diverged: it isn't.
            OSError: it can't be read.
        """
        if self._segment is not None and not self._segment.is_there():
            self.close()  # compressed meanwhile, or taken away: the names say which
        if self._segment is None:
            self._segment = self._opened()
        if self._segment is None:
            raise _diverged(f"record {self._cursor.seq} was shipped, and isn't there any more")

    def _next(self) -> Shipped | None:
        if self._segment is None:
            self._segment = self._opened()
        line = None if self._segment is None else self._segment.line()
        if line is None:
            # Its end, or another writer goes on in the next one: looked for from the names.
            following = self._opened(after=self._segment)
            if following is None:
                return None
            self.close()
            self._segment = following
            line = following.line()
        return None if line is None else self._checked(line)

    def _opened(self, *, after: _Segment | None = None) -> _Segment | None:
        """Open the segment that holds the next record, at that record; None: it isn't there."""
        wanted = self._cursor.seq + 1
        names = self._files.names()
        if not names:
            return None
        firsts = {int(name.partition(".")[0]): name for name in names}
        lowest = min(firsts)
        if lowest > wanted:
            self._go_on_after_pruned(lowest)
            wanted = lowest
        first = max(number for number in firsts if number <= wanted)
        if after is not None and first == after.first:
            return None
        try:
            handle = self._files.open(firsts[first])
        except FileNotFoundError:
            return None  # compressed or pruned just now: it is looked for again
        segment = _Segment(handle, firsts[first], first)
        try:
            found = self._skipped(segment, wanted - first)
        except BaseException:
            segment.close()
            raise
        if not found:
            segment.close()
            return None
        return segment

    def _skipped(self, segment: _Segment, count: int) -> bool:
        """Read the lines before the next record; False: so many aren't there.

        Raises:
            Diverged: the last of them isn't the record that was read before.
        """
        line: bytes | None = None
        for _ in range(count):
            line = segment.line()
            if line is None:
                return False
        if line is not None and self._cursor.hash and _hash_of(line) != self._cursor.hash:
            raise _diverged(f"record {self._cursor.seq} isn't the one that was shipped")
        return True

    def _go_on_after_pruned(self, lowest: int) -> None:
        """Go to the first record that is left, and count those that are missing, each once.

        Raises:
            Diverged: it wasn't retention that removed them.
            OSError: what it says can't be read.
        """
        base = self._base()
        if base is None or base.record.seq < lowest - 1:
            until = base.record.seq if base is not None else 0
            raise _diverged(f"it begins at record {lowest}, and was pruned until {until}")
        self.missing += max(0, lowest - 1 - max(self._cursor.seq, self._counted))
        self._counted = max(self._counted, lowest - 1)
        # While files still go, what the first one hangs on is gone, and isn't what stayed of them.
        known = base.record.hash if base.record.seq == lowest - 1 else ""
        self._cursor = Cursor(lowest - 1, known)

    def _base(self) -> PrunedBase | None:
        """Return what stayed of those that were pruned."""
        try:
            handle = self._files.open(BASE_NAME)
        except FileNotFoundError:
            return None
        with os.fdopen(handle, "rb") as file:
            try:
                return parse_base(file.read(BASE_MAX_BYTES))
            except BadBase as error:
                raise _diverged(f"what was pruned can't be told: {error}") from error

    def _checked(self, line: bytes) -> Shipped:
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
    """An open segment, at one of its lines."""

    def __init__(self, handle: int, name: str, first: int) -> None:
        self.first = first
        self._name = name
        self._file = cast("BinaryIO", os.fdopen(handle, "rb"))
        self._reader = self._file
        if name.endswith(COMPRESSED):
            self._reader = cast("BinaryIO", gzip.GzipFile(fileobj=self._file))

    def line(self) -> bytes | None:
        """Return the next whole line; None where there is none (yet).

        Raises:
            Diverged: it is longer than any, or the segment is compressed and damaged.
        """
        try:
            place = self._reader.tell()
            line = self._reader.readline(LINE_MAX_BYTES + 2)
            if line.endswith(b"\n"):
                return line[:-1]
            if len(line) > LINE_MAX_BYTES:
                raise _diverged(f"{self._name} has a line of more than {LINE_MAX_BYTES} bytes")
            self._reader.seek(place)  # its writer may be at work
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise _diverged(f"{self._name} is damaged: {error}") from error
        return None

    def is_there(self) -> bool:
        """Tell whether its file still is in the folder, and has what was read of it."""
        facts = os.fstat(self._file.fileno())
        packed = self._reader is not self._file
        return facts.st_nlink > 0 and (packed or facts.st_size >= self._file.tell())

    def close(self) -> None:
        """Let it go."""
        self._file.close()


def _hash_of(line: bytes) -> str:
    """Return the hash of a line's record, '' where it is none."""
    try:
        return parse(line).hash
    except BadLine:
        return ""


def _diverged(why: str) -> Diverged:
    return Diverged(
        "ship.diverged",
        f"the journal isn't as it was when it was shipped: {why}",
        remedy="find out who changed it ('trimtab journal verify'); to ship another journal from "
        "its beginning, remove the cursors in STATE/ship",
    )


def checkpoints(batch: list[Shipped]) -> Iterator[Shipped]:
    """Yield those of a batch that are checkpoints."""
    return (shipped for shipped in batch if shipped.record.entry.stage == "checkpoint")
