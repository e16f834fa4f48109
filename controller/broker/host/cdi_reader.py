"""Reads the files with CDI specifications of the host, within bounds."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from controller.core.engine_api.cdi import FOLDERS, CdiFile

FILES_MAX = 64
FILE_BYTES_MAX = 1024 * 1024
_SUFFIXES = (".json", ".yaml", ".yml")


def read_files(folders: tuple[str, ...] = FOLDERS) -> tuple[CdiFile, ...]:
    """Return the specifications of the folders; a missing folder has none.

    A file that can't be read as a whole, or that a user other than root could have written, comes
    without a content: the engine can read it, and it can define any device.
    """
    found: list[CdiFile] = []
    for path in (path for folder in folders for path in _paths(folder)):
        if len(found) == FILES_MAX:
            return (*found, CdiFile(path, None))
        found.append(CdiFile(path, _read(path)))
    return tuple(found)


def _paths(folder: str) -> Iterator[str]:
    try:
        paths = sorted(Path(folder).iterdir())
    except OSError:
        return
    for path in paths:
        if path.suffix in _SUFFIXES and (path.is_symlink() or not path.is_dir()):
            yield str(path)  # the engine reads no folder below


def _read(path: str) -> bytes | None:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status, folder = os.fstat(handle), Path(path).parent.stat()
        others = (status.st_mode | folder.st_mode) & (stat.S_IWGRP | stat.S_IWOTH)
        if not stat.S_ISREG(status.st_mode) or others or {status.st_uid, folder.st_uid} != {0}:
            return None
        with os.fdopen(handle, "rb", closefd=False) as file:
            content = file.read(FILE_BYTES_MAX + 1)
    finally:
        os.close(handle)
    return content if len(content) <= FILE_BYTES_MAX else None
