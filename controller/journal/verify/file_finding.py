"""A finding of ``verify`` about a file beside the records."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FileFinding:
    """The result of comparing files with the records."""

    file: str = ""  # a bad file; '' if none is bad
    reason: str = ""
    notes: tuple[str, ...] = ()  # differences without harm, and files that were not compared
