"""Passes as values: the inputs, the claims of requests, and the result.

The inputs of decisions about jobs: the time, and how far the rollouts of services are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from controller.core.compose.translation.scope import ComposeSettings
from controller.core.drift.actions import Judge
from controller.core.drift.failures import Readers
from controller.core.jobs.decision import JobTime, next_look_s
from controller.core.jobs.rollout_hooks import RolloutHooks, RolloutStanding
from controller.core.planning.context import PendingMove, pending_moves, with_moves
from controller.core.planning.images_networks_volumes import (
    VolumeRule,
    always_refuse,
    image_references,
)
from controller.core.service.prune_guard import DesiredView
from controller.core.service.rollout_progress import RolloutProgress, is_of
from controller.core.status.facts import Failure
from controller.loop.executor import Execution
from controller.loop.state.store import StateStore
from controller.model.desired.desired import (
    Desired,
    Network,
    Service,
    SourceLocation,
    Volume,
)
from controller.model.desired.plan import (
    AnyAction,
    CreateContainer,
    Plan,
    Wait,
)
from controller.model.desired.spec.service import JobSpec
from controller.model.errors import (
    Act,
)
from controller.model.names import Key, NetworkNames
from controller.model.observed import NO_RUNS, Observed
from controller.model.records import Context
from controller.ports import Clock, Engine


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
    #: The namespaces with a signed source.
    signed: frozenset[str] = frozenset()


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


def observe_key(engine: Engine, key: Key, view: DesiredView, known: Observed | None) -> Observed:
    """Return a snapshot of *key*, with the image for its containers.

    The request names the image by the pins in *known*, the last snapshot of everything. If the pins
    of the snapshot name another image, a second request names that one.

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


def claims(desired: Desired, action: AnyAction, plan_digest: str, on_behalf_of: str) -> Context:
    """Return the claims of an action: the cause, the source and the plan.

    An undeclared resource has no file; its commit is that of DIR or of its Git source, in which the
    resource is missing.
    """
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
