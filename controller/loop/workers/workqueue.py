"""The keyed work queue, after client-go's: it dedups, delays, and never hands a key out twice.

A key added while it is being handled is handled again afterwards, once, however often it was
added. That is what makes hints cheap: whoever suspects something adds the key and forgets it.
"""

from __future__ import annotations

import heapq
import threading
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

CAPACITY = 16_384


class WorkQueue(Generic[K]):
    """A queue of keys for several workers.

    Invariant: a key is in at most one worker's hands. Bounded: beyond *capacity* waiting keys,
    ``add`` says no, and the caller must look at everything later.
    """

    def __init__(self, monotonic: Callable[[], float], *, capacity: int = CAPACITY) -> None:
        self._monotonic = monotonic
        self._capacity = capacity
        self._changed = threading.Condition()
        self._ready: deque[K] = deque()
        self._dirty: set[K] = set()  # to be handled (again)
        self._processing: set[K] = set()
        self._due: dict[K, float] = {}  # when a delayed key is added; the earliest counts
        self._heap: list[tuple[float, int, K]] = []
        self._entries = 0  # ties in the heap are broken by age, keys needn't compare
        self._closed = False

    def add(self, key: K) -> bool:
        """Ask for *key* to be handled; return whether there was room."""
        with self._changed:
            return self._add(key)

    def add_after(self, key: K, delay_s: float) -> bool:
        """Ask for *key* to be handled in *delay_s* seconds; the earliest such wish counts."""
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

    def forget(self, key: K) -> None:
        """Drop the delayed wish for *key*, if there is one."""
        with self._changed:
            self._due.pop(key, None)

    def poll(self) -> K | None:
        """Take the next key without waiting; None when none is ready."""
        with self._changed:
            return self._take()

    def get(self) -> K | None:
        """Take the next key, waiting for one; None once the queue is shut down.

        The caller must call ``done`` with it.
        """
        with self._changed:
            while not self._closed:
                key = self._take()
                if key is not None:
                    return key
                due = self._next_due()
                self._changed.wait(None if due is None else max(0.0, due - self._monotonic()))
            return None

    def done(self, key: K) -> None:
        """Hand *key* back; it is handled again if it was added meanwhile."""
        with self._changed:
            assert key in self._processing, f"{key} isn't being handled"
            self._processing.discard(key)
            if key in self._dirty:
                self._ready.append(key)
            self._changed.notify_all()

    def await_done(self, key: K, *, timeout_s: float) -> bool:
        """Wait until *key* isn't being handled; return whether it came to that."""
        with self._changed:
            return self._changed.wait_for(lambda: key not in self._processing, timeout_s)

    def shut_down(self) -> None:
        """Hand out nothing any more, and wake everybody."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def next_due(self) -> float | None:
        """Return when the next delayed key comes (monotonic), None if there is none."""
        with self._changed:
            return self._next_due()

    @property
    def waiting(self) -> int:
        """How many keys wait to be handled now."""
        with self._changed:
            return len(self._dirty)

    @property
    def idle(self) -> bool:
        """Tell whether nothing waits to be handled now, and nothing is being handled."""
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

    def _take(self) -> K | None:
        self._promote()
        if self._closed or not self._ready:
            return None
        key = self._ready.popleft()
        assert key not in self._processing, f"{key} would be handled by two workers"
        self._processing.add(key)
        self._dirty.discard(key)
        return key

    def _promote(self) -> None:
        """Move delayed keys whose time has come to the ready ones."""
        now = self._monotonic()
        while self._heap and self._heap[0][0] <= now:
            due, _, key = self._heap[0]
            # An entry that an earlier wish replaced is left in the heap, and skipped here.
            if self._due.get(key) == due:
                if not self._add(key):
                    return  # full: it stays due
                del self._due[key]
            heapq.heappop(self._heap)

    def _next_due(self) -> float | None:
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None
