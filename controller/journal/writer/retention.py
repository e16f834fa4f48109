"""What becomes of closed segments: compressed after a week, gone after 90 days or beyond 10 GiB.

Only whole closed segments go, and only up to one that ends with its checkpoint: that record stays
(``.pruned``), so that chain and tree go on from it, and what the inventory was then stays beside it
(``.inventory``), so that it can be rebuilt without what is gone. Before anything goes, a record says
so, and a checkpoint is of it (``notary``). Each step is durable before the next, and a start after any of them goes on.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, Final

from controller.core.encoding.canonical_json import canonical
from controller.core.records import inventory as inventories
from controller.core.records import inventory_json
from controller.core.records.record import BadLine, parse
from controller.journal.store.chain import ChainWalk
from controller.journal.store.folder import FILE_MODE
from controller.journal.store.pruned_base import (
    BASE_NAME,
    INVENTORY_NAME,
    PrunedBase,
    read_base,
    read_inventory,
)
from controller.journal.store.segment_gzip import BLOCK_BYTES, pack
from controller.journal.store.segments import (
    COMPRESSED,
    first_seq_of,
    list_segments,
    open_regular,
    read_lines,
    segment_size,
)
from controller.journal.store.tail import pieces_of
from controller.model.inventory import Inventory
from controller.system.atomic_file import fsync_folder, write_atomic

LOG = logging.getLogger(__name__)
DAY_S: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class RetentionLimits:
    """How long, and how much, is kept."""

    age_s: float = 90 * DAY_S
    size_bytes: int = 10 * 1024**3
    plain_s: float = 7 * DAY_S  # before a segment is compressed: recent ones are asked about most
    round_s: float = 3600.0


KEEP: Final = RetentionLimits()


@dataclass(frozen=True, slots=True)
class ClosedSegment:
    """A segment that nothing is appended to any more."""

    path: Path
    size: int
    ended: float  # when the next one was opened
    last: int  # its last record


@dataclass(frozen=True, slots=True)
class Pruning:
    """What is to go: ``segments`` up to the record *until*, and why."""

    segments: tuple[ClosedSegment, ...]
    until: int
    reason: str


def closed_segments(folder: Path) -> tuple[ClosedSegment, ...]:
    """Return the closed segments in order.

    Raises:
        OSError: the folder can't be read.
    """
    base = read_base(folder)
    gone = base.record.seq if base is not None else 0
    paths = [path for path in list_segments(folder) if first_seq_of(path) > gone]
    opened = [opened_at(path) for path in paths]
    return tuple(
        # A clock that was behind when the next one was opened made this one no older.
        ClosedSegment(path, segment_size(path), max(began, ended), first_seq_of(after) - 1)
        for (path, after), (began, ended) in zip(pairwise(paths), pairwise(opened), strict=True)
    )


def opened_at(segment: Path) -> float:
    """Return when a segment was opened, as its first record says; 0 where there is none."""
    line = next(read_lines(segment), None)
    with suppress(BadLine):
        if line is not None:
            return datetime.fromisoformat(parse(line.data).time).timestamp()
    return 0.0


def due(
    closed: tuple[ClosedSegment, ...], keep: RetentionLimits, *, now: float, total: int
) -> Pruning | None:
    """Return what is to go: as little as is needed, from the oldest on.

    *total* counts the open segment too. The last closed one stays in any case.
    """
    going: list[ClosedSegment] = []
    found: Pruning | None = None
    for each in closed[:-1]:
        old = now - each.ended > keep.age_s
        if not old and total <= keep.size_bytes:
            break
        going.append(each)
        total -= each.size
        if _last_line(each) is not None:
            found = Pruning(tuple(going), each.last, "age" if old else "size")
    return found


def _last_line(closed: ClosedSegment) -> bytes | None:
    """Return the checkpoint that a segment ends with, None where it ends with something else."""
    line = b""
    for each in read_lines(closed.path):
        line = each.data
    with suppress(BadLine):
        record = parse(line)
        if (record.entry.stage, record.seq) == ("checkpoint", closed.last):
            return line
    return None


class Retention:
    """Carries out what is due, in a thread that isn't the writer's.

    *tell* makes the record durable that says what goes; it raises JournalUnavailable. Once *over*
    says so, what takes long is given up.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep: RetentionLimits,
        tell: Callable[[int, str], object],
        over: Callable[[], bool] = lambda: False,
    ) -> None:
        self._folder = folder
        self._keep = keep
        self._tell = tell
        self._over = over

    def look_after(self, *, now: float) -> None:
        """Do what is due at the wall time *now*.

        Raises:
            OSError: the folder can't be read or written.
            JournalUnavailable: nothing can be recorded, so nothing more goes.
            Damage, Garbled, BadBase: what is to go is damaged: it stays.
        """
        self._remove(_leftovers(self._folder))
        closed = closed_segments(self._folder)
        total = sum(segment_size(path) for path in list_segments(self._folder))
        pruning = due(closed, self._keep, now=now, total=total)
        if pruning is not None:
            self._prune(pruning)
        for each in closed_segments(self._folder):
            if each.path.suffix != COMPRESSED and now - each.ended > self._keep.plain_s:
                compress(each.path, over=self._over)

    def _prune(self, pruning: Pruning) -> None:
        line = _last_line(pruning.segments[-1])
        assert line is not None, "what goes ends with a checkpoint"
        write_atomic(
            self._folder / INVENTORY_NAME,
            canonical(inventory_json.to_json(self._inventory(pruning.until))),
        )
        self._tell(pruning.until, pruning.reason)
        base = PrunedBase(parse(line), line, first_seq_of(pruning.segments[-1].path))
        write_atomic(self._folder / BASE_NAME, base.to_bytes())
        LOG.info("journal.pruned until=%d reason=%s", pruning.until, pruning.reason)
        self._remove(_leftovers(self._folder))

    def _inventory(self, until: int) -> Inventory:
        """Return the inventory of all records until one."""
        inventory = read_inventory(self._folder)
        for record in ChainWalk(self._folder, after=inventory.seq):
            if record.seq > until:
                break
            inventory = inventories.fold(inventory, record)
        return inventory

    def _remove(self, paths: tuple[Path, ...]) -> None:
        for path in paths:
            path.unlink(missing_ok=True)
        if paths:
            fsync_folder(self._folder)


