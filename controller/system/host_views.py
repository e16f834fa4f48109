"""Whether two processes see the same host: the folders that a unit of systemd could have of its own.

A service manager gives a process other mounts by directives such as ``PrivateTmp`` and
``ProtectHome``. The gate judges paths in its own view, and the engine mounts them in its view.
"""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

#: What a unit can have of its own.
FOLDERS = ("/tmp", "/home", "/dev")  # noqa: S108 - nothing is made there
OWN_ROOT = Path("/proc/self/root")
_CONNECT_S = 1.0
_UCRED = struct.Struct("iII")  # pid, uid, gid


def server_of(path: str) -> int:
    """Return the pid of the process that listens on a Unix socket; 0 in another pid namespace.

    Raises:
        OSError: nobody answers.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_CONNECT_S)
        connection.connect(path)
        found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, _, _ = _UCRED.unpack(found)
    return int(pid)


def root_of(pid: int) -> Path:
    """Return the root folder as a process sees it (proc_pid_root(5))."""
    return Path(f"/proc/{pid}/root")


def differing_folder(one: Path, other: Path) -> str:
    """Return the first of ``FOLDERS`` that differs between two roots by device or inode; '' if none.

    Raises:
        OSError: this user is not allowed to look.
    """
    for folder in FOLDERS:
        if _identity(one, folder) != _identity(other, folder):
            return folder
    return ""


def _identity(root: Path, folder: str) -> tuple[int, int] | None:
    try:
        status = (root / folder.lstrip("/")).stat()
    except FileNotFoundError:
        os.stat(root)  # noqa: PTH116 - a process that ended has no view
        return None
    return status.st_dev, status.st_ino
