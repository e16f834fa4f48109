"""The file with the outcomes of commits, which the fetcher sends to forges.

Imported only while a Source asks for commit statuses.
"""

from __future__ import annotations

from pathlib import Path

from controller.core.git.feedback import FEEDBACK_MAX_BYTES, parse, render
from controller.core.status.commit_outcomes import commit_outcomes
from controller.core.status.details import Report
from controller.model.desired.desired import Desired
from controller.model.sources import CommitOutcome
from controller.system.atomic_file import write_atomic

FEEDBACK = "feedback.json"
#: The folder's group, the fetcher's, reads the file.
MODE = 0o640


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
