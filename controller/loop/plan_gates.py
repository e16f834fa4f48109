"""Gates: where one plan is performed to its end, what it waits for is waited for.

Passes never wait: they end at a closed gate, and the next one looks again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from controller.loop.executor import UNMET
from controller.loop.passes import DesiredView, PassPolicy
from controller.loop.reconciler import Reconciler
from controller.model.desired.desired import Service
from controller.model.desired.plan import Barrier, NeedsOperator, Wait
from controller.model.errors import Conflict
from controller.model.names import Key
from controller.ports import Engine, Timer

#: How often who waits at a gate looks.
GATE_POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class _Look:
    """What one look says of a gate: whether it is open, why it never will be, when it may be."""

    is_open: bool
    failed: str = ""
    settles_s: float | None = None


@dataclass(frozen=True, slots=True)
class PlanGates:
    """The gates of one plan, which was made from *view* under *rules*."""

    engine: Engine
    reconciler: Reconciler
    clock: Timer
    view: DesiredView
    rules: PassPolicy
    stopping: Callable[[], bool]

    def passes(self, gate: Barrier) -> bool:
        """Wait until what a gate waits for is so.

        Raises:
            Conflict: it failed, or isn't so within the service's deadline.
            EngineError: it can't be looked at.
        """
        service = self.view.desired.service(gate.object)
        assert service is not None, f"a gate of {gate.object}, which isn't declared"
        deadline_s = service.spec.rollout.progress_deadline / 1000
        deadline = self.clock.monotonic() + deadline_s
        while True:
            look = self._others(gate.object) if gate.on else self._target(gate, service)
            if look.is_open:
                return True
            late = self.clock.monotonic() >= deadline
            if look.failed or late or self.stopping():
                why = look.failed or (f"not within {deadline_s:g} s" if late else "stopped")
                what = gate.cause if gate.on else f"{gate.target} isn't available"
                raise Conflict(UNMET, f"{what}: {why}")
            settles_s = GATE_POLL_S if look.settles_s is None else look.settles_s + 0.01
            self.clock.pause(min(GATE_POLL_S, settles_s))

    def _target(self, gate: Barrier, service: Service) -> _Look:
        tracker = self.reconciler.tracker
        observed = self.engine.observe(images=frozenset(), only=gate.object)
        course = tracker.observe_rollout(service, observed, stalled=False)
        return _Look(
            tracker.is_available(service, observed, gate.target),
            course.failed,
            tracker.available_in_s(service, observed),
        )

    def _others(self, key: Key) -> _Look:
        observed = self.engine.observe(images=frozenset())
        plan = self.reconciler.plan(self.view, observed, self.rules, only=key, known=observed)
        waits = [a for a in plan.of(key) if isinstance(a, Wait) and a.on]
        return _Look(
            not waits, next((wait.cause for wait in waits if isinstance(wait, NeedsOperator)), "")
        )
