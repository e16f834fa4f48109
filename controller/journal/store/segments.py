"""The journal's files: segments of lines, and the mark of the last durable record.

A segment is named after the seq of its first record (``00000000000000000001.jsonl``). The first
record is always a ``segment`` record. A closed segment can be compressed (``….jsonl.gz``) or pruned
(``pruned_base``).

The mark ``.head`` holds seq and hash of the last durable record. The writer replaces the mark after
the records' fsync and doesn't sync the mark itself: after a loss of power the mark can lag behind,
but is never ahead. The mark thus reveals a cut tail, unless the attacker changed the mark too;
checkpoints kept elsewhere reveal that. The name sorts before those of segments, so that a copy made
in order of names never holds a mark ahead of its segments.

Compressed segments: gzip with a member for each MiB, for access without unpacking everything.

Any gzip reader can read the files (RFC 1952 allows a sequence of members). Each member has its own
length in an extra header field; its trailer has the length of the content, as in any gzip file. A
reader steps from member to member to the member of an offset, and unpacks only that member.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import SEEK_SET, BufferedReader, RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple, cast

from controller.core.encoding.json_values import canonical
from controller.core.records.record import LINE_MAX_BYTES

if TYPE_CHECKING:
    from typing_extensions import Buffer


#: Errors of reading a damaged compressed segment.
UNPACK_ERRORS: Final = (EOFError, zlib.error, gzip.BadGzipFile)
#: Uncompressed bytes of each member but the last.
BLOCK_BYTES: Final = 1024 * 1024

#: A gzip header with one extra field: the field's length, its name, its size, the member's length.
_HEADER: Final = struct.Struct("<4sLBBH2sHL")
_MAGIC: Final = b"\x1f\x8b\x08\x04"
_FIELD: Final = b"tm"
_END: Final = struct.Struct("<LL")
_HELD: Final = struct.Struct("<L")
_NO_SYSTEM: Final = 255


def pack(block: bytes) -> bytes:
    """Return a block compressed as one gzip member."""
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    body = deflate.compress(block) + deflate.flush()
    length = _HEADER.size + len(body) + _END.size
    header = _HEADER.pack(_MAGIC, 0, 0, _NO_SYSTEM, 8, _FIELD, 4, length)
    return header + body + _END.pack(zlib.crc32(block), len(block))


def member_of(file: int, offset: int) -> tuple[int, int]:
    """Return the place of the member with an offset, and the offset of the member's first byte.

    Returns the file's start if another program's members are on the way: those lack the length.
    """
    at = begin = 0
    while header := os.pread(file, _HEADER.size, at):
        if len(header) < _HEADER.size:
            return 0, 0
        magic, _, _, _, _, field, _, length = _HEADER.unpack(header)
        held = os.pread(file, _HELD.size, at + length - _HELD.size)
        if (magic, field) != (_MAGIC, _FIELD) or length <= _HEADER.size or len(held) < _HELD.size:
            return 0, 0
        (size,) = _HELD.unpack(held)
        if offset < begin + size:
            break
        at, begin = at + length, begin + size
    return at, begin


class Unpacked(RawIOBase):
    """The uncompressed content of a segment. Closing also closes the compressed file.

    Raises:
        One of ``UNPACK_ERRORS``: on reading a damaged place.
    """

    def __init__(self, packed: BinaryIO) -> None:
        super().__init__()
        self._packed = packed
        self._begin_at(0, 0)

    def _begin_at(self, at: int, begin: int) -> None:
        self._packed.seek(at)
        self._members = gzip.GzipFile(fileobj=self._packed, mode="rb")
        self._begin = begin

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        """Read the next bytes into *buffer*; return their number."""
        # readinto1 returns the bytes before a damaged place; the next call raises.
        return self._members.readinto1(buffer)

    def tell(self) -> int:
        """Return the offset of the next byte."""
        return self._begin + self._members.tell()

    def seek(self, offset: int, whence: int = SEEK_SET, /) -> int:
        """Move to an offset: read on if the offset lies ahead in the member, else jump to its member."""
        assert whence == SEEK_SET, "segments are read from absolute offsets"
        here = self.tell()
        at, begin = member_of(self._packed.fileno(), offset)
        if not begin <= here <= offset:
            self._begin_at(at, begin)
        self._members.seek(offset - self._begin)
        return offset

    def close(self) -> None:
        """Close the content and the compressed file."""
        super().close()
        self._packed.close()


MARK_NAME: Final = ".head"
#: Within one disk sector, so that overwriting the mark is atomic.
MARK_BYTES: Final = 128

COMPRESSED: Final = ".gz"

_BUFFER_BYTES: Final = 256 * 1024
_NAME = re.compile(r"([0-9]{20})\.jsonl(?:\.gz)?")


def name_of(first_seq: int) -> str:
    """Return the file name of the segment whose first record is *first_seq*."""
    return f"{first_seq:020d}.jsonl"


def first_seq_of(segment: Path) -> int:
    """Return the seq of a segment's first record, from the file name."""
    match = _NAME.fullmatch(segment.name)
    assert match is not None, f"not a segment: {segment}"
    return int(match[1])


