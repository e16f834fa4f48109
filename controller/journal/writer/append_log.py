"""The open journal of the writer: appends batches, each durable as a whole or not at all.

After any failure the segment is abandoned and cut back to its last durable byte. Once the cut has
succeeded, the next append opens a new segment, whose first record reports the failure. After a
failed fsync the page cache is not trusted, only the disk: the kernel marks the pages clean and
drops them (https://wiki.postgresql.org/wiki/Fsync_Errors).

Not thread-safe; ``writer.Writer`` adds the only thread with access.

The file calls on which durability depends, as one seam: tests count the calls or let them fail.

The last free space is a reserve for the controller, operators and closing records. Once only the
reserve is left, requests of clients, refusals and reads are no longer recorded, and thus refused or
left out. No client can fill the disk to the point where operators can't act.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final, NamedTuple

from controller.core.enforcement.limits import LIMITED
from controller.core.records.checkpoint import CHECKPOINT_MAX_BYTES
from controller.core.records.parts import ActorPart, OutagePart, RepairPart, ResultPart
from controller.core.records.record import (
    CLOSING,
    GENESIS,
    Prepared,
    is_clock_jump,
    prepare,
    timestamp,
)
from controller.journal.store.chain import FILE_MODE, FORMAT, binding, lock_folder
from controller.journal.store.reader import TornTail, check_reaches, find_tail, pieces_of, records
from controller.journal.store.segments import (
    COMPRESSED,
    MARK_NAME,
    DurableMark,
    first_seq_of,
    name_of,
)
from controller.journal.writer.checkpointer import Batch, Checkpointer
from controller.model.crashpoints import Reach, pass_by
from controller.model.errors import JournalUnavailable
from controller.model.records import Entry, Record, Role
from controller.ports import Clock, NewId


class DiskSpace(NamedTuple):
    """The free and total size of a file system."""

    free_bytes: int
    size_bytes: int


class Disk:
    """The operating system's calls. Each raises OSError, and none retries."""

    def open(self, path: str | os.PathLike[str], flags: int, mode: int = 0o600) -> int:
        """Open a file; no link at the end of *path* is followed, and child processes don't inherit."""
        return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, mode)

    def write(self, file: int, data: bytes) -> None:
        """Write all of *data*. After an error, a part can have been written."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(file, rest) :]

    def overwrite(self, file: int, data: bytes) -> None:
        """Overwrite the start of the file with *data*, at most a disk sector long."""
        if os.pwrite(file, data, 0) != len(data):
            raise OSError("short write")

    def fsync(self, file: int) -> None:
        """Flush the content of a file or folder to the disk."""
        os.fsync(file)

    def truncate(self, file: int, size: int) -> None:
        """Cut the file to *size* bytes."""
        os.ftruncate(file, size)

    def ends_with(self, file: int, size: int, line: bytes) -> bool:
        """Return True if the disk, not only the page cache, has *line* right before offset *size*."""
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        return os.pread(file, len(line), size - len(line)) == line

    def room(self, file: int) -> DiskSpace:
        """Return the space of the file's file system; free is the space for unprivileged users."""
        facts = os.fstatvfs(file)
        return DiskSpace(facts.f_bavail * facts.f_frsize, facts.f_blocks * facts.f_frsize)


RESERVE_BYTES: Final = 64 * 1024 * 1024
#: At most one part in so many of a small file system is reserved.
RESERVE_SHARE: Final = 8

_NEVER: Final = LIMITED | {"summary"}
_OURS: Final = frozenset({Role.CONTROLLER.value, Role.OPERATOR.value})


