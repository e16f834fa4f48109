"""The Compose projects among the files of a source: read through a port, and translated together.

A project is a folder with a Compose file. Files of other names count if a project includes or lists
them. Nothing raises for the content of a file. The controller reads a folder so, and the render worker
the files of a proven commit.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, Protocol

from controller.core.compose.project import ComposeProject, Place
from controller.core.compose.reader import FILE_NAMES, OVERRIDE_NAMES, read_project
from controller.core.compose.translation.documents import parsed_documents, translate
from controller.core.compose.translation.scope import (
    ComposeSettings,
    ContextRequest,
    FoundContext,
    FoundPath,
)
from controller.core.encoding.text import printable_name
from controller.core.manifests.declaration import ParsedDocument
from controller.core.yaml.documents import compose_all, decode
from controller.model.delivery import CONTENT_BYTES_MAX, FILE_BYTES_MAX, FILES_MAX
from controller.model.desired.spec.mounts import ConfigSpec
from controller.model.errors import Problem, Severity
from controller.model.quantities import format_bytes

_DEPTH_MAX: Final = 8
#: Why a file can't be a Config.
TOO_LARGE: Final = f"has more than {format_bytes(FILE_BYTES_MAX)}"
#: What the projects of a source may cost together (``ComposeProject.weight``).
MAX_WEIGHT: Final = 2_000_000
_INCLUDE: Final = b"include"
#: A path out of the project's folder, also of a service that isn't chosen, or in a broken file.
_OUTWARD: Final = re.compile(rb"""(?<![\w/.-])\.\./[^\s"':;,\]}#]+""")
#: A word in which a YAML file can be named, and the end of such a name.
_WORD: Final = re.compile(rb"""[^\s"':;,\[\]{}#]++""")
_YAML_END: Final = re.compile(rb"\.ya?ml\b")

#: The names of Compose files in each folder.
ComposeFolders = Mapping[str, set[str]]
#: The contents of a folder in it: its name, the number of its folders, and its files with their sizes.
FolderEntry = tuple[str, int, Iterable[tuple[str, int]]]


class ProjectFiles(Protocol):
    """The port to the files of a source. Paths are relative to the root of the source."""

    def read(self, path: str) -> bytes:
        """Return the content of a file (``ReadFile``); *path* is normalized."""
        ...

    def look(self, path: str, *, listed: bool = True) -> FoundPath:
        """Return the file or folder at a path (``LookUp``)."""
        ...

    def context(self, request: ContextRequest) -> FoundContext:
        """Return the files of a build (``ReadContext``)."""
        ...


@dataclass(frozen=True, slots=True)
class ProjectNames:
    """Names for the projects of a source."""

    #: The name of the source's folder, which names a project in the folder itself.
    top: str
    #: The beginning of the names of files, as people see the names.
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class ReadProject:
    """A project as last read."""

    #: The files that were read or looked for.
    files: frozenset[str]
    #: The files and folders that were looked up.
    paths: Mapping[str, FoundPath]
    #: The contexts of builds that were read.
    contexts: Mapping[ContextRequest, FoundContext]
    namespace: str
    #: The place of the project's name.
    place: Place
    #: The files that the project includes.
    included: frozenset[str]
    #: The paths out of the project's folder in its files.
    outward: frozenset[str]
    documents: tuple[ParsedDocument, ...]
    problems: tuple[Problem, ...]
    #: A bug kept the project from being read: the next reading tries again.
    bug: Exception | None = None
    #: What the reading cost (``ComposeProject.weight``).
    weight: int = 0


@dataclass(frozen=True, slots=True)
class ComposeReading:
    """The documents of all projects of a source, and the problems of projects as a whole."""

    documents: tuple[ParsedDocument, ...] = ()
    problems: tuple[Problem, ...] = ()
    #: The folders of projects, the files that projects name, read or mount, and the folders that they
    #: name or mount.
    parts: frozenset[str] = frozenset()

    def has_part(self, name: str) -> bool:
        """Return True if a file of the source is a part of a project."""
        while name and name not in self.parts:
            name = posixpath.dirname(name)
        return bool(name) or "." in self.parts


