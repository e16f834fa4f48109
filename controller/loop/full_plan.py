"""Surveys: one look at everything, and what it says of how far everything is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from controller.core.service.prune_guard import PruneDecision
from controller.core.status.facts import Failure
from controller.loop.passes import DesiredView, PassPolicy
from controller.model.desired.desired import Desired
from controller.model.desired.plan import NeedsOperator, Plan
from controller.model.errors import Act, Severity
from controller.model.names import Key
from controller.model.observed import Observed


@dataclass(frozen=True, slots=True)
class FullPlan:
    """One look at everything, with the guard's word and the plan.

    In ``view`` and ``plan`` that counts as going which will go after the guard's second look.
    ``declared`` is what the files say, the view as people want it.
    """

    view: DesiredView
    observed: Observed
    decision: PruneDecision
    rules: PassPolicy
    plan: Plan
    declared: Desired

    @property
    def starting(self) -> frozenset[Key]:
        """The services of which a replica runs, and its health check didn't speak yet."""
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
    """How far everything is. ``stuck``: nothing more happens unless a person acts. ``starting``: all
    that is to be done is done, but somewhere a health check didn't speak yet.
    """

    converged: bool
    stuck: bool
    starting: bool = False


def standing_of(plan: Plan, failures: Mapping[Key, Failure], only: Key | None) -> Convergence:
    """Return how far a plan of everything says it is, or one key of it."""
    actions = [a for a in plan.pending if only in (None, a.object)]
    going = any(
        action.verdict.decision != "deny"
        and not _is_stalled(failures.get(action.object))
        and not isinstance(action, NeedsOperator)
        for action in actions
    )
    hindered: set[Key | None] = {blocked.key for blocked in plan.blocked}
    hindered |= {p.key for p in plan.problems if p.severity is Severity.ERROR}
    blocked = bool(hindered) if only is None else bool(hindered & {only, None})
    converged = not actions and not blocked
    return Convergence(converged, stuck=not converged and not going)


def _is_stalled(failure: Failure | None) -> bool:
    return failure is not None and failure.act is Act.STALLED
