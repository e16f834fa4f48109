"""Durable replacement of files, and lock files.

Durable replacement of a file: after a crash the file has its old content or the new content.

Every file that trimtab replaces is written here. The order is the one that POSIX file systems
need: write a temporary file, fsync the file, rename the file, fsync the folder. Without the last
step a loss of power can undo the rename (fsync(2)).

Lock files: at most one process holds a lock. The kernel releases a lock when its process ends.

The locks are those of flock(2). They belong to the open file, so closing the descriptor releases
the lock.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
from collections.abc import Callable
from pathlib import Path

from controller.model.crashpoints import Reach, pass_by
from controller.model.errors import StateError

#: A folder that can be written but not read, or a file system that has no fsync for folders.
_CANNOT_SYNC = frozenset({errno.EACCES, errno.EPERM, errno.EINVAL})


def write_atomic(
    path: Path,
    data: bytes,
    *,
    mode: int | None = 0o600,
    owner: tuple[int, int] | None = None,
    folder_sync_required: bool = True,
    reach: Reach = pass_by,
    points: str = "file",
) -> None:
    """Replace *path* durably. Only one process writes a path at a time.

    The temporary file ``.NAME.new`` lies in the same folder. A leftover of that name is removed
    first and never opened: a symbolic or hard link there does no harm.

    Args:
        path: The file. A symbolic link of this name is replaced, not followed.
        data: The whole new content.
        mode: The mode of the new file, whatever the umask. None: 0666 less the umask.
        owner: The user and the group of the new file, as far as the process can choose them. None:
            the process's own.
        folder_sync_required: False accepts a folder that cannot be synced (``fsync_folder``).
        reach: Reports the crash points ``POINTS.write.before``, ``POINTS.write.after``,
            ``POINTS.fsync.before`` and ``POINTS.fsync.after``.
        points: The prefix of the crash points, for example ``state``.

    Raises:
        OSError: the file is not replaced, or the replacement is not durable.
    """
    temporary = path.with_name(f".{path.name}.new")
    reach(f"{points}.write.before")
    temporary.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    handle = os.open(temporary, flags, 0o666 if mode is None else mode)
    with os.fdopen(handle, "wb") as file:
        if owner is not None and os.geteuid() == 0:
            os.fchown(handle, *owner)
        if mode is not None:
            os.fchmod(handle, mode)
        file.write(data)
        file.flush()
        reach(f"{points}.write.after")
        reach(f"{points}.fsync.before")
        os.fsync(handle)
    temporary.rename(path)
    fsync_folder(path.parent, required=folder_sync_required)
    reach(f"{points}.fsync.after")


def fsync_folder(folder: Path, *, required: bool = True) -> None:
    """Make the names in *folder* durable.

    With ``required=False`` two failures are accepted: the user cannot read the folder, or the
    file system has no fsync for folders.

    Raises:
        OSError: the folder is not synced.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if required or error.errno not in _CANNOT_SYNC:
            raise


#: How long a process waits for a holder that is about to end.
LOCK_WAIT_S = 5.0
_PAUSE_S = 0.05


def hold_lock(
    path: Path, *, program: str, monotonic: Callable[[], float], wait_s: float = LOCK_WAIT_S
) -> int:
    """Lock *path* and return the descriptor. Waits up to *wait_s* seconds for the lock.

    *program* is named in errors, for example ``controller``.

    Raises:
        StateError: another process holds the lock, or the file can't be opened.
    """
    handle = _open(path, program)
    deadline = monotonic() + wait_s
    while not try_lock(handle):
        if monotonic() >= deadline:
            os.close(handle)
            raise _held(path, program)
        select.select((), (), (), _PAUSE_S)
    return handle


async def hold_lock_async(
    path: Path, *, program: str, monotonic: Callable[[], float], wait_s: float = LOCK_WAIT_S
) -> int:
    """Do the same as ``hold_lock`` without blocking the event loop.

    Raises:
        StateError: another process holds the lock, or the file can't be opened.
    """
    import asyncio  # most commands need no event loop

    handle = _open(path, program)
    deadline = monotonic() + wait_s
    while not try_lock(handle):
        if monotonic() >= deadline:
            os.close(handle)
            raise _held(path, program)
        try:
            await asyncio.sleep(_PAUSE_S)
        except asyncio.CancelledError:
            os.close(handle)
            raise
    return handle


def open_lock_file(path: Path) -> int:
    """Open a lock file, or create a missing file. Return the descriptor.

    Raises:
        OSError: the file can't be opened, or *path* is a symbolic link.
    """
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def try_lock(handle: int) -> bool:
    """Lock an open file or folder. Return False if another open file has the lock."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open(path: Path, program: str) -> int:
    try:
        return open_lock_file(path)
    except OSError as error:
        raise StateError(
            "state.unwritable",
            f"{path}: {error.strerror}",
            remedy=f"run the {program} as the owner of its folder, or name another with --state",
        ) from error


def _held(path: Path, program: str) -> StateError:
    return StateError(
        "state.held",
        f"another {program} holds {path}",
        remedy="stop it first, or name another state folder with --state",
    )
