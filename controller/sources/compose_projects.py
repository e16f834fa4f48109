"""The Compose projects of a directory: found, read inside the source, translated, and kept until a file changes.

A project is a folder with a Compose file. Files of other names count if a project includes or lists
them. Nothing raises for the content of a file.
"""

from __future__ import annotations

import hashlib
import logging
import os
import posixpath
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from controller.core.compose.project import (
    ComposeProject,
    FileAbsent,
    FileOutside,
    FileTooBig,
    FileUnreadable,
    Place,
)
from controller.core.compose.reader import FILE_NAMES, OVERRIDE_NAMES, read_project
from controller.core.compose.translation.documents import parsed_documents, translate
from controller.core.compose.translation.scope import FoundPath
from controller.core.compose.translation.settings import ComposeSettings
from controller.core.encoding.yaml import compose_all, decode
from controller.core.manifests.declaration import ParsedDocument
from controller.model.desired.spec.files import ConfigSpec
from controller.model.errors import Problem, Severity
from controller.model.files.delivery import CONTENT_BYTES_MAX, FILES_MAX
from controller.model.quantities import format_bytes
from controller.sources.safe_read import SourceFile, is_inside, printable_name, read_whole

LOG = logging.getLogger(__name__)
_GIT: Final = ".git"
_DEPTH_MAX: Final = 8
_INCLUDE: Final = b"include"

#: The digest of a file's content, or the word for the failure of its read.
_Outcome = bytes | str


@dataclass(frozen=True, slots=True)
class ComposeReading:
    """The documents of all projects of a directory, and the problems of projects as a whole."""

    documents: tuple[ParsedDocument, ...] = ()
    problems: tuple[Problem, ...] = ()
    #: The files that projects read or mount, and the folders that they mount.
    parts: frozenset[str] = frozenset()

    def has_part(self, path: str, top: str) -> bool:
        """Return True if a file below *top* is a part of a project."""
        name = os.path.relpath(path, top)
        while name and name not in self.parts:
            name = posixpath.dirname(name)
        return bool(name) or "." in self.parts


@dataclass(slots=True)
class _Inputs:
    """All inputs of a project's documents."""

    settings: ComposeSettings
    files: dict[str, _Outcome] = field(default_factory=dict)
    paths: dict[str, FoundPath] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _ReadProject:
    """A project as of its last reading."""

    inputs: _Inputs
    namespace: str
    #: The place of the project's name.
    place: Place
    #: The files that the project includes.
    included: frozenset[str]
    documents: tuple[ParsedDocument, ...]
    problems: tuple[Problem, ...]
    #: A bug kept the project from being read: the next reading tries again.
    has_failed: bool = False


class ComposeProjects:
    """The projects of one directory. Only projects with a changed file are read again.

    *settings* returns the policy's choices. It is asked only while there is a project.
    """

    def __init__(self, settings: Callable[[], ComposeSettings], prefix: str = "") -> None:
        self._settings = settings
        self._prefix = prefix
        self._known: dict[str, _ReadProject] = {}

    def read(self, top: str, names: Iterable[str]) -> ComposeReading:
        """Return the documents of the projects among the files *names*, relative to the folder *top*."""
        by_folder: dict[str, set[str]] = {}
        for name in names:
            folder, base = posixpath.split(name)
            by_folder.setdefault(folder or ".", set()).add(base)
        if not by_folder:
            self._known = {}
            return ComposeReading()
        settings = self._settings()
        projects = {
            folder: self._project(top, folder, settings)
            for folder, listed in by_folder.items()
            if not listed.isdisjoint(FILE_NAMES)
        }
        self._known = {f: project for f, project in projects.items() if not project.has_failed}
        roots = _roots(projects, by_folder)
        read = {name for project in projects.values() for name in project.inputs.files}
        unused = [*self._unused(by_folder, read)]
        documents, problems = _without_doubles(projects[folder] for folder in roots)
        parts = frozenset(read.union(*map(_mounted, projects.values())))
        return ComposeReading(documents, (*problems, *unused), parts)

    def _project(self, top: str, folder: str, settings: ComposeSettings) -> _ReadProject:
        known = self._known.get(folder)
        if known is not None and _is_current(known.inputs, top, settings):
            return known
        inputs = _Inputs(settings)
        try:
            return self._read_again(top, folder, inputs, known)
        except Exception as error:
            # A bug that one project meets must not keep the others from being read.
            LOG.exception("compose.failed folder=%s", folder)
            return self._failed(folder, inputs, error)

    def _failed(self, folder: str, inputs: _Inputs, error: Exception) -> _ReadProject:
        """Return a project that can't be read because of a bug. Nothing is pruned meanwhile."""
        file = self._prefix + printable_name(posixpath.normpath(f"{folder}/{FILE_NAMES[0]}"))
        problem = Problem(
            "compose.failed",
            f"trimtab failed to read the project: {type(error).__name__}",
            file,
            remedy="please report it, with the traceback in the controller's log; other projects go on",
        )
        documents = (ParsedDocument(None, (problem,), None),)
        namespace = f"failed {folder}"  # no namespace of a project, so it doubles none
        place = Place(file, 1, 1)
        return _ReadProject(inputs, namespace, place, frozenset(), documents, (), has_failed=True)

    def _read_again(
        self, top: str, folder: str, inputs: _Inputs, known: _ReadProject | None
    ) -> _ReadProject:
        reader = _Reader(top, inputs, known.inputs if known is not None else None)
        name = os.path.basename(top if folder == "." else folder)  # noqa: PTH119 - texts
        project = self._with_prefix(read_project(folder, reader.read, folder_name=name))

        def look(path: str) -> FoundPath:
            inputs.paths[path] = found = look_up(top, path)
            return found

        translation = translate(project, inputs.settings, look)
        documents, problems = parsed_documents(translation)
        return _ReadProject(
            inputs,
            translation.namespace,
            project.locate(("name",)),
            frozenset(_included(reader.texts)),
            documents,
            problems,
        )

    def _with_prefix(self, project: ComposeProject) -> ComposeProject:
        """Return a project with the names of files as people see them."""
        if not self._prefix:
            return project
        prefix = self._prefix
        places = {path: replace(at, file=prefix + at.file) for path, at in project.places.items()}
        problems = tuple(
            replace(p, file=prefix + p.file if p.file else "") for p in project.problems
        )
        return replace(
            project,
            places=places,
            problems=problems,
            files=tuple(prefix + name for name in project.files),
        )

    def _unused(self, by_folder: Mapping[str, set[str]], read: set[str]) -> Iterator[Problem]:
        """Yield a warning for each Compose file that no project reads."""
        for folder, names in sorted(by_folder.items()):
            for base in sorted(names):
                name = posixpath.normpath(f"{folder}/{base}")
                is_said = base in FILE_NAMES or (base in OVERRIDE_NAMES and names & {*FILE_NAMES})
                if name not in read and not is_said:
                    yield Problem(
                        "compose.unused",
                        "no project reads this file",
                        self._prefix + printable_name(name),
                        remedy="list it in x-trimtab.files of the project's Compose file, or include it "
                        f"there; a project's own file is called {FILE_NAMES[0]}",
                        severity=Severity.WARNING,
                    )