def _leftovers(folder: Path) -> tuple[Path, ...]:
    """Return the files of what was pruned, and copies that were compressed and not put in place."""
    base = read_base(folder)
    gone = base.record.seq if base is not None else 0
    found: list[Path] = []
    for path in list_segments(folder):
        if first_seq_of(path) <= gone:
            pieces = [folder / name for name in pieces_of(path)]
            found += [*pieces, path]
        if path.suffix != COMPRESSED:
            found += [other for other in _packed(path) if other.exists()]
    return tuple(found)


def _packed(path: Path) -> Iterator[Path]:
    for ending in (COMPRESSED, f"{COMPRESSED}.new"):
        yield path.with_name(f"{path.name}{ending}")


def compress(segment: Path, *, over: Callable[[], bool] = lambda: False) -> None:
    """Compress a closed segment; it goes once the copy is durable and was read back.

    Raises:
        OSError: it can't be written, or it is *over*; the segment stays as it is.
    """
    packed, new = _packed(segment)
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        with (
            os.fdopen(os.open(new, flags, FILE_MODE), "w+b") as copy,
            open_regular(segment) as file,
        ):
            written = _poured(file, copy, over)
            copy.flush()
            os.fsync(copy.fileno())
            copy.seek(0)
            with gzip.GzipFile(fileobj=copy, mode="rb") as back:
                _check_alike(written, _poured(back, None, over), packed)
        new.rename(packed)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    segment.unlink()
    fsync_folder(segment.parent)


def _poured(
    source: BinaryIO | gzip.GzipFile, out: BinaryIO | None, over: Callable[[], bool]
) -> bytes:
    """Compress *source* into *out*, and return the hash of what it was."""
    found = hashlib.sha256()
    while block := source.read(BLOCK_BYTES):
        if over():
            raise OSError(errno.EINTR, os.strerror(errno.EINTR))
        found.update(block)
        if out is not None:
            out.write(pack(block))
    return found.digest()


def _check_alike(written: bytes, read: bytes, packed: Path) -> None:
    if written != read:
        raise OSError(f"{packed.name} isn't what was compressed")