def compose_folders(names: Iterable[str]) -> ComposeFolders:
    """Return the folders of the Compose files *names*."""
    by_folder: dict[str, set[str]] = {}
    for name in names:
        folder, base = posixpath.split(name)
        by_folder.setdefault(folder or ".", set()).add(base)
    return by_folder


def project_folders(folders: ComposeFolders) -> Iterator[str]:
    """Yield the folders of projects."""
    return (folder for folder, names in folders.items() if not names.isdisjoint(FILE_NAMES))


def read_one(
    folder: str, files: ProjectFiles, settings: ComposeSettings, names: ProjectNames
) -> ReadProject:
    """Return the project of a folder. Never raises: a bug that one project meets spares the others."""
    seen = _Seen(files)
    try:
        return _read(folder, seen, settings, names)
    except Exception as error:  # noqa: BLE001 - a bug must not keep other projects from being read
        return _failed(folder, seen, names, error)


def read_within(
    folders: Iterable[str], read: Callable[[str], ReadProject], names: ProjectNames
) -> dict[str, ReadProject]:
    """Return the projects of folders by *read*. Projects after ``MAX_WEIGHT`` aren't read."""
    projects: dict[str, ReadProject] = {}
    left = MAX_WEIGHT
    for folder in folders:
        projects[folder] = project = read(folder) if left > 0 else _left_out(folder, names)
        left -= project.weight
    return projects


def read_together(
    projects: Mapping[str, ReadProject], folders: ComposeFolders, names: ProjectNames
) -> ComposeReading:
    """Return the documents of all projects of a source."""
    includes = _includes(projects, folders)
    roots = _roots(projects, includes)
    read = {name for project in projects.values() for name in project.files}
    unused = [*_unused(folders, read, names.prefix)]
    documents, problems = _without_doubles(projects[folder] for folder in roots)
    documents += tuple(_unread_parts(projects, includes))
    outward = (project.outward for project in projects.values())
    parts = frozenset(read.union(projects, *outward, *map(_mounted, projects.values())))
    return ComposeReading(documents, (*problems, *unused), parts)


def file_found(size: int, *, executable: bool = False) -> FoundPath:
    """Return a file of a size in bytes."""
    reason = f"it {TOO_LARGE}" if size > FILE_BYTES_MAX else ""
    return FoundPath("file", executable=executable, reason=reason)


def folder_found(entries: Iterable[FolderEntry]) -> FoundPath:
    """Return the files of a folder, if they fit into a Config. *entries* come from the top down."""
    names: list[str] = []
    size = count = 0
    for inside, folders, files in entries:
        count += 1 + folders
        if count > FILES_MAX * _DEPTH_MAX:
            return FoundPath("folder", reason="it has too many folders")
        if inside != "." and inside.count("/") + 2 > _DEPTH_MAX:
            return FoundPath("folder", reason=f"it is deeper than {_DEPTH_MAX} levels")
        for file, file_bytes in files:
            size += file_bytes
            if file_bytes > FILE_BYTES_MAX:
                return FoundPath("folder", reason=f"{file} {TOO_LARGE}")
            names.append(file if inside == "." else f"{inside}/{file}")
            if len(names) > FILES_MAX:
                return FoundPath("folder", reason=f"it has more than {FILES_MAX} files")
            if size > CONTENT_BYTES_MAX:
                reason = f"it has more than {format_bytes(CONTENT_BYTES_MAX)}"
                return FoundPath("folder", reason=reason)
    return FoundPath("folder", names=tuple(names), reason="" if names else "it has no files")


