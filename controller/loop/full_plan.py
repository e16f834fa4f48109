"""Full plans: a snapshot of everything, its plan, and the convergence.

An exact plan is performed as it was shown, and waits for each of its barriers to open. Passes never
wait: a pass ends at a closed barrier, and the next pass observes again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from controller.core.service.prune_guard import DesiredView, PruneDecision
from controller.core.status.facts import Failure
from controller.loop.executor import Executor
from controller.loop.passes import PassPolicy, claims
from controller.loop.reconciler import Reconciler
from controller.loop.state.disruption_budget import running_keys
from controller.model.desired.desired import Desired, Service
from controller.model.desired.plan import AnyAction, Barrier, NeedsOperator, Plan, Wait
from controller.model.errors import Act, Conflict, Severity, UsageError
from controller.model.names import Key
from controller.model.observed import Observed
from controller.model.records import UNMET, Context
from controller.ports import Timer


@dataclass(frozen=True, slots=True)
class FullPlan:
    """A snapshot of everything, the prune guard's decision on it, and the plan.

    Resources awaiting only the guard's second observation count as prunable in ``view`` and
    ``plan``.
    """

    view: DesiredView
    observed: Observed
    decision: PruneDecision
    policy: PassPolicy
    plan: Plan
    #: The desired state as the files have it; ``view`` has it with overrides applied.
    declared: Desired

    @property
    def starting(self) -> frozenset[Key]:
        """The services with a running replica whose health check has no result yet."""
        desired = self.view.desired
        revisions = {s.key: s.revision for s in desired.services if s.key not in desired.suspended}
        return frozenset(
            container.key
            for container in self.observed.containers
            if container.running
            and container.health == "starting"
            and container.revision == revisions.get(container.key)
        )


@dataclass(frozen=True, slots=True)
class Convergence:
    """How far everything, or one key, has converged."""

    converged: bool
    #: No further action is possible until a person acts.
    stuck: bool
    #: All actions are done, but a health check has no result yet, or not all replicas of a rollout were
    #: available for ``minHealthy``.
    starting: bool = False

    @property
    def settled(self) -> bool:
        """Return True if everything has converged, and time has shown that it stays up."""
        return self.converged and not self.starting


def convergence_of(plan: Plan, failures: Mapping[Key, Failure], only: Key | None) -> Convergence:
    """Return the convergence of everything, or of *only* one key, by a plan of everything."""
    actions = [a for a in plan.pending if only in (None, a.object)]
    stalled = {key for key, failure in failures.items() if failure.act is Act.STALLED}
    possible = any(
        action.verdict.decision != "deny"
        and action.object not in stalled
        and not isinstance(action, NeedsOperator)
        for action in actions
    )
    # A problem without a key concerns every key.
    blocked_keys: set[Key | None] = {blocked.key for blocked in plan.blocked}
    blocked_keys |= {p.key for p in plan.problems if p.severity is Severity.ERROR}
    blocked = bool(blocked_keys) if only is None else bool(blocked_keys & {only, None})
    converged = not actions and not blocked
    return Convergence(converged, stuck=not converged and not possible)


def approved_keys(digest: str, shown: FullPlan, full_plan: FullPlan) -> frozenset[Key]:
    """Return the keys of an approved plan.

    *digest* belongs to the plan without the approval (*shown*), or with the approval (*full_plan*).

    Raises:
        UsageError: the plan has changed.
    """
    same = shown.view.desired.digest == full_plan.view.desired.digest
    if digest not in {shown.plan.digest, full_plan.plan.digest} or not same:
        raise plan_changed(shown.plan.digest, digest)
    blocked = {blocked.key for blocked in shown.plan.blocked}
    return frozenset({action.object for action in full_plan.plan.actions} | blocked)


def plan_changed(now: str, digest: str) -> UsageError:
    """Return the error for a request of plan *digest* if the plan is *now* another."""
    return UsageError(
        "plan.changed",
        f"the plan is {now} now, not {digest}",
        remedy="look at it again with 'trimtab plan'",
    )


#: How often a waiting plan observes its barrier.
GATE_POLL_S = 0.5


class PlanExecutor(Executor):
    """The execution of exactly one plan, while no pass runs.

    *digest* is that of the shown plan. *approved*: an operator approved the plan, which then is exempt
    from the disruption budget. *stopping* returns True if no further action is to begin.
    """

    def __init__(
        self,
        loop: Reconciler,
        full_plan: FullPlan,
        digest: str,
        *,
        approved: bool,
        requested_by: str,
        stopping: Callable[[], bool],
        clock: Timer,
    ) -> None:
        super().__init__(loop.engine, loop.action_log)
        self._loop = loop
        self._full_plan = full_plan
        self._desired = full_plan.view.desired
        self._digest = digest
        self._approved = approved
        self._requested_by = requested_by
        self._stopping = stopping
        self._clock = clock

    def context(self, action: AnyAction) -> Context:
        return claims(self._desired, action, self._digest, self._requested_by)

    def stopping(self) -> bool:
        return self._stopping()

    def is_deferred(self, action: AnyAction) -> bool:
        """Begin a network's remake only within the disruption budget. Defers no action.

        Raises:
            OverShare: too many services are down. Nothing is disconnected.
        """
        key, full_plan = action.object, self._full_plan
        if key.kind == "Network" and not self._approved:
            observed, wall = full_plan.observed, self._clock.now()
            refusal = self._loop.budget.take_for(
                key,
                action,
                full_plan.plan,
                observed,
                lambda: running_keys(observed, observed, key, wall=wall),
            )
            if refusal is not None:
                raise refusal
        return False

    def await_open(self, barrier: Barrier) -> bool:
        """Wait until a barrier opens; return True.

        Raises:
            Conflict: the barrier never opens, or not within the service's progress deadline.
            EngineError: the engine can't be observed.
        """
        service = self._desired.service(barrier.object)
        assert service is not None, f"a barrier of {barrier.object}, which isn't declared"
        deadline_s = service.spec.rollout.progress_deadline / 1000
        deadline = self._clock.monotonic() + deadline_s
        while True:
            if barrier.on:
                is_open, failed, pause_s = self._observe_dependencies(barrier.object)
            else:
                is_open, failed, pause_s = self._observe_target(barrier, service)
            if is_open:
                return True
            late = self._clock.monotonic() >= deadline
            if failed or late or self.stopping():
                why = failed or (f"not within {deadline_s:g} s" if late else "stopped")
                what = barrier.cause if barrier.on else f"{barrier.target} isn't available"
                raise Conflict(UNMET, f"{what}: {why}")
            self._clock.pause(pause_s)

    def _observe_target(self, barrier: Barrier, service: Service) -> tuple[bool, str, float]:
        """Return whether a barrier is open, why it never opens, and the pause until the next observation."""
        loop, tracker = self._loop, self._loop.tracker
        observed = self._engine.observe(images=frozenset(), only=barrier.object)
        hooks = loop.jobs.hooks(self._desired, observed).facts(service)
        rollout = tracker.observe_rollout(service, observed, hooks=hooks)
        is_open = tracker.is_available(service, observed, barrier.target)
        opens_in_s = tracker.available_in_s(service, observed)
        pause_s = GATE_POLL_S if opens_in_s is None else min(GATE_POLL_S, opens_in_s + 0.01)
        return is_open, rollout.failed, pause_s

    def _observe_dependencies(self, key: Key) -> tuple[bool, str, float]:
        view, policy = self._full_plan.view, self._full_plan.policy
        observed = self._engine.observe(images=frozenset())
        plan = self._loop.plan(view, observed, policy, only=key, known=observed)
        waits = [a for a in plan.of(key) if isinstance(a, Wait) and a.on]
        failed = next((wait.cause for wait in waits if isinstance(wait, NeedsOperator)), "")
        return not waits, failed, GATE_POLL_S
