"""Lanes: how many passes run at a time, and how pulls don't count among them.

A pull may take minutes, and hang for two: while one runs, its worker's place is another's. So no
registry ever delays the healing of what doesn't wait for it. Pulls have a bound of their own;
beyond it one is not begun, since waiting for a place would take a thread from everybody.
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

#: Gives its worker's place away; yields False where as many did already as may.
OutsideSlot = Callable[[], AbstractContextManager[bool]]


class WorkerSlots:
    """Places for so many workers, and so many beside them."""

    def __init__(self, *, workers: int, aside: int) -> None:
        self.threads = workers + aside  # enough for all places to be taken
        self._places = workers
        self._workers = threading.Semaphore(workers)
        self._aside = threading.Semaphore(aside)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Wait for a place to work."""
        with self._workers:
            yield

    def finish(self, *, within_s: float, monotonic: Callable[[], float]) -> bool:
        """Wait until nobody works, but for those beside; False: it took too long."""
        deadline = monotonic() + within_s
        taken = 0
        while taken < self._places:
            if not self._workers.acquire(timeout=max(0.0, deadline - monotonic())):
                break
            taken += 1
        if taken:
            self._workers.release(taken)
        return taken == self._places

    @contextmanager
    def aside(self) -> Iterator[bool]:
        """Give the place away during the block, and wait for one after it."""
        if not self._aside.acquire(blocking=False):
            yield False
            return
        self._workers.release()
        try:
            yield True
        finally:
            self._workers.acquire()
            self._aside.release()


@contextmanager
def in_place() -> Iterator[bool]:
    """Do it where one is: for whoever has one thread alone."""
    yield True


@dataclass(frozen=True, slots=True)
class OutsideSlotPerformer:
    """A ``ActionPerformer`` whose pulls are beside the workers."""

    engine: ActionPerformer
    aside: OutsideSlot

    def perform(self, action: AnyAction, context: Context) -> str:
        """Do one action.

        Raises:
            Crowded: it is a pull, and as many run as may.
        """
        if not isinstance(action, PullImage):
            return self.engine.perform(action, context)
        with self.aside() as begun:
            if not begun:
                raise TooManyRequests("pull.busy", "as many pulls run as may at a time")
            return self.engine.perform(action, context)
