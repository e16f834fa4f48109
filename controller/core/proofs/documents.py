"""The documents of a proven commit, with its files and charts, as the controller reads them.

The documents of a proven commit, as the controller reads them from the exported folder.

The Releases of a proven commit, rendered by the charts of the same commit.

The files of a proven commit, as the exported folder shows them to the reader of Compose projects.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field

from controller.core.charts.releases import (
    CHART,
    MAX_CHART_BYTES,
    MAX_RELEASES,
    MAX_TEMPLATES,
    SCHEMA,
    TEMPLATES,
    VALUES,
    Chart,
    RenderLimit,
    render_release,
    too_big_chart,
    too_many_templates,
    unnamed,
)
from controller.core.compose import project
from controller.core.compose.projects import (
    ComposeReading,
    FolderEntry,
    ProjectNames,
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
from controller.core.git.commit_objects import CHARTS
from controller.core.manifests.declaration import Declaration, FolderReading, ParsedDocument
from controller.core.manifests.named_files import files_named_by, is_of_trimtab, with_named_files
from controller.core.manifests.parse import read_text
from controller.core.yaml.documents import decode
from controller.core.yaml.file_limit import MAX_BYTES, too_big
from controller.model.delivery import FILE_BYTES_MAX
from controller.model.desired.desired import SourceIdentity
from controller.model.desired.spec.service import ReleaseSpec
from controller.model.errors import Problem

_SUFFIXES = (".yaml", ".yml")


def is_read(path: str) -> bool:
    """Return True for a YAML file that the controller's walk of a folder finds."""
    is_hidden = any(part.startswith(".") for part in path.split("/"))
    return path.endswith(_SUFFIXES) and not is_hidden


def render_releases(
    documents: Iterable[ParsedDocument],
    charts: Mapping[str, bytes],
    prefix: str,
    limit: RenderLimit = nullcontext,
) -> Iterator[tuple[ParsedDocument, str, Mapping[str, bytes]]]:
    """Yield each document of the Releases, with its folder in the chart, and the chart's files.

    Args:
        documents: the documents of the commit, with the Releases.
        charts: the files of the charts, by their paths in the folder of the charts.
        prefix: the beginning of the names of files.
        limit: bounds the rendering of one Release.
    """
    releases = [*_releases(documents)]
    known: dict[str, Chart] = {}
    for release in releases[:MAX_RELEASES]:
        assert isinstance(release.spec, ReleaseSpec), "only Releases were taken"
        name = release.spec.chart
        if name not in known:
            known[name] = chart_of(name, charts, prefix)
        chart, inside = known[name], _inside(charts, name)
        for document in render_release(release, chart, limit):
            file = document.declaration.source.file if document.declaration is not None else ""
            folder = posixpath.dirname(file).removeprefix(chart.place).strip("/")
            yield document, folder, inside
    if len(releases) > MAX_RELEASES:
        message = f"there are more than {MAX_RELEASES} Releases; the rest wasn't rendered"
        problem = Problem("source.too-many", message, releases[MAX_RELEASES].source.file)
        yield ParsedDocument(None, (problem,), None), "", {}


def _releases(documents: Iterable[ParsedDocument]) -> Iterator[Declaration]:
    for document in documents:
        declaration = document.declaration
        if declaration is not None and isinstance(declaration.spec, ReleaseSpec):
            yield declaration


