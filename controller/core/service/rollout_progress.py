"""Rollout progress: how far a rollout is, whether it failed, and when its revision is good.

A revision is good once all slots were available and no failure followed for the watch period. A
minor failure, without a failed rollout, extends the period. A rollout fails if a replica is
unhealthy, if a slot's container fails repeatedly, or after no progress within its deadline.
Progress means more slots created, started or available than ever before. ``spec.rollout.onFailure``
decides the consequence of a failure.

Pure. Time is the time since the last observation. So neither a clock with jumps nor an absent
controller brings a deadline nearer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from controller.core.drift.availability import Availability, AvailabilityWord, at_first_sight
from controller.core.drift.classify import ALIVE, ReplicaState, unhealthy_cause
from controller.core.drift.failures import CLEAN, SlotHistory
from controller.core.jobs.rollout_hooks import NO_HOOKS, HookFacts, HookWord
from controller.model.desired.desired import DeclaredLimits, Overrides, RevisionOutcome, Service
from controller.model.desired.spec.service import OnFailure, RunState
from controller.model.observed import Container
from controller.model.quantities import format_duration_ms

#: The watch period after a rollout, in seconds. The failures of the worst slot multiply it, up
#: to ``FAILURES`` times.
WATCH_S = 60.0
#: So many failures of a slot in a row fail the rollout, even if its container runs now.
FAILURES = 3
_SECONDS_MAX = 10.0**9


@dataclass(frozen=True, slots=True)
class RolloutProgress:
    """The progress of one service's rollout. Durations are in seconds."""

    #: The revision that is, or was last, rolled out.
    revision: str = ""
    #: The most slots created, started and available so far.
    furthest: tuple[int, int, int] = (0, 0, 0)
    #: Time since the last progress.
    idle_s: float = 0.0
    #: Time since all slots were available; None if they were not yet.
    held_s: float | None = None
    #: Why the rollout failed; '' if it did not.
    failed: str = ""
    #: The last revision that completed its watch period.
    good: str = ""
    #: Failures by slot before a failed rollout recovered.
    forgiven: tuple[tuple[int, int], ...] = ()
    #: The limits that are, or were last, rolled out.
    limits: DeclaredLimits = field(default_factory=DeclaredLimits)
    #: True once all slots were available, and no container of another revision had a process.
    served: bool = False
    #: A job before or after the rollout is the reason of the failure.
    by_job: bool = False
    #: The failed runs of each job when the rollout began: they don't count. None: not known yet.
    excused: tuple[tuple[str, int], ...] | None = None


NEW = RolloutProgress()


@dataclass(frozen=True, slots=True)
class RolloutView:
    """The inputs of one step: a service, the service's containers, and the failures of each slot."""

    service: Service
    containers: tuple[Container, ...]
    #: By container id.
    availability: Mapping[str, Availability]
    #: By slot.
    histories: Mapping[int, SlotHistory]
    #: The error of the last pass; '' if it succeeded.
    last_error: str = ""
    #: The jobs before and after the rollout.
    hooks: HookFacts = NO_HOOKS

    @property
    def mine(self) -> tuple[Container, ...]:
        """The containers of the current revision and limits, in declared slots."""
        replicas = [ReplicaState(container, self.service) for container in self.containers]
        return tuple(
            r.container for r in replicas if not (r.is_stale or r.is_surplus or r.other_limits)
        )

    def ended_well(self, container: Container) -> bool:
        """Return True if a container is a task that succeeded."""
        return ReplicaState(container, self.service).is_finished and container.exit_code == 0

    def availability_of(self, container: Container) -> AvailabilityWord:
        """Return the availability of a container; a task that succeeded counts as available."""
        if self.ended_well(container):
            return AvailabilityWord.AVAILABLE
        return (self.availability.get(container.id) or at_first_sight(container)).word

    @property
    def reached(self) -> tuple[int, int, int]:
        """The number of slots created, started and available."""
        mine = self.mine
        available = {c.slot for c in mine if self.availability_of(c) is AvailabilityWord.AVAILABLE}
        started = {c.slot for c in mine if c.running} | available
        return (len({c.slot for c in mine}), len(started), len(available))

    @property
    def complete(self) -> bool:
        """Return True if every slot is available, and no container of another revision has a
        process.
        """
        others = any(
            ReplicaState(c, self.service).is_stale and c.state in ALIVE for c in self.containers
        )
        return self.reached[2] >= self.service.spec.replicas and not others


