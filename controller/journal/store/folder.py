"""The journal's folder: private to its owner, and locked by its only writer."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from controller.journal.store.pruned_base import BASE_NAME, INVENTORY_NAME
from controller.journal.store.segments import MARK_NAME, list_segments
from controller.model.errors import StateError
from controller.system.file_lock import try_lock

FOLDER_MODE = 0o700
FILE_MODE = 0o600


def lock_folder(folder: Path) -> int:
    """Make *folder* if missing, check that it is private, and lock it.

    Returns the descriptor of the folder; closing the descriptor releases the lock.

    Raises:
        StateError: the folder can't be made or opened, isn't private, or is locked by another writer.
    """
    try:
        folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise StateError(
            "journal.folder",
            f"the journal's folder can't be used: {folder}: {error.strerror}",
            remedy="check that the state folder exists, is writable and holds no link here",
        ) from error
    try:
        _check_private(folder, descriptor)
        locked = try_lock(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    if not locked:
        os.close(descriptor)
        raise StateError(
            "journal.held",
            f"another process writes the journal in {folder}",
            remedy="stop that broker first, or name another state folder with --state",
        )
    return descriptor


def _check_private(folder: Path, descriptor: int) -> None:
    for path, facts, mode in _facts(folder, descriptor):
        if stat.S_IFMT(facts.st_mode) != (stat.S_IFDIR if mode == FOLDER_MODE else stat.S_IFREG):
            raise StateError("journal.permissions", f"not an ordinary file: {path}")
        if facts.st_uid != os.geteuid():
            raise StateError(
                "journal.permissions",
                f"{path} belongs to uid {facts.st_uid}, the broker runs as {os.geteuid()}",
                remedy=f"find out why, then chown {os.geteuid()} {path}",
            )
        if facts.st_mode & 0o077:
            raise StateError(
                "journal.permissions",
                f"{path} is open to others (mode {stat.S_IMODE(facts.st_mode):04o})",
                remedy=f"find out who used that, then chmod {mode:04o} {path}",
            )


def _facts(folder: Path, descriptor: int) -> list[tuple[Path, os.stat_result, int]]:
    others = [folder / name for name in (MARK_NAME, BASE_NAME, INVENTORY_NAME)]
    files = [*list_segments(folder), *(path for path in others if os.path.lexists(path))]
    return [
        (folder, os.fstat(descriptor), FOLDER_MODE),
        *((path, path.lstat(), FILE_MODE) for path in files),
    ]