def chart_of(name: str, charts: Mapping[str, bytes], prefix: str) -> Chart:
    """Return the chart *name* among the files of the charts, as the controller reads its folder."""
    wrong = unnamed(name)
    if wrong is not None:
        return wrong
    place, inside = f"{prefix}{CHARTS}/{name}", _inside(charts, name)
    if not inside:
        problem = Problem("chart.missing", f"the commit has no chart {name}")
        return Chart(name, place, problems=(problem,))
    files = [file for file in (CHART, VALUES, SCHEMA) if file in inside]
    templates = f"{TEMPLATES}/"
    found = [
        path
        for path in sorted(inside)
        if path.startswith(templates) and is_read(path.removeprefix(templates))
    ]
    problems: list[Problem] = []
    if len(found) > MAX_TEMPLATES:
        problems.append(too_many_templates(place))
    problems += [
        Problem("file.special", "is no regular file", f"{place}/{folder}")
        for folder in (CHART, VALUES, SCHEMA)
        if any(path.startswith(f"{folder}/") for path in inside)
    ]
    texts: list[tuple[str, str]] = []
    left = MAX_CHART_BYTES
    for file in (*files, *found[:MAX_TEMPLATES]):
        if len(inside[file]) > MAX_BYTES:
            problems.append(too_big(f"{place}/{file}"))
            continue
        left -= len(inside[file])
        if left < 0:
            problems.append(too_big_chart(place))
            break
        texts.append((f"{place}/{file}", decode(inside[file])))
    return Chart(name, place, tuple(texts), tuple(problems))


def _inside(charts: Mapping[str, bytes], name: str) -> dict[str, bytes]:
    top = f"{name}/"
    return {path.removeprefix(top): charts[path] for path in charts if path.startswith(top)}


_GIT = ".git"
_NAME_MAX = 255


class ProvenFiles:
    """A ``ProjectFiles`` of the files below the documents' folder, by their paths in the folder.

    A proof has no links, no empty folders and no ``.git``. An exported file isn't executable.

    Args:
        files: the contents by path.
        top: the name of the documents' folder: ``../NAME/file`` leads back into the folder.
    """

    def __init__(self, files: Mapping[str, bytes], top: str) -> None:
        self._files = files
        self._top = f"/{top or 'source'}"
        #: By folder: the names of its folders, and of its files.
        self._folders: dict[str, tuple[set[str], list[str]]] = {".": (set(), [])}
        for path in files:
            folder, name = posixpath.split(path)
            self._folder(folder or ".")[1].append(name)

    def _folder(self, path: str) -> tuple[set[str], list[str]]:
        known = self._folders.get(path)
        if known is None:
            known = self._folders[path] = (set(), [])
            parent, name = posixpath.split(path)
            self._folder(parent or ".")[0].add(name)
        return known

    def read(self, path: str) -> bytes:
        """Return the content of a file (``ReadFile``)."""
        name = None if path.startswith("/") else self._inside(path)
        if name is None or _GIT in path.split("/"):
            raise project.FileOutside("the path leads out of the source")
        content = self._files.get(name)
        if content is None:
            if name in self._folders:
                raise project.FileUnreadable("is no regular file and wasn't opened")
            if self._is_impossible(name):
                raise project.FileUnreadable("the path leads through a file, or is too long")
            raise project.FileAbsent("the file does not exist")
        if len(content) > MAX_BYTES:
            raise project.FileTooBig(too_big(name).message)
        return content

    def look(self, path: str, *, listed: bool = True) -> FoundPath:
        """Return the file or folder at a path (``LookUp``)."""
        name = self._inside(path)
        if name is None or _GIT in path.split("/"):
            return FoundPath("outside")
        if name in self._files:
            return file_found(len(self._files[name]))
        if name not in self._folders:
            return FoundPath("absent")
        return folder_found(self._entries(name)) if listed else FoundPath("folder")

    def context(self, _request: ContextRequest) -> FoundContext:
        """Return why nothing is built: a proof has the documents of a commit, and no contexts."""
        reason = "no build is admitted where signed commits are required: a proof has no context"
        return FoundContext(fault=(reason, "build in CI, and name the image"))

    def _inside(self, path: str) -> str | None:
        """Return a path relative to the documents' folder; None for a path that leads out."""
        whole = posixpath.normpath(f"{self._top}/{path}")
        if whole != self._top and not whole.startswith(f"{self._top}/"):
            return None
        return whole.removeprefix(self._top).lstrip("/") or "."

    def _is_impossible(self, name: str) -> bool:
        """Return True if a file system reads another mistake than absence from a path."""
        parts = name.split("/")
        ahead = ("/".join(parts[:count]) for count in range(1, len(parts)))
        is_long = any(len(part.encode("utf-8", "surrogatepass")) > _NAME_MAX for part in parts)
        return "\0" in name or is_long or any(each in self._files for each in ahead)

    def _entries(self, top: str) -> Iterator[FolderEntry]:
        """Yield the folders below a folder, from the top down and in the order of their names."""
        waiting = ["."]
        while waiting:
            inside = waiting.pop()
            place = posixpath.normpath(f"{top}/{inside}")
            folders, files = self._folders[place]
            sizes = [
                (name, len(self._files[posixpath.normpath(f"{place}/{name}")]))
                for name in sorted(files)
            ]
            yield inside, len(folders), sizes
            below = [name if inside == "." else f"{inside}/{name}" for name in folders]
            waiting += sorted(below, reverse=True)


