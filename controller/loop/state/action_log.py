"""The log of performed actions, for commands with a progress display.

The journal is the record. The log is a bounded copy in memory of the newest actions, without ids.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Final

from controller.core.review.performed_actions import PerformedAction
from controller.model.desired.plan import AnyAction
from controller.model.errors import EngineError
from controller.model.records import Context
from controller.ports import ActionPerformer, Clock

#: The size of the log; a waiting command reads it twice a second.
ACTS_MAX: Final = 2000


class ActionLog:
    """The newest actions in order, numbered from 1. Thread-safe."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._actions: deque[PerformedAction] = deque(maxlen=ACTS_MAX)
        self._last = 0

    def append(self, action: AnyAction, error: EngineError | None = None) -> None:
        """Add a performed action or, with an *error*, a failed action."""
        with self._lock:
            self._last += 1
            failure = None if error is None else error.message
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


@dataclass(frozen=True, slots=True)
class Logged:
    """An ``ActionPerformer`` with a log: each performed action is an entry."""

    engine: ActionPerformer
    log: ActionLog

    def perform(self, action: AnyAction, context: Context) -> str:
        """Perform an action on the engine; raises the engine's errors."""
        try:
            created_id = self.engine.perform(action, context)
        except EngineError as error:
            self.log.append(action, error)
            raise
        self.log.append(action)
        return created_id
