"""The Compose projects of a folder: read inside the folder, and kept until a file changes.

``core.compose.projects`` says what the projects are. Nothing raises for the content of a file.
"""

from __future__ import annotations

import hashlib
import logging
import os
import posixpath
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller.core.compose.project import (
    FileAbsent,
    FileOutside,
    FileTooBig,
    FileUnreadable,
)
from controller.core.compose.projects import (
    ComposeReading,
    FolderEntry,
    ProjectNames,
    ReadProject,
    compose_folders,
    file_found,
    folder_found,
    project_folders,
    read_one,
    read_together,
    read_within,
)
from controller.core.compose.translation.scope import (
    ComposeSettings,
    ContextRequest,
    FoundContext,
    FoundPath,
)
from controller.core.encoding.text import printable_name
from controller.sources.build_contexts import ContextReader
from controller.sources.config_files import in_hidden_folders
from controller.sources.safe_read import SourceFile, is_closed, is_inside, read_whole

LOG = logging.getLogger(__name__)
_GIT: Final = ".git"

#: The digest of a file's content, or the word for the failure of its read.
_Outcome = bytes | str


@dataclass(frozen=True, slots=True)
class _KnownProject:
    """A project with all inputs of its documents."""

    project: ReadProject
    settings: ComposeSettings
    outcomes: dict[str, _Outcome]


class ComposeProjects:
    """The projects of one directory. Only projects with a changed file are read again.

    *settings* returns the policy's choices. It is asked only while there is a project.
    """

    def __init__(self, settings: Callable[[], ComposeSettings], prefix: str = "") -> None:
        self._settings = settings
        self._prefix = prefix
        self._known: dict[str, _KnownProject] = {}
        self._contexts = ContextReader(prefix)
        self._closed: frozenset[str] = frozenset()
        #: The path of the directory on its host, '' if unknown.
        self.directory = ""

    def read(
        self, top: str, names: Iterable[str], closed: frozenset[str] = frozenset()
    ) -> ComposeReading:
        """Return the documents of the projects among the files *names*, relative to the folder *top*.

        *closed* are folders of which nothing is read, by their resolved paths.
        """
        self._closed = self._contexts.closed = closed
        folders = compose_folders(names)
        if not folders:
            self._known = {}
            return ComposeReading()
        settings = self._settings()
        self.directory = settings.directory
        shown = ProjectNames(os.path.basename(top), self._prefix)  # noqa: PTH119 - a text
        known: dict[str, _KnownProject] = {}

        def read(folder: str) -> ReadProject:
            known[folder] = self._project(top, folder, settings, shown)
            return known[folder].project

        projects = read_within(project_folders(folders), read, shown)
        self._known = {f: each for f, each in known.items() if each.project.bug is None}
        return read_together(projects, folders, shown)

    def hidden_files(self, top: str) -> Iterator[str]:
        """Yield the paths of the files in hidden folders that the projects read, or looked for."""
        for known in self._known.values():
            names = (*known.outcomes, *known.project.paths)
            yield from in_hidden_folders(names, top, top)

    def _project(
        self, top: str, folder: str, settings: ComposeSettings, shown: ProjectNames
    ) -> _KnownProject:
        known = self._known.get(folder)
        if known is not None and self._is_current(known, top, settings):
            return known
        files = _FolderFiles(
            top, known.outcomes if known is not None else {}, self._contexts, self._closed
        )
        project = read_one(folder, files, settings, shown)
        if project.bug is not None:
            LOG.error("compose.failed folder=%s", folder, exc_info=project.bug)
        return _KnownProject(project, settings, files.outcomes)

    def _is_current(self, known: _KnownProject, top: str, settings: ComposeSettings) -> bool:
        """Return True if nothing has changed that a project was made from."""
        if known.settings != settings:
            return False
        for name, outcome in known.outcomes.items():
            try:
                content = read_file(top, name, outcome, self._closed)
            except FileUnreadable as error:
                if type(error).__name__ != outcome:
                    return False
            else:
                if hashlib.sha256(content).digest() != outcome:
                    return False
        if not all(
            look_up(top, path, self._closed, listed=bool(found.names or found.reason)) == found
            for path, found in known.project.paths.items()
        ):
            return False
        contexts = known.project.contexts.items()
        return all(self._contexts.read(top, request) == found for request, found in contexts)