def _mounted(project: _ReadProject) -> Iterator[str]:
    """Yield the paths of files and folders that a project mounts."""
    for path, found in project.inputs.paths.items():
        if found.kind in ("file", "folder"):
            yield posixpath.normpath(path)
    for document in project.documents:
        declaration = document.declaration or document.partial
        if declaration is not None and isinstance(declaration.spec, ConfigSpec):
            yield from map(posixpath.normpath, declaration.spec.files.values())


def _roots(projects: Mapping[str, _ReadProject], by_folder: Mapping[str, set[str]]) -> list[str]:
    """Return the folders of the projects that are not a part of another project.

    A part is a project whose first file another project includes. Of a cycle of includes, the first
    project is returned: the problem of the cycle keeps everything from being pruned.
    """
    by_first: dict[str, str] = {}
    for folder in projects:
        first = next(name for name in FILE_NAMES if name in by_folder[folder])
        by_first[posixpath.normpath(f"{folder}/{first}")] = folder
    parts = {
        folder: [
            by_first[name] for name in project.included if by_first.get(name, folder) != folder
        ]
        for folder, project in projects.items()
    }
    includers = {part: folder for folder, others in parts.items() for part in others}
    roots = [folder for folder in projects if folder not in includers]
    reached: set[str] = set()
    _reach(roots, parts, reached)
    for folder in projects:
        if folder not in reached:  # in a cycle, or a part of one
            walked: set[str] = set()
            member = folder
            while member not in walked:
                walked.add(member)
                member = includers[member]
            roots.append(member)
            _reach([member], parts, reached)
    return roots


def _reach(folders: Iterable[str], parts: Mapping[str, list[str]], reached: set[str]) -> None:
    """Add projects, and the projects that they include at any depth, to *reached*."""
    ahead = [*folders]
    while ahead:
        folder = ahead.pop()
        if folder not in reached:
            reached.add(folder)
            ahead += parts[folder]


def _without_doubles(
    projects: Iterable[_ReadProject],
) -> tuple[tuple[ParsedDocument, ...], list[Problem]]:
    """Return the documents of all projects. Of projects with one namespace, nothing is changed."""
    by_namespace: dict[str, list[_ReadProject]] = {}
    for project in projects:
        by_namespace.setdefault(project.namespace, []).append(project)
    documents: list[ParsedDocument] = []
    problems: list[Problem] = []
    for group in by_namespace.values():
        for project in group:
            problems += project.problems
            if len(group) == 1:
                documents += project.documents
                continue
            other = next(each for each in group if each is not project)
            at = project.place
            said = Problem(
                "compose.double",
                f"the project of {other.place.file} has the namespace {project.namespace}, too",
                at.file,
                at.line,
                at.column,
                remedy="write another name: at the top of one of them; until then nothing is changed for either",
            )
            for document in project.documents:
                key = document.key
                shown = (replace(said, key=key),) if document is project.documents[0] else ()
                documents.append(ParsedDocument(None, (*shown, *document.problems), key))
    return tuple(documents), problems