class _Seen:
    """The port to the files of a project. Records every read."""

    def __init__(self, files: ProjectFiles) -> None:
        self._port = files
        self.files: set[str] = set()
        self.paths: dict[str, FoundPath] = {}
        self.contexts: dict[ContextRequest, FoundContext] = {}
        #: The files with an include, by their names.
        self.texts: dict[str, bytes] = {}
        #: The paths out of the folders of the files.
        self.outward: set[str] = set()

    def read(self, path: str) -> bytes:
        """Return the content of a file (``ReadFile``)."""
        name = posixpath.normpath(path)
        self.files.add(name)
        content = self._port.read(name)
        if _INCLUDE in content:
            self.texts[name] = content
        self.outward.update(_paths(_OUTWARD.findall(content), name))
        return content

    def look(self, path: str, *, listed: bool = True) -> FoundPath:
        """Return the file or folder at a path (``LookUp``)."""
        found = self._port.look(path, listed=listed)
        if listed or path not in self.paths:
            self.paths[path] = found
        return found

    def context(self, request: ContextRequest) -> FoundContext:
        """Return the files of a build (``ReadContext``)."""
        self.contexts[request] = found = self._port.context(request)
        return found

    def project(
        self,
        namespace: str,
        place: Place,
        documents: tuple[ParsedDocument, ...],
        problems: tuple[Problem, ...] = (),
        *,
        bug: Exception | None = None,
        weight: int = 0,
    ) -> ReadProject:
        """Return a project with what was read of it."""
        return ReadProject(
            frozenset(self.files),
            self.paths,
            self.contexts,
            namespace,
            place,
            frozenset(_included(self.texts)),
            frozenset(self.outward),
            documents,
            problems,
            bug,
            weight,
        )


def _read(folder: str, seen: _Seen, settings: ComposeSettings, names: ProjectNames) -> ReadProject:
    folder_name = posixpath.basename(names.top if folder == "." else folder)
    project = _with_prefix(read_project(folder, seen.read, folder_name=folder_name), names.prefix)
    translation = translate(project, settings, seen.look, seen.context)
    documents, problems = parsed_documents(translation)
    if project.is_named:
        own = translation.namespace
        documents = tuple(
            replace(each, namespace=own) if each.blind else each for each in documents
        )
    place = project.locate(("name",))
    return seen.project(translation.namespace, place, documents, problems, weight=project.weight)


def _failed(folder: str, seen: _Seen, names: ProjectNames, error: Exception) -> ReadProject:
    """Return a project that can't be read because of a bug. Nothing is pruned meanwhile."""
    file = names.prefix + printable_name(posixpath.normpath(f"{folder}/{FILE_NAMES[0]}"))
    problem = Problem(
        "compose.failed",
        f"trimtab failed to read the project: {type(error).__name__}",
        file,
        remedy="please report it, with the traceback in the controller's log; other projects go on",
    )
    documents = (ParsedDocument(None, (problem,), None),)
    # No namespace of a project, so it doubles none.
    return seen.project(f"failed {folder}", Place(file, 1, 1), documents, bug=error)


def _left_out(folder: str, names: ProjectNames) -> ReadProject:
    """Return a project that isn't read. Nothing is pruned meanwhile."""
    file = names.prefix + printable_name(posixpath.normpath(f"{folder}/{FILE_NAMES[0]}"))
    message = "the Compose projects have too many values together; the rest wasn't read"
    problem = Problem(
        "source.too-big", message, file, remedy="use fewer aliases and smaller projects"
    )
    documents = (ParsedDocument(None, (problem,), None),)
    nothing: frozenset[str] = frozenset()
    place, namespace = Place(file, 1, 1), f"left out {folder}"
    return ReadProject(nothing, {}, {}, namespace, place, nothing, nothing, documents, ())


def _with_prefix(project: ComposeProject, prefix: str) -> ComposeProject:
    """Return a project with the names of files as people see them."""
    if not prefix:
        return project
    places = {path: replace(at, file=prefix + at.file) for path, at in project.places.items()}
    problems = tuple(replace(p, file=prefix + p.file if p.file else "") for p in project.problems)
    files = tuple(prefix + name for name in project.files)
    return replace(project, places=places, problems=problems, files=files)


def _unused(folders: ComposeFolders, read: set[str], prefix: str) -> Iterator[Problem]:
    """Yield a warning for each Compose file that no project reads."""
    for folder, names in sorted(folders.items()):
        for base in sorted(names):
            name = posixpath.normpath(f"{folder}/{base}")
            is_said = base in FILE_NAMES or (base in OVERRIDE_NAMES and names & {*FILE_NAMES})
            if name not in read and not is_said:
                yield Problem(
                    "compose.unused",
                    "no project reads this file",
                    prefix + printable_name(name),
                    remedy="list it in x-trimtab.files of the project's Compose file, or include it "
                    f"there; a project's own file is called {FILE_NAMES[0]}",
                    severity=Severity.WARNING,
                )


