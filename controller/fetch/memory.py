"""The fetcher's memory: ``state.json``, the served and approved commits of each source.

A lost file costs approvals and holds, never a served commit: the link ``current`` tells that.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from controller.core.git.report import render, status_from_json, status_to_json
from controller.core.git.tree_checks import Refusal
from controller.model.desired.source_spec import GitSpec
from controller.model.errors import SourceError, StateError
from controller.model.sources import SourceState, SourceStatus
from controller.system.atomic_file import write_atomic

VERSION = 1
_MEMORY_MAX_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class CommitApproval:
    """An operator's approval of one commit."""

    commit: str
    by: str


@dataclass(frozen=True, slots=True)
class SourceMemory:
    """What is remembered of one source."""

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
            write_atomic(self._status, render(listed), mode=0o640)
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
