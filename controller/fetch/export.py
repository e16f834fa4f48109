"""Exported commits, and the fetcher's memory of served and approved ones.

Exported commits: folders of regular files that never change, and the link to the served one.

A folder appears as a whole, by a rename after its files are durable. The served commit changes by the
rename of a link.

The fetcher's memory: ``state.json``, the served and approved commits of each source.

A lost file costs approvals and holds, never a served commit: the link ``current`` tells that.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from controller.core.git.commit_objects import Refusal, TreeFile
from controller.core.git.reports import (
    commit_to_json,
    render_status,
    status_from_json,
    status_to_json,
)
from controller.model.desired.source_spec import GitSpec
from controller.model.errors import SourceError, StateError
from controller.model.names import COMMIT_ID
from controller.model.sources import CommitInfo, SourceState, SourceStatus
from controller.system.durable_files import fsync_folder, write_atomic

CURRENT = "current"
#: Earlier commits that stay beside the served one.
KEPT = 3
FILE_MODE, FOLDER_MODE = 0o640, 0o750
_NEW, _OLD = ".new-", ".old-"


class ExportFolder:
    """The exports of one source, in *folder*."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def prepare(self) -> None:
        """Create the folder, and remove what an interrupted export left.

        Raises:
            OSError: the folder can't be written.
        """
        self._folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        for path in self._folder.iterdir():
            if path.name.startswith((_NEW, _OLD)):
                shutil.rmtree(path)

    def served(self) -> str | None:
        """Return the commit that ``current`` leads to; None for none."""
        try:
            name = str((self._folder / CURRENT).readlink())
        except OSError:
            return None
        is_export = COMMIT_ID.fullmatch(name) and (self._folder / name).is_dir()
        return name if is_export else None

    def path_of(self, commit: str) -> str | None:
        """Return the documents' folder of an export; None for a missing or incomplete export."""
        try:
            described = json.loads((self._folder / f"{commit}.json").read_bytes())
        except (OSError, ValueError):
            return None
        if not (self._folder / commit).is_dir() or not isinstance(described, dict):
            return None
        path = described.get("path")
        return path if isinstance(path, str) else None

    def write(
        self, info: CommitInfo, files: Iterable[tuple[TreeFile, bytes]], *, path: str
    ) -> None:
        """Export a commit. An export of the same commit and path stays as it is.

        Raises:
            OSError: the folder can't be written.
        """
        if self.path_of(info.commit) == path:
            return
        target, new = self._folder / info.commit, self._folder / f"{_NEW}{info.commit}"
        old = self._folder / f"{_OLD}{info.commit}"
        try:
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(mode=FOLDER_MODE)
            _write_files(new, files)
            described = {"version": 1, "path": path, **commit_to_json(info)}
            (self._folder / f"{info.commit}.json").unlink(missing_ok=True)
            if target.exists():  # of another path: the link leads nowhere for an instant
                target.rename(old)
                self._proof(info.commit).unlink(missing_ok=True)
            new.rename(target)
            fsync_folder(self._folder)
            text = f"{json.dumps(described, ensure_ascii=False, indent=1)}\n"
            write_atomic(self._folder / f"{info.commit}.json", text.encode(), mode=FILE_MODE)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def has_proof(self, commit: str) -> bool:
        """Return True if the proof of a commit is exported."""
        return self._proof(commit).is_file()

    def write_proof(self, commit: str, proof: bytes) -> None:
        """Export the proof of a commit, for signed admission.

        Raises:
            OSError: the folder can't be written.
        """
        write_atomic(self._proof(commit), proof, mode=FILE_MODE)

    def _proof(self, commit: str) -> Path:
        return self._folder / f"{commit}.proof"

    def serve(self, commit: str) -> None:
        """Let ``current`` lead to an export.

        Raises:
            OSError: the folder can't be written.
        """
        link = self._folder / f"{_NEW}{CURRENT}"
        link.unlink(missing_ok=True)
        link.symlink_to(commit)
        link.rename(self._folder / CURRENT)
        fsync_folder(self._folder)

    def remove_old(self) -> None:
        """Remove all exports but the served one and the ``KEPT`` latest others."""
        served = self.served()
        exports = [path for path in self._folder.iterdir() if COMMIT_ID.fullmatch(path.name)]
        others = [path for path in exports if path.name != served]
        others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for path in others[KEPT:]:
            self._folder.joinpath(f"{path.name}.json").unlink(missing_ok=True)
            self._proof(path.name).unlink(missing_ok=True)
            shutil.rmtree(path, ignore_errors=True)


def _write_files(new: Path, files: Iterable[tuple[TreeFile, bytes]]) -> None:
    folders = {new}
    for file, content in files:
        path = new / file.path
        folders |= _make_folders(path.parent, new)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, FILE_MODE), "wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
    for folder in sorted(folders, reverse=True):
        fsync_folder(folder)


def _make_folders(folder: Path, root: Path) -> set[Path]:
    """Create a folder below *root* with its parents; return all of them."""
    made: set[Path] = set()
    while folder != root:
        made.add(folder)
        folder = folder.parent
    for each in sorted(made):
        each.mkdir(mode=FOLDER_MODE, exist_ok=True)
    return made


VERSION = 1
_MEMORY_MAX_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class CommitApproval:
    """An operator's approval of one commit."""

    commit: str
    by: str


