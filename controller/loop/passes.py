"""Passes as values: the inputs, the claims of requests, and the result.

The inputs of decisions about jobs: the time, and how far the rollouts of services are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import takewhile

from controller.core.compose.translation.scope import ComposeSettings
from controller.core.drift.actions import Judge, atomic_groups
from controller.core.drift.failures import Readers
from controller.core.jobs.decision import JobTime, next_look_s
from controller.core.jobs.rollout_hooks import RolloutHooks, RolloutStanding
from controller.core.manifests.job_checks import dependencies_of
from controller.core.planning.images_networks_volumes import (
    VolumeRule,
    always_refuse,
    image_references,
)
from controller.core.planning.pending_moves import PendingMove, pending_moves, with_moves
from controller.core.policy.refusals import with_document_fields
from controller.core.service.desired_view import DesiredView
from controller.core.service.rollout_progress import RolloutProgress, is_of
from controller.core.status.facts import Failure
from controller.loop.executor import Execution
from controller.loop.state.store import StateStore
from controller.model.desired.desired import (
    Desired,
    Network,
    Revision,
    Service,
    SourceLocation,
    Volume,
)
from controller.model.desired.plan import (
    AnyAction,
    Barrier,
    CreateContainer,
    Plan,
    PullImage,
    StartContainer,
    Wait,
)
from controller.model.desired.spec.job import JobSpec
from controller.model.errors import (
    Act,
    Conflict,
    EngineError,
    EngineUnavailable,
    Refused,
    ReplyLost,
    Severity,
)
from controller.model.names import Key, NetworkNames
from controller.model.observed import NO_RUNS, Observed
from controller.model.records import Context
from controller.ports import Clock, Engine

#: The broker's code for an object that is locked until recovery has settled its last mutation.
LOCKED = "held"
#: A rollout takes up to this many acting passes in a row; more are probably contention.
ACTING_FREELY = 5


@dataclass(frozen=True, slots=True)
class PassPolicy:
    """The parts of the policy that passes use."""

    networks: NetworkNames
    #: Returns the verdict on an action before it is requested.
    judge: Judge
    digest: str
    #: When the policy is to be read again, because an exception ends; seconds since the epoch.
    valid_until: float = math.inf
    volume_rule: VolumeRule = always_refuse
    #: The users that the policy lets read the output of containers.
    readers: Readers = field(default_factory=Readers)
    #: The choices that complete Compose files.
    compose: ComposeSettings = field(default_factory=ComposeSettings)


class PassOutcome(StrEnum):
    """How a pass ended."""

    DONE = "done"  # as desired
    ACTED = "acted"  # changed the engine: observe again
    RETRY = "retry"  # failed; retried later
    WAIT = "wait"  # waits for a known time, or for another service
    STALLED = "stalled"  # a person must act


OUTCOMES = {
    Act.STALLED: PassOutcome.STALLED,
    Act.WAITING: PassOutcome.WAIT,
    Act.RETRY: PassOutcome.RETRY,
}


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a pass."""

    outcome: PassOutcome
    #: When the next pass runs at the latest; None: not without an event.
    requeue_after_s: float | None = None
    failure: Failure | None = None
    #: The snapshot before the pass acted; None if observing failed.
    observed: Observed | None = None
    #: The plan of that snapshot.
    plan: Plan = field(default_factory=Plan)
    #: Dependencies that changed since the last snapshot of everything: each needs a pass of its own.
    outdated: tuple[Key, ...] = ()
    #: The progress of the rollout in that snapshot.
    rollout: RolloutProgress | None = None
    execution: Execution = field(default_factory=Execution)

    @property
    def waits(self) -> tuple[Wait, ...]:
        """The waits for other services."""
        return tuple(wait for wait in self.execution.waits if wait.on)


def moves_of(
    desired: Desired, observed: Observed, known: Observed | None
) -> tuple[PendingMove, ...]:
    """Return the moves to make, by the last snapshot of everything and a newer one of some keys."""
    moves = pending_moves(desired, observed if known is None else known)
    return tuple(move for move in moves if not observed.of(move.service.key))


def after_moves(
    desired: Desired,
    observed: Observed,
    known: Observed | None,
    only: Key | frozenset[Key] | None,
) -> tuple[Observed, Observed | None, tuple[PendingMove, ...]]:
    """Return both snapshots as they will be after the moves, and the moves."""
    moves = moves_of(desired, observed, known)
    observed = with_moves(observed, moves)
    known = None if known is None else with_moves(known, moves)
    if known is not None and any(move.service.key == only for move in moves):
        observed = known  # the snapshot of one service lacks the containers of its earlier name
    return observed, known, moves


