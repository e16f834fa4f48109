"""The folders that the fetcher exported, as readings. The controller only reads them.

``FETCHER/sources/NAME/current`` is a link to the folder COMMIT beside it. A missing or unusable
link makes the source blind, never empty.

The module is imported only while a Source is declared, or was.
"""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from controller.core.compose.translation.scope import ComposeSettings, owned_by
from controller.core.git.reports import REPORT_MAX_BYTES, parse_status
from controller.core.manifests.combine import HeldClaims, SourceReading, combine, held_claims
from controller.core.manifests.declaration import FolderReading
from controller.model.desired.desired import Desired, GitSource, SourceIdentity
from controller.model.errors import Problem, Severity
from controller.model.names import COMMIT_ID, Key
from controller.model.sources import SourceStatus
from controller.sources.directory import DirectorySource, Export
from controller.sources.safe_read import OPEN_FLAGS, is_inside

if TYPE_CHECKING:
    from controller.sources.charts import BeginReading

CURRENT = "current"
STATUS = "status.json"
CHARTS = "configs"
_REMEDY = "look at `trimtab status`; nothing of the source is removed meanwhile"


class FetchedSources:
    """The Git sources of an instance, below the fetcher's folder. Thread-safe."""

    def __init__(
        self,
        fetcher: Path,
        compose: Callable[[], ComposeSettings] = ComposeSettings,
        begin_reading: BeginReading | None = None,
    ) -> None:
        self._begin_reading = begin_reading
        self._compose = compose
        self._fetcher = fetcher.absolute()
        self._sources = self._fetcher / "sources"
        self._lock = threading.Lock()
        #: By name, commit and path. The files of a commit never change, so each is parsed once.
        self._exports: dict[tuple[str, str, str], DirectorySource] = {}
        self._held: HeldClaims = frozenset()

    def marks(self, sources: tuple[GitSource, ...]) -> tuple[Path, ...]:
        """Return the files that change with a served commit, or with the state of a source."""
        pointers = (self._sources / source.key.name / CURRENT for source in sources)
        return (self._fetcher / STATUS, *pointers)

    @property
    def folder(self) -> Path:
        """The folder with the exports of each source."""
        return self._sources

    def commit_of(self, name: str) -> str:
        """Return the commit whose documents were read last from a source; '' for none."""
        with self._lock:
            read = (commit for source, commit, _ in self._exports if source == name)
            return next(read, "")

    def combine(
        self,
        directory: FolderReading,
        sources: tuple[GitSource, ...],
        serving: Mapping[Key, str],
        top: str = "",
    ) -> Desired:
        """Return the desired state of DIR and its sources; *serving* and *top* as in ``combine``."""
        reports = self._reports()
        with self._lock:
            before, self._exports = self._exports, {}
            readings = [SourceReading(source, self._read(source, before)) for source in sources]
            desired = combine(directory, readings, serving, held=self._held, top=top)
            self._held = held_claims(desired)
        reported = (replace(each, report=reports.get(each.key.name)) for each in desired.sources)
        return replace(desired, sources=tuple(reported))

    def _reports(self) -> dict[str, SourceStatus]:
        """Return the fetcher's statuses, by name; none if its file can't be read."""
        try:
            statuses = parse_status(_read_bounded(self._fetcher / STATUS))
        except (OSError, ValueError):
            return {}
        return {status.name: status for status in statuses}

    def _read(
        self, source: GitSource, before: Mapping[tuple[str, str, str], DirectorySource]
    ) -> FolderReading:
        name, path = source.key.name, source.spec.git.path
        folder = self._sources / name
        try:
            commit = os.readlink(folder / CURRENT)  # noqa: PTH115 - the text of the link, unparsed
        except FileNotFoundError:
            return _absent(source, "source.pending", "has no fetched commit yet")
        except OSError as error:
            return _absent(source, "source.unreadable", f"can't be read: {error.strerror}")
        if not COMMIT_ID.fullmatch(commit):
            return _absent(source, "source.unreadable", "has a link that leads to no commit")
        top = os.path.realpath(folder / commit)
        root = os.path.realpath(f"{top}/{path}")
        # The folder of a commit is no link, and leads nowhere else.
        if top != f"{os.path.realpath(folder)}/{commit}" or not is_inside(root, top):
            return _absent(source, "source.unreadable", "leads out of its exported files")
        if _exported_path(folder / f"{commit}.json") != path:
            return _absent(source, "source.pending", f"has no export of the folder {path} yet")
        known = (name, commit, path)
        charts = os.path.realpath(f"{root}/../{CHARTS}")
        export = before.get(known) or DirectorySource(
            Path(root),
            charts=Path(charts) if is_inside(charts, top) else None,
            export=Export(name, commit),
            compose=owned_by(source.spec.owners, self._compose),
            begin_reading=self._begin_reading,
        )
        self._exports[known] = export
        return export.read()


def exported_root(folder: Path) -> str:
    """Return the documents' folder in the served commit of a source, whose exports are in *folder*.

    Raises:
        OSError: nothing is served.
    """
    commit = os.readlink(folder / CURRENT)  # noqa: PTH115 - the text of the link, unparsed
    top = os.path.realpath(folder / commit, strict=True)
    path = _exported_path(folder / f"{commit}.json")
    root = os.path.realpath(f"{top}/{path}", strict=True)
    if not COMMIT_ID.fullmatch(commit) or path is None or not is_inside(root, top):
        raise OSError("no usable export")
    return root


def _exported_path(file: Path) -> str | None:
    """Return the folder for which a commit was exported, None if unknown."""
    try:
        written = json.loads(_read_bounded(file))
    except (OSError, ValueError, RecursionError):
        return None
    path = written.get("path") if isinstance(written, dict) else None
    return path if isinstance(path, str) else None


def _read_bounded(file: Path) -> bytes:
    """Return the content of a file of the fetcher's.

    Raises:
        OSError: it can't be read, or is no regular file.
        ValueError: it is too long.
    """
    descriptor = os.open(file, OPEN_FLAGS)
    with os.fdopen(descriptor, "rb") as handle:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{file} is no regular file")
        content = handle.read(REPORT_MAX_BYTES + 1)
    if len(content) > REPORT_MAX_BYTES:
        raise ValueError(f"{file} is too long")
    return content


def _absent(source: GitSource, code: str, message: str) -> FolderReading:
    """Return a blind reading without files, so that nothing of the source is pruned.

    A commit that is still to come is a warning: the files have no mistake.
    """
    problem = Problem(
        code,
        f"Source {source.key.name} {message}",
        source.source.file,
        source.source.line,
        remedy=_REMEDY,
        severity=Severity.WARNING if code == "source.pending" else Severity.ERROR,
        key=source.key,
    )
    identity = SourceIdentity(path=f"Source {source.key.name}", present=False)
    return FolderReading((), identity, (problem,), absent=True)
