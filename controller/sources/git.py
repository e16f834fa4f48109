"""Git state of the desired-state directory: an operation in progress, and the checked-out commit.

A checkout, merge or rebase writes file after file, so the files in between are no valid desired
state. Nothing is read during such an operation.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

#: Files in a Git folder during an operation.
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
    """Return the Git folder of the working tree around *top* (a resolved path), or None."""
    for folder in (top, *top.parents):
        candidate = folder / ".git"
        if is_kind(candidate, stat.S_ISDIR):
            return candidate
        if is_kind(candidate, stat.S_ISREG):
            return _follow_pointer(candidate)
    return None


def is_kind(path: Path, kind: Callable[[int], bool]) -> bool:
    """Return True if the path's mode is of a kind. False for a path without access."""
    try:
        return kind(path.stat().st_mode)
    except OSError:
        return False


def operation_sign(git: Path) -> str:
    """Return the file that shows an operation in progress, '' for none."""
    return next((sign for sign in SIGNS if os.path.lexists(git / sign)), "")


def fingerprint(git: Path) -> tuple[tuple[int, int, int], ...]:
    """Return a value that every operation changes. Compare it before and after a read."""
    versions = []
    for name in ("index", "HEAD"):
        try:
            status = (git / name).stat()
        except OSError:
            versions.append((0, 0, 0))
        else:
            versions.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(versions)


def commit_of(git: Path) -> str:
    """Return the checked-out commit, '' if unknown.

    The files can differ from the commit; this is not checked.
    """
    head = _read_text(git / "HEAD")
    if not head.startswith("ref: "):
        return head if _COMMIT.fullmatch(head) else ""
    ref = head.removeprefix("ref: ")
    if not _REF.fullmatch(ref):
        return ""
    # A linked working tree (git-worktree) has its branches in the folder of the main one.
    common = git / (_read_text(git / "commondir") or ".")
    commit = _read_text(common / ref)
    if not commit:
        packed = _read_text(common / "packed-refs", max_bytes=_PACKED_MAX).splitlines()
        commit = next((line[: -len(ref) - 1] for line in packed if line.endswith(f" {ref}")), "")
    return commit if _COMMIT.fullmatch(commit) else ""


def _read_text(path: Path, *, max_bytes: int = _POINTER_MAX) -> str:
    """Return the stripped text of a Git file, '' for an unreadable file."""
    if not is_kind(path, stat.S_ISREG):  # the open of a FIFO can block forever
        return ""
    try:
        with path.open("rb") as file:
            return file.read(max_bytes).decode("utf-8", "surrogateescape").strip()
    except OSError:
        return ""


def _follow_pointer(pointer: Path) -> Path | None:
    """Return the folder that a ``.git`` file of a worktree or submodule names, or None."""
    word, _, path = _read_text(pointer).partition(":")
    folder = pointer.parent / path.strip()
    return folder if word == "gitdir" and path.strip() and is_kind(folder, stat.S_ISDIR) else None
