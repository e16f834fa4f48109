"""The journal's files: segments of lines, and the mark of what was made durable.

A segment is named after the seq of its first record (``00000000000000000001.jsonl``), which is
always a ``segment`` record. One that is closed may be compressed (``….jsonl.gz``), or pruned (``base``). The mark ``.head`` holds seq and hash of the last durable record. It
is written after the records' fsync and isn't synced itself: after a loss of power it may lag
behind, but it is never ahead. So it shows a cut tail, unless whoever cut it there changed the mark
too (checkpoints kept elsewhere are the answer to that). Its name sorts before the segments', so
that a copy made in order of names never holds a mark ahead of its segments.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import stat
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, cast

from controller.core.encoding.canonical_json import canonical
from controller.core.records.record import LINE_MAX_BYTES
from controller.journal.store.segment_gzip import Unpacked

MARK_NAME: Final = ".head"
#: The mark fills one piece of a sector, so that overwriting it is all or nothing.
MARK_BYTES: Final = 128

COMPRESSED: Final = ".gz"

_BUFFER_BYTES: Final = 256 * 1024
_NAME = re.compile(r"([0-9]{20})\.jsonl(?:\.gz)?")


def name_of(first_seq: int) -> str:
    """Return the file name of the segment whose first record is *first_seq*."""
    return f"{first_seq:020d}.jsonl"


def first_seq_of(segment: Path) -> int:
    """Return the seq that a segment's name promises for its first record."""
    match = _NAME.fullmatch(segment.name)
    assert match is not None, f"not a segment: {segment}"
    return int(match[1])


def list_segments(folder: Path) -> tuple[Path, ...]:
    """Return the segments in order of their names. Other files are nobody's business here.

    Where one is there compressed as well, it is being compressed: that copy isn't told.

    Raises:
        OSError: the folder can't be read.
    """
    with os.scandir(folder) as entries:
        names = {entry.name for entry in entries if _NAME.fullmatch(entry.name)}
    twice = {f"{name}{COMPRESSED}" for name in names}
    return tuple(folder / name for name in sorted(names - twice))


@dataclass(frozen=True, slots=True)
class DurableMark:
    """The last record that was made durable."""

    seq: int
    hash: str

    def to_bytes(self) -> bytes:
        """Return the content of the file, always equally long."""
        return canonical({"hash": self.hash, "seq": self.seq}).ljust(MARK_BYTES - 1) + b"\n"


class BadMark(ValueError):
    """The file of the mark holds something else."""


def read_mark(folder: Path) -> DurableMark | None:
    """Return the mark, or None when there is none; an empty file is none.

    Raises:
        BadMark: the file isn't as the writer leaves it.
        OSError: it can't be read.
    """
    try:
        with open_regular(folder / MARK_NAME) as file:
            content = file.read(MARK_BYTES + 1)
    except FileNotFoundError:
        return None
    return parse_mark(content)


def parse_mark(content: bytes) -> DurableMark | None:
    """Return the mark in its file's content, or None for an empty file.

    Raises:
        BadMark: the content isn't as the writer leaves it.
    """
    if not content:
        return None
    try:
        members = json.loads(content)
        mark = DurableMark(seq=members["seq"], hash=members["hash"])
        is_one = type(mark.seq) is int and mark.seq >= 0 and isinstance(mark.hash, str)
        if is_one and mark.to_bytes() == content:
            return mark
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise BadMark(f"{MARK_NAME} isn't as the journal's writer leaves it")


class Line(NamedTuple):
    """One line of a segment: ``number`` from 1, ``data`` without the newline."""

    number: int
    offset: int
    data: bytes
    whole: bool  # a newline ends it


class BadSegment(ValueError):
    """A compressed segment that can't be read on."""


def read_lines(segment: Path, *, skip: int = 0) -> Iterator[Line]:
    """Yield the lines after the first *skip*, never holding more than one of legal length.

    Offsets are those of the segment as it was before it was compressed.

    Raises:
        Garbled: it is compressed, and damaged.
        OSError: the file can't be read, or is no ordinary file.
    """
    try:
        with open_segment(segment) as file:
            for _ in range(skip):
                if not file.readline(LINE_MAX_BYTES + 1).endswith(b"\n"):
                    return
            offset = file.tell() if skip else 0
            number = skip
            while data := file.readline(LINE_MAX_BYTES + 2):
                number += 1
                whole = data.endswith(b"\n")
                yield Line(number, offset, data[:-1] if whole else data, whole)
                offset += len(data)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadSegment(f"{segment.name} is damaged: {error}") from error


def open_segment(segment: Path) -> BinaryIO:
    """Open a segment, compressed or not: it may have been compressed since it was listed.

    Raises:
        OSError: the file can't be read, or is no ordinary file.
    """
    try:
        return _opened(segment)
    except FileNotFoundError:
        if segment.suffix == COMPRESSED:
            return _opened(segment.with_suffix(""))
        return _opened(segment.with_name(f"{segment.name}{COMPRESSED}"))


def segment_size(segment: Path) -> int:
    """Return how many bytes a segment takes, compressed or not; 0 where it is gone."""
    for path in (segment, segment.with_name(f"{segment.name}{COMPRESSED}")):
        with suppress(FileNotFoundError):
            return path.stat().st_size
    return 0


def _opened(segment: Path) -> BinaryIO:
    file = open_regular(segment)
    if segment.suffix != COMPRESSED:
        return file
    # Lines are then found in C.
    return cast("BinaryIO", BufferedReader(Unpacked(file), _BUFFER_BYTES))


def open_regular(path: Path) -> BinaryIO:
    """Open an ordinary file for reading: no link, no pipe that would block, no device."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"not an ordinary file: {path}")
    return os.fdopen(descriptor, "rb", buffering=_BUFFER_BYTES)
