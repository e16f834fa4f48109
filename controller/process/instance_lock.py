"""One broker of an instance on an engine, from whatever state folder: a copy of one is noticed.

Beside the lock in the state folder, which a copied folder has its own of: one in a place that all
brokers of this host's user share. It sees no broker in a container or on another host; those are
noticed by what they make (``broker.guards.split_brain``).
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
TOLD_MAX = 4096


def shared_folder(uid: int) -> Path | None:
    """Return where brokers of one user find each other; None where there is no such place."""
    if uid == 0:
        return Path("/run/trimtab")
    runtime = Path(f"/run/user/{uid}")  # pam_systemd(8)
    return runtime / "trimtab" if runtime.is_dir() else None


@dataclass(slots=True)
class InstanceLock:
    """The claim of one state folder to be its instance. ``release`` it at the end."""

    folder: Path | None
    state: Path
    instance: str
    _handle: int = -1
    _path: Path = Path()

    def claim(self, engine_id: str) -> None:
        """Claim the instance on an engine; claiming it again changes nothing.

        Raises:
            StateError: a broker of another state folder has it.
        """
        if self.folder is None or self._handle >= 0:
            return
        digits = hashlib.sha256(engine_id.encode()).hexdigest()[:16]
        path = self.folder / f"{self.instance}-{digits}.lock"
        with suppress(OSError):  # a host without the place has no such lock
            _make(self.folder)
            for handle in _open_again(path):
                if not try_lock(handle):
                    raise self._forked(_told(handle), engine_id)
                if _is_at(handle, path):
                    os.truncate(handle, 0)
                    os.pwrite(handle, os.fsencode(self.state), 0)
                    self._handle, self._path = handle, path
                    return
                os.close(handle)

    def release(self) -> None:
        """Give it back, and leave nothing behind."""
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


def _make(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir()
        folder.chmod(FOLDER_MODE)  # whatever the umask: folders of sockets may lie in it too


def _open_again(path: Path) -> Iterator[int]:
    """Open the file each time: the previous holder removes it when it releases the lock."""
    while True:
        yield open_lock_file(path)


def _is_at(handle: int, path: Path) -> bool:
    mine = os.fstat(handle)
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)


def _told(handle: int) -> str:
    told = os.pread(handle, TOLD_MAX, 0).decode(errors="replace")
    os.close(handle)
    return told if told.isprintable() and told else "another state folder"
