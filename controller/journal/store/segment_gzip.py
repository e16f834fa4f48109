"""Compressed segments: gzip with a member for each MiB, for access without unpacking everything.

Any gzip reader can read the files (RFC 1952 allows a sequence of members). Each member has its own
length in an extra header field; its trailer has the length of the content, as in any gzip file. A
reader steps from member to member to the member of an offset, and unpacks only that member.
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