def look_at(engine: Engine, key: Key, view: DesiredView, known: Observed | None) -> Observed:
    """Return a snapshot of *key*, with the image for its containers.

    A look asks for the image by the pins in *known*, the last snapshot of everything. If the pins
    of the snapshot name another image, a second look asks for that one.

    Raises:
        EngineError: engine or broker can't be reached.
    """
    asked = images_for(key, view, known)
    seen = engine.observe(images=asked, only=key)
    shown = seen.images.keys() | {each.id for each in seen.images.values() if each is not None}
    wanted = images_for(key, view, seen)
    return seen if wanted <= shown else engine.observe(images=asked | wanted, only=key)


def images_for(key: Key, view: DesiredView, known: Observed | None) -> frozenset[str]:
    """Return the images to look up in a pass of *key*: the pin of the revision, or else the reference."""
    workload = view.desired.workload(key)
    if workload is None:
        return frozenset()
    pin = None if known is None else known.pins.get(workload.revision)
    if pin is not None:
        return frozenset({pin.id})
    return image_references(Desired(services=(workload,)))


def dependencies_of_starts(key: Key, plan: Plan, desired: Desired) -> tuple[Key, ...]:
    """Return the services whose state allows a start in the plan of a service or job.

    A start behind a barrier isn't allowed yet.
    """
    workload = desired.workload(key)
    at_once = takewhile(lambda action: not isinstance(action, Barrier), plan.actions)
    if workload is None or not any(isinstance(action, StartContainer) for action in at_once):
        return ()
    wanted = dependencies_of(key, workload.spec)
    return tuple(other for other in wanted if other.kind == "Service")


def until_next_look(
    actions: tuple[AnyAction, ...], dependencies: tuple[Key, ...]
) -> tuple[AnyAction, ...]:
    """Return the actions that a pass performs after its look at *dependencies* of starts.

    A pull takes minutes. A service that starts behind a pull does so in the next pass, which looks again.
    A job runs at once: its next pass starts a created run, whatever became of the dependencies.
    """
    kept: tuple[AnyAction, ...] = ()
    for group in atomic_groups(actions):
        pulled = any(isinstance(action, PullImage) for action in kept)
        starts = any(isinstance(a, StartContainer) and a.object.kind == "Service" for a in group)
        if dependencies and pulled and starts:
            break
        kept += group
    return kept


def claims(desired: Desired, plan_digest: str, on_behalf_of: str) -> Callable[[AnyAction], Context]:
    """Return a function from an action to its claims: the cause, the source and the plan.

    An undeclared resource has no file; its commit is that of DIR or of its Git source, in which the
    resource is missing.
    """

    def context(action: AnyAction) -> Context:
        source = source_of(desired, action.object) or SourceLocation(
            "", commit=desired.commit_without(action.object)
        )
        return Context(
            cause=action.cause,
            file=source.file,
            line=source.line,
            commit=source.commit,
            plan=plan_digest,
            on_behalf_of=on_behalf_of,
            lines=source.lines if isinstance(action, CreateContainer) else (),
        )

    return context


def source_of(desired: Desired, key: Key) -> SourceLocation | None:
    """Return the source location of a declared resource; None for another one."""
    resource: Service | Network | Volume | None = desired.workload(key)
    if resource is None:
        others: tuple[Network | Volume, ...] = (*desired.networks, *desired.volumes)
        resource = next((each for each in others if each.key == key), None)
    return None if resource is None else resource.source


def is_declared(desired: Desired, key: Key) -> bool:
    """Return True if the resource's document could be read: only then its generation is acted on."""
    return key not in desired.blind_keys and source_of(desired, key) is not None


def with_next_run(
    result: Result, workload: Service | None, observed: Observed, hooks: RolloutHooks
) -> Result:
    """Return the result of a job's pass with the time at which time alone changes what is due."""
    wait_s = None if workload is None else next_run_s(workload, observed, hooks)
    if wait_s is None or result.outcome is PassOutcome.ACTED:
        return result
    before = result.requeue_after_s
    return replace(result, requeue_after_s=wait_s if before is None else min(wait_s, before))


def next_runs(
    desired: Desired, observed: Observed, hooks: RolloutHooks
) -> Iterator[tuple[Key, float]]:
    """Yield the key of each job, with ``next_run_s``. Suspended jobs have none."""
    for job in desired.jobs:
        if job.key not in desired.suspended:
            wait_s = next_run_s(job, observed, hooks)
            if wait_s is not None:
                yield job.key, wait_s


def next_run_s(workload: Service, observed: Observed, hooks: RolloutHooks) -> float | None:
    """Return the seconds until time alone changes what is due of a job; None without such a time."""
    if not isinstance(workload.spec, JobSpec):
        return None
    return next_look_s(
        workload.spec,
        workload.revision,
        observed.jobs.get(workload.key, NO_RUNS),
        hooks.now.of(workload.key),
        containers=frozenset(container.id for container in observed.of(workload.key)),
        asked=hooks.asked(workload),
    )


