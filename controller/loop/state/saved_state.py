"""Answers from the controller's saved files, for commands while no controller runs.

Files about the commits of Git sources: outcomes for the fetcher, and holds that the journal has.

Imported only while a Source is declared.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from controller.core.git.reports import FEEDBACK_MAX_BYTES, parse_feedback, render_feedback
from controller.core.manifests.job_checks import dependencies_of
from controller.core.service.history import history
from controller.core.status import sources
from controller.core.status.facts import Report
from controller.core.status.sources import commit_outcomes
from controller.loop.state.failed_runs import read_runs
from controller.loop.state.store import BROKEN, StateStore
from controller.model.container_output import FailedRun
from controller.model.desired.desired import Desired
from controller.model.errors import EngineError, StateError
from controller.model.names import Key
from controller.model.sources import CommitOutcome, SourceHold
from controller.system.durable_files import write_atomic

_REMEDY = "run the command as root, or start the instance with 'trimtab up'"


def saved_dependencies(state_file: Path, declared: Desired) -> dict[Key, frozenset[Key]]:
    """Return the dependencies of each service: as declared, else as they were declared last."""
    store = StateStore(state_file)
    with suppress(OSError, *BROKEN):
        store.read()
    return {
        **store.dependencies(),
        **{
            service.key: frozenset(dependencies_of(service.key, service.spec))
            for service in declared.services
        },
    }


def saved_history(state_file: Path, name: str) -> dict[str, object]:
    """Return a service's history; *name* is ``NAME``, ``NAMESPACE/NAME`` or a whole key.

    Raises:
        StateError: the state can't be read, or has no such service.
    """
    store = StateStore(state_file)
    try:
        store.read()
    except (OSError, *BROKEN) as error:
        raise StateError(
            "state.unreadable",
            f"the controller's saved state can't be read: {error}",
            remedy=_REMEDY,
        ) from error
    wanted = tuple(name.split("/"))
    for key, overrides in sorted(store.all_overrides().items()):
        parts = (key.kind, key.namespace, key.name)
        if overrides.revisions and parts[-len(wanted) :] == wanted:
            generation = store.of(key).generation
            number = 0 if generation is None else generation.number
            declared = overrides.revisions[-1].revision
            return history(key, overrides, declared=declared, generation=number)
    raise StateError("service.unknown", f"no history is saved of a service {name}")


def saved_failures(failures_file: Path) -> tuple[FailedRun, ...]:
    """Return the failed runs; none if the file doesn't exist.

    Raises:
        StateError: the file can't be read.
    """
    try:
        return read_runs(failures_file)
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StateError(
            "state.unreadable",
            f"the saved output of failed containers can't be read: {error}",
            remedy=_REMEDY,
        ) from error


FEEDBACK = "feedback.json"
#: The folder's group, the fetcher's, reads the file.
MODE = 0o640
HOLDS = "holds.json"
_HOLDS_MAX_BYTES = 64 * 1024
#: The least time between two records of one source, in seconds.
PAUSE_S = 60.0

log = logging.getLogger("trimtab.loop")


class FeedbackFile:
    """``feedback.json`` in *folder*. The file is its own memory after a restart."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / FEEDBACK
        self._outcomes = self._load()

    def update(self, desired: Desired, report: Report) -> None:
        """Write the outcomes of commits, if they changed. *report* is the status of *desired*.

        Raises:
            OSError: the file can't be written.
        """
        outcomes = commit_outcomes(desired, report, self._outcomes)
        if outcomes == self._outcomes:
            return
        self._file.parent.mkdir(mode=0o700, exist_ok=True)
        write_atomic(self._file, render_feedback(outcomes), mode=MODE)
        self._outcomes = outcomes

    def _load(self) -> tuple[CommitOutcome, ...]:
        """Return the outcomes of the file; none of a missing or damaged one."""
        try:
            with self._file.open("rb") as file:
                return parse_feedback(file.read(FEEDBACK_MAX_BYTES + 1))
        except (OSError, ValueError):
            return ()


class HoldFile:
    """``holds.json`` in *folder*: the holds of sources with a record. *record* writes a record.

    A source has at most one record in ``PAUSE_S``: whoever pushes can't fill the journal.
    """

    def __init__(
        self,
        folder: Path,
        record: Callable[[SourceHold], None],
        *,
        monotonic: Callable[[], float],
    ) -> None:
        self._file = folder / HOLDS
        self._record = record
        self._monotonic = monotonic
        self._recorded = self._saved = self._load()
        #: The time of the last record of each source.
        self._times: dict[str, float] = {}

    def update(self, desired: Desired) -> None:
        """Record holds that began. A hold that can't be recorded is tried again at the next update.

        Raises:
            OSError: the file can't be written.
        """
        recorded = sources.without_ended(desired, self._recorded)
        for hold in sources.new_holds(desired, recorded):
            name, now = hold.key.name, self._monotonic()
            if now - self._times.get(name, -PAUSE_S) < PAUSE_S:
                continue
            try:
                self._record(hold)
            except EngineError as error:
                log.warning("the hold of source %s isn't recorded: %s", name, error)
                continue
            self._times[name] = now
            recorded.pop(name, None)
            recorded[name] = (hold.commit, hold.reason)
        self._recorded = recorded  # before the write: a full disk repeats no record
        if recorded != self._saved:
            write_atomic(self._file, sources.render_holds(recorded))
            self._saved = recorded

    def _load(self) -> sources.Holds:
        """Return the holds of the file; none of a missing or damaged one."""
        try:
            with self._file.open("rb") as file:
                return sources.parse_holds(file.read(_HOLDS_MAX_BYTES))
        except (OSError, ValueError):
            return {}
