"""The controller's own share: it takes down no more at a time than the gate lets it.

What the gate would refuse isn't asked for: passes that would leave one service more without a
running slot wait until others run again. Kept in memory only; after a restart the gate, which
remembers, still holds the line, and its refusal makes the pass wait as well.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from controller.core.enforcement import disruption_budget
from controller.model.errors import OverShare
from controller.model.names import Key
from controller.model.observed import Observed

#: How often a pass that waits for its share looks again, at first and later.
SOON_S = 1.0
LATER_S = 15.0
#: For so long what is down is most likely just being replaced.
REPLACING_S = 60.0


class DisruptionBudget:
    """Which services this controller left without a running slot. Safe from several threads."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._down: dict[Key, float] = {}

    def saw(self, key: Key, *, running: bool) -> None:
        """Take note of what the look of a pass shows, before it acts."""
        if running:
            with self._lock:
                self._down.pop(key, None)

    def take(self, key: Key, running: frozenset[Key]) -> OverShare | None:
        """Count *key* as down from now on, or return why it may not be; *running* are all that run."""
        with self._lock:
            now = self._monotonic()
            self._down = {
                k: at for k, at in self._down.items() if now - at < disruption_budget.WINDOW_S
            }
            finding = disruption_budget.over(
                _told(key),
                down={_told(each): now - at for each, at in self._down.items()},
                running={_told(each) for each in running - self._down.keys()},
            )
            if finding is None:
                self._down[key] = now
                return None
            return OverShare(finding.rule, finding.reason, remedy=finding.remedy)

    def wait_s(self) -> float:
        """Return when to look again whether there is room."""
        with self._lock:
            newest = max(self._down.values(), default=0.0)
            return SOON_S if self._monotonic() - newest < REPLACING_S else LATER_S


def running_keys(known: Observed | None, observed: Observed, key: Key) -> frozenset[Key]:
    """Return the services that run: *key* by its own look, the others by the last of everything."""
    before = () if known is None else known.containers
    everyone = (*observed.of(key), *(c for c in before if c.key != key))
    return frozenset(c.key for c in everyone if c.running and c.origin == "controller")


def _told(key: Key) -> str:
    return f"{key.namespace}/{key.name}"
