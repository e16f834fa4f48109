"""The controller's own disruption budget: take down only as many services at a time as the gate allows.

The controller doesn't request actions beyond the gate's limit. A pass waits while its stop would
leave one service too many without a running slot. The budget is in memory only. After a restart the
gate's persistent budget still holds, and a refusal makes the pass wait as well.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from controller.core.enforcement import disruption_budget
from controller.model.errors import OverShare
from controller.model.names import Key
from controller.model.observed import Observed

#: How often a waiting pass checks the budget while a service was taken down a short time ago.
SOON_S = 1.0
#: How often a waiting pass checks the budget later.
LATER_S = 15.0
#: A service that went down within this time is most likely being replaced.
REPLACING_S = 60.0


class DisruptionBudget:
    """Services that the controller itself left without a running slot. Thread-safe."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._down: dict[Key, float] = {}

    def record_observation(self, key: Key, *, running: bool) -> None:
        """Release *key* if a pass observed a running slot."""
        if running:
            with self._lock:
                self._down.pop(key, None)

    def take(self, key: Key, running: frozenset[Key]) -> OverShare | None:
        """Count *key* as down, or return the refusal; *running* are all running services."""
        with self._lock:
            now = self._monotonic()
            self._down = {
                k: at for k, at in self._down.items() if now - at < disruption_budget.WINDOW_S
            }
            finding = disruption_budget.judge_service(
                _name(key),
                down={_name(other): now - at for other, at in self._down.items()},
                running={_name(other) for other in running - self._down.keys()},
            )
            if finding is None:
                self._down[key] = now
                return None
            return OverShare(finding.rule, finding.reason, remedy=finding.remedy)

    def wait_s(self) -> float:
        """Return the time until the next check of the budget."""
        with self._lock:
            newest = max(self._down.values(), default=0.0)
            return SOON_S if self._monotonic() - newest < REPLACING_S else LATER_S


def running_keys(known: Observed | None, observed: Observed, key: Key) -> frozenset[Key]:
    """Return the running services.

    *key* is judged by *observed*, a snapshot of *key* alone; other services by *known*, the last
    snapshot of all.
    """
    before = () if known is None else known.containers
    everyone = (*observed.of(key), *(c for c in before if c.key != key))
    return frozenset(c.key for c in everyone if c.running and c.origin == "controller")


def _name(key: Key) -> str:
    return f"{key.namespace}/{key.name}"