def _mounted(project: ReadProject) -> Iterator[str]:
    """Yield the paths of files and folders that a project mounts."""
    for path, found in project.paths.items():
        if found.kind in ("file", "folder"):
            yield posixpath.normpath(path)
    for document in project.documents:
        declaration = document.declaration or document.partial
        if declaration is not None and isinstance(declaration.spec, ConfigSpec):
            yield from map(posixpath.normpath, declaration.spec.files.values())


def _includes(
    projects: Mapping[str, ReadProject], by_folder: ComposeFolders
) -> dict[str, list[str]]:
    """Return the folders of the parts of each project: projects whose first file the project includes."""
    by_first: dict[str, str] = {}
    for folder in projects:
        first = next(name for name in FILE_NAMES if name in by_folder[folder])
        by_first[posixpath.normpath(f"{folder}/{first}")] = folder
    return {
        folder: [
            by_first[name] for name in project.included if by_first.get(name, folder) != folder
        ]
        for folder, project in projects.items()
    }


def _unread_parts(
    projects: Mapping[str, ReadProject], parts: Mapping[str, list[str]]
) -> Iterator[ParsedDocument]:
    """Yield a blind document for each part of a broken project: possibly it is a project of its own."""
    for folder, project in projects.items():
        blind = [each for each in project.documents if each.blind or each.blind_namespace]
        reached: set[str] = set()
        _reach([folder] if blind else [], parts, reached)
        for part in sorted(reached - {folder}):
            other = projects[part]
            is_certain = not any(each.blind for each in other.documents)
            yield replace(blind[0], namespace=other.namespace if is_certain else "")


def _roots(projects: Mapping[str, ReadProject], parts: Mapping[str, list[str]]) -> list[str]:
    """Return the folders of the projects that are not a part of another project.

    Of a cycle of includes, the first project is returned: the problem of the cycle keeps what all of
    them declare from being pruned.
    """
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
    """Add projects, and included projects at any depth, to *reached*."""
    ahead = [*folders]
    while ahead:
        folder = ahead.pop()
        if folder not in reached:
            reached.add(folder)
            ahead += parts[folder]


def _without_doubles(
    projects: Iterable[ReadProject],
) -> tuple[tuple[ParsedDocument, ...], list[Problem]]:
    """Return the documents of all projects. Of projects with one namespace, nothing is changed."""
    by_namespace: dict[str, list[ReadProject]] = {}
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
                found = (*shown, *document.problems)
                documents.append(ParsedDocument(None, found, key, namespace=document.namespace))
    return tuple(documents), problems


def _included(texts: Mapping[str, bytes]) -> Iterator[str]:
    """Yield the files that Compose files include, as written there, without variables.

    Of a broken file, every path of a YAML file counts: an included project is none of its own.
    """
    for name, content in texts.items():
        for document in compose_all(decode(content), name):
            value = document.value
            if document.faults:
                yield from _paths(_yaml_paths(content), name)
            entries = value.get("include") if isinstance(value, dict) else None
            for entry in entries if isinstance(entries, list) else []:
                paths = entry.get("path") if isinstance(entry, dict) else entry
                for path in paths if isinstance(paths, list) else [paths]:
                    if isinstance(path, str):
                        yield posixpath.normpath(posixpath.join(posixpath.dirname(name), path))


def _yaml_paths(content: bytes) -> Iterator[bytes]:
    """Yield the words of a text up to the last name of a YAML file in each."""
    for word in _WORD.findall(content):
        ends = [end.end() for end in _YAML_END.finditer(word) if end.start()]
        if ends:
            yield word[: ends[-1]]


def _paths(written: Iterable[bytes], name: str) -> Iterator[str]:
    """Yield the paths inside of the source that the text of a file has."""
    folder = posixpath.dirname(name)
    for found in written:
        path = posixpath.normpath(posixpath.join(folder, found.decode("utf-8", "replace")))
        if path != "." and not path.startswith(("../", "/")) and path != "..":
            yield path
