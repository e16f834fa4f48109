"""Export a part of the journal as whole segments, so that the copy can be verified alone.

A copy from the middle of the journal begins one segment earlier, for the checkpoint at that
segment's end: from that checkpoint on (``verify --from``), chain and tree can be verified.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from controller.core.records.record import parse
from controller.journal.store.chain import Damage
from controller.journal.store.folder import FILE_MODE, FOLDER_MODE
from controller.journal.store.pruned_base import BASE_NAME, BadBase, PrunedBase, read_base
from controller.journal.store.reader import last_seq, missing, readable
from controller.journal.store.segments import (
    MARK_NAME,
    BadMark,
    DurableMark,
    first_seq_of,
    list_segments,
    open_regular,
    read_lines,
    read_mark,
)
from controller.journal.store.tail import final_checkpoint
from controller.model.errors import StateError


@dataclass(frozen=True, slots=True)
class Copied:
    """The records in a copy."""

    first: int
    last: int
    begin: int  # the first record that can be verified


def copy_segments(folder: Path, copy: Path, *, after: int = 0, upto: int = 0) -> Copied:
    """Copy the segments with the records above *after* up to *upto* (0: all) into a new folder.

    Raises:
        StateError: the journal is missing or unreadable, or the copy can't be written.
    """
    with readable(folder):
        try:
            base, mark = read_base(folder), read_mark(folder)
        except (BadBase, BadMark) as error:
            raise Damage(str(error), seq=1, file="", line=1) from error
        gone = base.record.seq if base is not None else 0
        segments = [path for path in list_segments(folder) if first_seq_of(path) > gone]
        if not segments:
            raise missing(folder)
        end = mark.seq if mark is not None else last_seq(folder)
        ends = [first_seq_of(path) - 1 for path in segments[1:]] + [end]
        wanted = next((i for i, end in enumerate(ends) if end > after), len(ends) - 1)
        start = max(0, wanted - 1)
        while start and final_checkpoint(segments[start], ends[start]) is None:
            start -= 1
        if start == 0 and base is not None:
            upto = 0  # include the prune record, which comes later
        last = next(
            (i for i in range(wanted, len(ends)) if upto and ends[i] >= upto), len(ends) - 1
        )
        end = _write(copy, segments[start : last + 1], base if start == 0 else None, ends[last])
        begin = first_seq_of(segments[wanted]) if start else first_seq_of(segments[0])
        return Copied(first_seq_of(segments[start]), end, begin)


def _write(copy: Path, segments: list[Path], base: PrunedBase | None, last: int) -> int:
    """Write a copy; return the last record of the copy."""
    try:
        copy.mkdir(mode=FOLDER_MODE, exist_ok=True)
        if any(copy.iterdir()):
            raise StateError(
                "export.not-empty", f"{copy} isn't empty", remedy="name a folder that isn't there"
            )
        for path in segments:
            with open_regular(path) as source, _new(copy / path.name) as out:
                shutil.copyfileobj(source, out)
        end = _cut_after(copy / segments[-1].name, upto=last)
        files = {MARK_NAME: end.to_bytes(), **({BASE_NAME: base.to_bytes()} if base else {})}
        for name, content in files.items():
            with _new(copy / name) as out:
                out.write(content)
    except OSError as error:
        where = Path(os.fsdecode(error.filename)) if error.filename else copy
        if copy not in {where, where.parent}:
            raise  # the journal can't be read
        raise StateError(
            "export.unwritable", f"{copy}: {error.strerror}", remedy="name another folder"
        ) from error
    return end.seq


def _new(path: Path) -> BinaryIO:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, FILE_MODE), "wb")


def _cut_after(segment: Path, *, upto: int) -> DurableMark:
    """Return the last record of a copied segment; cut off later and unfinished lines."""
    size, data = 0, b""
    for line in read_lines(segment):
        if not line.whole or parse(line.data).seq > upto:
            os.truncate(segment, size)
            break
        size, data = line.offset + len(line.data) + 1, line.data
    record = parse(data)
    return DurableMark(record.seq, record.hash)
