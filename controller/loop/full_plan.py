"""Full plans: a snapshot of everything, its plan, and the convergence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from controller.core.service.desired_view import DesiredView
from controller.core.service.prune_guard import PruneDecision
from controller.core.status.facts import Failure
from controller.loop.passes import PassPolicy
from controller.model.desired.desired import Desired
from controller.model.desired.plan import NeedsOperator, Plan
from controller.model.errors import Act, Severity, UsageError
from controller.model.names import Key
from controller.model.observed import Observed


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