@dataclass(frozen=True, slots=True)
class DocumentScope:
    """The source of the documents, and the policy's choices for Compose projects."""

    source: str
    #: The name of the exported folder.
    folder: str = ""
    compose: ComposeSettings = field(default_factory=ComposeSettings)
    #: Bounds the rendering of one Release.
    limit: RenderLimit = nullcontext


def read_documents(
    files: Mapping[str, bytes], charts: Mapping[str, bytes], scope: DocumentScope
) -> FolderReading:
    """Return the documents of the files, of the Compose projects among them, and of the Releases."""
    names = [path for path in sorted(files) if is_read(path)]
    projects = _read_projects(
        files, [path for path in names if project.COMPOSE_FILE.fullmatch(path)], scope
    )
    documents: list[ParsedDocument] = []
    read: dict[str, tuple[ParsedDocument, ...]] = {}
    for path in names:
        if project.COMPOSE_FILE.fullmatch(path):
            continue
        content, name = files[path], f"{scope.source}:{path}"
        if len(content) > MAX_BYTES:
            documents.append(ParsedDocument(None, (too_big(name),), None))
        else:
            read[path] = read_text(decode(content), name)
    named = {
        name
        for path, parsed in read.items()
        for name in files_named_by(parsed, posixpath.dirname(path))
    }
    for path, parsed in read.items():
        if is_of_trimtab(files[path]) or not (path in named or projects.has_part(path)):
            folder = posixpath.dirname(path)
            documents += (_with_files(document, folder, files) for document in parsed)
    documents += (_with_files(document, "", files) for document in projects.documents)
    rendered = render_releases(documents, charts, f"{scope.source}:", scope.limit)
    documents += [_with_files(document, folder, beside) for document, folder, beside in rendered]
    identity = SourceIdentity("proof", present=True, documents=len(documents))
    return FolderReading(tuple(documents), identity, projects.problems)


def _read_projects(
    files: Mapping[str, bytes], names: list[str], scope: DocumentScope
) -> ComposeReading:
    if not names:
        return ComposeReading()
    port, shown = ProvenFiles(files, scope.folder), ProjectNames(scope.folder, f"{scope.source}:")
    folders = compose_folders(names)
    projects = read_within(
        project_folders(folders), lambda folder: read_one(folder, port, scope.compose, shown), shown
    )
    return read_together(projects, folders, shown)


def _with_files(
    document: ParsedDocument, folder: str, files: Mapping[str, bytes]
) -> ParsedDocument:
    """Return a document with its named files, from the commit."""

    def read(path: str) -> bytes | Problem:
        content = files.get(posixpath.normpath(posixpath.join(folder, path)))
        if content is None or path.startswith("/") or len(content) > FILE_BYTES_MAX:
            return Problem("config.unreadable", f"{path} isn't in the commit")
        return content

    return with_named_files(document, read)