class _Reader:
    """The port to the files of one project, which records every read."""

    def __init__(self, top: str, inputs: _Inputs, before: _Inputs | None) -> None:
        self._top = top
        self._inputs = inputs
        self._before = before.files if before is not None else {}
        #: The files with an include, by their names.
        self.texts: dict[str, bytes] = {}

    def read(self, path: str) -> bytes:
        """Return the content of a file (``ReadFile``)."""
        name = posixpath.normpath(path)
        try:
            content = read_file(self._top, name, self._before.get(name))
        except FileUnreadable as error:
            self._inputs.files[name] = type(error).__name__
            raise
        self._inputs.files[name] = hashlib.sha256(content).digest()
        if _INCLUDE in content:
            self.texts[name] = content
        return content


def read_file(top: str, name: str, before: _Outcome | None = None) -> bytes:
    """Return the content of a file below *top*; *before* is its last known digest.

    Raises:
        FileUnreadable: the file is absent, outside, too big, or can't be read.
    """
    wanted = posixpath.normpath(f"{top}/{name}")
    if name.startswith("/") or not is_inside(wanted, top) or _GIT in name.split("/"):
        raise FileOutside("the path leads out of the source")
    try:
        real = os.path.realpath(wanted, strict=True)
    except FileNotFoundError:
        if os.path.islink(wanted):  # noqa: PTH114 - a text
            raise FileUnreadable("the link leads to no file") from None
        raise FileAbsent("the file does not exist") from None
    except (OSError, ValueError) as error:
        raise FileUnreadable(getattr(error, "strerror", None) or str(error)) from None
    if not is_inside(real, top) or _GIT in real.removeprefix(top).split("/"):
        raise FileOutside("a link leads out of the source")

    def is_known(content: bytes) -> bool:
        return before is not None and hashlib.sha256(content).digest() == before

    content = read_whole(SourceFile(printable_name(name), real), top, is_known=is_known)
    if isinstance(content, bytes):
        return content
    if content.code == "file.too-big":
        raise FileTooBig(content.message)
    raise FileUnreadable(content.message)


def _is_current(inputs: _Inputs, top: str, settings: ComposeSettings) -> bool:
    """Return True if nothing has changed that a project was made from."""
    if inputs.settings != settings:
        return False
    for name, outcome in inputs.files.items():
        try:
            content = read_file(top, name, outcome)
        except FileUnreadable as error:
            if type(error).__name__ != outcome:
                return False
        else:
            if hashlib.sha256(content).digest() != outcome:
                return False
    return all(look_up(top, path) == found for path, found in inputs.paths.items())


def look_up(top: str, path: str) -> FoundPath:
    """Return the file or folder at a path below *top*."""
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
    if stat.S_ISREG(status.st_mode):
        return FoundPath("file", executable=bool(status.st_mode & 0o111))
    if stat.S_ISDIR(status.st_mode):
        return _folder(real)
    return FoundPath("other")


def _folder(top: str) -> FoundPath:
    """Return the files of a folder, if they fit into a Config."""
    names: list[str] = []
    size = entries = 0
    for folder, folders, files in os.walk(top):
        folders[:] = sorted(name for name in folders if name != _GIT)
        for name in folders:
            if os.path.islink(f"{folder}/{name}"):  # noqa: PTH114 - a text
                reason = f"{printable_name(name)} in it is a link to a folder"
                return FoundPath("folder", reason=reason)
        entries += 1 + len(folders)
        if entries > FILES_MAX * _DEPTH_MAX:
            return FoundPath("folder", reason="it has too many folders")
        inside = os.path.relpath(folder, top)
        if inside != "." and inside.count("/") + 2 > _DEPTH_MAX:
            return FoundPath("folder", reason=f"it is deeper than {_DEPTH_MAX} levels")
        for file in sorted(files):
            try:
                size += os.lstat(f"{folder}/{file}").st_size
            except OSError:
                continue
            names.append(file if inside == "." else f"{inside}/{file}")
            if len(names) > FILES_MAX:
                return FoundPath("folder", reason=f"it has more than {FILES_MAX} files")
            if size > CONTENT_BYTES_MAX:
                reason = f"it has more than {format_bytes(CONTENT_BYTES_MAX)}"
                return FoundPath("folder", reason=reason)
    return FoundPath("folder", names=tuple(names), reason="" if names else "it has no files")


def _included(texts: Mapping[str, bytes]) -> Iterator[str]:
    """Yield the files that Compose files include, as they are written, without variables."""
    for name, content in texts.items():
        for document in compose_all(decode(content), name):
            value = document.value
            entries = value.get("include") if isinstance(value, dict) else None
            for entry in entries if isinstance(entries, list) else []:
                paths = entry.get("path") if isinstance(entry, dict) else entry
                for path in paths if isinstance(paths, list) else [paths]:
                    if isinstance(path, str):
                        yield posixpath.normpath(posixpath.join(posixpath.dirname(name), path))
