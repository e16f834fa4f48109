"""Safe reads of a folder: the walk is bounded, stays inside the folder, and reads whole files.

The results are values and problems; bad files raise nothing. Only regular files with a resolved
path are opened. A link that leads out of the folder, a FIFO or a device is a problem.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from controller.core.encoding.text import printable_name
from controller.core.yaml.file_limit import MAX_BYTES, too_big
from controller.model.errors import Problem

MAX_FILES = 10_000
MAX_ENTRIES = 100_000
MAX_DEPTH = 32
MAX_TOTAL_BYTES = 64 * 1024 * 1024
#: What a value of a document counts at least, in bytes: an alias is short and can stand for many values.
VALUE_BYTES = 8
READ_ATTEMPTS = 3

SUFFIXES = (".yaml", ".yml")
OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY

#: Reads from a descriptor: ``os.pread``, or in tests a function that changes the file.
Pread = Callable[[int, int, int], bytes]


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of the folder."""

    #: The printable name below the folder.
    name: str
    #: The resolved path.
    path: str


class FolderWalk:
    """The YAML files below *top*, a resolved path, and the problems of the walk.

    - Hidden names are skipped: files of editors and Git, ``..data`` of Kubernetes.
    - Links inside the folder are followed. A file with several names is found once, by its own
      name if it has one in the folder.
    - Entries beyond a bound are a problem.
    - The folders *closed*, by their resolved paths, are left out.
    """

    def __init__(self, top: str, closed: frozenset[str] = frozenset()) -> None:
        self.top = top
        self._closed = closed
        self.problems: list[Problem] = []
        #: The files by resolved path.
        self._files: dict[str, SourceFile] = {}
        #: The resolved paths of the walked folders.
        self._folders: set[str] = set()
        self._links: list[tuple[str, str, int]] = []
        #: The names of links to YAML files of the folder, with the resolved paths.
        self.linked: dict[str, str] = {}
        self._entries = 0
        self._full = False
        self._folder(top, "", 0)
        # Links last, so that a file's own name comes before the names of links.
        while self._links and not self._full:
            self._follow(*self._links.pop(0))

    def files(self) -> list[SourceFile]:
        """Return the files in the order of their names."""
        return sorted(self._files.values(), key=lambda file: file.name)

    def folders(self) -> set[str]:
        """Return the resolved paths of all folders in the walk."""
        return self._folders | {os.path.dirname(path) for path in self._files}  # noqa: PTH120 - many

    def _folder(self, path: str, name: str, depth: int) -> None:
        if path in self._folders or path in self._closed or self._full:
            return
        self._folders.add(path)
        if depth > MAX_DEPTH:
            message = f"folders deeper than {MAX_DEPTH} levels weren't read"
            self.problems.append(Problem("source.too-deep", message, printable_name(name)))
            return
        try:
            with os.scandir(path) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            self.problems.append(_unreadable(name or ".", error))
            return
        for entry in listed:
            if self._is_full():
                return
            if not entry.name.startswith("."):
                self._entry(entry, f"{name}/{entry.name}" if name else entry.name, depth)

    def _entry(self, entry: os.DirEntry[str], name: str, depth: int) -> None:
        if entry.is_symlink():
            self._links.append((entry.path, name, depth))
        elif entry.is_dir(follow_symlinks=False):
            self._folder(entry.path, name, depth + 1)
        elif entry.name.endswith(SUFFIXES):
            if entry.is_file(follow_symlinks=False):
                self._files[entry.path] = SourceFile(printable_name(name), entry.path)
            else:
                self.problems.append(_special(name))

    def _follow(self, path: str, name: str, depth: int) -> None:
        """Add the file or folder that a link leads to."""
        try:
            target = os.path.realpath(path, strict=True)
            mode = Path(target).stat().st_mode
        except OSError as error:
            self.problems.append(_unreadable(name, error))
            return
        if not stat.S_ISDIR(mode) and not name.endswith(SUFFIXES):
            return
        if not is_inside(target, self.top) or is_closed(target, self._closed):
            self.problems.append(_outside(name))
        elif stat.S_ISDIR(mode):
            self._folder(target, name, depth + 1)
        elif not stat.S_ISREG(mode):
            self.problems.append(_special(name))
        else:
            self.linked[name] = target
            if target not in self._files and not self._is_full():
                self._files[target] = SourceFile(printable_name(name), target)

    def _is_full(self) -> bool:
        """Count an entry. Return True beyond a bound, and report the first time as a problem."""
        self._entries += 1
        if self._full or (self._entries <= MAX_ENTRIES and len(self._files) < MAX_FILES):
            return self._full
        self._full = True
        message = f"there are more than {MAX_FILES} files; the rest wasn't read"
        remedy = "split the directory, or move other files out of it"
        self.problems.append(Problem("source.too-many", message, remedy=remedy))
        return True