def advance(
    progress: RolloutProgress, view: RolloutView, *, elapsed_s: float, awaits_others: bool
) -> RolloutProgress:
    """Return the progress after an observation.

    *elapsed_s* is the time since the observation before; 0 at the first one. *awaits_others*: a person,
    another service or the engine must act before the rollout can continue, so no deadline runs.
    """
    service = view.service
    if not is_of(progress, service):
        if not _keeps_good(progress, service):
            good = "" if progress.good == service.revision else progress.good
            progress = RolloutProgress(revision=service.revision, good=good)
        elapsed_s = 0.0
    progress = replace(progress, limits=service.limits)
    if progress.excused is None and view.hooks.failures:
        progress = replace(progress, excused=view.hooks.failures)
    if progress.failed and view.complete and not progress.by_job:
        # The failed rollout recovered: only later failures count.
        histories = sorted(view.histories.items())
        counts = tuple((slot, history.count) for slot, history in histories if history.count)
        progress = replace(resume(progress), forgiven=counts)
    if progress.failed or progress.good == service.revision or _idle(service):
        return progress
    reached = view.reached
    furthest = _most(progress.furthest, reached)
    # A job has deadlines of its own.
    got_further = furthest != progress.furthest or awaits_others or view.hooks.before is not None
    idle_s = 0.0 if got_further else min(progress.idle_s + elapsed_s, _SECONDS_MAX)
    progress = replace(
        progress,
        furthest=furthest,
        idle_s=idle_s,
        held_s=_held_s(progress, view, elapsed_s),
        served=progress.served or view.complete,
    )
    if reason := _failed_job(progress, view):
        return replace(progress, failed=reason, by_job=True)
    if reason := _failure(progress, view):
        return replace(progress, failed=reason)
    if progress.held_s is not None and progress.held_s >= _watch_s(progress, view):
        return replace(progress, good=service.revision)
    return progress


def is_of(progress: RolloutProgress, service: Service) -> bool:
    """Return True if a progress is that of a service's revision and limits."""
    return (progress.revision, progress.limits) == (service.revision, service.limits)


def is_settling(progress: RolloutProgress, service: Service) -> bool:
    """Return True if a rollout may still fail before all slots were available for ``minHealthy``."""
    if not is_of(progress, service):
        return not _idle(service)
    is_over = progress.failed or progress.good == service.revision or progress.held_s is not None
    return not is_over and not _idle(service)


def _keeps_good(progress: RolloutProgress, service: Service) -> bool:
    """Return True if a good revision stays good without a new watch period: no limit is lowered."""
    known = progress.revision == service.revision == progress.good and not progress.failed
    return known and not service.limits.is_lower_than(progress.limits)


def _idle(service: Service) -> bool:
    """Return True if a service has nothing to run, so that there is no rollout."""
    return service.spec.state is RunState.STOPPED or service.spec.replicas == 0


def _most(one: tuple[int, int, int], other: tuple[int, int, int]) -> tuple[int, int, int]:
    return (max(one[0], other[0]), max(one[1], other[1]), max(one[2], other[2]))


def _held_s(progress: RolloutProgress, view: RolloutView, elapsed_s: float) -> float | None:
    if progress.held_s is None:
        return 0.0 if view.complete and view.hooks.after is None else None
    return min(progress.held_s + elapsed_s, _SECONDS_MAX)


def _failed_job(progress: RolloutProgress, view: RolloutView) -> str:
    """Return how a job before or after the rollout failed; '' otherwise."""
    after = view.hooks.after if progress.served else None
    failed = (hook for hook in (view.hooks.before, after) if hook and hook.word is HookWord.FAILED)
    return next((hook.text for hook in failed), "")


def _unhealthy(_progress: RolloutProgress, view: RolloutView) -> str:
    """Return which container is unhealthy; '' for none, or for one that is cut off.

    A repair puts a container back into its networks first. The deadline bounds the wait for the repair.
    """
    ill = (c for c in view.mine if view.availability_of(c) is AvailabilityWord.UNHEALTHY)
    return next((unhealthy_cause(c) for c in ill if not _is_cut_off(c)), "")


def _is_cut_off(container: Container) -> bool:
    admitted = container.admitted
    return admitted is not None and not {*admitted.networks} <= {*container.settings.networks}


