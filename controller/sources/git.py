"""Whether Git is at work where the files are: nothing is read while it is. And what it checked out.

A checkout, merge or rebase writes file after file; what lies there meanwhile was never meant.
"""

from __future__ import annotations

import os
import re
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
_PACKED_MAX = 4 * 1024 * 1024
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REF = re.compile(r"refs(?:/(?!\.)[^/\s]+)+")


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


def commit_of(git: Path) -> str:
    """Return the commit that is checked out, '' where that can't be told.

    Whether the files are as it has them isn't looked at.
    """
    head = _text(git / "HEAD")
    if not head.startswith("ref: "):
        return head if _COMMIT.fullmatch(head) else ""
    ref = head.removeprefix("ref: ")
    if not _REF.fullmatch(ref):
        return ""
    # Of a further working tree (git-worktree) the branches are in the first one's folder.
    common = git / (_text(git / "commondir") or ".")
    found = _text(common / ref)
    if not found:
        packed = _text(common / "packed-refs", most=_PACKED_MAX).splitlines()
        found = next((line[: -len(ref) - 1] for line in packed if line.endswith(f" {ref}")), "")
    return found if _COMMIT.fullmatch(found) else ""


def _text(path: Path, *, most: int = _POINTER_MAX) -> str:
    """Return what a file of Git's says, '' where it can't be read."""
    if not is_kind(path, stat.S_ISREG):  # opening something else may take for ever
        return ""
    try:
        with path.open("rb") as file:
            return file.read(most).decode("utf-8", "surrogateescape").strip()
    except OSError:
        return ""


def _pointed_to(pointer: Path) -> Path | None:
    """Return the folder that a ``.git`` file (of a worktree or submodule) names."""
    word, _, path = _text(pointer).partition(":")
    folder = pointer.parent / path.strip()
    return folder if word == "gitdir" and path.strip() and is_kind(folder, stat.S_ISDIR) else None
