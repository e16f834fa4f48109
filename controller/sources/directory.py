"""The desired-state directory, read whole at each call.

``load`` never raises because of file contents. An unreadable part makes the result blind: the
controller still creates, and doesn't prune.

Git state of the desired-state directory: an operation in progress, and the checked-out commit.

A checkout, merge or rebase writes file after file, so the files in between are no valid desired
state. Nothing is read during such an operation.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from controller.core.compose.project import COMPOSE_FILE
from controller.core.compose.translation.scope import ComposeSettings
from controller.core.manifests.check_together import desired_from
from controller.core.manifests.declaration import FolderReading, ParsedDocument
from controller.core.manifests.named_files import files_named_by, is_of_trimtab
from controller.core.manifests.parse import read_text
from controller.core.yaml.documents import decode
from controller.core.yaml.file_limit import MAX_BYTES, too_big
from controller.model.desired.desired import Desired, SourceIdentity
from controller.model.desired.spec.service import ReleaseSpec
from controller.model.errors import Problem, Severity
from controller.model.names import Key
from controller.sources.config_files import (
    FilePlace,
    SourceRoot,
    bytes_of,
    folder_in_chart,
    hidden_files,
    with_files,
    with_files_of,
)
from controller.sources.safe_read import (
    MAX_TOTAL_BYTES,
    VALUE_BYTES,
    FolderWalk,
    Pread,
    SourceFile,
    read_whole,
)
from controller.sources.written_folders import (
    WrittenFolders,
    declaring_files,
    folders_written,
    problem_of_declared,
    problems_of_closed,
)

if TYPE_CHECKING:
    from controller.core.charts.releases import Chart
    from controller.core.compose.projects import ComposeReading
    from controller.sources.charts import BeginReading, RenderRelease
    from controller.sources.compose_projects import ComposeProjects


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


#: The names of a project's own file.
_PROJECT = re.compile(r"(?:.*/)?(?:docker-)?compose\.ya?ml")


@dataclass(frozen=True, slots=True)
class _ParsedFile:
    """The documents of a file at its last complete read."""

    digest: bytes
    #: What the file counts towards ``MAX_TOTAL_BYTES``.
    size: int
    documents: tuple[ParsedDocument, ...]
    #: The text says that it is of trimtab. Other files can be data.
    is_of_trimtab: bool


@dataclass(frozen=True, slots=True)
class Export:
    """The exported files of one commit of a Git source. They never change."""

    #: The source's name, which precedes the names of files.
    name: str
    commit: str

    @property
    def prefix(self) -> str:
        """The beginning of the names of files."""
        return f"{self.name}:"


class DirectorySource:
    """A ``ports.DesiredSource`` for a directory. *charts* is the folder of the charts of Releases.

    With *export*, the directory has the files of a commit: Git's state of a working tree around the
    directory says nothing about them. The documents of *overlay*, a file elsewhere, take the place of
    those of the same resources. *begin_reading* renders Releases; without it, the directory has a
    ``ChartRenderer`` of its own.

    *written* has the folders that containers write to, of which nothing is read.

    ``load`` is thread-safe; one thread at a time reads. Each call reads all files, because a
    change within the resolution of a timestamp must be noticed. Only changed files are parsed.
    """

    def __init__(
        self,
        root: Path,
        *,
        charts: Path | None = None,
        pread: Pread = os.pread,
        export: Export | None = None,
        overlay: Path | None = None,
        compose: Callable[[], ComposeSettings] = ComposeSettings,
        begin_reading: BeginReading | None = None,
        written: WrittenFolders | None = None,
    ) -> None:
        self._written = written or WrittenFolders()
        self._compose_settings = compose
        self._begin_reading = begin_reading
        self._projects: ComposeProjects | None = None
        self._overlay = overlay
        self._root = root.absolute()
        self._export = export
        self._prefix = export.prefix if export else ""
        self._charts = charts
        self._pread = pread
        self._lock = threading.Lock()
        self._files: dict[str, _ParsedFile] = {}
        self._last: FolderReading | None = None
        #: The documents of rendered Releases, by all inputs of the rendering.
        self._releases: dict[tuple[object, Chart], tuple[ParsedDocument, ...]] = {}
        #: The files in hidden folders, read or looked for by the last complete reading. Replaced
        #: whole: the watch asks in a thread of its own, and a part would begin a new watch.
        self.hidden_files: frozenset[Path] = frozenset()
        #: Those of the present reading, so far.
        self._hidden: set[str] = set()
        #: The files that declare something, by the last reading, relative to the directory.
        self._declaring: frozenset[str] = frozenset()

    def load(self) -> Desired:
        """Return the desired state of the present files."""
        return desired_from(self.read())

    def read(self) -> FolderReading:
        """Return the documents of the present files."""
        with self._lock:
            return self._read_folder()

    def _read_folder(self) -> FolderReading:
        try:
            top = os.path.realpath(self._root, strict=True)
            status = Path(top).stat()
        except OSError as error:
            return self._absent(f"{self._root} can't be found: {error.strerror}")
        if not stat.S_ISDIR(status.st_mode):
            return self._absent(f"{self._root} is no directory")
        repository = None if self._export else git_folder(Path(top))
        before = fingerprint(repository) if repository else ()
        sign = operation_sign(repository) if repository else ""
        if sign:
            return self._while_busy(sign, status.st_dev)
        documents, problems = self._read(top)
        if repository and (operation_sign(repository) or fingerprint(repository) != before):
            return self._while_busy("index", status.st_dev)
        identity = SourceIdentity(
            path=str(self._root),
            present=True,
            device=status.st_dev,
            documents=sum(document.declaration is not None for document in documents),
            commit=self._commit(repository),
        )
        rendered = self._render(documents)
        charts = git_folder(self._charts) if rendered and self._charts else None
        located = [
            *self._located(documents, identity.commit),
            *self._located(rendered, self._commit(charts)),
        ]
        self.hidden_files = frozenset(map(Path, self._hidden))
        self._last = FolderReading(tuple(located), identity, tuple(problems))
        return self._last

    def _commit(self, repository: Path | None) -> str:
        """Return the commit of the files, '' if unknown."""
        if self._export:
            return self._export.commit
        return commit_of(repository) if repository else ""

    def _located(self, documents: list[ParsedDocument], commit: str) -> list[ParsedDocument]:
        """Return *documents* with *commit* and the name of the Git source."""
        origin = self._export.name if self._export else ""
        if not commit and not origin:
            return documents
        return [_at_commit(document, commit, origin) for document in documents]

    def _absent(self, message: str) -> FolderReading:
        """Return a blind reading without a directory, so that nothing is pruned."""
        problem = Problem("source.missing", message, remedy="create it, or name another directory")
        identity = SourceIdentity(path=str(self._root), present=False)
        return FolderReading((), identity, (problem,), absent=True)

    def _while_busy(self, sign: str, device: int) -> FolderReading:
        """Return the reading before a Git operation in progress, blind."""
        problem = Problem(
            "git.busy",
            f"a Git operation is under way here ({sign}): the files read before stay in force",
            severity=Severity.WARNING,
            remedy="finish it; if none runs, remove the leftovers of a crashed one in .git",
        )
        if self._last is None:
            identity = SourceIdentity(path=str(self._root), present=True, device=device)
            return FolderReading((), identity, (problem,), absent=True)
        return replace(self._last, busy=problem)

    @property
    def top(self) -> str:
        """The path of the directory without links."""
        return os.path.realpath(self._root)

    def closed(self) -> frozenset[str]:
        """Return the folders of which nothing is read, by their resolved paths."""
        return self._written.closed(self.top)

    def _read(self, top: str) -> tuple[list[ParsedDocument], list[Problem]]:
        """Return the documents of all files, and the problems of the reads.

        A folder is closed before anything can write there. One with documents stays a problem instead,
        which blinds the directory: nothing is pruned until a person has decided.
        """
        known = self._written.known
        documents, problems = self._read_outside(top, known)
        if self._export:
            return documents, problems
        directory = self._projects.directory if self._projects is not None else ""
        folders = folders_written(documents, (top, directory))
        declaring = declaring_files(folders - known, self._declaring)
        if folders - known:
            documents, problems = self._read_outside(top, known | folders)
        problems += (problem_of_declared(*each) for each in declaring.items())
        problems += self._written.update(top, folders - declaring.keys())
        problems += problems_of_closed(top, self._written.known - folders)
        return documents, problems

    def _read_outside(
        self, top: str, folders: frozenset[str]
    ) -> tuple[list[ParsedDocument], list[Problem]]:
        """Return the documents and problems of all files outside of some folders below *top*."""
        closed = frozenset(f"{top}/{each}" for each in folders)
        walk, root = FolderWalk(top, closed), SourceRoot(top, closed=closed)
        self._hidden = set()
        problems = [replace(p, file=f"{self._prefix}{p.file}") for p in walk.problems]
        compose, others = _split(walk, top)
        reading = self._read_projects(top, compose, closed)
        documents = self._read_documents(root, others, reading, problems)
        own = (
            file
            for file in others
            if (e := self._files.get(self._name_of(file))) and e.is_of_trimtab
        )
        self._declaring = frozenset((*compose, *(os.path.relpath(file.path, top) for file in own)))
        if reading is not None:
            documents += self._with_files(reading.documents, top, root)
            problems += reading.problems
        if self._overlay is not None:
            documents = _overlaid(documents, self._overlay.absolute(), top)
        return documents, problems

    def _name_of(self, file: SourceFile) -> str:
        return f"{self._prefix}{file.name}"

    def _read_projects(
        self, top: str, names: list[str], closed: frozenset[str]
    ) -> ComposeReading | None:
        """Return what the Compose projects contain; None for a directory without any."""
        if self._projects is None:
            if not names:
                return None
            # The reader of Compose files is imported only if there is one.
            from controller.sources.compose_projects import ComposeProjects

            self._projects = ComposeProjects(self._compose_settings, self._prefix)
        reading = self._projects.read(top, names, closed)
        self._hidden.update(self._projects.hidden_files(top))
        return reading

    def _read_documents(
        self,
        root: SourceRoot,
        found: list[SourceFile],
        projects: ComposeReading | None,
        problems: list[Problem],
    ) -> list[ParsedDocument]:
        """Return the documents of files, without the files that are data (``named_files``)."""
        documents: list[ParsedDocument] = []
        files: dict[str, _ParsedFile] = {}
        read: list[tuple[SourceFile, _ParsedFile]] = []
        total, top = 0, root.top
        for each in found:
            file = replace(each, name=self._name_of(each))
            if total > MAX_TOTAL_BYTES:
                problems.append(_too_much(file.name))
                break
            entry, problem = self._read_file(file, top)
            if problem is not None:
                problems.append(problem)
            if entry is None:
                continue
            files[file.name] = entry
            read.append((file, entry))
            total += entry.size
        self._files = files
        data, named_bytes = _data_among(read, top, projects), 0
        for file, entry in read:
            if file.path in data:
                continue
            if total + named_bytes > MAX_TOTAL_BYTES and named_bytes:
                problems.append(_too_much(file.name))
                break
            folder = os.path.dirname(file.path)  # noqa: PTH120 - many
            with_files = self._with_files(entry.documents, folder, root)
            named_bytes += bytes_of(with_files)
            documents += with_files
        return documents

    def _with_files(
        self, documents: tuple[ParsedDocument, ...], folder: str, root: SourceRoot
    ) -> list[ParsedDocument]:
        self._hidden.update(hidden_files(documents, folder, root))
        return with_files(documents, folder, root)

    def _read_file(self, file: SourceFile, top: str) -> tuple[_ParsedFile | None, Problem | None]:
        last = self._files.get(file.name)

        def is_known(content: bytes) -> bool:
            return last is not None and hashlib.sha256(content).digest() == last.digest

        content = read_whole(file, top, is_known=is_known, pread=self._pread)
        if isinstance(content, Problem):
            return (last if content.code == "file.unstable" else None), content
        digest = hashlib.sha256(content).digest()
        if last is not None and last.digest == digest:
            return last, None
        documents = read_text(decode(content), file.name)
        size = max(len(content), VALUE_BYTES * sum(each.nodes for each in documents))
        return _ParsedFile(digest, size, documents, is_of_trimtab(content)), None

    def _render(self, documents: list[ParsedDocument]) -> list[ParsedDocument]:
        """Return the documents that the Releases among *documents* render to."""
        releases = [
            document.declaration
            for document in documents
            if document.declaration is not None
            and isinstance(document.declaration.spec, ReleaseSpec)
        ]
        if not releases:
            return []
        # Modules of charts are imported only if a Release exists.
        from controller.core.charts.releases import MAX_RELEASES, documents_of
        from controller.sources.charts import load_chart

        charts: dict[str, Chart] = {}
        by_inputs: dict[tuple[object, Chart], tuple[ParsedDocument, ...]] = {}
        total = 0
        with self.begin_reading() as render:
            for release in releases[:MAX_RELEASES]:
                assert isinstance(release.spec, ReleaseSpec), "only Releases were taken"
                name = release.spec.chart
                if name not in charts:
                    charts[name] = load_chart(
                        self._charts, name, prefix=self._prefix, directory=self._root
                    )
                    total += charts[name].size
                chart = charts[name]
                # All inputs of the rendering, with the place for problems.
                source = (release.key, release.owner, release.source, release.document.text)
                known = self._releases.get((source, chart))
                if known is None:
                    known = documents_of(release, render(release, chart))
                by_inputs[source, chart] = known
                total += _length_of(known)
                if total > MAX_TOTAL_BYTES:
                    problem = replace(_too_much(release.source.file), key=release.key)
                    by_inputs[source, chart] = (ParsedDocument(None, (problem,), None),)
                    break
        # What a later reading renders isn't known.
        self._releases = {
            inputs: each for inputs, each in by_inputs.items() if not _is_deferred(each)
        }
        rendered = self._with_files_of_charts(by_inputs)
        if len(releases) > MAX_RELEASES:
            message = f"there are more than {MAX_RELEASES} Releases; the rest wasn't rendered"
            problem = Problem("source.too-many", message, releases[MAX_RELEASES].source.file)
            rendered.append(ParsedDocument(None, (problem,), None))
        return rendered

    def begin_reading(self) -> AbstractContextManager[RenderRelease]:
        """Begin a reading of Releases. Other directories can share the renderer of this directory."""
        if self._begin_reading is None:
            from controller.sources.charts import ChartRenderer

            self._begin_reading = ChartRenderer().reading
        return self._begin_reading()

    def _with_files_of_charts(
        self, by_inputs: Mapping[tuple[object, Chart], tuple[ParsedDocument, ...]]
    ) -> list[ParsedDocument]:
        """Return rendered documents with the named files of the charts."""
        found: list[ParsedDocument] = []
        total = 0
        for (_, chart), documents in by_inputs.items():
            for document in documents:
                folder = folder_in_chart(document, chart.top, chart.place)
                root = SourceRoot(chart.top, "the chart")
                read = self._with_files((document,), folder, root)
                total += bytes_of(read)
                if total > MAX_TOTAL_BYTES:
                    found.append(ParsedDocument(None, (_too_much(chart.place),), None))
                    return found
                found += read
        return found


def _split(walk: FolderWalk, top: str) -> tuple[list[str], list[SourceFile]]:
    """Return the names of Compose files below *top*, and the other files.

    A link counts by its own name, since a project is the folder of the link. The file behind a link
    counts only if a project's own file can have the name.
    """
    linked = {name: path for name, path in walk.linked.items() if COMPOSE_FILE.fullmatch(name)}
    behind = {path for path in linked.values() if not _PROJECT.fullmatch(path)}
    names = [*linked]
    others = []
    for found in walk.files():
        if COMPOSE_FILE.fullmatch(found.path):
            names += [] if found.path in behind else [os.path.relpath(found.path, top)]
        elif found.path not in behind:
            others.append(found)
    return names, others


def _data_among(
    read: list[tuple[SourceFile, _ParsedFile]], top: str, projects: ComposeReading | None
) -> frozenset[str]:
    """Return the paths of the files that are data of a Config, a Secret or a Compose project."""
    undecided = [file.path for file, entry in read if not entry.is_of_trimtab]
    if not undecided:
        return frozenset()
    named = {
        os.path.realpath(path)
        for file, entry in read
        for path in files_named_by(entry.documents, os.path.dirname(file.path))  # noqa: PTH120
    }
    return frozenset(
        path
        for path in undecided
        if path in named or (projects is not None and projects.has_part(os.path.relpath(path, top)))
    )


def _length_of(documents: tuple[ParsedDocument, ...]) -> int:
    """Return what rendered documents count towards ``MAX_TOTAL_BYTES``."""
    declared = (document.declaration for document in documents)
    length = sum(len(each.document.text) for each in declared if each is not None)
    return max(length, VALUE_BYTES * sum(document.nodes for document in documents))


def _is_deferred(documents: tuple[ParsedDocument, ...]) -> bool:
    from controller.core.charts.releases import DEFERRED

    return any(problem.code == DEFERRED for each in documents for problem in each.problems)


def _too_much(name: str) -> Problem:
    message = f"the files are over {MAX_TOTAL_BYTES // 1024**2} MiB; the rest wasn't read"
    return Problem("source.too-big", message, name)


def _read_overlay(file: Path) -> tuple[ParsedDocument, ...]:
    """Return the documents of a file, or its problem."""
    try:
        with file.open("rb") as handle:
            content = handle.read(MAX_BYTES + 1)
    except OSError as error:
        problem = Problem("file.unreadable", f"{file} can't be read: {error.strerror}", str(file))
        return (ParsedDocument(None, (problem,), None),)
    if len(content) > MAX_BYTES:
        return (ParsedDocument(None, (too_big(str(file)),), None),)
    return read_text(decode(content), str(file))


def _overlaid(documents: list[ParsedDocument], file: Path, top: str) -> list[ParsedDocument]:
    """Return the documents of *top*, those of a file in the place of others of the same resources.

    A named file is looked for beside the file, then beside the replaced document.
    """
    read = _read_overlay(file)
    taken = {key: "" for document in read if (key := _key_of(document)) is not None}
    others = []
    for document in documents:
        key = _key_of(document)
        if key not in taken:
            others.append(document)
        elif declaration := document.declaration or document.partial:
            taken[key] = declaration.source.file
    folder = os.path.realpath(file.parent)
    here = FilePlace(folder, SourceRoot(folder, "the folder of the file"))
    for document in read:
        key = _key_of(document)
        replaced = os.path.join(top, os.path.dirname(taken.get(key, "") if key else ""))  # noqa: PTH118, PTH120 - text
        others.append(with_files_of(document, (here, FilePlace(replaced, SourceRoot(top)))))
    return others


def _key_of(document: ParsedDocument) -> Key | None:
    return document.declaration.key if document.declaration is not None else document.key


def _at_commit(document: ParsedDocument, commit: str, origin: str) -> ParsedDocument:
    if document.declaration is None:
        return document
    source = replace(document.declaration.source, commit=commit, origin=origin)
    return replace(document, declaration=replace(document.declaration, source=source))
