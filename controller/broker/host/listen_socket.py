"""Claiming the state folder and the socket: one broker at a time, and never a wider socket.

The lock comes first and says who serves; the socket's file only tells clients where. So a socket
that nobody answers at is a dead broker's, and is replaced.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
from contextlib import suppress
from pathlib import Path

from controller.model.errors import StateError
from controller.ports import Clock

LOCK_WAIT_S = 5.0
_PAUSE_S = 0.05
FOLDER_MODE = 0o750
SOCKET_MODE = 0o660
BACKLOG = 1024


async def hold_lock(path: Path, *, clock: Clock, wait_s: float = LOCK_WAIT_S) -> int:
    """Lock *path* for this process, waiting for a dying holder; return the descriptor.

    The kernel releases it when the process ends, in whatever way.

    Raises:
        StateError: another process holds it, or the file can't be opened.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StateError(
            "state.unwritable",
            f"{path}: {error.strerror}",
            remedy="run the broker as the owner of its state folder, or name another with --state",
        ) from error
    deadline = clock.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if clock.monotonic() >= deadline:
                os.close(handle)
                raise StateError(
                    "state.held",
                    f"another broker holds {path}",
                    remedy="stop it first, or name another state folder with --state",
                ) from None
            await asyncio.sleep(_PAUSE_S)
        else:
            return handle


class _Listener(socket.socket):
    """A listening socket whose queue is never shortened, whoever asks for less."""

    def listen(self, backlog: int = BACKLOG, /) -> None:
        """Listen, with room for at least ``BACKLOG`` that aren't accepted yet."""
        super().listen(max(backlog, BACKLOG))


def listen(path: Path, *, group: int | None) -> socket.socket:
    """Return a listening socket at *path*, with mode 0660 and of *group* (None: leave it).

    Nobody can connect before owner and mode are final.

    Raises:
        StateError: a live process serves the path already, or the folder can't be used.
    """
    if _answers(path):
        raise StateError(
            "state.served",
            f"a process serves {path} already",
            remedy="stop it first, or name another state folder with --state",
        )
    listener = _Listener(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        if not path.parent.exists():  # one that is there has its owner's mode, and may be /run
            path.parent.mkdir(mode=FOLDER_MODE, parents=True)
            _dress(path.parent, FOLDER_MODE, group)
        path.unlink(missing_ok=True)
        _bind_closed(listener, path)
        _dress(path, SOCKET_MODE, group)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise StateError(
            "state.socket",
            f"{path}: {error.strerror or error}",
            remedy="let the broker write in the folder of its socket",
        ) from error
    listener.setblocking(False)
    return listener


def _bind_closed(listener: socket.socket, path: Path) -> None:
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)


def _dress(path: Path, mode: int, group: int | None) -> None:
    if group is not None and path.stat().st_gid != group:
        os.chown(path, -1, group)
    path.chmod(mode)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except TimeoutError:
            return True  # its backlog is full: somebody is there
        except OSError:
            return False
    return True


def remove_socket(path: Path, identity: tuple[int, int]) -> None:
    """Remove the socket's file, if it is still the one of that device and inode."""
    with suppress(OSError):
        status = path.lstat()
        if (status.st_dev, status.st_ino) == identity:
            path.unlink()
