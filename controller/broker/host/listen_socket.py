"""The broker's listening socket: never open to more users than owner and group.

The lock file of the state folder decides which broker serves; the socket is only the address for
clients. So a socket file without a listener belongs to a dead broker, and is replaced.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path

from controller.model.errors import StateError
from controller.system.unix_socket import SocketInUse, bind_socket, set_access

FOLDER_MODE = 0o750
#: Connections that wait for the accept. All peers share the backlog, and a flood fills it: a short
#: one makes others wait for fewer connections of the flood (``unix_socket.connect_in_turn``).
BACKLOG = 64


def listen(path: Path, *, group: int | None) -> socket.socket:
    """Return a listening socket at *path*, with mode 0660 and the group *group* (None: leave it).

    A missing folder is created with mode 0750 and the same group.

    Raises:
        StateError: a live process serves the path already, or the folder can't be used.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        if not path.parent.exists():  # an existing folder keeps its mode: /run is possible
            path.parent.mkdir(mode=FOLDER_MODE, parents=True)
            set_access(path.parent, mode=FOLDER_MODE, group=group)
        bind_socket(listener, path, group=group)
        listener.listen(BACKLOG)
    except SocketInUse as error:
        listener.close()
        raise StateError(
            "state.served",
            f"a process serves {path} already",
            remedy="stop it first, or name another state folder with --state",
        ) from error
    except OSError as error:
        listener.close()
        raise StateError(
            "state.socket",
            f"{path}: {error.strerror or error}",
            remedy="let the broker write in the folder of its socket",
        ) from error
    listener.setblocking(False)
    return listener


def remove_socket(path: Path, identity: tuple[int, int]) -> None:
    """Remove the socket's file, unless another broker has replaced the file.

    *identity* is the device and inode of the own socket.
    """
    with suppress(OSError):
        status = path.lstat()
        if (status.st_dev, status.st_ino) == identity:
            path.unlink()
