"""Contexts of builds: the files that a build gets, and one digest for all of them."""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

#: Entries of a context, and bytes of its files, at most. A policy can permit fewer.
MAX_ENTRIES: Final = 20_000
MAX_BYTES: Final = 512 * 1024 * 1024
#: Folders below one another, at most.
MAX_DEPTH: Final = 32
#: Letters of a path, at most.
MAX_PATH: Final = 1024


class Kind(StrEnum):
    """What an entry of a context is."""

    FILE = "file"
    FOLDER = "folder"
    LINK = "link"


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """One file, folder or link of a context."""

    #: Relative to the context, with slashes.
    path: str
    kind: Kind
    #: The permissions, without set-user-ID and the like. 0 for links.
    mode: int
    #: SHA-256 of a file in hex digits; the target of a link; '' for a folder.
    content: str = ""
    #: The size of a file in bytes.
    size: int = 0


def digest(entries: Iterable[Entry]) -> str:
    """Return ``sha256:`` and 64 hex digits for entries in any order; times and owners don't count."""
    total = hashlib.sha256()
    for entry in sorted(entries):
        line = [entry.path, entry.kind.value, entry.mode, entry.content]
        total.update(json.dumps(line, ensure_ascii=True, separators=(",", ":")).encode() + b"\n")
    return f"sha256:{total.hexdigest()}"


def path_fault(path: str) -> str:
    """Return why a path can't be in a context; '' if it can."""
    if not path.isprintable():
        return "has a letter that can't be printed, or no letter at all"
    if len(path) > MAX_PATH:
        return f"has more than {MAX_PATH} letters"
    if path.count("/") >= MAX_DEPTH:
        return f"is below more than {MAX_DEPTH} folders"
    return ""


def link_fault(path: str, target: str) -> str:
    """Return why a link can't be in a context; '' if its target is a path inside."""
    if target.startswith("/"):
        return "leads to an absolute path"
    inside = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    if inside == ".." or inside.startswith("../"):
        return "leads out of the context"
    return path_fault(target)
