"""Whether Git is at work where the files are: nothing is read while it is.

A checkout, merge or rebase writes file after file; what lies there meanwhile was never meant.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

#: What lies in a Git folder while an operation is under way.
SIGNS = (
    "index.lock",
    "MERGE_HEAD",
    "rebase-merge",
    "rebase-apply",
    "CHERRY_PICK_HEAD",
    "REVERT_HEAD",
)
_POINTER_MAX = 4096


def git_folder(top: Path) -> Path | None:
    """Return the Git folder of the working tree that holds *top* (a resolved path), if any."""
    for folder in (top, *top.parents):
        candidate = folder / ".git"
        if is_kind(candidate, stat.S_ISDIR):
            return candidate
        if is_kind(candidate, stat.S_ISREG):
            return _pointed_to(candidate)
    return None


def is_kind(path: Path, kind: Callable[[int], bool]) -> bool:
    """Tell whether a path is of a kind, by its mode; what can't be looked at is of none."""
    try:
        return kind(path.stat().st_mode)
    except OSError:
        return False


def busy(git: Path) -> str:
    """Return the sign of an operation under way, or ''."""
    return next((sign for sign in SIGNS if os.path.lexists(git / sign)), "")


def fingerprint(git: Path) -> tuple[tuple[int, int, int], ...]:
    """Return what differs after an operation: equal before and after a reading, none came between."""
    found = []
    for name in ("index", "HEAD"):
        try:
            status = (git / name).stat()
        except OSError:
            found.append((0, 0, 0))
        else:
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)


def _pointed_to(pointer: Path) -> Path | None:
    """Return the folder that a ``.git`` file (of a worktree or submodule) names."""
    try:
        with pointer.open("rb") as file:
            text = file.read(_POINTER_MAX).decode("utf-8", "surrogateescape")
    except OSError:
        return None
    word, _, path = text.partition(":")
    folder = pointer.parent / path.strip()
    return folder if word == "gitdir" and path.strip() and is_kind(folder, stat.S_ISDIR) else None
