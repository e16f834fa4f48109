"""The keyed work queue, after client-go's, and how many passes run at a time.

The keyed work queue, after client-go's: deduplicates and delays keys, one worker per key.

A key added while a worker handles the same key is handled once more afterwards, however often it
was added. So events are cheap: an event source adds the key and keeps nothing.

Triggers: the controller's two queues, and the callbacks of event sources.

Engine adapter, prober and controller share one ``Triggers``. A trigger carries no facts, and only
queues a key or a chore, and the pass or chore observes the world itself.

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

import heapq
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from enum import StrEnum
from typing import Generic, TypeVar

from controller.core.drift import contention
from controller.core.drift.contention import Contention
from controller.model.desired.plan import (
    AnyAction,
    CreateNetwork,
    CreateVolume,
    RemoveNetwork,
)
from controller.model.names import Key
from controller.model.observed import Observed

K = TypeVar("K", bound=Hashable)

CAPACITY = 16_384


class WorkQueue(Generic[K]):
    """A queue of keys for several workers.

    Invariant: at most one worker handles a key at a time. Bounded: with *capacity* keys waiting,
    ``add`` returns False, and the caller must observe everything later.
    """

    def __init__(self, monotonic: Callable[[], float], *, capacity: int = CAPACITY) -> None:
        self._monotonic = monotonic
        self._capacity = capacity
        lock = threading.RLock()
        self._changed = threading.Condition(lock)
        #: Apart from ``_changed``: a key that is added wakes one thread, which must be a worker.
        self._handed_back = threading.Condition(lock)
        #: The keys in order. A key that was taken as an urgent one is skipped.
        self._ready: deque[K] = deque()
        self._urgent: dict[K, None] = {}
        self._dirty: set[K] = set()  # waiting to be handled
        #: The keys that workers handle, each with the number of its handing out.
        self._processing: dict[K, int] = {}
        self._handed_out = 0
        #: When a delayed key becomes ready; the earliest time counts.
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        #: Breaks ties in the heap by age, so that keys are never compared.
        self._entries = 0
        self._closed = False

    def add(self, key: K, *, is_urgent: bool = False) -> bool:
        """Queue *key*; return False if the queue is full. Urgent keys precede all others."""
        with self._changed:
            added = self._add(key)
            if is_urgent and key in self._dirty:
                self._urgent[key] = None
            return added

    def add_after(self, key: K, delay_s: float) -> bool:
        """Queue *key* in *delay_s* seconds, or earlier if already due earlier; False if full."""
        with self._changed:
            if delay_s <= 0:
                return self._add(key)
            if self._closed:
                return True
            if key not in self._due and len(self._due) >= self._capacity:
                return False
            due = self._monotonic() + delay_s
            if due < self._due.get(key, float("inf")):
                self._due[key] = due
                self._entries += 1
                heapq.heappush(self._heap, (due, self._entries, key))
                self._changed.notify()
            return True

    @contextmanager
    def replacing(self, key: K) -> Iterator[None]:
        """Cancel the delayed addition of *key*. Restore the addition if the block raises an exception."""
        with self._changed:
            due = self._due.pop(key, None)
        try:
            yield
        except BaseException:
            if due is not None:
                self.add_after(key, due - self._monotonic())
            raise

    def poll(self) -> K | None:
        """Take the next key without waiting; None if none is ready."""
        with self._changed:
            return self._take()

    def get(self) -> K | None:
        """Take the next key, waiting until a key is ready; None once the queue is shut down.

        The caller must call ``done`` with the key.
        """
        with self._changed:
            return self._take() if self._await_ready() else None

    def await_ready(self) -> bool:
        """Wait until a key is ready, and leave the key; return False once the queue is shut down."""
        with self._changed:
            return self._await_ready()

    def done(self, key: K) -> None:
        """Hand *key* back; the queue returns it again if it was added meanwhile."""
        with self._changed:
            assert key in self._processing, f"{key} isn't being handled"
            del self._processing[key]
            if key in self._dirty:  # no other key becomes ready
                self._ready.append(key)
                self._changed.notify()
            self._handed_back.notify_all()

    def await_done(self, key: K, *, timeout_s: float) -> bool:
        """Wait until the worker that handles *key* now hands it back; return False on timeout.

        A worker that begins with the key again meanwhile isn't waited for.
        """
        with self._handed_back:
            now = self._processing.get(key)
            return now is None or self._handed_back.wait_for(
                lambda: self._processing.get(key) != now, timeout_s
            )

    def shut_down(self) -> None:
        """Return no more keys, and wake all workers."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def next_due(self) -> float | None:
        """Return when the next delayed key becomes ready (monotonic); None without delayed keys."""
        with self._changed:
            return self._next_due()

    @property
    def waiting(self) -> int:
        """The number of keys waiting for a worker now."""
        with self._changed:
            return len(self._dirty)

    def is_queued(self, key: K) -> bool:
        """Return True if *key* waits for a worker now, or a worker handles *key*."""
        with self._changed:
            self._promote()
            return key in self._dirty or key in self._processing

    @property
    def busy(self) -> frozenset[K]:
        """The keys that wait for a worker or are in a worker's hands."""
        with self._changed:
            self._promote()
            return frozenset(self._dirty | self._processing.keys())

    @property
    def idle(self) -> bool:
        """Return True if no key waits for a worker, and no worker handles a key."""
        with self._changed:
            self._promote()
            return not self._dirty and not self._processing

    def _add(self, key: K) -> bool:
        if self._closed or key in self._dirty:
            return True
        if len(self._dirty) >= self._capacity:
            return False
        self._dirty.add(key)
        if key not in self._processing:
            self._ready.append(key)
            self._changed.notify()
        return True

    def _await_ready(self) -> bool:
        while not self._closed:
            if self._next() is not None:
                return True
            due = self._next_due()
            self._changed.wait(None if due is None else max(0.0, due - self._monotonic()))
        return False

    def _next(self) -> K | None:
        """Return the next key; None if none is ready."""
        self._promote()
        if self._closed:
            return None
        urgent = next((each for each in self._urgent if each not in self._processing), None)
        if urgent is not None:
            return urgent
        while self._ready:
            first = self._ready[0]
            if first in self._dirty and first not in self._processing:
                return first
            self._ready.popleft()
        return None

    def _take(self) -> K | None:
        key = self._next()
        if key is None:
            return None
        if self._ready and self._ready[0] == key:
            self._ready.popleft()
        self._urgent.pop(key, None)
        self._dirty.remove(key)
        self._handed_out += 1
        self._processing[key] = self._handed_out
        return key

    def _promote(self) -> None:
        """Queue the due delayed keys."""
        now = self._monotonic()
        while self._heap and self._heap[0][0] <= now:
            due, _, key = self._heap[0]
            # A later entry of a key that was added again with an earlier time stays in the heap.
            if self._due.get(key) == due:
                if not self._add(key):
                    return  # full: the key stays due
                del self._due[key]
            heapq.heappop(self._heap)

    def _next_due(self) -> float | None:
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None


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
