"""A part of a journal that is being written, up to one signed checkpoint: for backups.

The files are opened at once and copied later. The writer appends to the last segment, and compresses
or prunes earlier ones meanwhile; open files keep their content.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from controller.core.records.checkpoint import CheckpointRecord, read_checkpoint
from controller.core.records.record import parse
from controller.journal.store.chain import BASE_NAME, INVENTORY_NAME, pruned_seq
from controller.journal.store.segments import (
    COMPRESSED,
    DurableMark,
    first_seq_of,
    list_segments,
    name_of,
    open_regular,
    open_segment,
    read_lines,
)
from controller.model.errors import StateError
from controller.model.records import Record


@dataclass(frozen=True, slots=True)
class Cut:
    """The end of the part: a checkpoint that signs all records before it."""

    mark: DurableMark
    #: RFC 3339, of the checkpoint.
    time: str
    sealed: CheckpointRecord
    #: The first seq of the last segment, and the bytes of this segment up to the checkpoint.
    segment: int
    size: int


@dataclass(frozen=True, slots=True)
class CutFile:
    """A file of the part."""

    name: str
    file: BinaryIO
    size: int


@contextmanager
def open_cut(folder: Path, identifier: str, *, pruned: int) -> Iterator[tuple[Cut, list[CutFile]]]:
    """Yield the part up to the checkpoint after a record, and its open files without the mark.

    *pruned* is the last record that was pruned before the record with *identifier* was written.

    Raises:
        StateError: ``backup.changed``. Another attempt gets further.
        OSError: a file can't be read.
    """
    cut = _find(folder, identifier)
    with ExitStack() as stack:
        names = [] if not pruned else [BASE_NAME, INVENTORY_NAME]
        opened = [(name, stack.enter_context(open_regular(folder / name))) for name in names]
        segments = [
            path for path in list_segments(folder) if pruned < first_seq_of(path) <= cut.segment
        ]
        opened += [_open(path, stack) for path in segments if first_seq_of(path) < cut.segment]
        files = [CutFile(name, file, os.fstat(file.fileno()).st_size) for name, file in opened]
        last = stack.enter_context(open_segment(segments[-1]))
        files.append(CutFile(name_of(cut.segment), last, cut.size))
        if pruned_seq(folder) != pruned:
            raise changed()
        yield cut, files


def _open(path: Path, stack: ExitStack) -> tuple[str, BinaryIO]:
    try:
        return path.name, stack.enter_context(open_regular(path))
    except FileNotFoundError:  # compressed meanwhile
        packed = path.with_name(f"{path.name}{COMPRESSED}")
        return packed.name, stack.enter_context(open_regular(packed))


def _find(folder: Path, identifier: str) -> Cut:
    """Find the checkpoint that was written together with a record."""
    for segment in reversed(list_segments(folder)):
        found: Record | None = None
        for line in read_lines(segment):
            if found is None and identifier.encode() not in line.data:
                continue
            record = parse(line.data)
            if found is None:
                found = record if record.entry.id == identifier else None
            elif record.entry.stage == "checkpoint":
                return Cut(
                    DurableMark(record.seq, record.hash),
                    record.time,
                    read_checkpoint(record),
                    first_seq_of(segment),
                    line.offset + len(line.data) + 1,
                )
    raise changed()


def changed() -> StateError:
    """Return the error about a journal of which another part is kept than a moment before."""
    return StateError(
        "backup.changed",
        "records of the journal were pruned, or its key was replaced, while the backup began",
        remedy="try again",
    )
