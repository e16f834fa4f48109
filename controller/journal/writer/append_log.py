"""The journal as its writer has it open: appends batches, each durable as a whole or not at all.

After any failure the segment is given up: it is cut back to its last durable byte, and once that
has succeeded, the next append opens a new segment whose first record says what happened. After a
failed fsync nothing that the page cache shows is believed; only the disk is (the kernel marks the
pages clean and drops them: https://wiki.postgresql.org/wiki/Fsync_Errors).

Not safe for threads; ``writer.Writer`` adds the one thread that uses it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

from controller.core.records.record import GENESIS, Prepared, prepare, timestamp
from controller.core.transparency.checkpoint import CHECKPOINT_MAX_BYTES
from controller.journal.store.chain import FORMAT, binding
from controller.journal.store.folder import FILE_MODE, hold
from controller.journal.store.reader import records
from controller.journal.store.segments import (
    COMPRESSED,
    MARK_NAME,
    DurableMark,
    first_seq_of,
    name_of,
)
from controller.journal.store.tail import TornTail, check_reaches, find_tail, pieces_of
from controller.journal.writer.batch import Batch
from controller.journal.writer.checkpointer import Checkpointer
from controller.journal.writer.disk import Disk, DiskSpace
from controller.journal.writer.disk_reserve import is_scarce
from controller.model.crashpoints import Reach, pass_by
from controller.model.errors import JournalUnavailable
from controller.model.records import Entry, Record
from controller.ports import Clock, NewId


@dataclass(frozen=True, slots=True)
class SegmentLimits:
    """When a segment is left for the next, and how long is waited for the disk.

    A segment is left by the first append that finds it too old, or would make it too long.
    """

    max_segment_bytes: int = 64 * 1024 * 1024
    max_segment_age_s: float = 86_400.0
    retry_s: float = 2.0  # pause between attempts while appending fails and nobody appends
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
    """The segment that is appended to; ``size`` counts durable bytes only."""

    path: Path
    file: int
    size: int
    opened_at: float


@dataclass(frozen=True, slots=True)
class _Wound:
    """A segment to cut back to ``size`` before anything is written; ``torn``: found at opening."""

    path: Path
    size: int
    torn: TornTail | None = None


@dataclass(slots=True)
class _Outage:
    """Since when, why and how often appending failed."""

    since: str
    error: str = ""
    remedy: str = ""
    refused: int = 0


class Log:
    """The open journal. Implements ``ports.Journal`` for one thread.

    Opening takes the folder's lock, checks the last segment, and repairs and records a torn tail.
    With a *notary*, what is written is signed now and then, and each segment ends with a checkpoint.

    Raises:
        StateError: the folder isn't private, is held, or the journal is damaged.
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
        notary: Checkpointer | None = None,
    ) -> None:
        self.folder = folder
        self._clock = clock
        self._new_id = new_id
        self._reach = reach
        self._disk = disk or Disk()
        self._limits = limits
        self._notary = notary
        self._holder: int | None = hold(folder)
        self._mark_file: int | None = None
        self._segment: _Segment | None = None
        self._wound: _Wound | None = None
        self._outage: _Outage | None = None
        self._lost = ""
        self._repair: dict[str, object] = {}
        self._aside: tuple[str, ...] = ()
        self.opened = 0  # segments, by this process
        self.room: DiskSpace | None = None  # at the last look
        self._last_line = b""
        self._seq, self._hash, self._previous = 0, GENESIS, 0
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    # What health shows.

    @property
    def last_seq(self) -> int:
        """The last durable record's seq; 0 before the first."""
        return self._seq

    @property
    def error(self) -> str:
        """Why the last append failed, or ''."""
        return self._lost or (self._outage.error if self._outage else "")

    @property
    def writable(self) -> bool:
        """Tell whether the last append succeeded; the next one is tried in any case."""
        return not self.error

    @property
    def due_s(self) -> float | None:
        """In how many seconds an empty ``commit`` signs what isn't signed; None: there is nothing."""
        return self._notary.due_s() if self._notary is not None else None

    @property
    def signed(self) -> int:
        """The last record that a checkpoint is of; 0 before the first."""
        return self._notary.signed if self._notary is not None else 0

    def look_at_room(self) -> bool:
        """Tell whether only the reserve is left of the disk; where that can't be seen, it isn't."""
        if self._holder is None:
            return False
        try:
            self.room = self._disk.room(self._holder)
        except OSError:
            return False
        return is_scarce(free_bytes=self.room.free_bytes, size_bytes=self.room.size_bytes)

    # Using it.

    def append(self, entry: Entry) -> Record:
        """Make one entry durable (see ``commit``)."""
        return self.commit([prepare(entry)])[0]

    def records(self, *, after: int = 0) -> Iterator[Record]:
        """Yield the durable records with ``seq`` above *after*, in order."""
        return records(self.folder, after=after, upto=self._seq)

    def commit(self, batch: Sequence[Prepared]) -> list[Record]:
        """Make a batch durable by one write and one fsync, and return its records.

        An empty batch only makes sure that there is a segment to append to, and signs what is due.

        Raises:
            JournalUnavailable: nothing of it is in the chain. The next call tries again.
        """
        if not self._lost:
            try:
                done = self._commit(batch)
            except OSError as error:
                self._give_up(error, refused=len(batch))
            else:
                self._outage = None
                return done
        raise JournalUnavailable(
            "journal.unavailable",
            f"the journal can't be written: {self.error}",
            remedy=self._outage.remedy if self._outage else "",
        )

    def close(self) -> None:
        """Sign what isn't, close the files and give back the lock.

        What was acknowledged is durable already.
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
        if self._notary is not None:
            check_reaches(self.folder, tail, published=self._notary.published())
            self._notary.restore(self.folder, upto=tail.seq)
        self._seq, self._hash, self._previous = tail.seq, tail.hash, tail.holder
        self._aside = tail.aside
        if tail.torn is not None and tail.segment is not None:
            self._wound = _Wound(tail.segment, tail.size, tail.torn)
        elif tail.aside and tail.segment is not None:
            reason = "a start that got no further moved it aside"
            self._repair = self._told(TornTail(tail.size, 0, reason, durable=False))
        packed = tail.segment is not None and tail.segment.suffix == COMPRESSED
        left = self._wound or self._repair or packed
        try:
            if tail.segment is not None and tail.size and not left:
                file = self._disk.open(tail.segment, os.O_WRONLY | os.O_APPEND)
                self._segment = _Segment(tail.segment, file, tail.size, tail.opened_at)
        except OSError as error:
            # Reads go on without it, and the next append tries again.
            self._give_up(error, refused=0)
        with suppress(JournalUnavailable):
            self.commit([])

    # Appending.

    def _commit(self, batch: Sequence[Prepared]) -> list[Record]:
        if self._wound is not None:
            self._heal(self._wound)
        if self._segment is not None and self._is_full(batch, self._clock.now()):
            self._append([], closing=True)
            self._leave_segment()
        if not batch and self._segment is not None and self.due_s != 0.0:
            return []
        return self._append(batch)

    def _append(self, batch: Sequence[Prepared], *, closing: bool = False) -> list[Record]:
        """Write a batch, led by a segment's opening and followed by what the notary adds."""
        now = self._clock.now()
        sealing = Batch(seq=self._seq, prev=self._hash, time=timestamp(now))
        opening = self._segment is None
        if opening:
            sealing.add(prepare(self._opening_entry()))
        first = len(sealing.records)
        for prepared in batch:
            sealing.add(prepared)
        asked = sealing.records[first:]
        grown = self._notary.seal(sealing, closing=closing) if self._notary is not None else None
        if sealing.lines:
            self._write(sealing, opening=opening, now=now)
        if self._notary is not None and grown is not None:
            self._notary.accept(grown)
        return asked

    def _write(self, sealing: Batch, *, opening: bool, now: float) -> None:
        """Make lines durable, and then take note of them."""
        lines, last = sealing.data(), sealing.records[-1]
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
        self._seq, self._hash = last.seq, last.hash
        self._previous = first_seq_of(segment.path)
        self._last_line = sealing.lines[-1] + b"\n"
        self._repair, self._aside = {}, ()
        with suppress(OSError):
            # The mark may lag behind, so a failure here is none of the records'.
            self._write_mark()

    def _is_full(self, batch: Sequence[Prepared], now: float) -> bool:
        assert self._segment is not None
        size = self._segment.size + sum(prepared.size for prepared in batch)
        if self._notary is not None:
            size += CHECKPOINT_MAX_BYTES
        # The wall clock may have been set back since the segment was opened.
        age = abs(now - self._segment.opened_at)
        return size > self._limits.max_segment_bytes or age >= self._limits.max_segment_age_s

    def _opening_entry(self) -> Entry:
        previous = binding(segment=self._previous, seq=self._seq, digest=self._hash)
        result: dict[str, object] = {"format": FORMAT, "previous": previous}
        if self._repair:
            result["repair"] = self._repair
        if self._outage is not None:
            result["outage"] = {
                "since": self._outage.since,
                "error": self._outage.error,
                "refused": self._outage.refused,
            }
        return Entry(id=self._new_id(), stage="segment", actor={"role": "broker"}, result=result)

    def _create(self, now: float) -> _Segment:
        path = self.folder / name_of(self._seq + 1)
        # A file of that name holds nothing that was acknowledged: an attempt that failed.
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
            # Half a mark would be taken for a forged one; an empty one vouches for nothing.
            self._disk.truncate(self._mark_file, 0)
            raise
        if durably:
            self._disk.fsync(self._mark_file)

    # Failing, and coming back.

    def _give_up(self, error: OSError, *, refused: int) -> None:
        """Note the failure, and leave the segment as it was last durable."""
        if self._outage is None:
            self._outage = _Outage(since=timestamp(self._clock.now()))
        self._outage.error = error.strerror or str(error)
        self._outage.remedy = _REMEDIES.get(error.errno or 0, _REMEDY).format(folder=self.folder)
        self._outage.refused += refused
        if self._segment is not None:
            self._wound = _Wound(self._segment.path, self._segment.size)
            self._leave_segment()
            with suppress(OSError):
                self._heal(self._wound)

    def _heal(self, wound: _Wound) -> None:
        """Cut a segment back to its whole, durable records; keep what is torn beside it."""
        file = self._disk.open(wound.path, os.O_RDWR)
        try:
            if wound.torn is not None:
                self._move_aside(wound.path, file, wound.torn)
                self._repair = self._told(wound.torn)
                # The next record takes the place of the lost one: the mark must not vouch for that.
                self._write_mark(durably=True)
            self._disk.truncate(file, wound.size)
            self._disk.fsync(file)
            if wound.size and not self._disk.ends_with(file, wound.size, self._last_line):
                self._lost = f"{wound.path.name} lost a record that was durable"
                raise OSError(errno.EIO, self._lost)
        finally:
            os.close(file)
        self._wound = None

    def _move_aside(self, segment: Path, file: int, torn: TornTail) -> None:
        """Copy what is torn beside the segment, also when that is nothing: the copy tells of it.

        A start after this one finds the copy, if this one gets no further.
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

    def _told(self, torn: TornTail) -> dict[str, object]:
        """Return what the next segment's record says of a repair."""
        return {
            "bytes": torn.size,
            "files": list(self._aside),
            "reason": torn.reason,
            "durable": torn.durable,
        }

    def _sync_folder(self) -> None:
        assert self._holder is not None, "the journal is closed"
        self._disk.fsync(self._holder)

    def _leave_segment(self) -> None:
        if self._segment is not None:
            # Closing reports nothing that fsync hadn't.
            with suppress(OSError):
                os.close(self._segment.file)
            self._segment = None
