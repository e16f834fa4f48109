"""How many passes run at a time: worker slots, the lock of all passes, and shared creations.

Pulls run outside the worker slots.

A pull can take minutes, and hang for two. Meanwhile its worker gives the slot to another, so
no registry delays the repair of other services. Pulls have a limit of their own. A pull beyond
their limit fails at once: a wait for a slot would occupy a thread.

The pass lock: passes run concurrently, or one caller has the engine to itself.

Shared creations: passes create a common network or volume once.

Passes of different services run concurrently, and each plans to create missing objects. A
single pass creates a network; the others wait, observe again, and use the network. An object
removed again and again by another client is created after growing pauses
(``core.drift.contention``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

from controller.core.drift import contention
from controller.core.drift.contention import Contention
from controller.model.desired.plan import (
    AnyAction,
    CreateNetwork,
    CreateVolume,
    RemoveNetwork,
)
from controller.model.observed import Observed

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


class PassLock:
    """A shared lock for passes, and an exclusive lock for one caller.

    A lock that starts ``paused`` lets passes run only while a caller keeps it ``open``.
    """

    def __init__(self, *, paused: bool = False) -> None:
        self._changed = threading.Condition()
        self._openers = 0 if paused else 1
        self._exclusive = False
        self._running = 0
        self._closed = False

    @contextmanager
    def passing(self) -> Iterator[bool]:
        """Hold the shared lock during the block; yields False if the lock is closed."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or (not self._exclusive and self._openers > 0)
            )
            granted = not self._closed
            self._running += granted
        try:
            yield granted
        finally:
            with self._changed:
                self._running -= granted
                self._changed.notify_all()

    @contextmanager
    def open(self) -> Iterator[None]:
        """Let passes run during the block, even if the lock is paused."""
        with self._changed:
            self._openers += 1
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._openers -= 1

    @contextmanager
    def exclusive(self, *, timeout_s: float) -> Iterator[bool]:
        """Wait until no pass runs, and let none start during the block; yields False on timeout."""
        with self._changed:
            free = self._changed.wait_for(lambda: not self._exclusive, timeout_s)
            if free:
                self._exclusive = True
                free = self._changed.wait_for(lambda: self._running == 0, timeout_s)
                if not free:
                    self._exclusive = False
                    self._changed.notify_all()
        try:
            yield free
        finally:
            if free:
                with self._changed:
                    self._exclusive = False
                    self._changed.notify_all()

    def await_shared(self, *, timeout_s: float) -> bool:
        """Wait until no caller holds the exclusive lock; return False on timeout."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._exclusive, timeout_s)

    def wait_for(self, condition: Callable[[], bool], *, timeout_s: float) -> bool:
        """Wait until *condition* is true, evaluated after each pass; return False on timeout."""
        with self._changed:
            return self._changed.wait_for(condition, timeout_s)

    def close(self) -> None:
        """Let no more pass start, and wake all waiters."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class SharedCreations:
    """Lets a single pass at a time create the object of a given name. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._under_way: set[tuple[str, str]] = set()
        #: Recent creations, by verb and name.
        self._contentions: dict[tuple[str, str], Contention] = {}

    @contextmanager
    def creating(self, action: CreateNetwork | CreateVolume) -> Iterator[bool]:
        """Let no other pass create the same object during the block; wait until none does.

        Yields True after waiting: the object probably exists now.
        """
        target = (action.verb, action.target)
        with self._changed:
            waited = target in self._under_way
            self._changed.wait_for(lambda: target not in self._under_way)
            self._under_way.add(target)
        try:
            yield waited
        finally:
            with self._changed:
                self._under_way.discard(target)
                self._changed.notify_all()

    def record_action(self, action: AnyAction, now: float) -> None:
        """Record a successful action. A repeated creation proves a removal by another client."""
        with self._changed:
            match action:
                case CreateNetwork() | CreateVolume():
                    target = (action.verb, action.target)
                    after = {
                        key: contention.update(each, each.altered, now)
                        for key, each in self._contentions.items()
                    }
                    before = replace(after.get(target, contention.CALM), altered=frozenset())
                    after[target] = contention.update(before, (action.target,), now)
                    self._contentions = {key: each for key, each in after.items() if each.times}
                case RemoveNetwork():
                    self._contentions.pop(("create-network", action.target), None)
                case _:
                    pass

    def wait_s(self, action: AnyAction, now: float) -> float:
        """Return the pause of a creation because of repeated removals by another client."""
        with self._changed:
            each = self._contentions.get((action.verb, action.target), contention.CALM)
        return max(0.0, contention.not_before(each) - now)


def existing(action: CreateNetwork | CreateVolume, observed: Observed) -> str:
    """Return the id of this instance's network, or the name of its volume; '' if missing."""
    if isinstance(action, CreateVolume):
        return next((v.name for v in observed.volumes if v.name == action.target and v.ours), "")
    return next((n.id for n in observed.networks if n.name == action.target and n.ours), "")
