"""Triggers: the controller's two queues, and the callbacks of event sources.

Engine adapter, prober and controller share one ``Triggers``. A trigger carries no facts, and only
queues a key or a chore, and the pass or chore observes the world itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from enum import StrEnum

from controller.loop.workers.workqueue import WorkQueue
from controller.model.names import Key

#: The shortest time between a change and the publication of the status, or a save of the state.
PUBLISH_S, SAVE_S = 0.2, 0.5
#: The same while keys wait for a worker: reports and saves take processor time from the passes.
BUSY_S = 2.0


class Chore(StrEnum):
    """Work for all keys. Chores run one at a time."""

    RELOAD = "reload"  # read the files
    OBSERVE = "observe"  # read the files, observe everything, plan everything
    LIST = "list"  # compare the engine's list with the last snapshot
    SAVE = "save"  # save the state
    PUBLISH = "publish"  # publish the status for commands while no controller runs


class Triggers:
    """The queues of keys and chores, and the progress of long actions. Thread-safe."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.keys: WorkQueue[Key] = WorkQueue(monotonic)
        self.chores: WorkQueue[Chore] = WorkQueue(monotonic)
        #: Grows with the cost of a report; set by ``Controller.publish``.
        self.publish_delay_s = PUBLISH_S
        self._lock = threading.Lock()
        self._progress: dict[Key, str] = {}
        self._version = 0

    def check(self, key: Key, *, is_urgent: bool = False) -> None:
        """Request a pass of *key*; if the queue is full, request an observation of everything."""
        if not self.keys.add(key, is_urgent=is_urgent):
            self.chores.add(Chore.OBSERVE)

    def publish_soon(self) -> None:
        """Request the publication of the status."""
        self.chores.add_after(Chore.PUBLISH, self._delay_s(self.publish_delay_s))

    def save_soon(self) -> None:
        """Request a save of the state."""
        self.chores.add_after(Chore.SAVE, self._delay_s(SAVE_S))

    def _delay_s(self, shortest_s: float) -> float:
        """Return the delay of a chore. The last change is requested while no key waits."""
        return max(shortest_s, BUSY_S) if self.keys.waiting else shortest_s

    def report_progress(self, key: Key, text: str) -> None:
        """Record how far a long action of *key* is; '' once it has ended."""
        with self._lock:
            if text:
                self._progress[key] = text
            else:
                self._progress.pop(key, None)
            self._version += 1
        self.publish_soon()

    def progress(self) -> dict[Key, str]:
        """Return the progress of running long actions."""
        with self._lock:
            return dict(self._progress)

    @property
    def version(self) -> int:
        """A counter of the changes of ``progress``."""
        with self._lock:
            return self._version
