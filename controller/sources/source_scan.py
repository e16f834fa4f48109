"""A search for documents of kind Source in DIR, by the bytes of the files, without a YAML parser.

``up`` starts the fetcher by its answer. A wrong match starts a fetcher without sources; a spelling
with escapes starts none. What a Source says is read by the fetcher itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from controller.core.yaml.file_limit import MAX_BYTES
from controller.sources.safe_read import FolderWalk

_KIND = re.compile(rb"""["']?kind["']?\s*:\s*["']?Source["']?\s*(?:[,}#\n]|$)""")
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

#: A file's path, time of change, size and inode.
_Stamp = tuple[str, int, int, int]


class SourceScan:
    """Searches a directory, without the folders *closed* in it. Only changed files are read again."""

    def __init__(self, directory: Path, closed: Callable[[], frozenset[str]] = frozenset) -> None:
        self._directory = directory
        self._closed = closed
        self._matches: dict[_Stamp, bool] = {}

    def declares_sources(self) -> bool:
        """Return True if a file seems to declare a Source; a missing directory declares none."""
        try:
            top = os.path.realpath(self._directory, strict=True)
        except OSError:
            return False
        before, self._matches = self._matches, {}
        closed = frozenset(f"{top}/{name}" for name in self._closed())
        for file in FolderWalk(top, closed).files():
            stamp = _stamp(file.path)
            if stamp is not None:
                known = before.get(stamp)
                self._matches[stamp] = _matches(file.path) if known is None else known
        return any(self._matches.values())


def _stamp(path: str) -> _Stamp | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return (path, status.st_mtime_ns, status.st_size, status.st_ino)


def _matches(path: str) -> bool:
    try:
        handle = os.open(path, _OPEN)
    except OSError:
        return False
    with os.fdopen(handle, "rb") as file:
        try:
            return _KIND.search(file.read(MAX_BYTES)) is not None
        except OSError:
            return False
