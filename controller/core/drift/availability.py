"""Availability of containers, and the state of a dependency as its dependents see it.

Availability: whether a container can take over from the serving container.

A container is available when it runs, its health check (if any) passes, and both have held for
``minHealthy``. The first observation of a container credits the time since its start, as the engine
reports it. Every later change of its run or its health, and a lower memory limit, restart the time. Durations use a clock
without jumps. Pure: instants are monotonic seconds unless noted.

The state of a dependency, as its dependents see it.

``RULES`` is an ordered table; the first match wins, and gives a status with a cause. A failed
dependency only delays starts and replacements of its dependents. It never stops, restarts or
replaces a container.

A service is up if one of its replicas is up. For a replacement the dependency must also be current:
a new revision meets the new revision of its dependency.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import assert_never

from controller.core.drift import failures
from controller.core.drift.classify import SlotState, is_finished
from controller.core.encoding.identifiers import timestamp_s
from controller.core.engine_api.translate import timestamp_seconds
from controller.core.jobs.decision import JobTime, JobWord, decide
from controller.core.manifests.job_checks import shared_service
from controller.model.desired.desired import Desired, Service
from controller.model.desired.spec.service import (
    DependencyCondition,
    JobSpec,
    RunState,
    ServiceSpec,
)
from controller.model.names import Key
from controller.model.observed import Container, ContainerState, JobMemory, Observed
from controller.model.quantities import format_duration_ms


class AvailabilityWord(StrEnum):
    """The availability of a container."""

    AVAILABLE = "available"
    #: The container runs, but is not healthy yet, or not for long enough.
    SETTLING = "settling"
    #: The health check failed too often.
    UNHEALTHY = "unhealthy"
    #: The container has no running process.
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Availability:
    """The availability of a container, and the cause."""

    word: AvailabilityWord
    #: The cause, in words that follow the container's name.
    why: str = ""
    #: The instant at which time alone makes the container available; None if unknown.
    until: float | None = None


@dataclass(frozen=True, slots=True)
class GoodSince:
    """The start of the good time in one run of a container."""

    #: The engine's start time. Another value means another run.
    started_at: str
    #: None if the health check has not passed yet.
    since: float | None
    #: The admitted memory, in bytes. Less memory is a new start of the good time.
    memory: int = 0


def update_good_since(
    before: Mapping[str, GoodSince],
    containers: Iterable[Container],
    *,
    now: float,
    wall: float,
    unseen_s: float,
) -> dict[str, GoodSince]:
    """Return the good times after an observation. Containers outside *containers* are dropped.

    Args:
        before: the good times so far, by container id.
        containers: the observed containers.
        now: the instant of the observation.
        wall: the same instant in seconds since the epoch, as in the engine's timestamps.
        unseen_s: the time since the last observation. A new container gets credit for at most this
            long. Infinite without an earlier observation: then the engine's start time counts.
    """
    return {
        c.id: _sighting(before.get(c.id), c, now, wall, unseen_s) for c in containers if c.running
    }


def _sighting(
    before: GoodSince | None, container: Container, now: float, wall: float, unseen_s: float
) -> GoodSince:
    memory = 0 if container.admitted is None else container.admitted.memory
    if not _is_good(container):
        return GoodSince(container.started_at, None, memory)
    if before is None or before.started_at != container.started_at:
        credit_s = min(unseen_s, failures.up_s(container, wall))
        return GoodSince(container.started_at, now - credit_s, memory)
    begins = before.since is None or 0 < memory < before.memory
    return GoodSince(container.started_at, now if begins else before.since, memory)


def _is_good(container: Container) -> bool:
    return container.running and container.health in ("", "healthy")


def availability_of(
    container: Container, spec: ServiceSpec, sighting: GoodSince | None, *, now: float
) -> Availability:
    """Return the availability of a container under *spec*. Without a sighting its good time begins
    now.
    """
    at_once = at_first_sight(container)
    if at_once.word is not AvailabilityWord.AVAILABLE:
        return at_once
    since = now if sighting is None or sighting.since is None else sighting.since
    until = since + spec.rollout.min_healthy / 1000
    if until <= now:
        return at_once
    needed = format_duration_ms(spec.rollout.min_healthy)
    word = "healthy" if container.health else "up"
    return Availability(AvailabilityWord.SETTLING, f"must be {word} for {needed}", until)


def at_first_sight(container: Container) -> Availability:
    """Return the availability of a container from one snapshot: a good container is available."""
    if not container.running:
        return Availability(AvailabilityWord.DOWN, f"is {container.state.value}")
    if container.health == "unhealthy":
        return Availability(AvailabilityWord.UNHEALTHY, failures.why_unhealthy(container))
    if not _is_good(container):
        return Availability(AvailabilityWord.SETTLING, "isn't healthy yet")
    return Availability(AvailabilityWord.AVAILABLE)


#: The reason of the condition Stalled if a dependency cannot become ready.
FAILED = "dependency.failed"
#: The longest cause, in characters. Causes grow along a chain of dependents.
CAUSE_MAX = 300


def outlived(
    service: Service, desired: Desired, observed: Observed, known: Observed, now: float
) -> dict[str, str]:
    """Return the running containers of a service to replace, since a dependency was replaced.

    The reason by id. A sidecar that lost its namespaces counts, too. *known* has the containers of dependencies. *now* is the wall clock: a container
    created in the future, before the clock was set back, doesn't count.
    """
    found = left_behind(service, observed.of(service.key), known, now=now)
    for each in service.spec.depends_on:
        if not each.restart:
            continue
        dependency = desired.service(Key(each.kind, service.key.namespace, each.name))
        created = None if dependency is None else _created_since(dependency, known)
        for container in observed.of(service.key):
            started = timestamp_seconds(container.started_at) if container.running else None
            if created is not None and started is not None and started < created <= now:
                reason = f"{each.name} was replaced after {container.name} was started"
                found[container.id] = reason
    return found


def left_behind(
    service: Service, containers: Iterable[Container], known: Observed, *, now: float = inf
) -> dict[str, str]:
    """Return the containers of a sidecar to replace, after the loss of the shared namespaces.

    The reason by id. A restart or a replacement of a container makes new namespaces. Without a running
    container in the slot nothing can be shared, and the sidecar stays as found. *now* is the wall clock: a start in the future, before the
    clock was set back, doesn't count.
    """
    shared = shared_service(service.key, service.spec)
    if shared is None:
        return {}
    found = {}
    for container in containers:
        running = [c for c in known.of(shared) if c.running and c.slot == container.slot]
        if not running or container.adopted or is_finished(container, service):
            continue
        own = next((c for c in running if c.id in container.shares), None)
        if own is None:
            found[container.id] = (
                f"the container of {shared.name} that {container.name} joined is gone"
            )
        elif _is_older(container, own, now):
            found[container.id] = f"{own.name} was restarted after {container.name} was started"
    return found


def _is_older(container: Container, other: Container, now: float) -> bool:
    """Return True if a container was started before another one."""
    started, since = timestamp_seconds(container.started_at), timestamp_seconds(other.started_at)
    return started is not None and since is not None and started < since <= now


def _created_since(service: Service, observed: Observed) -> float | None:
    """Return since when all running containers of a service exist; None while some are outdated.

    There is one for each slot. A further replica, or a restart by the engine, makes none newer.
    """
    running = [c for c in observed.of(service.key) if c.running]
    slots = {c.slot for c in running if c.revision == service.revision and not c.adopted}
    if not running or len(running) > len(slots) or len(slots) < service.spec.replicas:
        return None
    return min(timestamp_s(c.intent) or 0.0 for c in running)


class DependencyStatus(StrEnum):
    """The status of a dependency."""

    MET = "met"
    #: Time, or actions under way, can meet the condition.
    WAITING = "waiting"
    #: Only a person can meet the condition.
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class DependencyState:
    """A dependency, and the facts about it."""

    key: Key
    condition: DependencyCondition
    #: None if no readable document declares the service.
    service: Service | None = None
    containers: tuple[Container, ...] = ()
    #: Empty if no readable document declares the service.
    slots: tuple[SlotState, ...] = ()
    #: Why a person must act on the service; '' if no one must.
    stalled: str = ""
    #: Slots in a crash loop.
    crash_looping: frozenset[int] = frozenset()
    suspended: bool = False
    #: True if the same plan starts the service first.
    starting: bool = False
    #: True if the dependent's container is to be replaced, False if it is to be started.
    replacing: bool = False

    @property
    def up(self) -> bool:
        """Return True if a container meets the condition, or met it before its end."""
        kept = [slot.current for slot in self.slots if slot.current is not None]
        if self.condition is DependencyCondition.COMPLETED and self.service is not None:
            return len(kept) == len(self.slots) and all(map(self._completed, kept))
        needs_current = self.replacing and self.service is not None and not self.suspended
        return any(self._serves(c) for c in (kept if needs_current else self.containers))

    def _serves(self, container: Container) -> bool:
        match self.condition:
            case DependencyCondition.HEALTHY:
                return container.running and container.health == "healthy"
            case DependencyCondition.COMPLETED:
                return self._completed(container)
            case DependencyCondition.STARTED:
                # A container in a crash loop also runs between its failures.
                runs = container.running and container.slot not in self.crash_looping
                return runs or self._completed(container)
            case _:
                assert_never(self.condition)

    def _completed(self, container: Container) -> bool:
        if container.state is not ContainerState.EXITED or container.exit_code:
            return False
        if self.service is None:
            return container.settings.restart != "always"
        # The controller sets the restart policy of a task in a crash loop.
        controller_restarts = container.slot in self.crash_looping
        return is_finished(container, self.service, controller_restarts=controller_restarts)

    @property
    def current(self) -> bool:
        """Return True if no slot is to be replaced."""
        return all(slot.current is not None for slot in self.slots)

    @property
    def dead_end(self) -> str:
        """Return how the service ended for good; '' otherwise."""
        over = [s.current for s in self.slots if s.current is not None and self._is_over(s.current)]
        if self.condition is DependencyCondition.COMPLETED:
            over = [container for container in over if container.exit_code]
        elif len(over) < len(self.slots):
            over = []  # another replica may yet be up
        return f"{over[0].name} {failures.explain(over[0])}" if over else ""

    def _is_over(self, container: Container) -> bool:
        assert self.service is not None, "only what is declared has slots"
        gave_up = failures.is_own_exit(container, self.service, controller_restarts=False)
        return gave_up or is_finished(container, self.service)

    @property
    def unchecked(self) -> bool:
        """Return True for the condition Healthy on a service without a check in document and image."""
        checked = self.service is not None and self.service.spec.healthcheck is not None
        kept = (slot.current for slot in self.slots)
        runs_unchecked = any(each is not None and each.running and not each.health for each in kept)
        return self.condition is DependencyCondition.HEALTHY and not checked and runs_unchecked

    @property
    def keeps_failing(self) -> bool:
        """Return True if every slot is in a crash loop."""
        return self.crash_looping >= {slot.number for slot in self.slots}


def _declared_stopped(dependency: DependencyState) -> bool:
    service = dependency.service
    return service is not None and service.spec.state is RunState.STOPPED


def _describe_current(dependency: DependencyState) -> str:
    """Return the state of a dependency before it is up; '' without a container."""
    for slot in dependency.slots:
        if slot.current is not None and slot.current.state is not ContainerState.CREATED:
            current = slot.current
            return f"{current.name} is {current.health if current.running and current.health else current.state}"
    return ""


_MET, _WAITING, _FAILED = DependencyStatus
#: In order; the first match wins: the status, its condition, and its cause.
RULES: tuple[
    tuple[DependencyStatus, Callable[[DependencyState], object], Callable[[DependencyState], str]],
    ...,
] = (
    # Containers of an unreadable document keep serving their dependents.
    (_MET, lambda d: d.service is None and d.up, lambda _: ""),
    (_FAILED, lambda d: d.service is None, lambda _: "its document can't be read"),
    # A suspended service is left alone, so its status does not change.
    (_MET, lambda d: d.suspended and d.up, lambda _: ""),
    (_FAILED, lambda d: d.suspended, lambda _: "it is suspended"),
    (_FAILED, _declared_stopped, lambda _: "it is declared Stopped"),
    (_FAILED, lambda d: not d.slots, lambda _: "it is scaled to 0"),
    # Before the failures below: a serving container is enough.
    (_MET, lambda d: d.up and (d.current or not d.replacing), lambda _: ""),
    # An earlier action of the same plan starts the dependency.
    (_MET, lambda d: d.starting and d.condition is DependencyCondition.STARTED, lambda _: ""),
    (_FAILED, lambda d: d.stalled, lambda d: d.stalled),
    (
        _FAILED,
        lambda d: d.unchecked,
        lambda _: "neither its document nor its image has a healthcheck",
    ),
    (_FAILED, lambda d: d.dead_end, lambda d: d.dead_end),
    (_FAILED, lambda d: d.keeps_failing, lambda _: "it keeps failing"),
    (_WAITING, lambda d: not d.current and d.replacing, lambda _: "it is being replaced"),
    (_WAITING, lambda _: True, _describe_current),
)
_GOAL = {
    DependencyCondition.STARTED: "start",
    DependencyCondition.HEALTHY: "be healthy",
    DependencyCondition.COMPLETED: "complete",
}


def status_of(dependency: DependencyState) -> tuple[DependencyStatus, str]:
    """Return the status of a dependency, and the cause if the status is not MET."""
    word, why = next((w, say(dependency)) for w, matches, say in RULES if matches(dependency))
    name, goal = dependency.key.name, _GOAL[dependency.condition]
    match word:
        case DependencyStatus.MET:
            return word, ""
        case DependencyStatus.WAITING:
            return word, f"waiting for {name} to {goal}" + (f" ({why})" if why else "")
        case DependencyStatus.FAILED:
            return word, f"{name} can't {goal}: {why}"[:CAUSE_MAX]
        case _:
            assert_never(word)


def job_status(
    key: Key, job: Service | None, memory: JobMemory, now: JobTime
) -> tuple[DependencyStatus, str]:
    """Return the status of a job as a dependency, and the cause if the status is not MET.

    Any run of the job's revision that succeeded completes the job, also one by request.
    """
    done = [o.revision for o in memory.occasions if o.is_complete]
    if job is None:
        # Dependents of an unreadable document go on if the job ran.
        if done:
            return DependencyStatus.MET, ""
        return DependencyStatus.FAILED, f"{key.name} can't complete: its document can't be read"
    assert isinstance(job.spec, JobSpec), f"{key} is no job"
    if job.revision in done:
        return DependencyStatus.MET, ""
    decision = decide(job.spec, job.revision, memory, now)
    if decision.word is JobWord.FAILED and decision.next_run is not None:
        why = f"waiting for {key.name} to complete ({decision.message})"
        return DependencyStatus.WAITING, why[:CAUSE_MAX]
    if decision.word in (JobWord.FAILED, JobWord.SUSPENDED, JobWord.HELD):
        cause = f"{key.name} can't complete: {decision.message}"
        return DependencyStatus.FAILED, cause[:CAUSE_MAX]
    why = f" ({decision.message})" if decision.message else ""
    return DependencyStatus.WAITING, f"waiting for {key.name} to complete{why}"[:CAUSE_MAX]