def _watch_s(progress: RolloutProgress, view: RolloutView) -> float:
    """Return the watch period of a revision, in seconds."""
    failures = (_failures(progress, view, container.slot) for container in view.mine)
    return WATCH_S * (1 + max(failures, default=0))


def _failures(progress: RolloutProgress, view: RolloutView, slot: int) -> int:
    """Return how often in a row a slot's container failed, as far as the failures count."""
    history = view.histories.get(slot, CLEAN)
    return max(0, history.count - dict(progress.forgiven).get(slot, 0))


def _dies(progress: RolloutProgress, view: RolloutView) -> str:
    for container in view.mine:
        times = _failures(progress, view, container.slot)
        if times >= FAILURES and not view.ended_well(container):
            cause = view.histories[container.slot].cause
            why = f": it {cause}" if cause else ""
            return f"{container.name} failed {times} times in a row{why}"
    return ""


def _too_slow(progress: RolloutProgress, view: RolloutView) -> str:
    limit_ms = _deadline_ms(view)
    made, started, available = progress.furthest
    replicas = view.service.spec.replicas
    # With all slots available, only old containers are left: no reason for a rollback.
    if (
        view.reached[2] >= replicas
        or progress.held_s is not None
        or progress.idle_s * 1000 < limit_ms
    ):
        return ""
    why = f"; {view.last_error}" if view.last_error else ""
    return (
        f"it got no further within {format_duration_ms(limit_ms)}: of {replicas} replicas"
        f" {made} were made, {started} started, {available} available{why}"
    )


def _deadline_ms(view: RolloutView) -> int:
    """Return how long a rollout may stay without progress, in milliseconds."""
    rollout = view.service.spec.rollout
    settling = any(view.availability_of(c) is AvailabilityWord.SETTLING for c in view.mine)
    if not settling:
        return rollout.progress_deadline
    # A container gets its declared start-up time, whatever the deadlines say.
    promised = rollout.min_healthy
    if (check := view.service.spec.healthcheck) is not None:
        promised += check.start_period + check.interval * (check.retries + 1)
    return max(min(rollout.health_deadline, rollout.progress_deadline), promised)


#: The reasons for a failed rollout; the first one that applies wins.
FAILURE_RULES: tuple[Callable[[RolloutProgress, RolloutView], str], ...] = (
    # The container's own check failed: no deadline is needed.
    _unhealthy,
    # The engine or the controller restarted the container, and each run ended.
    _dies,
    _too_slow,
)


def _failure(progress: RolloutProgress, view: RolloutView) -> str:
    return next((reason for rule in FAILURE_RULES if (reason := rule(progress, view))), "")


def outcome_of(progress: RolloutProgress) -> RevisionOutcome:
    """Return the outcome of the rollout's revision.

    A revision is good for a rollback once all its slots were available, unless it fails during the
    watch period.
    """
    if progress.failed:
        return "failed"
    return "good" if progress.held_s is not None or progress.good == progress.revision else ""


def resume(progress: RolloutProgress) -> RolloutProgress:
    """Return the progress after a person asked to retry a failed rollout."""
    return RolloutProgress(revision=progress.revision, good=progress.good, limits=progress.limits)


def due_in_s(progress: RolloutProgress, view: RolloutView) -> float | None:
    """Return when the next observation is needed without any event; None if time changes nothing."""
    over = progress.failed or progress.good == progress.revision
    if over or not is_of(progress, view.service) or _idle(view.service):
        return None
    if progress.held_s is not None:
        return max(0.0, _watch_s(progress, view) - progress.held_s)
    left_s = _deadline_ms(view) / 1000 - progress.idle_s
    if left_s <= 0 and view.reached[2] >= view.service.spec.replicas:
        return None  # what it replaced is left, and no deadline is for that
    return max(0.0, left_s)


def should_roll_back(
    service: Service, overrides: Overrides, containers: Iterable[Container]
) -> bool:
    """Return True if a service rolls back automatically from its revision after a failed rollout.

    A revision is rolled back once. After a retry by a person, a second failure causes a rollback
    only if some slot has no serving container of an older revision.
    """
    if overrides.pin is not None or service.spec.rollout.on_failure is not OnFailure.ROLLBACK:
        return False
    kept = overrides.find_revision(service.revision, service.limits)
    if kept is None or not kept.left:
        return True
    others = (c for c in containers if c.revision != service.revision)
    serving = {c.slot for c in others if c.running and c.health != "unhealthy"}
    return not serving >= set(range(1, service.spec.replicas + 1))
