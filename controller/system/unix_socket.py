"""Unix sockets of the state folder: bind one for owner and group, and detect a live listener."""

from __future__ import annotations

import os
import socket
from pathlib import Path

#: Owner and group connect; nobody else does.
SOCKET_MODE = 0o660


class SocketInUse(Exception):
    """A process listens on the socket already."""


def has_listener(path: Path) -> bool:
    """Return True if a process listens on the Unix socket *path*.

    A full backlog is a live listener: Linux answers EAGAIN at once (connect(2), AF_UNIX).
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except BlockingIOError:
            return True
        except OSError:
            return False
    return True


def bind_socket(listener: socket.socket, path: Path, *, group: int | None) -> None:
    """Bind *listener* to *path* with mode 0660. Replace the file of a process that ended.

    The caller calls ``listen`` afterwards, so no client connects before owner and mode are final.

    Args:
        listener: An unbound socket of the family AF_UNIX.
        path: The name of the socket.
        group: The group of the file. None leaves the group of this process.

    Raises:
        SocketInUse: a process listens on *path* already. Its socket stays.
        OSError: the name can't be bound.
    """
    if has_listener(path):
        raise SocketInUse(f"a process listens on {path}")
    path.unlink(missing_ok=True)
    umask = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(umask)
    set_access(path, mode=SOCKET_MODE, group=group)


def set_access(path: Path, *, mode: int, group: int | None) -> None:
    """Set the mode of a file or folder, and its group unless *group* is None.

    Raises:
        OSError: this user is not allowed to change them.
    """
    if group is not None and path.stat().st_gid != group:
        os.chown(path, -1, group)
    path.chmod(mode)
