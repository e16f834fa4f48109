"""Contexts of builds: the files that a build gets, and one digest for all of them."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from controller.core.encoding import canonical_json

#: Entries of a context, and bytes of its files, at most. A policy can permit fewer.
MAX_ENTRIES: Final = 20_000
MAX_BYTES: Final = 512 * 1024 * 1024
#: Folders below one another, at most.
MAX_DEPTH: Final = 32
#: Letters of a path, at most.
MAX_PATH: Final = 1024


class EntryKind(StrEnum):
    """What an entry of a context is, by the letters of tar."""

    FILE = "0"
    LINK = "2"
    FOLDER = "5"


@dataclass(frozen=True, slots=True)
class ContextFile:
    """One file, folder or link of a context."""

    #: Relative to the context, with slashes.
    path: str
    kind: EntryKind
    #: The permissions; 0o777 for links.
    mode: int
    #: The target of a link.
    target: str = ""
    #: The SHA-256 of a file's content, in hex digits.
    sha256: str = ""
    #: The size of a file in bytes.
    size: int = 0


def digest(entries: Iterable[ContextFile]) -> str:
    """Return ``sha256:`` and 64 hex digits for entries in any order; times and owners don't count.

    The broker computes the same digest from the archive that it gets, and records it.
    """
    ordered = sorted(entries, key=lambda entry: entry.path)
    lines = [[each.path, each.kind.value, each.mode, each.target, each.sha256] for each in ordered]
    return f"sha256:{canonical_json.digest(lines)}"


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
