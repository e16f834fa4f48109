"""A guard for removal by age: a wrong wall clock must not make records old.

A host can boot with any time on its clock. A wrong time can't be recognised, only a time far ahead
of every time before; a clock is also far ahead after the host was off for long. The guard believes
such a time once the clock has run on from there for a while. Old records are then removed later by
that while.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Final

#: A time at most this far ahead of the last believed one is believed: journals are quiet for days.
#: A time further ahead is believed after the clock has run on for as long: an operator has corrected
#: a wrong clock by then.
DOUBT_S: Final = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class ClockGuard:
    """The state after a sequence of observed times. Even the first time must prove itself."""

    believed: float = -inf  # the latest believed time
    last: float = -inf  # the last observed time
    since: float = -inf  # the first time of the uninterrupted run up to ``last``
    doubted: bool = False  # ``last`` jumped ahead, or continues a jump

    def observe(self, time: float) -> ClockGuard:
        """Return the state after one more observed time."""
        step = time - self.last
        runs_on = 0.0 <= step <= DOUBT_S
        since = self.since if runs_on else time
        if time <= self.believed + DOUBT_S or time - since >= DOUBT_S:
            return ClockGuard(max(self.believed, time), time, since)
        jumped = step > DOUBT_S and self.last > -inf
        return ClockGuard(self.believed, time, since, doubted=jumped or (runs_on and self.doubted))

    @property
    def now(self) -> float:
        """The time to measure ages by: ``last``, or the last believed time before a jump.

        Minus infinity until a time is believed, so that no record is old.
        """
        return min(self.last, self.believed)
