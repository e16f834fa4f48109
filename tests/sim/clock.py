"""Virtual time: it passes only when the simulation says so."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

#: The wall clock of a world begins here: 2026-03-01T00:00:00Z.
EPOCH = 1_772_323_200.0


class VirtualClock:
    """A ``ports.Timer``. The wall may jump, the monotonic clock never does."""

    def __init__(self, start: float = EPOCH) -> None:
        self._wall = start
        self._monotonic = 1000.0

    def now(self) -> float:
        return self._wall

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        assert seconds >= 0, "time doesn't run backwards"
        self._wall += seconds
        self._monotonic += seconds

    def pause(self, seconds: float) -> None:
        self.advance(seconds)

    def jump(self, seconds: float) -> None:
        """Set the wall clock, as a person or a time server does."""
        self._wall += seconds


def nanoseconds(wall: float) -> int:
    """Return a wall time in whole nanoseconds, exact to the microsecond."""
    return round(wall * 1_000_000) * 1000


@lru_cache(maxsize=1024)  # an inspect shows the same instants again and again
def instant(wall: float | None) -> str:
    """Return a wall time as the engine writes it; None is its zero time."""
    if wall is None:
        return "0001-01-01T00:00:00Z"
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"
