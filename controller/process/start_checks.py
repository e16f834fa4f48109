"""Checks at the start: access to the engine's socket, and one broker for each instance.

A check at the start: the user must be allowed to open the engine's socket.

An engine that is down is accepted, because trimtab waits for the engine. Missing permissions are an
error, because waiting doesn't grant them.

The lock of an instance on an engine: a single broker, also with a copied state folder.

A copied state folder has its own lock file. So this second lock lies in a shared folder of all
brokers of a user on this host. The lock covers no broker in a container or on another host.
``broker.guards.recovery`` detects such brokers by the objects they create.
"""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from controller.model.errors import StateError
from controller.system.durable_files import open_lock_file, try_lock

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


CODE = "state.forked"
FOLDER_MODE = 0o755
_OWNER_MAX = 4096


def shared_folder(uid: int) -> Path | None:
    """Return the folder for the locks of a user's brokers, None if the host has no such folder."""
    if uid == 0:
        return Path("/run/trimtab")
    runtime = Path(f"/run/user/{uid}")  # pam_systemd(8)
    return runtime / "trimtab" if runtime.is_dir() else None


@dataclass(slots=True)
class InstanceLock:
    """The lock of an instance. Call ``release`` at the end."""

    #: The shared folder of the locks. None: no lock.
    folder: Path | None
    #: The state folder, written into the lock file for the error message of another broker.
    state: Path
    #: The id of the instance.
    instance: str
    _handle: int = -1
    _path: Path = Path()

    def claim(self, engine_id: str) -> None:
        """Take the lock for an engine. A second call changes nothing.

        Raises:
            StateError: a broker with another state folder holds the lock.
        """
        if self.folder is None or self._handle >= 0:
            return
        digits = hashlib.sha256(engine_id.encode()).hexdigest()[:16]
        path = self.folder / f"{self.instance}-{digits}.lock"
        with suppress(OSError):  # a host without the folder has no such lock
            _make_folder(self.folder)
            for handle in _open_again(path):
                if not try_lock(handle):
                    raise self._forked(_owner_of(handle), engine_id)
                if _is_at(handle, path):
                    os.truncate(handle, 0)
                    os.pwrite(handle, os.fsencode(self.state), 0)
                    self._handle, self._path = handle, path
                    return
                os.close(handle)

    def release(self) -> None:
        """Release the lock and remove its file."""
        if self._handle >= 0:
            with suppress(OSError):
                self._path.unlink()
            os.close(self._handle)
            self._handle = -1

    def _forked(self, other: str, engine_id: str) -> StateError:
        return StateError(
            CODE,
            f"a broker on {other} is instance {self.instance} on engine {engine_id} already, "
            f"and {self.state} is a copy of it",
            remedy="stop the one that isn't wanted; for a second instance begin with a new state "
            "folder (--state)",
        )


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir()
        folder.chmod(FOLDER_MODE)  # independent of the umask: sockets of instances can be below


def _open_again(path: Path) -> Iterator[int]:
    """Open the file for each attempt: a holder removes the file when it releases the lock."""
    while True:
        yield open_lock_file(path)


def _is_at(handle: int, path: Path) -> bool:
    """Return True if the open file is the file at *path*."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _owner_of(handle: int) -> str:
    """Return the state folder in a lock file, and close the file."""
    text = os.pread(handle, _OWNER_MAX, 0).decode(errors="replace")
    os.close(handle)
    return text if text.isprintable() and text else "another state folder"