def pause_after_acting_s(count: int) -> float:
    """Return the pause after so many acting passes in a row, in seconds.

    Each acting pass is followed by another one. A key whose passes never stop acting slows down.
    """
    if count <= ACTING_FREELY:
        return 0.0
    return float(min(300.0, 2.0 ** min(count - ACTING_FREELY - 1, 20)))


def is_slot_failure(error: EngineError, *, down: bool) -> bool:
    """Return True if a failed start counts as a failure of its slot.

    Only failures of the engine count: not a locked object, a lost reply, an unmet precondition, or
    an unavailable engine. *down*: a running container was stopped for the start. Then all but
    temporary failures count, to avoid another stop soon.
    """
    if isinstance(error, EngineUnavailable | ReplyLost) or error.code == LOCKED:
        return False
    return down or (error.act is Act.RETRY and not isinstance(error, Conflict))


#: The rule against a start if a source of the container's mounts was replaced on the host, for example
#: by an editor that writes a new file. The new container is admitted with the new source.
MOUNT_CHANGED = "mount.changed"


def failure_reasons(revisions: Iterable[Revision], current: str) -> dict[str, str]:
    """Return why the rollouts of earlier revisions failed, by revision."""
    failed = (each for each in revisions if each.outcome == "failed")
    return {each.revision: each.reason for each in failed if each.revision != current}


def is_violation(error: EngineError) -> bool:
    """Return True if the broker ended a container for not running as admitted."""
    return isinstance(error, Refused) and error.code.startswith("effective.")


def failure_of(error: EngineError, retry_at: float | None = None) -> Failure:
    """Return an engine error as the failure of a pass; *retry_at* is on the wall clock."""
    remedy = f" ({error.remedy})" if error.remedy else ""
    return Failure(error.act, error.code, f"{error.message}{remedy}", retry_at)


def refused_document(error: Refused, service: Service, base: NetworkNames) -> Refused:
    """Return a refused create with the document's fields in place of those of the Engine API."""
    message = with_document_fields(error.message, error.code, service, base)
    return Refused(error.code, message, remedy=error.remedy, status=error.status)


def stall_of(key: Key, plan: Plan, execution: Execution) -> Failure | None:
    """Return why only a person can help after a pass without actions; None if time can."""
    for action in execution.refused:
        verdict = action.verdict
        return Failure(Act.STALLED, ", ".join(verdict.rules) or "denied", verdict.reason)
    for problem in plan.problems:
        if problem.key == key and problem.severity is Severity.ERROR:
            return Failure(Act.STALLED, problem.code, problem.message)
    for blocked in plan.blocked:
        if blocked.key == key:
            return Failure(Act.STALLED, blocked.code, blocked.reason)
    return None


class JobViews:
    """Makes the inputs of decisions about jobs."""

    def __init__(self, store: StateStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._began = clock.now() - clock.monotonic()
        #: Since when this process knows each job, on the wall clock.
        self._seen: dict[Key, float] = {}

    def steady_now(self) -> float:
        """Return the wall clock's time at the start, and then without jumps."""
        return self._began + self._clock.monotonic()

    def time(self, desired: Desired) -> JobTime:
        """Return the time for the runs of jobs."""
        now, known = self._clock.now(), self._seen
        self._seen = {job.key: known.get(job.key, now) for job in desired.jobs}
        return JobTime(wall_s=now, steady_s=self.steady_now(), first_seen=self._seen)

    def hooks(
        self, desired: Desired, observed: Observed, known: Observed | None = None
    ) -> RolloutHooks:
        """Return the jobs of rollouts; *known* has the resources that *observed* lacks."""
        everything = observed if known is None else known
        standings = self.standings(desired)
        return RolloutHooks(desired, observed, everything, self.time(desired), standings)

    def standings(self, desired: Desired) -> Mapping[Key, RolloutStanding]:
        """Return how far the rollouts of services with jobs are."""
        services = {s.key: s for naming in desired.services_by_hook.values() for s in naming}
        return {key: self._standing(service) for key, service in services.items()}

    def _standing(self, service: Service) -> RolloutStanding:
        state = self._store.of(service.key)
        progress = state.rollout
        kept = state.overrides.find_revision(service.revision, service.limits)
        is_good = progress.good == service.revision
        is_good |= kept is not None and kept.outcome == "good"
        if not is_of(progress, service) or progress.excused is None:
            return RolloutStanding(is_good=is_good)
        return RolloutStanding(
            revision=service.revision,
            is_good=is_good,
            is_serving=progress.served,
            has_failed=progress.failed != "",
            excused=progress.excused,
        )
