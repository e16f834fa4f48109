"""The failed runs that are kept: seen by passes, read through the broker, saved in one file.

A pass reads before it acts, since its actions may remove the container and its output. Reading
is bounded in time: a container is healed even if its output can't be read.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from controller.core.drift import failed_runs
from controller.model.container_output import FailedRun
from controller.model.crashpoints import Reach, pass_by
from controller.model.desired.desired import Service
from controller.model.errors import EngineError, StateError
from controller.model.names import Key
from controller.model.observed import Container
from controller.model.quantities import format_instant
from controller.ports import Clock, OutputReader
from controller.system.atomic_file import write_atomic

#: How long one pass reads at most; each read has a limit of its own (``OutputReader``).
PASS_S = 3.0
#: More than the bounds of ``core.drift.failed_runs`` let a file have.
SIZE_MAX = 16 * 1024 * 1024
VERSION = 1


class FailureLog:
    """Failed runs, oldest first. Safe to use from several threads."""

    def __init__(
        self,
        clock: Clock,
        *,
        file: Path | None = None,
        reader: OutputReader | None = None,
        reach: Reach = pass_by,
    ) -> None:
        """Keep runs in *file*, or in memory alone; without a *reader* they have no lines."""
        self._clock = clock
        self._file = file
        self._reader = reader
        self._reach = reach
        self._lock = threading.Lock()
        self._runs: tuple[FailedRun, ...] = ()
        self._changed = False

    def note(
        self,
        service: Service,
        containers: Iterable[Container],
        *,
        controller_restarts: frozenset[int],
        rejected: Mapping[str, str],
    ) -> None:
        """Keep the failed runs that a look at a service's containers shows.

        *controller_restarts* are the slots in which the controller restarts containers, *rejected* says why
        rollouts of earlier revisions failed.
        """
        deadline = self._clock.monotonic() + PASS_S
        for container in containers:
            run = failed_runs.failed_run(
                container,
                service,
                controller_restarts=container.slot in controller_restarts,
                rejected=rejected.get(container.revision, ""),
            )
            if run is not None and not self._has(run):
                run = replace(run, at=run.at or format_instant(self._clock.now()))
                self._add(self._read(run, container, deadline))

    def runs(self) -> tuple[FailedRun, ...]:
        """Return all that are kept."""
        with self._lock:
            return self._runs

    def forget_all_but(self, keys: frozenset[Key]) -> None:
        """Forget services that are neither declared nor there any more."""
        with self._lock:
            runs = tuple(run for run in self._runs if run.key in keys)
            self._changed |= runs != self._runs
            self._runs = runs

    def _has(self, run: FailedRun) -> bool:
        with self._lock:
            return failed_runs.is_known(self._runs, run)

    def _add(self, run: FailedRun) -> None:
        with self._lock:
            self._runs = failed_runs.keep(self._runs, run)
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
        earlier = [each for each in self.runs() if each.id == run.id and each.run != run.run]
        return failed_runs.with_output(
            run,
            lines,
            previous_end=earlier[-1].at if earlier else "",
            restarted=container.running and run.run.startswith("ended"),
        )

    # The file

    def load(self) -> None:
        """Read the file; one that is broken or can't be read is as if there were none."""
        if self._file is None:
            return
        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            runs = read_runs(self._file)
            with self._lock:
                self._runs = runs

    def save(self) -> None:
        """Write the file if anything changed.

        Raises:
            StateError: it can't be written; the next save tries again.
        """
        with self._lock:
            if self._file is None or not self._changed:
                return
            runs, self._changed = self._runs, False
        value = {"version": VERSION, "runs": [failed_runs.to_json(run) for run in runs]}
        try:
            # Not in ASCII: output of emoji would take three times the bytes, and exceed SIZE_MAX.
            data = json.dumps(value, ensure_ascii=False).encode(errors="backslashreplace")
            write_atomic(self._file, data, reach=self._reach, points="state")
        except OSError as error:
            with self._lock:
                self._changed = True
            raise StateError(
                "state.unwritable",
                f"{self._file}: {error.strerror}",
                remedy="free space on its disk, or make the folder writable",
            ) from error


def read_runs(file: Path) -> tuple[FailedRun, ...]:
    """Return the runs of a file, of which no link is followed.

    Raises:
        OSError: it can't be read.
        ValueError, KeyError, TypeError, RecursionError: it isn't ours.
    """
    with os.fdopen(
        os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK), "rb"
    ) as opened:
        value = json.loads(opened.read(SIZE_MAX + 1))
    if value["version"] != VERSION:
        raise ValueError(f"version {value['version']} is not {VERSION}")
    return tuple(failed_runs.from_json(each) for each in value["runs"])[-failed_runs.OF_ALL :]
