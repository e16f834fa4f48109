"""Contexts of builds: the files that a build gets, ``.dockerignore``, and one digest for all.

``.dockerignore``: which paths of a context a build doesn't get, as Docker reads the file.

Patterns are those of Go's ``filepath.Match``, with ``**`` for any number of folders. The last matching line decides;
``!`` takes a path back. A pattern that matches a folder matches everything below it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from controller.core.encoding import json_values
from controller.model.errors import Problem

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
    return f"sha256:{json_values.digest(lines)}"


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


IGNORE_NAME: Final = ".dockerignore"
#: Lines of the file, letters of a line, and ``**`` in a line, at most.
MAX_LINES: Final = 300
MAX_LETTERS: Final = 256
MAX_GLOBSTARS: Final = 3


@dataclass(frozen=True, slots=True)
class Ignore:
    """The patterns of a file, in its order."""

    #: Pairs of an expression for whole paths, of successive lines, and True if the paths aren't ignored.
    patterns: tuple[tuple[re.Pattern[str], bool], ...] = ()
    #: The patterns with ``!`` as they were written; None if one of them has a wildcard.
    taken_back: tuple[str, ...] | None = ()

    def excludes(self, path: str) -> bool:
        """Return True if a build doesn't get *path*, which is relative to the context."""
        parts = path.split("/")
        parents = ["/".join(parts[: count + 1]) for count in range(len(parts))]
        excluded = False
        for pattern, takes_back in self.patterns:
            if takes_back == excluded and any(pattern.fullmatch(each) for each in parents):
                excluded = not takes_back
        return excluded

    def excludes_below(self, folder: str) -> bool:
        """Return True if a build gets nothing below *folder*, so that nobody needs to look there."""
        if self.taken_back is None or not self.excludes(folder):
            return False
        return not any(f"{each}/".startswith(f"{folder}/") for each in self.taken_back)


def read_ignore(text: str) -> Ignore | Problem:
    """Return the patterns of a file's text. The problem has the code ``build.ignore`` and a line."""
    lines = text.removeprefix("\ufeff").splitlines()
    if len(lines) > MAX_LINES:
        return Problem(
            "build.ignore", f"more than {MAX_LINES} lines", remedy="write fewer patterns"
        )
    runs: list[tuple[list[str], bool]] = []
    taken_back: list[str] | None = []
    for number, line in enumerate(lines, 1):
        written = line.strip()
        if line.startswith("#") or not written:
            continue
        takes_back = written.startswith("!")
        cleaned = _cleaned(written[1:].strip() if takes_back else written)
        try:
            expression = _expression(cleaned)
        except ValueError as error:
            return Problem(
                "build.ignore", f"{written}: {error}", line=number, remedy="correct the pattern"
            )
        if not runs or runs[-1][1] is not takes_back:
            runs.append(([], takes_back))
        runs[-1][0].append(expression)
        if takes_back and taken_back is not None:
            taken_back = None if re.search(r"[*?\[\\]", cleaned) else [*taken_back, cleaned]
    patterns = ((re.compile("|".join(run), re.DOTALL), takes_back) for run, takes_back in runs)
    return Ignore(tuple(patterns), None if taken_back is None else tuple(taken_back))


def _cleaned(pattern: str) -> str:
    if not pattern:
        return pattern
    cleaned = posixpath.normpath(re.sub(r"^/+", "/", pattern))
    return cleaned[1:] if len(cleaned) > 1 and cleaned.startswith("/") else cleaned


def _expression(pattern: str) -> str:
    """Return a regular expression without steps that multiply: each ``*`` but the last of a folder is atomic.

    Raises ValueError for a pattern that Go refuses, and beyond the bounds.
    """
    if not pattern:
        raise ValueError("no pattern")
    if len(pattern) > MAX_LETTERS:
        raise ValueError(f"more than {MAX_LETTERS} letters")
    if pattern.startswith("**") and not re.search(r"[*?\[\]\\/]", pattern[2:]):
        return f".*{re.escape(pattern[2:])}"
    tokens = _tokens(pattern)
    if tokens.count(_FOLDERS) > MAX_GLOBSTARS:
        raise ValueError(f"more than {MAX_GLOBSTARS} times **")
    written: list[str] = []
    index = 0
    while index < len(tokens):
        end = next((i for i in range(index + 1, len(tokens)) if tokens[i] in _WILD), len(tokens))
        run = "".join(tokens[index + 1 : end])
        if tokens[index] == _STAR and end < len(tokens) and tokens[end] == _STAR:
            written.append(f"(?>{_STAR}?{run})")
        else:
            written.append(tokens[index] + run)
        index = end
    return "".join(written)


_STAR: Final = "[^/]*"
_FOLDERS: Final = "(?:.*/)?"
_ANYTHING: Final = ".*"
_WILD: Final = frozenset({_STAR, _FOLDERS, _ANYTHING})


def _tokens(pattern: str) -> list[str]:
    """Return the pattern as pieces of a regular expression."""
    tokens: list[str] = []
    index = 0
    while index < len(pattern):
        letter = pattern[index]
        if pattern.startswith("**", index):
            index += 3 if pattern.startswith("/", index + 2) else 2
            token = _FOLDERS if index < len(pattern) else _ANYTHING
            if tokens[-1:] != [token]:
                tokens.append(token)
            continue
        index += 1
        if letter == "*":
            tokens.append(_STAR)
        elif letter == "?":
            tokens.append("[^/]")
        elif letter == "[":
            token, index = _letters(pattern, index)
            tokens.append(token)
        elif letter == "\\":
            if index == len(pattern):
                raise ValueError("a backslash at the end")
            tokens.append(re.escape(pattern[index]))
            index += 1
        else:
            tokens.append(re.escape(letter))
    return tokens


def _letters(pattern: str, index: int) -> tuple[str, int]:
    """Return the set of letters behind ``[``, and the index behind its end."""
    sign = "^" if pattern.startswith("^", index) else ""
    index += len(sign)
    ranges: list[str] = []
    while not pattern.startswith("]", index) or not ranges:
        low, index = _letter(pattern, index)
        high = low
        if pattern.startswith("-", index):
            high, index = _letter(pattern, index + 1)
        ranges.append(f"{re.escape(low)}-{re.escape(high)}" if low <= high else "")
    text = "".join(ranges)
    return (f"[{sign}{text}]" if text else ("." if sign else "(?!)")), index + 1


def _letter(pattern: str, index: int) -> tuple[str, int]:
    escaped = pattern.startswith("\\", index)
    index += escaped
    if index >= len(pattern) or (pattern[index] in "-]" and not escaped):
        raise ValueError("a set of letters in [] isn't complete")
    return pattern[index], index + 1