def is_inside(path: str, top: str) -> bool:
    """Return True if a resolved path is the folder *top* or below *top*."""
    return path == top or path.startswith(top.rstrip("/") + "/")


def is_closed(path: str, closed: frozenset[str]) -> bool:
    """Return True if a resolved path is one of some folders, or lies in one."""
    return any(is_inside(path, folder) for folder in closed)


def read_whole(
    file: SourceFile, top: str, *, is_known: Callable[[bytes], bool], pread: Pread = os.pread
) -> bytes | Problem:
    """Return the content of a file that doesn't change during the read, or a problem.

    Inode, size and mtime must be equal before and after the read. Two reads must return the same
    content; one read is enough for content for which *is_known* returns True. The problem
    ``file.unstable`` is temporary.
    """
    for _ in range(READ_ATTEMPTS):
        outcome = _read_once(file, top, is_known, pread)
        if outcome is not None:
            return outcome
    return Problem(
        "file.unstable",
        "the file changes while it is read; the last complete content stays in force",
        file.name,
        remedy="write to a temporary file and rename it; if nobody writes, wait a moment",
    )


def _read_once(
    file: SourceFile, top: str, is_known: Callable[[bytes], bool], pread: Pread
) -> bytes | Problem | None:
    """Return the content, a problem, or None if the file changed during the read."""
    try:
        descriptor = os.open(file.path, OPEN_FLAGS)
    except OSError as error:
        return _unreadable(file.name, error)
    try:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            return _special(file.name)
        if before.st_size > MAX_BYTES:
            return too_big(file.name)
        # A folder of the path can have become a link since the path was resolved.
        if not is_inside(os.readlink(f"/proc/self/fd/{descriptor}"), top):  # noqa: PTH115 - many
            return None
        content = _read(descriptor, before.st_size, pread)
        if not is_known(content) and content != _read(descriptor, before.st_size, pread):
            return None
        after = os.fstat(descriptor)
        named = Path(file.path).lstat()
    except OSError as error:
        return _unreadable(file.name, error)
    finally:
        os.close(descriptor)
    is_same = _version_of(before) == _version_of(after) == _version_of(named)
    return content if is_same and len(content) == after.st_size else None


def _read(descriptor: int, expected: int, pread: Pread) -> bytes:
    """Return the content, *expected* + 1 bytes at most."""
    chunks: list[bytes] = []
    size = 0
    while size <= expected:
        chunk = pread(descriptor, expected + 1 - size, size)
        if not chunk:
            break
        chunks.append(chunk)
        size += len(chunk)
    return b"".join(chunks)


def _version_of(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _unreadable(name: str, error: OSError) -> Problem:
    return Problem(
        "file.unreadable",
        f"can't be read: {error.strerror or type(error).__name__}",
        printable_name(name),
        remedy="make it readable for the user that trimtab runs as, or move it away",
    )


def _outside(name: str) -> Problem:
    return Problem(
        "file.outside",
        "the link leads out of the directory, or to what containers write, and wasn't followed",
        printable_name(name),
        remedy="copy the file here, or make DIR itself a link",
    )


def _special(name: str) -> Problem:
    message = "is no regular file and wasn't opened"
    return Problem(
        "file.special", message, printable_name(name), remedy="move it out of the directory"
    )
