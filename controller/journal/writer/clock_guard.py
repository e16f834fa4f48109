"""Which wall time is believed where much is removed by age: a wrong clock must make nothing old.

A host may boot with any time on its clock. That one is wrong can't be known, only that it is far
ahead of all that was seen before; so is it after a host was off for long. Such a time is believed
once it has run on for a while, and what is old then goes that much later.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Final

#: How far a time may be ahead of the last that was believed, or seen: journals are quiet for days. And
#: how long a time beyond runs on before it is believed: somebody has set a wrong clock right by then.
DOUBT_S: Final = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class ClockGuard:
    """What was made of the times that were seen, one after the other. The first is proven too."""

    believed: float = -inf  # the latest that is
    last: float = -inf
    since: float = -inf  # where those begin that ran on to the last one
    doubted: bool = False  # the last one: it jumped, or goes on from one that did

    def seeing(self, time: float) -> ClockGuard:
        """Return what is made of one more time."""
        step = time - self.last
        runs_on = 0.0 <= step <= DOUBT_S
        since = self.since if runs_on else time
        if time <= self.believed + DOUBT_S or time - since >= DOUBT_S:
            return ClockGuard(max(self.believed, time), time, since)
        jumped = step > DOUBT_S and self.last > -inf
        return ClockGuard(self.believed, time, since, doubted=jumped or (runs_on and self.doubted))

    @property
    def now(self) -> float:
        """The time to go by: the last one, or one before it. Before any is proven nothing is old."""
        return min(self.last, self.believed)
