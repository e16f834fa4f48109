"""The thread that carries out the retention, now and then, beside the writer's."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from controller.journal.base import BadBase
from controller.journal.chain import Damage
from controller.journal.retention import Keep, Retention
from controller.journal.segments import Garbled
from controller.model.errors import JournalUnavailable
from controller.ports import Clock

LOG = logging.getLogger(__name__)
#: How far the wall clock may be ahead of what it was at the start and of the time since then: a clock
#: that jumps into the future makes nothing old.
AHEAD_S: Final = 3600.0
#: How long its end is waited for.
JOIN_S: Final = 2.0


class Upkeep:
    """Looks after closed segments at the start, every hour, and whenever one more was closed.

    *tell* is as for ``Retention``.
    """

    def __init__(
        self, folder: Path, *, keep: Keep, clock: Clock, tell: Callable[[int, str], object]
    ) -> None:
        self._clock = clock
        self._keep = keep
        self._began = clock.now() - clock.monotonic()
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

    def _round(self) -> None:
        now = min(self._clock.now(), self._began + self._clock.monotonic() + AHEAD_S)
        try:
            self._retention.look_after(now=now)
        except (OSError, JournalUnavailable, Damage, Garbled, BadBase) as error:
            if not self._over:
                LOG.warning("journal.upkeep error=%s: trying again later", error)
        except Exception:
            # A bug of ours in here must not end what keeps the disk from filling up.
            LOG.exception("journal.upkeep.failed: trying again later")