def list_segments(folder: Path) -> tuple[Path, ...]:
    """Return the segments in order of their names; other files are ignored.

    If a segment has a compressed copy too, the compression is unfinished: the copy is left out.

    Raises:
        OSError: the folder can't be read.
    """
    with os.scandir(folder) as entries:
        names = {entry.name for entry in entries if _NAME.fullmatch(entry.name)}
    unfinished = {f"{name}{COMPRESSED}" for name in names}
    return tuple(folder / name for name in sorted(names - unfinished))


@dataclass(frozen=True, slots=True)
class DurableMark:
    """The last durable record."""

    seq: int
    hash: str

    def to_bytes(self) -> bytes:
        """Return the content of the file, always ``MARK_BYTES`` long."""
        return canonical({"hash": self.hash, "seq": self.seq}).ljust(MARK_BYTES - 1) + b"\n"


class BadMark(ValueError):
    """The mark is not in the form in which the writer leaves it."""


def read_mark(folder: Path) -> DurableMark | None:
    """Return the mark, or None if the file is missing or empty.

    Raises:
        BadMark: the file is not in the form in which the writer leaves it.
        OSError: the file can't be read.
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
        BadMark: the content is not in the form in which the writer leaves it.
    """
    if not content:
        return None
    try:
        members = json.loads(content)
        mark = DurableMark(seq=members["seq"], hash=members["hash"])
        has_types = type(mark.seq) is int and mark.seq >= 0 and isinstance(mark.hash, str)
        if has_types and mark.to_bytes() == content:
            return mark
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise BadMark(f"{MARK_NAME} doesn't have the form that the journal's writer writes")


class Line(NamedTuple):
    """One line of a segment."""

    number: int  # counted from 1
    offset: int
    data: bytes  # without the newline
    whole: bool  # the line ends with a newline


class BadSegment(ValueError):
    """A compressed segment is damaged."""


def read_lines(segment: Path, *, skip: int = 0) -> Iterator[Line]:
    """Yield the lines after the first *skip*, holding one line of legal length at most.

    Offsets count uncompressed bytes.

    Raises:
        BadSegment: the segment is compressed, and damaged.
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
    except UNPACK_ERRORS as error:
        raise BadSegment(f"{segment.name} is damaged: {error}") from error


def open_segment(segment: Path) -> BinaryIO:
    """Open a segment, compressed or not: the writer can compress a segment after its listing.

    Raises:
        OSError: the file can't be read, or is no ordinary file.
    """
    try:
        return _open_file(segment)
    except FileNotFoundError:
        if segment.suffix == COMPRESSED:
            return _open_file(segment.with_suffix(""))
        return _open_file(segment.with_name(f"{segment.name}{COMPRESSED}"))


def segment_size(segment: Path) -> int:
    """Return the size of a segment's file in bytes, compressed or not; 0 if the file is gone."""
    for path in (segment, segment.with_name(f"{segment.name}{COMPRESSED}")):
        with suppress(FileNotFoundError):
            return path.stat().st_size
    return 0


def _open_file(segment: Path) -> BinaryIO:
    file = open_regular(segment)
    if segment.suffix != COMPRESSED:
        return file
    # BufferedReader finds line ends in C.
    return cast("BinaryIO", BufferedReader(Unpacked(file), _BUFFER_BYTES))


def open_regular(path: Path) -> BinaryIO:
    """Open an ordinary file for reading; links, pipes (opening could block) and devices are refused."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"not an ordinary file: {path}")
    return os.fdopen(descriptor, "rb", buffering=_BUFFER_BYTES)
