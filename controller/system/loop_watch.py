"""The longest stall of an asyncio event loop: the time between two looks at its sockets.

While the loop runs one turn, every connection waits. The loop itself is measured: no task has to
wake up for it.
"""

from __future__ import annotations

import logging
import selectors
from collections.abc import Callable

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
