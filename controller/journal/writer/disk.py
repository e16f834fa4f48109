"""The file calls that durability hangs on, as one seam: what tests count, and let fail."""

from __future__ import annotations

import os
from typing import NamedTuple


class DiskSpace(NamedTuple):
    """What a file system has."""

    free_bytes: int
    size_bytes: int


class Disk:
    """The operating system's calls. Each raises OSError, and none retries."""

    def open(self, path: str | os.PathLike[str], flags: int, mode: int = 0o600) -> int:
        """Open without following a link at the end of the path, and not for children."""
        return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, mode)

    def write(self, file: int, data: bytes) -> None:
        """Write all of *data*. After an error, some of it may have been written."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(file, rest) :]

    def overwrite(self, file: int, data: bytes) -> None:
        """Write *data*, which is at most a sector long, over the start of the file."""
        if os.pwrite(file, data, 0) != len(data):
            raise OSError("short write")

    def fsync(self, file: int) -> None:
        """Return when the file's (or folder's) content is on the disk."""
        os.fsync(file)

    def truncate(self, file: int, size: int) -> None:
        """Cut the file to *size* bytes."""
        os.ftruncate(file, size)

    def ends_with(self, file: int, size: int, line: bytes) -> bool:
        """Tell whether the disk itself, not the page cache, has *line* right before *size*."""
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        return os.pread(file, len(line), size - len(line)) == line

    def room(self, file: int) -> DiskSpace:
        """Return how much is free, to whoever has no privilege, on the file's file system."""
        found = os.fstatvfs(file)
        return DiskSpace(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)