def is_scarce(*, free_bytes: int, size_bytes: int) -> bool:
    """Return True if only the reserve of the file system is left."""
    return free_bytes < min(RESERVE_BYTES, size_bytes // RESERVE_SHARE)


def may_use_reserve(entry: Entry) -> bool:
    """Return True if the entry is recorded even when only the reserve is left."""
    role = ActorPart.read(entry.actor).role
    if entry.stage in CLOSING:
        return True  # for every role: an admitted intent must be closed
    if role == Role.BROKER:
        return True  # removed objects, violations, policies, and the journal's own records
    return role in _OURS and entry.stage not in _NEVER


LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SegmentLimits:
    """When a new segment is opened, and how long to wait for the disk.

    An append opens a new segment if the current one is too old, or would become too long.
    """

    #: A broker parses the last segment before it is ready: 16 MiB take it half a second.
    max_segment_bytes: int = 16 * 1024 * 1024
    max_segment_age_s: float = 86_400.0
    retry_s: float = 2.0  # pause between retries after a failure, without new entries
    deadline_s: float = 30.0  # of one blocking append, and of closing


DEFAULT_LIMITS: Final = SegmentLimits()

_REMEDIES: Final = {
    errno.ENOSPC: "free space on the file system of {folder}",
    errno.EDQUOT: "raise the quota on the file system of {folder}",
    errno.EFBIG: "raise the file size limit of the broker",
    errno.EROFS: "mount the file system of {folder} writable again",
    errno.EACCES: "let the broker write in {folder}",
}
_REMEDY: Final = "look at the kernel's log for the disk under {folder}"
_BLOCK_BYTES: Final = 1024 * 1024


@dataclass(slots=True)
class _Segment:
    """The segment open for appending."""

    path: Path
    file: int
    size: int  # durable bytes only
    opened_at: float


@dataclass(frozen=True, slots=True)
class _PendingCut:
    """A segment to cut back to its durable records before the next write."""

    path: Path
    size: int  # of the durable records, in bytes
    torn: TornTail | None = None  # bytes to move aside first, found at opening


@dataclass(slots=True)
class _Outage:
    """A time without successful appends."""

    since: str
    error: str = ""  # of the last attempt
    remedy: str = ""
    refused: int = 0  # entries


class Log:
    """The open journal. Implements ``ports.Journal`` for one thread.

    Opening takes the folder's lock, checks the last segment, and repairs and records a torn tail.
    With a *checkpointer*, the records are signed at intervals, and each segment ends with a
    checkpoint.

    Raises:
        StateError: the folder isn't private or is locked, or the journal is damaged.
    """

    def __init__(
        self,
        folder: Path,
        *,
        clock: Clock,
        new_id: NewId,
        reach: Reach = pass_by,
        disk: Disk | None = None,
        limits: SegmentLimits = DEFAULT_LIMITS,
        checkpointer: Checkpointer | None = None,
    ) -> None:
        self.folder = folder
        self._clock = clock
        self._new_id = new_id
        self._reach = reach
        self._disk = disk or Disk()
        self._limits = limits
        self._checkpointer = checkpointer
        self._holder: int | None = lock_folder(folder)
        self._mark_file: int | None = None
        self._segment: _Segment | None = None
        self._cut: _PendingCut | None = None
        self._outage: _Outage | None = None
        self._lost = ""
        self._repair = RepairPart()
        self._aside: tuple[str, ...] = ()
        self.opened = 0  # number of segments opened by this process
        self.room: DiskSpace | None = None  # at the last ``measure_room``
        #: ``signed`` before this process wrote anything: later records can be somebody else's.
        self.signed_at_open = 0
        self._last_line = b""
        self._time = ""  # of the last record
        self._seq, self._hash, self._previous = 0, GENESIS, 0
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    # What health shows.

    @property
    def last_seq(self) -> int:
        """The seq of the last durable record; 0 before the first."""
        return self._seq

    @property
    def error(self) -> str:
        """The error of the last append, or ''."""
        return self._lost or (self._outage.error if self._outage else "")

    @property
    def writable(self) -> bool:
        """True if the last append succeeded; the next append is tried in any case."""
        return not self.error

    @property
    def due_s(self) -> float | None:
        """Seconds until an empty ``commit`` signs the unsigned records; None if all are signed."""
        return self._checkpointer.due_s() if self._checkpointer is not None else None

    @property
    def signed(self) -> int:
        """The last record covered by a checkpoint; 0 before the first checkpoint."""
        return self._checkpointer.signed if self._checkpointer is not None else 0

    def measure_room(self) -> bool:
        """Return True if only the reserve of the disk is left; False if the disk can't be measured."""
        if self._holder is None:
            return False
        try:
            self.room = self._disk.room(self._holder)
        except OSError:
            return False
        return is_scarce(free_bytes=self.room.free_bytes, size_bytes=self.room.size_bytes)

    # Using it.

    def append(self, entry: Entry) -> Record:
        """Make one entry durable and return its record (see ``commit``)."""
        return self.commit([prepare(entry)])[0]

    def records(self, *, after: int = 0) -> Iterator[Record]:
        """Yield the durable records with ``seq`` above *after*, in order."""
        return records(self.folder, after=after, upto=self._seq)

    def commit(self, batch: Sequence[Prepared]) -> list[Record]:
        """Make a batch durable by one write and one fsync, and return its records.

        An empty batch only opens a segment if there is none, and writes a checkpoint if one is due.

        Raises:
            JournalUnavailable: no entry of the batch is in the chain. The next call tries again.
        """
        if not self._lost:
            try:
                records = self._commit(batch)
            except OSError as error:
                self._abandon_segment(error, refused=len(batch))
            else:
                self._outage = None
                return records
        raise JournalUnavailable(
            "journal.unavailable",
            f"the journal can't be written: {self.error}",
            remedy=self._outage.remedy if self._outage else "",
        )

    def close(self) -> None:
        """Sign the unsigned records, close the files and release the lock.

        Acknowledged records are durable before.
        """
        if self._segment is not None and self.writable:
            with suppress(OSError):
                self._append([], closing=True)
        self._leave_segment()
        self._lost = self._lost or "the journal is closed"
        files = [file for file in (self._mark_file, self._holder) if file is not None]
        self._mark_file = self._holder = None
        for file in files:
            os.close(file)

    # Opening.

    def _open(self) -> None:
        tail = find_tail(self.folder)
        if self._checkpointer is not None:
            check_reaches(self.folder, tail, published=self._checkpointer.published())
            self._checkpointer.restore(self.folder, upto=tail.seq)
        self.signed_at_open = self.signed
        self._seq, self._hash, self._previous = tail.seq, tail.hash, tail.holder
        self._time = tail.time
        self._aside = tail.aside
        if tail.torn is not None and tail.segment is not None:
            self._cut = _PendingCut(tail.segment, tail.size, tail.torn)
        elif tail.aside and tail.segment is not None:
            reason = "a start that got no further moved it aside"
            self._repair = self._repair_of(TornTail(tail.size, 0, reason, durable=False))
        packed = tail.segment is not None and tail.segment.suffix == COMPRESSED
        needs_new_segment = self._cut or self._repair or packed
        try:
            if tail.segment is not None and tail.size and not needs_new_segment:
                file = self._disk.open(tail.segment, os.O_WRONLY | os.O_APPEND)
                self._segment = _Segment(tail.segment, file, tail.size, tail.opened_at)
        except OSError as error:
            # Reads need no open segment, and the next append tries again.
            self._abandon_segment(error, refused=0)
        with suppress(JournalUnavailable):
            self.commit([])

    # Appending.

    def _commit(self, batch: Sequence[Prepared]) -> list[Record]:
        if self._cut is not None:
            self._cut_back(self._cut)
        if self._segment is not None and self._is_full(batch, self._clock.now()):
            self._append([], closing=True)
            self._leave_segment()
        if not batch and self._segment is not None and self.due_s != 0.0:
            return []
        return self._append(batch)

    def _append(self, entries: Sequence[Prepared], *, closing: bool = False) -> list[Record]:
        """Write *entries*, after the record of a new segment and before a due checkpoint."""
        now = self._clock.now()
        batch = Batch(seq=self._seq, prev=self._hash, time=timestamp(now))
        opening = self._segment is None
        if opening:
            batch.add(prepare(self._opening_entry()))
        first = len(batch.records)
        for prepared in entries:
            batch.add(prepared)
        records = batch.records[first:]
        signer = self._checkpointer
        next_tree = signer.seal(batch, closing=closing) if signer is not None else None
        if batch.lines:
            self._write(batch, opening=opening, now=now)
        if signer is not None and next_tree is not None:
            signer.accept(next_tree)
        return records

    def _write(self, batch: Batch, *, opening: bool, now: float) -> None:
        """Make the lines of a batch durable, then update the state of the log."""
        lines, last = batch.data(), batch.records[-1]
        segment = self._segment or self._create(now)
        self._reach("journal.write.before")
        self._disk.write(segment.file, lines)
        self._reach("journal.write.after")
        self._reach("journal.fsync.before")
        self._disk.fsync(segment.file)
        if opening:
            self._sync_folder()
        self._reach("journal.fsync.after")
        segment.size += len(lines)
        self._log_clock_jump(first=batch.records[0])
        self._seq, self._hash, self._time = last.seq, last.hash, last.time
        self._previous = first_seq_of(segment.path)
        self._last_line = batch.lines[-1] + b"\n"
        self._repair, self._aside = RepairPart(), ()
        with suppress(OSError):
            # The mark is allowed to lag behind, so its failure doesn't fail the records.
            self._write_mark()

    def _log_clock_jump(self, *, first: Record) -> None:
        if self._time and is_clock_jump(self._time, first.time):
            LOG.warning(
                "journal.clock.jumped record=%d before=%s now=%s: check the host's clock",
                first.seq,
                self._time,
                first.time,
            )

    def _is_full(self, batch: Sequence[Prepared], now: float) -> bool:
        assert self._segment is not None
        size = self._segment.size + sum(prepared.size for prepared in batch)
        if self._checkpointer is not None:
            size += CHECKPOINT_MAX_BYTES
        # abs: the wall clock can have been set back since the segment was opened.
        age = abs(now - self._segment.opened_at)
        return size > self._limits.max_segment_bytes or age >= self._limits.max_segment_age_s

    def _opening_entry(self) -> Entry:
        previous = binding(segment=self._previous, seq=self._seq, digest=self._hash)
        outage = OutagePart()
        if self._outage is not None:
            outage = OutagePart(
                since=self._outage.since, error=self._outage.error, refused=self._outage.refused
            )
        result = ResultPart(format=FORMAT, previous=previous, repair=self._repair, outage=outage)
        actor = ActorPart(role=Role.BROKER.value)
        return Entry(self._new_id(), "segment", actor=actor.members, result=result.members)

    def _create(self, now: float) -> _Segment:
        path = self.folder / name_of(self._seq + 1)
        # An existing file of that name is a failed attempt, without acknowledged records.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC
        self._segment = _Segment(path, self._disk.open(path, flags, FILE_MODE), 0, now)
        self.opened += 1
        return self._segment

    def _write_mark(self, *, durably: bool = False) -> None:
        if self._mark_file is None:
            flags = os.O_RDWR | os.O_CREAT
            self._mark_file = self._disk.open(self.folder / MARK_NAME, flags, FILE_MODE)
        try:
            self._disk.overwrite(self._mark_file, DurableMark(self._seq, self._hash).to_bytes())
        except OSError:
            # Readers take half a mark for a forged one; an empty mark covers no record.
            self._disk.truncate(self._mark_file, 0)
            raise
        if durably:
            self._disk.fsync(self._mark_file)

    # Failing, and coming back.

    def _abandon_segment(self, error: OSError, *, refused: int) -> None:
        """Note the failure, and cut the segment back to its durable records if the disk allows."""
        if self._outage is None:
            self._outage = _Outage(since=timestamp(self._clock.now()))
        self._outage.error = error.strerror or str(error)
        self._outage.remedy = _REMEDIES.get(error.errno or 0, _REMEDY).format(folder=self.folder)
        self._outage.refused += refused
        if self._segment is not None:
            self._cut = _PendingCut(self._segment.path, self._segment.size)
            self._leave_segment()
            with suppress(OSError):
                self._cut_back(self._cut)

    def _cut_back(self, cut: _PendingCut) -> None:
        """Cut a segment back to its whole, durable records; move torn bytes to another file."""
        file = self._disk.open(cut.path, os.O_RDWR)
        try:
            if cut.torn is not None:
                self._move_aside(cut.path, file, cut.torn)
                self._repair = self._repair_of(cut.torn)
                # The next record takes the lost record's seq: the mark must not cover the lost one.
                self._write_mark(durably=True)
            self._disk.truncate(file, cut.size)
            self._disk.fsync(file)
            if cut.size and not self._disk.ends_with(file, cut.size, self._last_line):
                self._lost = f"{cut.path.name} lost a record that was durable"
                raise OSError(errno.EIO, self._lost)
        finally:
            os.close(file)
        self._cut = None

    def _move_aside(self, segment: Path, file: int, torn: TornTail) -> None:
        """Copy the torn bytes to a file next to the segment, even zero bytes.

        If this process dies before the repair is recorded, the next one finds the file.
        """
        taken = pieces_of(segment)
        numbers = (f"{segment.name}.torn-{number}" for number in count(1))
        name = next(name for name in numbers if name not in taken)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        aside = self._disk.open(self.folder / name, flags, FILE_MODE)
        try:
            for offset in range(torn.offset, torn.offset + torn.size, _BLOCK_BYTES):
                self._disk.write(aside, os.pread(file, _BLOCK_BYTES, offset))
            self._disk.fsync(aside)
        except OSError:
            (self.folder / name).unlink()
            raise
        finally:
            os.close(aside)
        self._sync_folder()
        self._aside = (*self._aside, name)

    def _repair_of(self, torn: TornTail) -> RepairPart:
        """Return the repair to record in the next segment record."""
        return RepairPart(
            bytes=torn.size, files=self._aside, reason=torn.reason, durable=torn.durable
        )

    def _sync_folder(self) -> None:
        assert self._holder is not None, "the journal is closed"
        self._disk.fsync(self._holder)

    def _leave_segment(self) -> None:
        if self._segment is not None:
            # close() reports no error that fsync hadn't reported.
            with suppress(OSError):
                os.close(self._segment.file)
            self._segment = None
