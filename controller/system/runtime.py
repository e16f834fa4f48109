"""The runtime of a process: its stop request, the garbage collector, the stalls of its event loop.

The collector of cyclic garbage, in processes with a large state that stays.

A full collection visits each object. With the state of thousands of containers in memory that stops all
threads for some 200 ms, again and again. The collections of young objects take a few milliseconds.

The longest stall of an asyncio event loop: the time between two looks at its sockets.

While the loop runs one turn, every connection waits. The loop itself is measured: no task has to
wake up for it.
"""

from __future__ import annotations

import gc
import logging
import os
import selectors
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

#: After so many collections of younger objects, the collector itself begins a full one. By default
#: ten, so each plan of thousands of containers led to one, which visited what the plan had made.
FULL_AFTER: Final = 100


@contextmanager
def importing() -> Iterator[None]:
    """Collect nothing during the imports in this block, and exempt the modules afterwards.

    Imports make some 70,000 objects that stay. Collections would visit all of them, during the
    imports, later, and at the end of the process: together a quarter of the time to start.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def keep_out_of_collections() -> None:
    """Exempt all objects that exist now from later collections of garbage.

    An exempt object is still freed as soon as nothing refers to the object. Only cycles among exempt
    objects stay; so the cycles that are garbage now are collected first.
    """
    gc.collect()
    gc.freeze()


def postpone_full_collections() -> None:
    """Begin full collections ten times less often, in a process that asks for its own now and then.

    So garbage in cycles that outlived the collections of younger objects waits ten times longer.
    """
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, FULL_AFTER)


LOG = logging.getLogger(__name__)
#: A stall is reported for one to two of these periods.
PERIOD_S = 60.0
#: Longer stalls are logged.
LOGGED_S = 0.5


class StallMeter:
    """The longest turn of an event loop in the last one to two minutes."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._began: float | None = None
        self._period = monotonic()
        self._longest = self._longest_before = 0.0

    def longest_s(self) -> float:
        """Return the longest finished turn, in seconds."""
        self._advance(self._monotonic())
        return max(self._longest, self._longest_before)

    def begin_turn(self) -> None:
        """Note that the loop has its events and starts to work."""
        self._began = self._monotonic()

    def end_turn(self) -> None:
        """Note that the loop is about to wait for events."""
        if self._began is None:
            return
        now = self._monotonic()
        took, self._began = now - self._began, None
        self._advance(now)
        self._longest = max(self._longest, took)
        if took > LOGGED_S:
            LOG.warning("loop.stalled ms=%d", round(took * 1000))

    def _advance(self, now: float) -> None:
        passed = now - self._period
        if passed < PERIOD_S:
            return
        self._longest_before = self._longest if passed < 2 * PERIOD_S else 0.0
        self._longest, self._period = 0.0, now


class WatchedSelector(selectors.EpollSelector):
    """A selector that reports to a meter when its event loop works, and when it waits."""

    def __init__(self, meter: StallMeter) -> None:
        super().__init__()
        self._meter = meter

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for events."""
        self._meter.end_turn()
        try:
            return super().select(timeout)
        finally:
            self._meter.begin_turn()


class StopSignal:
    """A flag that can be waited for with ``select``.

    A signal handler can run while its own thread holds a lock, so ``set`` takes none.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._read_end, self._write_end = os.pipe()

    def set(self) -> None:
        """Request the stop; any number of times, also after ``close``."""
        self._is_set = True
        with suppress(OSError):
            os.write(self._write_end, b".")

    def is_set(self) -> bool:
        """Return True once the stop was requested."""
        return self._is_set

    def fileno(self) -> int:
        """Return the descriptor, readable once the stop was requested."""
        return self._read_end

    def close(self) -> None:
        """Close the pipe; any number of times."""
        ends = (self._read_end, self._write_end)
        self._read_end = self._write_end = -1
        for end in ends:
            if end >= 0:
                os.close(end)
