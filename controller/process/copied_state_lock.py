"""The lock of an instance on an engine: a single broker, also with a copied state folder.

A copied state folder has its own lock file. So this second lock lies in a shared folder of all
brokers of a user on this host. The lock covers no broker in a container or on another host.
``broker.guards.split_brain`` detects such brokers by the objects they create.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from controller.model.errors import StateError
from controller.system.file_lock import open_lock_file, try_lock

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
