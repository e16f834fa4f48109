"""Logs in memory: failed runs of containers with their last lines, and performed actions.

The log of failed runs of containers, with their last lines of output; saved in one file.

A pass reads a container's output before it acts, because its actions can remove the container.
Reading is bounded in time: a container is repaired even if its output can't be read.

The log of performed actions, for commands with a progress display.

The journal is the record. The log is a bounded copy in memory of the newest actions, without ids.
"""

from __future__ import annotations

import json
import threading
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from controller.core.drift import failures
from controller.core.review.performed_actions import PerformedAction
from controller.loop.state.store import VERSION, read_state, write_state
from controller.model.container_output import FailedRun
from controller.model.crashpoints import Reach, pass_by
from controller.model.desired.desired import Service
from controller.model.desired.plan import AnyAction
from controller.model.errors import EngineError, StateError
from controller.model.names import Key
from controller.model.observed import Container
from controller.model.quantities import format_instant
from controller.ports import Clock, OutputReader

#: The reading time of one pass; each read has a limit of its own (``OutputReader``).
PASS_S = 3.0
#: Above the size that the bounds of ``core.drift.failures`` allow.
SIZE_MAX = 16 * 1024 * 1024


class FailureLog:
    """Failed runs, oldest first. Thread-safe."""

    def __init__(
        self,
        clock: Clock,
        *,
        file: Path | None = None,
        reader: OutputReader | None = None,
        reach: Reach = pass_by,
    ) -> None:
        """Log to *file*, or in memory only; without a *reader*, runs have no output."""
        self._clock = clock
        self._file = file
        self._reader = reader
        self._reach = reach
        self._lock = threading.Lock()
        self._runs: tuple[FailedRun, ...] = ()
        self._changed = False

    def record(
        self,
        service: Service,
        containers: Iterable[Container],
        *,
        controller_restarts: frozenset[int],
        rejected: Mapping[str, str],
    ) -> None:
        """Log the failed runs among a service's observed *containers*.

        *controller_restarts*: slots in which the controller restarts containers, not the engine.
        *rejected*: why rollouts of earlier revisions failed, by revision.
        """
        deadline = self._clock.monotonic() + PASS_S
        for container in containers:
            run = failures.failed_run(
                container,
                service,
                controller_restarts=container.slot in controller_restarts,
                rejected=rejected.get(container.revision, ""),
            )
            if run is not None and not self._has(run):
                run = replace(run, at=run.at or format_instant(self._clock.now()))
                self._add(self._read(run, container, deadline))

    def runs(self) -> tuple[FailedRun, ...]:
        """Return all logged runs."""
        with self._lock:
            return self._runs

    def forget_all_but(self, keys: frozenset[Key]) -> None:
        """Drop services that are neither declared nor running."""
        with self._lock:
            runs = tuple(run for run in self._runs if run.key in keys)
            self._changed |= runs != self._runs
            self._runs = runs

    def _has(self, run: FailedRun) -> bool:
        with self._lock:
            return failures.is_known_run(self._runs, run)

    def _add(self, run: FailedRun) -> None:
        with self._lock:
            self._runs = failures.keep_runs(self._runs, run)
            self._changed = True

    def _read(self, run: FailedRun, container: Container, deadline: float) -> FailedRun:
        if self._reader is None:
            return run
        if self._clock.monotonic() >= deadline:
            return replace(run, unread="there was no time to read its output")
        try:
            lines = self._reader.last_output(container.id)
        except EngineError as error:
            return replace(run, unread=f"its output couldn't be read: {error.message}"[:300])
        earlier = [other for other in self.runs() if other.id == run.id and other.run != run.run]
        return failures.with_output(
            run,
            lines,
            previous_end=earlier[-1].at if earlier else "",
            restarted=container.running and run.run.startswith("ended"),
        )

    # The file

    def load(self) -> None:
        """Read the file; a missing, unreadable or damaged file counts as empty."""
        if self._file is None:
            return
        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            runs = read_runs(self._file)
            with self._lock:
                self._runs = runs

    def save(self) -> None:
        """Write the file if anything changed.

        Raises:
            StateError: the file can't be written; the next save tries again.
        """
        with self._lock:
            if self._file is None or not self._changed:
                return
            runs, self._changed = self._runs, False
        value = {"version": VERSION, "runs": [failures.FORM.to_json(run) for run in runs]}
        try:
            # Not in ASCII: output of emoji would take three times the bytes, and exceed SIZE_MAX.
            data = json.dumps(value, ensure_ascii=False).encode(errors="backslashreplace")
            write_state(self._file, data, self._reach)
        except StateError:
            with self._lock:
                self._changed = True
            raise


def read_runs(file: Path) -> tuple[FailedRun, ...]:
    """Return the runs of a file, without following symbolic links.

    Raises:
        OSError: the file can't be read.
        ValueError, KeyError, TypeError, RecursionError: the content isn't a log of failed runs.
    """
    value = read_state(file, SIZE_MAX)
    return tuple(failures.FORM.from_json(run) for run in value["runs"])[-failures.KEPT_OF_ALL :]


#: The size of the log; a waiting command reads it twice a second.
ACTS_MAX: Final = 2000


class ActionLog:
    """The newest actions in order, numbered from 1. Thread-safe."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._actions: deque[PerformedAction] = deque(maxlen=ACTS_MAX)
        self._last = 0
        #: By verb and outcome.
        self._counted: Counter[tuple[str, str]] = Counter()

    def append(self, action: AnyAction, error: EngineError | None = None) -> None:
        """Add a performed action or, with an *error*, a failed action."""
        with self._lock:
            self._last += 1
            failure = None if error is None else error.message
            self._counted[action.verb, "done" if error is None else "failed"] += 1
            self._actions.append(PerformedAction(self._last, self._clock.now(), action, failure))

    @property
    def last(self) -> int:
        """The number of the newest action; 0 before the first."""
        with self._lock:
            return self._last

    def actions(self) -> tuple[PerformedAction, ...]:
        """Return the logged actions, the oldest first."""
        with self._lock:
            return tuple(self._actions)

    def counted(self) -> Counter[tuple[str, str]]:
        """Return the number of actions since the start, by verb and outcome (done, failed)."""
        with self._lock:
            return self._counted.copy()
