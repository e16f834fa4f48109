"""Retention of closed segments: compressed after a week, pruned after 90 days or beyond 10 GiB.

Only whole closed segments are pruned, and only up to a segment that ends with a checkpoint. That
checkpoint stays in ``.pruned``, as the base of chain and tree. The inventory of the pruned records
stays in ``.inventory``, so that the inventory can be rebuilt without them. Before the removal, a
record announces the pruning and describes the new ``.inventory``, and a checkpoint covers that record
(``checkpointer``). Each step is durable before the next; after a crash at any step the next process
continues.

The thread that compresses and prunes closed segments, apart from the writer's thread.

A wrong wall clock must not make records old, so ``ClockGuard`` guards the removal by age. A host can boot with any time on its clock. A wrong time can't be recognised, only a time far ahead
of every time before; a clock is also far ahead after the host was off for long. The guard believes
such a time once the clock has run on from there for a while. Old records are then removed later by
that while.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise, takewhile
from math import inf
from pathlib import Path
from typing import BinaryIO, Final

from controller.core.encoding.json_values import canonical_by_item
from controller.core.records import inventory as inventories
from controller.core.records import inventory_json
from controller.core.records.checkpoint import content_digest
from controller.core.records.record import parse
from controller.journal.store import chain
from controller.journal.store.chain import FILE_MODE, BadBase, ChainWalk, Damage, read_inventory
from controller.journal.store.reader import final_checkpoint, opening_of, pieces_of
from controller.journal.store.segments import (
    BLOCK_BYTES,
    COMPRESSED,
    BadSegment,
    first_seq_of,
    list_segments,
    open_regular,
    pack,
    segment_size,
)
from controller.model.errors import JournalUnavailable
from controller.model.inventory import Inventory
from controller.ports import Clock
from controller.system.durable_files import fsync_folder, write_atomic

LOG = logging.getLogger(__name__)
DAY_S: Final = 86_400.0
_NEW_INVENTORY: Final = f"{chain.INVENTORY_NAME}.next"


@dataclass(frozen=True, slots=True)
class RetentionLimits:
    """Maximum age and size of the journal."""

    age_s: float = 90 * DAY_S
    size_bytes: int = 10 * 1024**3
    plain_s: float = 7 * DAY_S  # until compression; most queries read recent segments
    round_s: float = 3600.0  # pause between two runs


KEEP: Final = RetentionLimits()


@dataclass(frozen=True, slots=True)
class ClosedSegment:
    """A segment that is no longer appended to."""

    path: Path
    size: int
    ended: float  # opening time of the next segment
    last: int  # seq of the last record


@dataclass(frozen=True, slots=True)
class Pruning:
    """Segments to remove."""

    segments: tuple[ClosedSegment, ...]
    until: int  # the last record to remove
    reason: str  # "age" or "size"


def closed_segments(folder: Path) -> tuple[ClosedSegment, ...]:
    """Return the closed segments in order.

    Raises:
        OSError: the folder can't be read.
    """
    gone = chain.pruned_seq(folder)
    paths = [path for path in list_segments(folder) if first_seq_of(path) > gone]
    opened = [opened_at(path) for path in paths]
    return tuple(
        # max: a clock that ran behind at the next opening must not make the segment older.
        ClosedSegment(path, segment_size(path), max(began, ended), first_seq_of(after) - 1)
        for (path, after), (began, ended) in zip(pairwise(paths), pairwise(opened), strict=True)
    )


def opened_at(segment: Path) -> float:
    """Return the time of a segment's first record; 0 if the segment has none."""
    opening = opening_of(segment)
    return 0.0 if opening is None else datetime.fromisoformat(opening.time).timestamp()


def due(
    closed: tuple[ClosedSegment, ...], limits: RetentionLimits, *, now: float, total: int
) -> Pruning | None:
    """Return the segments to prune: the fewest that satisfy *limits*, from the oldest on.

    *total* counts the open segment too. The last closed segment is never pruned.
    """
    candidates: list[ClosedSegment] = []
    pruning: Pruning | None = None
    for each in closed[:-1]:
        is_old = now - each.ended > limits.age_s
        if not is_old and total <= limits.size_bytes:
            break
        candidates.append(each)
        total -= each.size
        if final_checkpoint(each.path, each.last) is not None:
            pruning = Pruning(tuple(candidates), each.last, "age" if is_old else "size")
    return pruning


#: Takes the last record to remove, the reason, and the digest of the new ``.inventory``.
RecordPruning = Callable[[int, str, str], object]


