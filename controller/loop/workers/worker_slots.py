"""Worker slots: how many passes run at a time. Pulls run outside these slots.

A pull can take minutes, and hang for two. Meanwhile its worker gives the slot to another, so
no registry delays the repair of other services. Pulls have a limit of their own. A pull beyond
their limit fails at once: a wait for a slot would occupy a thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from controller.model.desired.plan import AnyAction, PullImage
from controller.model.errors import TooManyRequests
from controller.model.records import Context
from controller.ports import ActionPerformer

#: The default number of worker slots.
WORKERS = 4
#: The default limit of pulls that run outside the slots.
PULLS = 8

#: Leaves the worker's slot during the block; yields False if the limit outside slots is reached.
OutsideSlot = Callable[[], AbstractContextManager[bool]]


class WorkerSlots:
    """*workers* slots for passes, and at most *outside* pulls outside of these slots.

    A pass that comes back from its pull precedes the passes that have not begun.
    """

    def __init__(self, *, workers: int = WORKERS, outside: int = PULLS) -> None:
        #: The number of threads that occupy all slots.
        self.threads = workers + outside
        self._slots = self._free = workers
        #: The number of passes that wait for a slot after their pull.
        self.returning = 0
        lock = threading.Lock()
        self._freed, self._freed_for_return = threading.Condition(lock), threading.Condition(lock)
        self._idle = threading.Condition(lock)
        self._outside = threading.Semaphore(outside)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Hold a slot during the block; wait for a free slot first."""
        with self._freed:
            self._freed.wait_for(lambda: self._free > self.returning)
            self._free -= 1
        try:
            yield
        finally:
            self._release()

    def hold_while(self, step: Callable[[], bool]) -> None:
        """Hold a slot while *step* returns True. Release it for a pass that returns from its pull.

        A slot that is handed on from step to step wakes another thread each time.
        """
        with self.working():
            while step() and not self._is_wanted():
                pass

    def _is_wanted(self) -> bool:
        with self._freed:
            return self.returning > self._free

    def _release(self) -> None:
        with self._freed:
            self._free += 1
            # Proof that no pass sleeps while a slot is free for it. Awake must be at least
            # min(free, returning) returning passes and max(0, free - returning) others, as far as
            # so many wait. A release raises exactly one of the two numbers, by one, and wakes a
            # pass of that kind. Whoever takes a slot is awake and raises neither number. Whoever
            # begins to wait, or waits again, finds the number of its kind at 0.
            is_for_return = self._free <= self.returning
            (self._freed_for_return if is_for_return else self._freed).notify()
            if self._free == self._slots:
                self._idle.notify_all()

    def _return(self) -> None:
        with self._freed_for_return:
            self.returning += 1
            self._freed_for_return.wait_for(lambda: self._free > 0)
            self.returning -= 1
            self._free -= 1

    def finish(self, *, within_s: float) -> bool:
        """Wait until all slots are free; return False on timeout. Pulls aren't waited for."""
        with self._idle:
            return self._idle.wait_for(lambda: self._free == self._slots, within_s)

    @contextmanager
    def outside_slot(self) -> Iterator[bool]:
        """Release the slot during the block, and wait for a slot afterwards."""
        if not self._outside.acquire(blocking=False):
            yield False
            return
        self._release()
        try:
            yield True
        finally:
            self._return()
            self._outside.release()


@contextmanager
def in_place() -> Iterator[bool]:
    """Keep the slot: an ``OutsideSlot`` for a caller with a single thread."""
    yield True


@dataclass(frozen=True, slots=True)
class OutsideSlotPerformer:
    """An ``ActionPerformer`` with pulls outside the worker slots."""

    engine: ActionPerformer
    outside_slot: OutsideSlot

    def perform(self, action: AnyAction, context: Context) -> str:
        """Perform an action.

        Raises:
            TooManyRequests: the action is a pull, and the limit of pulls is reached.
        """
        if not isinstance(action, PullImage):
            return self.engine.perform(action, context)
        with self.outside_slot() as granted:
            if not granted:
                raise TooManyRequests("pull.busy", "as many pulls run as may at a time")
            return self.engine.perform(action, context)
