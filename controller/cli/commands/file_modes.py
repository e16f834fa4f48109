"""Modes of an instance's files: which bits are too many, and taking them away."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from controller.settings import StateFolder, settings_file

#: Bits of access. Others, such as set-group-id, stay as they are.
_ACCESS = 0o777
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file or folder with more access than it needs."""

    path: Path
    mode: int
    wanted: int

    @property
    def told(self) -> str:
        return f"{self.path} has mode {self.mode:04o}, wants {self.wanted:04o}"


def open_files(state: StateFolder, policy: Path, registry_auth: Path) -> Iterator[OpenFile]:
    """Yield the files and folders that are open to more users than trimtab makes them for.

    The bounds are what ``app.state_folder`` makes, and what the broker requires of files of root's. What is
    missing, a link, or closed to this user is left out.
    """
    most = {
        state.root: 0o755,
        state.broker: 0o700,
        state.journal_key: 0o600,
        state.hash_key: 0o600,
        state.controller: 0o700,
        state.run: 0o750,
        state.fetcher: 0o750,
        state.feedback: 0o750,
        state.ship: 0o700,
        # A group of the owner's own may write it.
        policy: 0o775,
        settings_file(state.root): 0o775,
        registry_auth: 0o700,
    }
    for path, access in most.items():
        try:
            found = path.lstat().st_mode
        except OSError:
            continue
        if not stat.S_ISLNK(found) and found & _ACCESS & ~access:
            mode = stat.S_IMODE(found)
            yield OpenFile(path, mode, mode & ~(_ACCESS & ~access))


def close_file(found: OpenFile) -> None:
    """Take the surplus access away. Access is never given.

    Raises:
        OSError: this user isn't allowed to, or a link stands there now.
    """
    handle = os.open(found.path, _OPEN)
    try:
        mode = stat.S_IMODE(os.fstat(handle).st_mode)
        os.fchmod(handle, mode & found.wanted)
    finally:
        os.close(handle)
