"""The thread that compresses and prunes closed segments, apart from the writer's thread.

A wrong wall clock must not make records old, so ``ClockGuard`` guards the removal by age. A host can boot with any time on its clock. A wrong time can't be recognised, only a time far ahead
of every time before; a clock is also far ahead after the host was off for long. The guard believes
such a time once the clock has run on from there for a while. Old records are then removed later by
that while.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Final

from controller.journal.store.chain import Damage
from controller.journal.store.pruned_base import BadBase, read_inventory
from controller.journal.store.segments import BadSegment, list_segments
from controller.journal.writer import retention
from controller.model.errors import JournalUnavailable
from controller.ports import Clock

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
        """Return the state after a further observed time."""
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


LOG = logging.getLogger(__name__)
#: How long ``close`` waits for the thread.
JOIN_S: Final = 2.0


class RetentionThread:
    """Runs ``Retention`` at the start, every ``limits.round_s``, and after each closed segment."""

    def __init__(
        self,
        folder: Path,
        *,
        limits: retention.RetentionLimits,
        clock: Clock,
        record_pruning: retention.RecordPruning,
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._limits = limits
        self._guard: ClockGuard | None = None
        self._woken = threading.Event()
        self._closing = False
        self._retention = retention.Retention(
            folder,
            limits=limits,
            record_pruning=record_pruning,
            is_cancelled=lambda: self._closing,
        )
        self._thread = threading.Thread(target=self._run, name="journal-upkeep", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Run the retention now."""
        self._woken.set()

    def close(self) -> None:
        """Stop the thread. Unfinished work is abandoned; the next process repeats it."""
        self._closing = True
        self._woken.set()
        self._thread.join(JOIN_S)

    def _run(self) -> None:
        self._check_inventory()
        while not self._closing:
            self._run_once()
            self._woken.wait(self._limits.round_s)
            self._woken.clear()

    def _check_inventory(self) -> None:
        """Log an error if the inventory of pruned records isn't the recorded one.

        A start reads the file only if there is no usable snapshot, and a pruning is rare.
        """
        try:
            read_inventory(self._folder)
        except (BadBase, BadSegment, OSError) as error:
            LOG.error(  # noqa: TRY400 - the reason is enough
                "journal.inventory.unusable error=%s: nothing is pruned; restore it from a backup",
                error,
            )

    @property
    def doubted(self) -> bool:
        """True if no segment is removed by age, since the clock jumped ahead."""
        return self._guard is not None and self._guard.doubted

    def _run_once(self) -> None:
        try:
            self._retention.apply(now=self._now())
        except (OSError, JournalUnavailable, Damage, BadSegment, BadBase) as error:
            if not self._closing:
                LOG.warning("journal.upkeep error=%s: trying again later", error)
        except Exception:
            # A bug must not end the thread: without pruning the disk fills up.
            LOG.exception("journal.upkeep.failed: trying again later")

    def _now(self) -> float:
        """Return the time to measure ages by: a clock that jumps must not make segments old."""
        before = self._guard
        if before is None:
            # Times before this start count too: otherwise a restart would end the doubt.
            before = ClockGuard()
            for time in filter(None, map(retention.opened_at, list_segments(self._folder))):
                before = before.observe(time)
        self._guard = before.observe(self._clock.now())
        if self._guard.doubted and not before.doubted:
            LOG.warning(
                "journal.clock.ahead days=%.0f: nothing is pruned by age for a week",
                (self._guard.last - before.last) / retention.DAY_S,
            )
        return self._guard.now
