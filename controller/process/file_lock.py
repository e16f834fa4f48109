"""One process at a time: a lock on a file that the kernel releases when its holder ends."""

from __future__ import annotations

import fcntl
import os
import select
from collections.abc import Callable
from pathlib import Path

from controller.model.errors import StateError

LOCK_WAIT_S = 5.0
PAUSE_S = 0.05


def hold(
    path: Path, *, what: str, monotonic: Callable[[], float], wait_s: float = LOCK_WAIT_S
) -> int:
    """Lock *path* for this process, waiting for a dying holder; return the descriptor.

    Raises:
        StateError: another process holds it, or the file can't be opened.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StateError(
            "state.unwritable",
            f"{path}: {error.strerror}",
            remedy=f"run the {what} as the owner of its folder, or name another with --state",
        ) from error
    deadline = monotonic() + wait_s
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if monotonic() >= deadline:
                os.close(handle)
                raise StateError(
                    "state.held",
                    f"another {what} holds {path}",
                    remedy="stop it first, or name another state folder with --state",
                ) from None
            select.select((), (), (), PAUSE_S)
        else:
            return handle
