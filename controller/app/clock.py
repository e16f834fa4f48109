"""The machine's clocks. A separate module keeps the start of simple commands fast."""

from __future__ import annotations

import time


class SystemClock:
    """``ports.Timer`` over the machine's clocks."""

    def now(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds on a clock without jumps."""
        return time.monotonic()

    def pause(self, seconds: float) -> None:
        """Sleep for *seconds*."""
        time.sleep(seconds)