@dataclass(frozen=True, slots=True)
class SourceMemory:
    """The fetcher's memory of one source."""

    status: SourceStatus
    #: The documents' folder of the served export.
    served_path: str = ""
    #: The id that the reference had when the source was last Ready; '' for never.
    tip: str = ""
    #: True if an operator can approve the candidate.
    approvable: bool = False
    approval: CommitApproval | None = None
    #: The operator who holds the source; '' for nobody.
    held_by: str = ""


def fresh(name: str, spec: GitSpec) -> SourceMemory:
    """Return the memory of a new source."""
    return SourceMemory(SourceStatus(name, SourceState.PENDING, spec.url, str(spec.ref), spec.path))


class MemoryFile:
    """``state.json`` and ``status.json``, written together. Threads can share an object."""

    def __init__(self, folder: Path) -> None:
        self._state, self._status = folder / "state.json", folder / "status.json"
        self._sources: dict[str, SourceMemory] = {}
        self._listed: frozenset[str] = frozenset()
        #: False while the file lacks a change that couldn't be written.
        self._is_saved = True
        self._lock = threading.Lock()

    def load(self) -> str | None:
        """Read the file. Return why it couldn't be used; None if it could, or is missing.

        A damaged file is moved aside.
        """
        try:
            data = self._state.read_bytes()
            self._sources = _parse(data)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            self._state.replace(self._state.with_name("state.json.damaged"))
            return f"{self._state} was damaged ({error}); approvals and holds are lost"
        return None

    def get(self, name: str) -> SourceMemory | None:
        with self._lock:
            return self._sources.get(name)

    def statuses(self) -> list[SourceStatus]:
        """Return the statuses of the declared sources."""
        with self._lock:
            return [self._sources[name].status for name in sorted(self._listed)]

    def change(
        self,
        name: str,
        change: Callable[[SourceMemory], SourceMemory],
        *,
        new: SourceMemory | None = None,
    ) -> None:
        """Change the memory of a source durably, and publish its status.

        *new* stands for the memory of a source that isn't known yet.

        Raises:
            SourceError: the source isn't known, or *change* refuses.
            StateError: a file can't be written.
        """
        with self._lock:
            known = self._sources.get(name)
            memory = known or new
            if memory is None:
                raise SourceError(
                    "source.unknown",
                    f"nothing is known of source {name} yet",
                    remedy="see 'trimtab source list'",
                )
            changed = change(memory)
            self._sources[name] = changed
            is_minor = known is not None and _lasting(known) == _lasting(changed)
            self._write(publish_only=is_minor and self._is_saved)

    def report_forge(self, name: str, problem: Refusal | None) -> None:
        """Publish why a source's forge has no commit statuses; None if it has them.

        Raises:
            StateError: a file can't be written.
        """
        code, message, remedy = (
            ("", "", "") if problem is None else (problem.code, problem.message, problem.remedy)
        )

        def reported(memory: SourceMemory) -> SourceMemory:
            status = replace(
                memory.status, forge_reason=code, forge_message=message, forge_remedy=remedy
            )
            return replace(memory, status=status)

        known = self.get(name)
        if known is not None and reported(known) != known:
            self.change(name, reported)

    def declare(self, sources: Iterable[SourceMemory]) -> None:
        """Publish only these sources; others stay in memory for their return.

        A value stands for the memory of a source that isn't known yet.
        """
        new = {memory.status.name: memory for memory in sources}
        with self._lock:
            if self._listed != set(new) or not self._status.exists():
                self._listed = frozenset(new)
                self._sources = {**new, **self._sources}
                self._write(publish_only=True)

    def _write(self, *, publish_only: bool = False) -> None:
        try:
            if not publish_only:
                self._is_saved = False
                write_atomic(self._state, _render(self._sources))
                self._is_saved = True
            listed = [self._sources[name].status for name in self._listed]
            write_atomic(self._status, render_status(listed), mode=0o640)
        except OSError as error:
            raise StateError(
                "source.state",
                f"{error.filename}: {error.strerror}",
                remedy="make the fetcher's folder writable for its user, and free space",
            ) from error


def _lasting(memory: SourceMemory) -> SourceMemory:
    """Return the memory without the times of fetches, which change each time."""
    status = replace(memory.status, last_fetch="", last_success="", next_fetch="")
    return replace(memory, status=status)


def _render(sources: Mapping[str, SourceMemory]) -> bytes:
    listed = [
        {
            "status": status_to_json(memory.status),
            "served_path": memory.served_path,
            "tip": memory.tip,
            "approvable": memory.approvable,
            "approval": memory.approval and [memory.approval.commit, memory.approval.by],
            "held_by": memory.held_by,
        }
        for _, memory in sorted(sources.items())
    ]
    return f"{json.dumps({'version': VERSION, 'sources': listed}, indent=1)}\n".encode()


def _parse(data: bytes) -> dict[str, SourceMemory]:
    body = json.loads(data[:_MEMORY_MAX_BYTES])
    if body["version"] != VERSION:
        raise ValueError(f"its version isn't {VERSION}")
    found = {}
    for each in body["sources"]:
        status = status_from_json(each["status"])
        approval = CommitApproval(*map(str, each["approval"])) if each["approval"] else None
        found[status.name] = SourceMemory(
            status,
            str(each["served_path"]),
            str(each["tip"]),
            each["approvable"] is True,
            approval,
            str(each["held_by"]),
        )
    return found
