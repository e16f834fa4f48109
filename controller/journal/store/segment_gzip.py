"""Compressed segments: gzip with a member for each MiB, so that a record is had without all before it.

Whatever reads gzip reads them (members follow each other, RFC 1952). Each of ours says in its header
how long it is; its end says, as any does, how much it holds. So one comes to a place in the segment
from member to member, and only what is between the last one's start and that place is unpacked.
"""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from io import SEEK_SET, RawIOBase
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    from collections.abc import Buffer

#: What a member holds, but for the last one.
BLOCK_BYTES: Final = 1024 * 1024

#: A gzip header with one extra field: its length, and after its name that of the whole member.
_HEADER: Final = struct.Struct("<4sLBBH2sHL")
_MAGIC: Final = b"\x1f\x8b\x08\x04"
_FIELD: Final = b"tm"
_END: Final = struct.Struct("<LL")
_HELD: Final = struct.Struct("<L")
_NO_SYSTEM: Final = 255


def pack(block: bytes) -> bytes:
    """Return a block as a member."""
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    body = deflate.compress(block) + deflate.flush()
    length = _HEADER.size + len(body) + _END.size
    header = _HEADER.pack(_MAGIC, 0, 0, _NO_SYSTEM, 8, _FIELD, 4, length)
    return header + body + _END.pack(zlib.crc32(block), len(block))


def member_of(file: int, offset: int) -> tuple[int, int]:
    """Return where the member is that holds an offset, and the offset that it begins with.

    That is the file's start where the way leads over anything that isn't a member of ours.
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
    """What a compressed segment holds; closes its file with itself.

    Raises:
        EOFError, zlib.error, gzip.BadGzipFile: on reading, where it is damaged.
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
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        """Read on."""
        # What was read before a damaged place is told before that is.
        return self._members.readinto1(buffer)

    def tell(self) -> int:
        """Return the offset that is read next."""
        return self._begin + self._members.tell()

    def seek(self, offset: int, whence: int = SEEK_SET, /) -> int:
        """Go to an offset, by reading on where that is no further than from its member's start."""
        assert whence == SEEK_SET, "segments are read from places"
        here = self.tell()
        at, begin = member_of(self._packed.fileno(), offset)
        if not begin <= here <= offset:
            self._begin_at(at, begin)
        self._members.seek(offset - self._begin)
        return offset

    def close(self) -> None:
        """Close the file as well."""
        super().close()
        self._packed.close()