class _FolderFiles:
    """The port to the files of one project (``ProjectFiles``), with the outcome of every read."""

    def __init__(
        self,
        top: str,
        before: dict[str, _Outcome],
        contexts: ContextReader,
        closed: frozenset[str],
    ) -> None:
        self._top = top
        self._closed = closed
        self._before = before
        self._contexts = contexts
        self.outcomes: dict[str, _Outcome] = {}

    def read(self, path: str) -> bytes:
        """Return the content of a file (``ReadFile``)."""
        try:
            content = read_file(self._top, path, self._before.get(path), self._closed)
        except FileUnreadable as error:
            self.outcomes[path] = type(error).__name__
            raise
        self.outcomes[path] = hashlib.sha256(content).digest()
        return content

    def look(self, path: str, *, listed: bool = True) -> FoundPath:
        """Return the file or folder at a path (``LookUp``)."""
        return look_up(self._top, path, self._closed, listed=listed)

    def context(self, request: ContextRequest) -> FoundContext:
        """Return the files of a build (``ReadContext``)."""
        return self._contexts.read(self._top, request)


def read_file(
    top: str,
    name: str,
    before: _Outcome | None = None,
    closed: frozenset[str] = frozenset(),
) -> bytes:
    """Return the content of a file below *top*; *before* is its last known digest.

    Nothing is read of the folders *closed*.

    Raises:
        FileUnreadable: the file is absent, outside, too big, or can't be read.
    """
    wanted = posixpath.normpath(f"{top}/{name}")
    if name.startswith("/") or not is_inside(wanted, top) or _GIT in name.split("/"):
        raise FileOutside("the path leads out of the source")
    try:
        # Most names of Compose files are absent, and a path is resolved folder by folder.
        os.lstat(wanted)
        real = os.path.realpath(wanted, strict=True)
    except FileNotFoundError:
        if os.path.islink(wanted):  # noqa: PTH114 - a text
            raise FileUnreadable("the link leads to no file") from None
        raise FileAbsent("the file does not exist") from None
    except (OSError, ValueError) as error:
        raise FileUnreadable(getattr(error, "strerror", None) or str(error)) from None
    if not is_inside(real, top) or _GIT in real.removeprefix(top).split("/"):
        raise FileOutside("a link leads out of the source")
    if is_closed(real, closed):
        raise FileOutside("the file lies in a folder that containers write to")

    def is_known(content: bytes) -> bool:
        return before is not None and hashlib.sha256(content).digest() == before

    content = read_whole(SourceFile(printable_name(name), real), top, is_known=is_known)
    if isinstance(content, bytes):
        return content
    if content.code == "file.too-big":
        raise FileTooBig(content.message)
    raise FileUnreadable(content.message)


def look_up(
    top: str, path: str, closed: frozenset[str] = frozenset(), *, listed: bool = True
) -> FoundPath:
    """Return the file or folder at a path below *top*; *listed*: with the names in a folder."""
    wanted = posixpath.normpath(f"{top}/{path}")
    if not is_inside(wanted, top) or _GIT in path.split("/"):
        return FoundPath("outside")
    try:
        real = os.path.realpath(wanted, strict=True)
        status = Path(real).stat()
    except (OSError, ValueError):
        return FoundPath("absent")
    if not is_inside(real, top) or _GIT in real.removeprefix(top).split("/"):
        return FoundPath("outside")
    is_regular = stat.S_ISREG(status.st_mode)
    if listed and is_closed(real, closed) and (is_regular or stat.S_ISDIR(status.st_mode)):
        return FoundPath("file" if is_regular else "folder", reason="containers can write to it")
    if is_regular:
        return file_found(status.st_size, executable=bool(status.st_mode & 0o111))
    if stat.S_ISDIR(status.st_mode):
        return _folder(real) if listed else FoundPath("folder")
    return FoundPath("other")


def _folder(top: str) -> FoundPath:
    """Return the files of a folder, if they fit into a Config."""
    try:
        return folder_found(_entries(top))
    except _LinkedFolder as error:
        return FoundPath("folder", reason=f"{error} in it is a link to a folder")


class _LinkedFolder(Exception):
    """A folder contains a link to a folder; the text is the link's name."""


def _entries(top: str) -> Iterator[FolderEntry]:
    """Yield the folders below a folder, from the top down.

    Raises:
        _LinkedFolder: a link leads to a folder.
    """
    for folder, folders, files in os.walk(top):
        folders[:] = sorted(name for name in folders if name != _GIT)
        for name in folders:
            if os.path.islink(f"{folder}/{name}"):  # noqa: PTH114 - a text
                raise _LinkedFolder(printable_name(name))
        yield os.path.relpath(folder, top), len(folders), _sizes(folder, sorted(files))


def _sizes(folder: str, names: Iterable[str]) -> Iterator[tuple[str, int]]:
    for name in names:
        try:
            yield name, os.lstat(f"{folder}/{name}").st_size
        except OSError:
            continue
