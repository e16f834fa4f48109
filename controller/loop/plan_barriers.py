"""Barriers of an exact plan: wait for each barrier to open.

Passes never wait: a pass ends at a closed barrier, and the next pass observes again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from controller.core.service.desired_view import DesiredView
from controller.loop.passes import PassPolicy
from controller.loop.reconciler import Reconciler
from controller.model.desired.desired import Service
from controller.model.desired.plan import Barrier, NeedsOperator, Wait
from controller.model.errors import Conflict
from controller.model.names import Key
from controller.model.records import UNMET
from controller.ports import Engine, Timer

#: How often a waiting plan observes its barrier.
GATE_POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class _BarrierState:
    """A barrier in one snapshot."""

    is_open: bool
    #: Why the barrier never opens, if that is certain.
    failed: str = ""
    #: When time alone opens the barrier, if it does.
    opens_in_s: float | None = None


@dataclass(frozen=True, slots=True)
class BarrierWaiter:
    """The barriers of a plan for *view* under *policy*."""

    engine: Engine
    reconciler: Reconciler
    clock: Timer
    view: DesiredView
    policy: PassPolicy
    stopping: Callable[[], bool]

    def await_open(self, barrier: Barrier) -> bool:
        """Wait until a barrier opens; return True.

        Raises:
            Conflict: the barrier never opens, or not within the service's progress deadline.
            EngineError: the engine can't be observed.
        """
        service = self.view.desired.service(barrier.object)
        assert service is not None, f"a barrier of {barrier.object}, which isn't declared"
        deadline_s = service.spec.rollout.progress_deadline / 1000
        deadline = self.clock.monotonic() + deadline_s
        while True:
            state = (
                self._dependencies(barrier.object) if barrier.on else self._target(barrier, service)
            )
            if state.is_open:
                return True
            late = self.clock.monotonic() >= deadline
            if state.failed or late or self.stopping():
                why = state.failed or (f"not within {deadline_s:g} s" if late else "stopped")
                what = barrier.cause if barrier.on else f"{barrier.target} isn't available"
                raise Conflict(UNMET, f"{what}: {why}")
            pause_s = GATE_POLL_S if state.opens_in_s is None else state.opens_in_s + 0.01
            self.clock.pause(min(GATE_POLL_S, pause_s))

    def _target(self, barrier: Barrier, service: Service) -> _BarrierState:
        tracker = self.reconciler.tracker
        observed = self.engine.observe(images=frozenset(), only=barrier.object)
        facts = self.reconciler.jobs.hooks(self.view.desired, observed).facts(service)
        rollout = tracker.observe_rollout(service, observed, stalled=False, hooks=facts)
        return _BarrierState(
            tracker.is_available(service, observed, barrier.target),
            rollout.failed,
            tracker.available_in_s(service, observed),
        )

    def _dependencies(self, key: Key) -> _BarrierState:
        observed = self.engine.observe(images=frozenset())
        plan = self.reconciler.plan(self.view, observed, self.policy, only=key, known=observed)
        waits = [a for a in plan.of(key) if isinstance(a, Wait) and a.on]
        return _BarrierState(
            not waits, next((wait.cause for wait in waits if isinstance(wait, NeedsOperator)), "")
        )
