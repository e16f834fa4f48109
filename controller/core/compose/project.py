"""A Compose project that was read, and the port to its files.

In the tree all files are merged, all variables are interpolated, all short forms are long, and the values
of attributes that trimtab translates are typed: bytes, milliseconds, mappings of strings. Paths inside
the project folder are relative to the root of the source, and begin with ``./`` or ``../``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from controller.model.errors import Problem, Severity

#: The extension with the choices for trimtab, which Docker Compose ignores.
EXTENSION: Final = "x-trimtab"
#: Begins the mode of a namespace that names a service of the project.
SERVICE: Final = "service:"
#: The names of files that are read as Compose files, never as documents.
COMPOSE_FILE: Final = re.compile(r"(?:.*/)?(?:docker-)?compose[^/]*\.ya?ml")
#: The path of a value in the tree, such as ``("services", "web", "ports", 0)``.
TreePath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a value in a file; line and column count from 1."""

    file: str
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class ComposeProject:
    """A Compose project, with the problems of its files.

    With an error among its problems, the tree is incomplete: no conclusion from absence is valid.
    """

    #: The name as Docker Compose has it.
    name: str
    #: The project's folder, relative to the root of the source; ``.`` is the root.
    folder: str
    tree: Mapping[str, object] = field(repr=False)
    #: The places of written values. A value made from a short form has the place of the short form.
    places: Mapping[TreePath, Place] = field(repr=False)
    problems: tuple[Problem, ...] = ()
    #: Every file that was read or looked for, relative to the root of the source.
    files: tuple[str, ...] = ()
    #: False if the files are broken so that the project possibly has another name.
    is_named: bool = True
    #: The values of the variables that ``configs.*.environment`` names and ``.env`` sets.
    config_values: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: What the reading cost: the values of all files, copied and merged ones too, and what else was made.
    weight: int = 0

    @property
    def valid(self) -> bool:
        """Return True if no problem is an error."""
        return all(problem.severity is not Severity.ERROR for problem in self.problems)

    def locate(self, path: TreePath) -> Place:
        """Return the place of the value at *path*, or of its nearest ancestor with a place."""
        for length in range(len(path), -1, -1):
            place = self.places.get(path[:length])
            if place is not None:
                return place
        return Place(self.files[0] if self.files else self.folder, 1, 1)


class FileUnreadable(Exception):
    """A file of a project cannot be read; the text names the reason."""


class FileAbsent(FileUnreadable):
    """The file does not exist."""


class FileOutside(FileUnreadable):
    """The path, or a link on it, leads outside the source."""


class FileTooBig(FileUnreadable):
    """The file exceeds the limit of the reader."""


class ReadFile(Protocol):
    """The port to the files of a source."""

    def __call__(self, path: str) -> bytes:
        """Return the content of a regular file; *path* is relative to the root of the source.

        Raises:
            FileAbsent: the file does not exist.
            FileOutside: the path leads outside the source.
            FileTooBig: the file exceeds the limit.
            FileUnreadable: any other reason, such as a folder or missing rights.
        """
        ...