class Retention:
    """Compresses and prunes segments, in a thread apart from the writer's.

    - *record_pruning* takes the last record to remove, the reason, and the digest of the new
      ``.inventory``, and makes a record of them durable. Raises JournalUnavailable.
    - *is_cancelled* is asked during long work; True ends the work.
    """

    def __init__(
        self,
        folder: Path,
        *,
        limits: RetentionLimits,
        record_pruning: RecordPruning,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self._folder = folder
        self._limits = limits
        self._record_pruning = record_pruning
        self._is_cancelled = is_cancelled

    def apply(self, *, now: float) -> None:
        """Prune and compress the segments due at the wall time *now*.

        Raises:
            OSError: the folder can't be read or written.
            JournalUnavailable: the pruning can't be recorded, so nothing is removed.
            Damage, BadSegment, BadBase: a segment to prune is damaged, and stays.
        """
        self._remove(_leftovers(self._folder))
        closed = closed_segments(self._folder)
        total = sum(segment_size(path) for path in list_segments(self._folder))
        pruning = due(closed, self._limits, now=now, total=total)
        if pruning is not None:
            self._prune(pruning)
        for each in closed_segments(self._folder):
            if each.path.suffix != COMPRESSED and now - each.ended > self._limits.plain_s:
                compress(each.path, is_cancelled=self._is_cancelled)

    def _prune(self, pruning: Pruning) -> None:
        line = final_checkpoint(pruning.segments[-1].path, pruning.until)
        assert line is not None, "pruned segments end with a checkpoint"
        content = canonical_by_item(inventory_json.to_json(self._inventory(pruning.until)))
        # The record comes before the file: a file that no record describes was changed by others.
        new = self._folder / _NEW_INVENTORY
        write_atomic(new, content)
        self._record_pruning(pruning.until, pruning.reason, content_digest(content))
        new.rename(self._folder / chain.INVENTORY_NAME)
        fsync_folder(self._folder)
        base = chain.PrunedBase(parse(line), line, first_seq_of(pruning.segments[-1].path))
        write_atomic(self._folder / chain.BASE_NAME, base.to_bytes())
        LOG.info("journal.pruned until=%d reason=%s", pruning.until, pruning.reason)
        self._remove(_leftovers(self._folder))

    def _inventory(self, until: int) -> Inventory:
        """Return the inventory of all records up to *until*."""
        inventory = chain.read_inventory(self._folder)
        records = ChainWalk(self._folder, after=inventory.seq)
        return inventories.fold_all(inventory, takewhile(lambda each: each.seq <= until, records))

    def _remove(self, paths: tuple[Path, ...]) -> None:
        for path in paths:
            path.unlink(missing_ok=True)
        if paths:
            fsync_folder(self._folder)


def _leftovers(folder: Path) -> tuple[Path, ...]:
    """Return the files of pruned segments, and unfinished compressed copies."""
    gone = chain.pruned_seq(folder)
    leftovers: list[Path] = []
    for path in list_segments(folder):
        if first_seq_of(path) <= gone:
            pieces = [folder / name for name in pieces_of(path)]
            leftovers += [*pieces, path]
        if path.suffix != COMPRESSED:
            leftovers += [other for other in _packed(path) if other.exists()]
    return tuple(leftovers)


def _packed(path: Path) -> Iterator[Path]:
    for ending in (COMPRESSED, f"{COMPRESSED}.new"):
        yield path.with_name(f"{path.name}{ending}")


def compress(segment: Path, *, is_cancelled: Callable[[], bool] = lambda: False) -> None:
    """Compress a closed segment; the original is removed once the copy is durable and verified.

    Raises:
        OSError: the copy can't be written, or *is_cancelled*; the segment stays as it was.
    """
    packed, new = _packed(segment)
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        with (
            os.fdopen(os.open(new, flags, FILE_MODE), "w+b") as copy,
            open_regular(segment) as file,
        ):
            written = _compress_into(file, copy, is_cancelled)
            copy.flush()
            os.fsync(copy.fileno())
            copy.seek(0)
            with gzip.GzipFile(fileobj=copy, mode="rb") as back:
                _check_alike(written, _compress_into(back, None, is_cancelled), packed)
        new.rename(packed)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    segment.unlink()
    fsync_folder(segment.parent)


def _compress_into(
    source: BinaryIO | gzip.GzipFile, out: BinaryIO | None, is_cancelled: Callable[[], bool]
) -> bytes:
    """Compress *source* into *out*, if given, and return the hash of the content."""
    digest = hashlib.sha256()
    while block := source.read(BLOCK_BYTES):
        if is_cancelled():
            raise OSError(errno.EINTR, os.strerror(errno.EINTR))
        digest.update(block)
        if out is not None:
            out.write(pack(block))
    return digest.digest()


def _check_alike(written: bytes, read: bytes, packed: Path) -> None:
    if written != read:
        raise OSError(f"{packed.name} isn't what was compressed")


#: A time at most this far ahead of the last believed one is believed: journals are quiet for days.
#: A time further ahead is believed after the clock has run on for as long: an operator has corrected
#: a wrong clock by then.
DOUBT_S: Final = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class ClockGuard:
    """The state after a sequence of observed times. Even the first time must prove itself."""

    believed: float = -inf  # the latest believed time
    last: float = -inf  # the last observed time
    since: float = -inf  # the first time of the uninterrupted run up to ``last``
    doubted: bool = False  # ``last`` jumped ahead, or continues a jump

    def observe(self, time: float) -> ClockGuard:
        """Return the state after a further observed time."""
        step = time - self.last
        runs_on = 0.0 <= step <= DOUBT_S
        since = self.since if runs_on else time
        if time <= self.believed + DOUBT_S or time - since >= DOUBT_S:
            return ClockGuard(max(self.believed, time), time, since)
        jumped = step > DOUBT_S and self.last > -inf
        return ClockGuard(self.believed, time, since, doubted=jumped or (runs_on and self.doubted))

    @property
    def now(self) -> float:
        """The time to measure ages by: ``last``, or the last believed time before a jump.

        Minus infinity until a time is believed, so that no record is old.
        """
        return min(self.last, self.believed)


#: How long ``close`` waits for the thread.
JOIN_S: Final = 2.0


class RetentionThread:
    """Runs ``Retention`` at the start, every ``limits.round_s``, and after each closed segment."""

    def __init__(
        self,
        folder: Path,
        *,
        limits: RetentionLimits,
        clock: Clock,
        record_pruning: RecordPruning,
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._limits = limits
        self._guard: ClockGuard | None = None
        self._woken = threading.Event()
        self._closing = False
        self._retention = Retention(
            folder,
            limits=limits,
            record_pruning=record_pruning,
            is_cancelled=lambda: self._closing,
        )
        self._thread = threading.Thread(target=self._run, name="journal-upkeep", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Run the retention now."""
        self._woken.set()

    def close(self) -> None:
        """Stop the thread. Unfinished work is abandoned; the next process repeats it."""
        self._closing = True
        self._woken.set()
        self._thread.join(JOIN_S)

    def _run(self) -> None:
        self._check_inventory()
        while not self._closing:
            self._run_once()
            self._woken.wait(self._limits.round_s)
            self._woken.clear()

    def _check_inventory(self) -> None:
        """Log an error if the inventory of pruned records isn't the recorded one.

        A start reads the file only if there is no usable snapshot, and a pruning is rare.
        """
        try:
            read_inventory(self._folder)
        except (BadBase, BadSegment, OSError) as error:
            LOG.error(  # noqa: TRY400 - the reason is enough
                "journal.inventory.unusable error=%s: nothing is pruned; restore it from a backup",
                error,
            )

    @property
    def doubted(self) -> bool:
        """True if no segment is removed by age, since the clock jumped ahead."""
        return self._guard is not None and self._guard.doubted

    def _run_once(self) -> None:
        try:
            self._retention.apply(now=self._now())
        except (OSError, JournalUnavailable, Damage, BadSegment, BadBase) as error:
            if not self._closing:
                LOG.warning("journal.upkeep error=%s: trying again later", error)
        except Exception:
            # A bug must not end the thread: without pruning the disk fills up.
            LOG.exception("journal.upkeep.failed: trying again later")

    def _now(self) -> float:
        """Return the time to measure ages by: a clock that jumps must not make segments old."""
        before = self._guard
        if before is None:
            # Times before this start count too: otherwise a restart would end the doubt.
            before = ClockGuard()
            for time in filter(None, map(opened_at, list_segments(self._folder))):
                before = before.observe(time)
        self._guard = before.observe(self._clock.now())
        if self._guard.doubted and not before.doubted:
            LOG.warning(
                "journal.clock.ahead days=%.0f: nothing is pruned by age for a week",
                (self._guard.last - before.last) / DAY_S,
            )
        return self._guard.now
