"""Files about the commits of Git sources: outcomes for the fetcher, and holds that the journal has.

Imported only while a Source is declared.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from controller.core.git.feedback import FEEDBACK_MAX_BYTES, parse, render
from controller.core.status import source_holds
from controller.core.status.commit_outcomes import commit_outcomes
from controller.core.status.details import Report
from controller.model.desired.desired import Desired
from controller.model.errors import EngineError
from controller.model.sources import CommitOutcome, SourceHold
from controller.system.atomic_file import write_atomic

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
        write_atomic(self._file, render(outcomes), mode=MODE)
        self._outcomes = outcomes

    def _load(self) -> tuple[CommitOutcome, ...]:
        """Return the outcomes of the file; none of a missing or damaged one."""
        try:
            with self._file.open("rb") as file:
                return parse(file.read(FEEDBACK_MAX_BYTES + 1))
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
        recorded = source_holds.without_ended(desired, self._recorded)
        for hold in source_holds.new_holds(desired, recorded):
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
            write_atomic(self._file, source_holds.render(recorded))
            self._saved = recorded

    def _load(self) -> source_holds.Holds:
        """Return the holds of the file; none of a missing or damaged one."""
        try:
            with self._file.open("rb") as file:
                return source_holds.parse(file.read(_HOLDS_MAX_BYTES))
        except (OSError, ValueError):
            return {}
