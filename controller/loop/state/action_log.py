"""The log of the actions that this controller performed, for commands that show progress.

The journal is the record; this is a bounded copy in memory of the newest ones, without their ids.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Final

from controller.core.review.progress import PerformedAction
from controller.model.desired.plan import AnyAction
from controller.model.errors import EngineError
from controller.model.records import Context
from controller.ports import ActionPerformer, Clock

#: Actions that are kept; a command that waits asks twice a second.
ACTS_MAX: Final = 2000


class ActionLog:
    """The newest actions in order, each with a number. Safe to use from several threads."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._acts: deque[PerformedAction] = deque(maxlen=ACTS_MAX)
        self._last = 0

    def note(self, action: AnyAction, error: EngineError | None = None) -> None:
        """Add an action that was performed or, with an *error*, that failed."""
        with self._lock:
            self._last += 1
            failure = None if error is None else error.message
            self._acts.append(PerformedAction(self._last, self._clock.now(), action, failure))

    @property
    def last(self) -> int:
        """The number of the newest action; 0 before the first."""
        with self._lock:
            return self._last

    def acts(self) -> tuple[PerformedAction, ...]:
        """Return the actions that are kept, the oldest first."""
        with self._lock:
            return tuple(self._acts)


@dataclass(frozen=True, slots=True)
class Logged:
    """An engine of which each action is added to a log, right after it was performed or failed."""

    engine: ActionPerformer
    log: ActionLog

    def perform(self, action: AnyAction, context: Context) -> str:
        """Perform an action on the engine; raises what that raises."""
        try:
            made = self.engine.perform(action, context)
        except EngineError as error:
            self.log.note(action, error)
            raise
        self.log.note(action)
        return made
