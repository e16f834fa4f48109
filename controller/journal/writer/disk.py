"""The file calls on which durability depends, as one seam: tests count the calls or let them fail.

The last free space is a reserve for the controller, operators and closing records. Once only the
reserve is left, requests of clients, refusals and reads are no longer recorded, and thus refused or
left out. No client can fill the disk to the point where operators can't act.
"""

from __future__ import annotations

import os
from typing import Final, NamedTuple

from controller.core.enforcement.record_summaries import LIMITED
from controller.core.records.parts import ActorPart
from controller.core.records.record import CLOSING
from controller.model.records import Entry, Role


class DiskSpace(NamedTuple):
    """The free and total size of a file system."""

    free_bytes: int
    size_bytes: int


class Disk:
    """The operating system's calls. Each raises OSError, and none retries."""

    def open(self, path: str | os.PathLike[str], flags: int, mode: int = 0o600) -> int:
        """Open a file; no link at the end of *path* is followed, and child processes don't inherit."""
        return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, mode)

    def write(self, file: int, data: bytes) -> None:
        """Write all of *data*. After an error, a part can have been written."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(file, rest) :]

    def overwrite(self, file: int, data: bytes) -> None:
        """Overwrite the start of the file with *data*, at most a disk sector long."""
        if os.pwrite(file, data, 0) != len(data):
            raise OSError("short write")

    def fsync(self, file: int) -> None:
        """Flush the content of a file or folder to the disk."""
        os.fsync(file)

    def truncate(self, file: int, size: int) -> None:
        """Cut the file to *size* bytes."""
        os.ftruncate(file, size)

    def ends_with(self, file: int, size: int, line: bytes) -> bool:
        """Return True if the disk, not only the page cache, has *line* right before offset *size*."""
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        return os.pread(file, len(line), size - len(line)) == line

    def room(self, file: int) -> DiskSpace:
        """Return the space of the file's file system; free is the space for unprivileged users."""
        facts = os.fstatvfs(file)
        return DiskSpace(facts.f_bavail * facts.f_frsize, facts.f_blocks * facts.f_frsize)


RESERVE_BYTES: Final = 64 * 1024 * 1024
#: At most one part in so many of a small file system is reserved.
RESERVE_SHARE: Final = 8

_NEVER: Final = LIMITED | {"summary"}
_OURS: Final = frozenset({Role.CONTROLLER.value, Role.OPERATOR.value})


def is_scarce(*, free_bytes: int, size_bytes: int) -> bool:
    """Return True if only the reserve of the file system is left."""
    return free_bytes < min(RESERVE_BYTES, size_bytes // RESERVE_SHARE)


def may_use_reserve(entry: Entry) -> bool:
    """Return True if the entry is recorded even when only the reserve is left."""
    role = ActorPart.read(entry.actor).role
    if entry.stage in CLOSING:
        return True  # for every role: an admitted intent must be closed
    if role == Role.BROKER:
        return True  # removed objects, violations, policies, and the journal's own records
    return role in _OURS and entry.stage not in _NEVER
