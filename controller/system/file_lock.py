"""Lock files: at most one process holds a lock. The kernel releases a lock when its process ends.

The locks are those of flock(2). They belong to the open file, so closing the descriptor releases
the lock.
"""

from __future__ import annotations

import fcntl
import os
import select
from collections.abc import Callable
from pathlib import Path

from controller.model.errors import StateError

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
