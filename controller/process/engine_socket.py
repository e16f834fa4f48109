"""The engine's socket, before anything is started that needs it: may this user open it?

An engine that is down is no reason to stop: it is waited for. A socket that is closed to the user stays
closed however long one waits.
"""

from __future__ import annotations

import grp
import os
import pwd
import socket
from collections.abc import Callable
from pathlib import Path

from controller.model.errors import StateError

#: An engine that starts makes its socket first, and gives it to its group a moment later.
PATIENCE_S = 1.0
POLL_S = 0.05


def raise_if_denied(
    path: str, *, monotonic: Callable[[], float], wait: Callable[[float], None]
) -> None:
    """Raise StateError if this user is not allowed to open the engine's socket."""
    deadline = monotonic() + PATIENCE_S
    while _is_denied(path):
        if monotonic() >= deadline:
            raise StateError(
                "engine.denied",
                f"{user_name()} is not allowed to open the engine's socket {path}",
                remedy=remedy_for(path),
            )
        wait(POLL_S)


def _is_denied(path: str) -> bool:
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        peer.connect(path)
    except PermissionError:
        return True
    except OSError:
        return False  # nothing listens there now
    finally:
        peer.close()
    return False


def remedy_for(path: str) -> str:
    """Return what helps a user to open a socket: its group, if that isn't root's."""
    try:
        gid = Path(path).stat().st_gid
        group = grp.getgrgid(gid)
    except (OSError, KeyError):
        return "run as root"
    if gid == 0:
        return "run as root"
    if user_name() in group.gr_mem and gid not in os.getgroups():
        return f"log in again: you joined the group {group.gr_name} after you logged in"
    return (
        f"run as root, or add yourself to the group {group.gr_name}: "
        f"sudo usermod -aG {group.gr_name} {user_name()}, then log in again"
    )


def user_name() -> str:
    """Return the name of the user who runs this, or the uid where there is none."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
