"""The thread that carries out the retention, now and then, beside the writer's."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from controller.journal.store.chain import Damage
from controller.journal.store.pruned_base import BadBase
from controller.journal.store.segments import BadSegment, list_segments
from controller.journal.writer.clock_guard import ClockGuard
from controller.journal.writer.retention import DAY_S, Retention, RetentionLimits, opened_at
from controller.model.errors import JournalUnavailable
from controller.ports import Clock

LOG = logging.getLogger(__name__)
#: How long its end is waited for.
JOIN_S: Final = 2.0


class RetentionThread:
    """Looks after closed segments at the start, every hour, and whenever one more was closed.

    *tell* is as for ``Retention``.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep: RetentionLimits,
        clock: Clock,
        tell: Callable[[int, str], object],
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._keep = keep
        self._belief: ClockGuard | None = None
        self._woken = threading.Event()
        self._over = False
        self._retention = Retention(folder, keep=keep, tell=tell, over=lambda: self._over)
        self._thread = threading.Thread(target=self._run, name="journal-upkeep", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Look now."""
        self._woken.set()

    def close(self) -> None:
        """End; what is under way is given up, and done again by the next one."""
        self._over = True
        self._woken.set()
        self._thread.join(JOIN_S)

    def _run(self) -> None:
        while not self._over:
            self._round()
            self._woken.wait(self._keep.round_s)
            self._woken.clear()

    @property
    def doubted(self) -> bool:
        """Tell whether nothing goes by age, since the clock jumped ahead."""
        return self._belief is not None and self._belief.doubted

    def _round(self) -> None:
        try:
            self._retention.look_after(now=self._now())
        except (OSError, JournalUnavailable, Damage, BadSegment, BadBase) as error:
            if not self._over:
                LOG.warning("journal.upkeep error=%s: trying again later", error)
        except Exception:
            # A bug of ours in here must not end what keeps the disk from filling up.
            LOG.exception("journal.upkeep.failed: trying again later")

    def _now(self) -> float:
        """Return the time to go by: a clock that is wrong at boot, or jumps, makes nothing old."""
        before = self._belief
        if before is None:
            # Also the times before this start are evidence: else another start would do away with doubt.
            before = ClockGuard()
            for time in filter(None, map(opened_at, list_segments(self._folder))):
                before = before.seeing(time)
        self._belief = before.seeing(self._clock.now())
        if self._belief.doubted and not before.doubted:
            LOG.warning(
                "journal.clock.ahead days=%.0f: nothing goes by age until it has run on for a week",
                (self._belief.last - before.last) / DAY_S,
            )
        return self._belief.now
