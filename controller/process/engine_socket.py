"""A check at the start: the user must be allowed to open the engine's socket.

An engine that is down is accepted, because trimtab waits for the engine. Missing permissions are an
error, because waiting doesn't grant them.
"""

from __future__ import annotations

import grp
import os
import pwd
import socket
from collections.abc import Callable
from pathlib import Path

from controller.model.errors import StateError

#: How long a denied socket is retried: a starting engine creates its socket first, and changes the
#: socket's group a moment later.
RETRY_S = 1.0
POLL_S = 0.05


def check_access(
    path: str, *, monotonic: Callable[[], float], wait: Callable[[float], None]
) -> None:
    """Check that the user is allowed to open the engine's socket.

    Raises:
        StateError: access is denied.
    """
    deadline = monotonic() + RETRY_S
    while _is_denied(path):
        if monotonic() >= deadline:
            raise StateError(
                "engine.denied",
                f"{user_name()} is not allowed to open the engine's socket {path}",
                remedy=remedy_for(path),
            )
        wait(POLL_S)


def _is_denied(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.setblocking(False)  # a blocking connect waits for a place in a full backlog
        try:
            peer.connect(path)
        except PermissionError:
            return True
        except OSError:
            return False  # the engine is down, or its backlog is full
    return False


def remedy_for(path: str) -> str:
    """Return the remedy for a denied socket: its group, unless the group is root's."""
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
    """Return the name of the effective user, or the uid of a user without a name."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
