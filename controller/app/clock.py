"""The machine's clocks, for whoever composes a process and for commands, which must start fast."""

from __future__ import annotations

import time


class SystemClock:
    """The machine's clocks."""

    def now(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds that never jump."""
        return time.monotonic()

    def pause(self, seconds: float) -> None:
        """Return after so many seconds."""
        time.sleep(seconds)
