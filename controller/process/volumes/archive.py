"""The archive of a volume: a tar file in pax format, with a trailer of fixed size.

Holes of files are left out as GNU tar does (pax format 1.0 for sparse files), so ordinary tar
programs read the archive. The last member is a small JSON file with the digest of everything before
it. A cut or changed archive is thus recognised, also from a pipe.

Source: "GNU tar manual, Sparse Formats"; POSIX.1-2001, pax Interchange Format.

Writing the archive of a volume. Runs in the confined child, with the volume as its root.

Programs of containers wrote the files, and may go on writing. No link is followed. A file that
changes meanwhile is stored with the size at the begin. Up to the bound of entries, nothing that a
program puts into a volume ends a dump: devices, sockets, names of trimtab at the top, paths that are too long, and attributes
without a form in an archive are left out, and named.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO

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


CHUNK = 1024 * 1024
#: A file with holes of fewer bytes is stored whole.
HOLES_MIN = 64 * 1024

#: The errors of a path that another program moved, removed or replaced.
_CHANGED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})

#: Reports a message to the parent.
ArchiveReport = Callable[[dict[str, Any]], None]


@dataclass(slots=True)
class ArchiveWriter:
    """Writes the archive of a volume."""

    out: BinaryIO
    report: ArchiveReport
    entries: int = 0
    size_bytes: int = 0
    skipped: int = 0
    changed: int = 0
    _digest: Any = field(default_factory=hashlib.sha256)
    #: The first name of each file with several names.
    _names: dict[tuple[int, int], str] = field(default_factory=dict)

    def write(self, volume: str, root: str = "/") -> None:
        """Write the archive of a folder.

        Raises:
            OSError: a file can't be read, or the archive not written.
        """
        self._entry(".", root, os.lstat(root))
        pending = [("", root)]
        while pending:
            prefix, folder = pending.pop()
            below, names = [], list[str]()
            with self._unless_changed(prefix.rstrip("/")):
                names = names_in(folder)
            for name in names:
                if not prefix and name.startswith(RESERVED_PREFIX):
                    self._skip(name, "name of trimtab")
                    continue
                path, stored = f"{folder.rstrip('/')}/{name}", f"{prefix}{name}"
                if len(os.fsencode(path)) >= PATH_MAX:
                    self._skip(stored, f"path of {PATH_MAX} bytes or more")
                    continue
                with self._unless_changed(stored):
                    if self._entry(stored, path, os.lstat(path)):
                        below.append((f"{stored}/", path))
            pending += reversed(below)
        trailer = Trailer(volume, self._digest.hexdigest(), self.entries, self.size_bytes)
        self.out.write(trailer.encode())
        self.out.flush()

    def _entry(self, stored: str, path: str, status: os.stat_result) -> bool:
        """Write an entry; return True for a folder, before the entries of the folder."""
        if self.entries >= ENTRIES_MAX:
            raise OSError(f"more than {ENTRIES_MAX} entries")
        info = _info_of(stored, status)
        match stat.S_IFMT(status.st_mode):
            case stat.S_IFDIR:
                info.type = tarfile.DIRTYPE
            case stat.S_IFREG:
                self._file(info, path, status)
                return False
            case stat.S_IFLNK:
                info.type = tarfile.SYMTYPE
                try:
                    info.linkname = os.readlink(path)  # noqa: PTH115 - a Path changes the text
                except OSError:
                    self._note_change(stored)
                    return False
            case stat.S_IFIFO:
                info.type = tarfile.FIFOTYPE
            case _:
                self._skip(stored, "socket" if stat.S_ISSOCK(status.st_mode) else "device")
                return False
        info.pax_headers = {**info.pax_headers, **self._attributes(stored, path)}
        self._header(info)
        return info.type == tarfile.DIRTYPE

    def _file(self, info: tarfile.TarInfo, path: str, status: os.stat_result) -> None:
        inode = (status.st_dev, status.st_ino)
        if status.st_nlink > 1 and (first := self._names.get(inode)):
            info.type, info.linkname = tarfile.LNKTYPE, first
            self._header(info)
            return
        try:
            # A FIFO put in place of the file would block.
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, OSError) as error:
            if isinstance(error, PermissionError):
                raise
            self._note_change(info.name)
            return
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                self._note_change(info.name)
                return
            # Another file may lie there by now: owner, mode and inode are those of the opened one.
            info = _info_of(info.name, status)
            if status.st_nlink > 1 and len(self._names) < LINKS_MAX:
                self._names[status.st_dev, status.st_ino] = info.name
            info.pax_headers = {**info.pax_headers, **self._attributes(info.name, handle)}
            self._contents(info, handle, status.st_size)
        finally:
            os.close(handle)

    def _contents(self, info: tarfile.TarInfo, handle: int, size: int) -> None:
        parts = list(segments(handle, size))
        stored = sum(length for _, length in parts)
        if size - stored < HOLES_MIN:
            parts, stored = [(0, size)] if size else [], size
            info.size = size
            self._header(info)
        else:
            described = sparse_map(parts, size)
            info.size = len(described) + stored
            info.pax_headers = {
                **info.pax_headers,
                "GNU.sparse.major": "1",
                "GNU.sparse.minor": "0",
                "GNU.sparse.name": info.name,
                "GNU.sparse.realsize": str(size),
            }
            self._header(info)
            self._write(described)
        for start, length in parts:
            self._copy(handle, start, length, info.name)
        self._write(bytes(-stored % BLOCK))
        self.size_bytes += stored

    def _copy(self, handle: int, start: int, length: int, name: str) -> None:
        """Copy a part of a file. The size is in the header already: a shorter file gets zeros."""
        at, end = start, start + length
        while at < end:
            data = os.pread(handle, min(CHUNK, end - at), at)
            if not data:
                self._note_change(name)
                data = bytes(min(CHUNK, end - at))
            self._write(data)
            at += len(data)
            self.report({"bytes": self.size_bytes + at - start, "entries": self.entries})

    def _header(self, info: tarfile.TarInfo) -> None:
        self.entries += 1
        self._write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
        self.report({"bytes": self.size_bytes, "entries": self.entries})

    def _write(self, data: bytes) -> None:
        self._digest.update(data)
        self.out.write(data)

    def _attributes(self, stored: str, target: str | int) -> dict[str, str]:
        """Return the extended attributes of users, and the access lists, as pax headers."""
        found = {}
        for name, value in _attributes(target):
            # A pax header ends its name at the first '=', and is UTF-8.
            if "=" in name or name != name.encode("utf-8", "replace").decode():
                self._skip(stored, f"attribute {name}")
            else:
                found[f"{XATTR}{name}"] = value.decode("utf-8", "surrogateescape")
        return found

    @contextmanager
    def _unless_changed(self, stored: str) -> Iterator[None]:
        """Note a change instead of an error for a path that isn't there any more."""
        try:
            yield
        except OSError as error:
            if error.errno not in _CHANGED:
                raise
            self._note_change(stored)

    def _skip(self, name: str, kind: str) -> None:
        self.skipped += 1
        if self.skipped <= NAMED_MAX:
            self.report({"skipped": name, "kind": kind})

    def _note_change(self, name: str) -> None:
        self.changed += 1
        if self.changed <= NAMED_MAX:
            self.report({"changed": name})


def names_in(folder: str) -> list[str]:
    """Return the names in a folder, in the order of their bytes. A link isn't followed."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with os.scandir(handle) as entries:
            return sorted((entry.name for entry in entries), key=os.fsencode)
    finally:
        os.close(handle)


def _info_of(stored: str, status: os.stat_result) -> tarfile.TarInfo:
    info = tarfile.TarInfo(stored)
    info.mode = stat.S_IMODE(status.st_mode)
    info.uid, info.gid = status.st_uid, status.st_gid
    seconds, rest = divmod(status.st_mtime_ns, 10**9)
    info.mtime = max(0, seconds)
    info.pax_headers = {"mtime": f"{seconds}.{rest:09d}"}
    return info


def _attributes(target: str | int) -> Iterator[tuple[str, bytes]]:
    """Yield the names and values of the attributes of users, and of the access lists."""
    # Links have no attributes of these names. A descriptor is never a link's.
    follow = not isinstance(target, str)
    try:
        names = os.listxattr(target, follow_symlinks=follow)
    except OSError:
        return  # a filesystem without them
    for name in sorted(names):
        if name.startswith(("user.", "system.posix_acl_")):
            with suppress(OSError):
                yield name, os.getxattr(target, name, follow_symlinks=follow)
