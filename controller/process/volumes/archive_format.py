"""The archive of a volume: a tar file in pax format, with a trailer of fixed size.

Holes of files are left out as GNU tar does (pax format 1.0 for sparse files), so ordinary tar
programs read the archive. The last member is a small JSON file with the digest of everything before
it. A cut or changed archive is thus recognised, also from a pipe.

Source: "GNU tar manual, Sparse Formats"; POSIX.1-2001, pax Interchange Format.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

BLOCK = tarfile.BLOCKSIZE
TRAILER_NAME = ".trimtab-dump.json"
#: Names at the top of a volume that are never in an archive.
RESERVED_PREFIX = ".trimtab-"
#: Header, JSON, and the two blocks that end a tar file.
TRAILER_BYTES = 4 * BLOCK
#: The format of the trailer.
FORMAT = 1
XATTR = "SCHILY.xattr."
#: Entries of an archive, and bytes of a path.
ENTRIES_MAX = 10_000_000
PATH_MAX = 4096
#: Hard links that are recognised; further ones become files of their own.
LINKS_MAX = 1_000_000
#: Skipped entries that are named.
NAMED_MAX = 100


class BadArchive(Exception):
    """The archive can't be restored."""


@dataclass(frozen=True, slots=True)
class Trailer:
    """The last member of an archive."""

    volume: str
    #: SHA-256 of all bytes before the trailer, in hex.
    sha256: str
    #: The entries, without the trailer, and the bytes of their data.
    entries: int
    size_bytes: int

    def encode(self) -> bytes:
        """Return the trailer as the last bytes of an archive."""
        members = {
            "format": FORMAT,
            "volume": self.volume,
            "sha256": self.sha256,
            "entries": self.entries,
            "bytes": self.size_bytes,
        }
        data = json.dumps(members).encode().ljust(BLOCK)
        assert len(data) == BLOCK, f"a trailer of {len(data)} bytes"
        info = tarfile.TarInfo(TRAILER_NAME)
        info.size, info.mode = BLOCK, 0o600
        return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(2 * BLOCK)

    @classmethod
    def decode(cls, data: bytes) -> Trailer:
        """Return the trailer in the last bytes of an archive.

        Raises:
            BadArchive: the bytes are no trailer.
        """
        try:
            info = tarfile.TarInfo.frombuf(data[:BLOCK], "utf-8", "surrogateescape")
            members = json.loads(data[BLOCK : 2 * BLOCK])
            if info.name != TRAILER_NAME or members["format"] != FORMAT or any(data[2 * BLOCK :]):
                raise BadArchive("its end isn't that of a dump of this version")
            return cls(
                volume=str(members["volume"]),
                sha256=str(members["sha256"]),
                entries=int(members["entries"]),
                size_bytes=int(members["bytes"]),
            )
        except (tarfile.TarError, ValueError, KeyError, TypeError) as error:
            raise BadArchive("it is cut, or isn't an archive of 'trimtab volume dump'") from error


def segments(handle: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield the offset and the length of each part of a file that isn't a hole."""
    at = 0
    while at < size:
        try:
            start = os.lseek(handle, at, os.SEEK_DATA)
        except OSError:
            return  # no data after this offset
        end = min(os.lseek(handle, start, os.SEEK_HOLE), size)
        if start >= size or end <= start:
            return
        yield start, end - start
        at = end


def sparse_map(parts: list[tuple[int, int]], size: int) -> bytes:
    """Return the map of a sparse file: its parts as decimal numbers, padded to whole blocks."""
    if not parts or sum(parts[-1]) < size:
        parts = [*parts, (size, 0)]  # the end, as GNU tar writes it
    text = "".join(f"{number}\n" for number in (len(parts), *(n for part in parts for n in part)))
    return padded(text.encode())


def padded(data: bytes) -> bytes:
    """Return data with zeros up to a whole number of blocks."""
    return data + bytes(-len(data) % BLOCK)
