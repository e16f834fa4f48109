"""The order of the services in one plan: start order, teardown order, conflicts over resources.

A starting service follows its dependencies, and the leaving services that hold its ports or volumes.
A leaving service precedes its dependencies. The plan of a single key knows the other services from
the last snapshot of everything. The plan of everything takes its own actions into account.

A host port or a volume can be in use by one service, and wanted exclusively by another. Documents
with such a conflict are refused when they are read. But a running container may stem from
a former document: after a rename a service exists twice for a while.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from controller.core.drift.actions import is_denied
from controller.core.drift.availability import (
    CAUSE_MAX,
    FAILED,
    DependencyState,
    DependencyStatus,
    job_status,
    left_behind,
    status_of,
)
from controller.core.drift.classify import ALIVE, SlotState, by_slot, slot_of
from controller.core.encoding import graph
from controller.core.jobs.decision import NO_TIME, JobTime
from controller.core.jobs.rollout_hooks import HookState, HookWord, RolloutHooks, RolloutStanding
from controller.core.manifests.job_checks import dependencies_of, shared_service
from controller.core.manifests.object_checks import ResourceClaim, claims_of
from controller.model.desired.desired import Desired, Service
from controller.model.desired.plan import (
    AnyAction,
    Barrier,
    Delay,
    NeedsOperator,
    StartContainer,
    StopContainer,
)
from controller.model.desired.spec.service import DependencyCondition, RunState
from controller.model.errors import Problem, Severity
from controller.model.names import FOREIGN, Key, SlotKey, job_key
from controller.model.observed import NO_RUNS, Container, Observed

#: The code of a job that failed before or after a rollout, and of the rollout.
HOOK_FAILED = "rollout.failed"


@dataclass(frozen=True, slots=True)
class KnownServices:
    """Knowledge of the other services, for the plan of one key."""

    #: The last snapshot of all services. None: the snapshot of the plan itself shows them.
    observed: Observed | None = None
    #: Services that need a person's action, with the reason.
    stalled: Mapping[Key, str] = field(default_factory=dict)
    #: The dependencies of each service when it was last declared.
    remembered: Mapping[Key, Collection[Key]] = field(default_factory=dict)
    #: Services whose teardown waits for no dependent any more (``prune_guard.overdue``).
    overdue: frozenset[Key] = frozenset()
    #: How far the rollouts of services with jobs are.
    rollouts: Mapping[Key, RolloutStanding] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Blocker:
    """A reason not to start, replace or remove a service now."""

    cause: str
    #: The services that must change first.
    on: tuple[Key, ...]
    #: A reason code if only a person can resolve the blocker; '' if time resolves it.
    code: str = ""

    def wait(self, key: Key, *, target: str, slot: int = 0) -> Delay | NeedsOperator:
        """Return an action to show the blocker in a plan."""
        if self.code:
            return NeedsOperator(
                object=key, target=target, slot=slot, cause=self.cause, on=self.on, code=self.code
            )
        return Delay(object=key, target=target, slot=slot, cause=self.cause, on=self.on)

    def barrier(self, key: Key) -> Barrier:
        """Return a barrier in front of the actions behind the blocker."""
        return Barrier(object=key, target=key.name, cause=self.cause, on=self.on)


@dataclass(frozen=True, slots=True)
class Blockers:
    """The dependencies in the way of a service's containers."""

    #: Blocks a start.
    start: Blocker | None = None
    #: Blocks a replacement.
    replace: Blocker | None = None
    #: A job before the rollout: blocks the first start of the revision, and not its creation.
    hook: Blocker | None = None


NO_BLOCKERS = Blockers()
NO_SERVICES = KnownServices()


class Ordering:
    """The order of the services in one plan. ``record_planned`` updates it while the plan grows."""

    def __init__(
        self,
        desired: Desired,
        observed: Observed,
        known_services: KnownServices,
        *,
        crash_looping: frozenset[SlotKey],
        prunable: frozenset[Key],
        blocked: frozenset[Key] = frozenset(),
        now: JobTime = NO_TIME,
    ) -> None:
        """Order the services of *desired* and *observed*.

        *known_services* are those that *observed* lacks. The prune guard lets *prunable* services go,
        and holds *blocked* ones back.
        """
        self._services = desired.workloads_by_key
        self._suspended = desired.suspended
        self._now = now
        self._observed = observed
        self._known_services = known_services
        everything = known_services.observed
        self._everything = observed if everything is None else everything
        self._crash_looping = crash_looping
        self._leaving = frozenset(key for key in prunable if self._leaves(key, desired))
        self._slots: dict[Key, tuple[SlotState, ...]] = {}
        self._stalled = dict(known_services.stalled)
        #: The jobs of rollouts.
        self.hooks = RolloutHooks(
            desired, observed, self._everything, now, known_services.rollouts, self._stalled
        )
        self._starting: set[Key] = set()
        self._stopping: set[str] = set()
        self._left: set[Key] = set()
        # A service that the guard holds back, or has not decided on, is on its way out as well:
        # its dependencies stay until it is gone.
        gone = self._leaving | {key for key in blocked if self._leaves(key, desired)}
        if self._leaving:
            there = {c.key for c in self._everything.containers if c.origin == "controller"}
            gone |= {key for key in there if self._leaves(key, desired)}
        leaving = {key: self._dependencies(key) & self._leaving for key in gone}
        # Remembered dependencies can form a circle. Members of a circle don't wait for each other.
        for cycle in graph.cycles(leaving):
            leaving |= {key: leaving[key] - cycle for key in cycle}
        self._dependents = graph.reverse(leaving)

    def _leaves(self, key: Key, desired: Desired) -> bool:
        """Return True if a service is no longer declared, scaled to 0 or stopped."""
        service = self._services.get(key)
        if key in self._suspended:
            return False
        if service is None:
            return not desired.is_blind_for(key)
        return service.spec.replicas == 0 or service.spec.state is RunState.STOPPED

    def _dependencies(self, key: Key) -> frozenset[Key]:
        service = self._services.get(key)
        if service is not None:
            return frozenset(dependencies_of(key, service.spec))
        return frozenset(self._known_services.remembered.get(key, ()))

    def sequence(self, keys: Iterable[Key]) -> list[Key]:
        """Return keys in the order of planning; unrelated ones by key."""
        return graph.topological_order(
            {
                key: self._dependents[key] if key in self._leaving else self._predecessors(key)
                for key in keys
            }
        )

    def _predecessors(self, key: Key) -> frozenset[Key]:
        """Return the services planned before a staying service."""
        service, first = self._services.get(key), self._dependencies(key) - self._leaving
        first |= self._around_hooks(key) - self._leaving
        if service is None or not self._leaving:
            return first
        return first | ({c.key for _, c in self._held_by_others(service)} & self._leaving)

    def _around_hooks(self, key: Key) -> frozenset[Key]:
        """Return the keys before a service because of its jobs, and the services before a job.

        The plan of a service includes the run of a job before its rollout.
        """
        if key.kind == "Job":
            naming = self.hooks.desired.services_by_hook.get(key, ())
            return frozenset(service.key for service in naming)
        service = self._services.get(key)
        names = () if service is None else service.spec.rollout.before
        jobs = (job_key(key.namespace, name) for name in names)
        return frozenset[Key]().union(*map(self._dependencies, jobs))

    # Ports and volumes

    @cached_property
    def _resources(self) -> ExclusiveResources:
        return ExclusiveResources(self._everything.containers)

    def _held_by_others(self, service: Service) -> list[tuple[str, Container]]:
        """Return the exclusive resources of *service* in use by other services, with the holder."""
        if not claims_of(service.spec, service.volume_name):
            return []  # the plan of such a service needs no search through everything
        return self._resources.held_by_others(service)

    def resource_conflict(self, service: Service) -> Blocker | None:
        """Return the containers of other services with a port or volume of *service*; None without
        any. A container that nobody may change holds the slot, too.
        """
        if (foreign := self._held_by_foreign(service)) is not None:
            return foreign
        holders = [(w, c) for w, c in self._held_by_others(service) if c.key not in self._left]
        if not holders:
            return None
        reasons = dict.fromkeys(f"{container.name} has {what}" for what, container in holders)
        cause = f"waiting while {' and '.join(reasons)}"
        keys = tuple(dict.fromkeys(container.key for _, container in holders))
        if not self._is_awaited_by(keys, service.key):
            return Blocker(cause, keys)
        # A circle: a person must decide which service gets another port or volume meanwhile.
        return Blocker(f"{cause}, which waits for it in turn", keys, FAILED)

    def _held_by_foreign(self, service: Service) -> Blocker | None:
        """Return why *service* waits for containers that nobody supervises; None without any.

        Such a container has a slot of the service, or writes to a volume that the service has alone. Its
        revision says nothing: another key of the broker's gives the same document another revision.
        """
        wanted = {
            claim.resource: claim.name
            for claim in claims_of(service.spec, service.volume_name)
            if claim.exclusive
        }
        for each in self._observed.foreign:
            slot = ["its slot"] if each.key == service.key else []
            held = slot + [wanted[volume] for volume in each.writes if volume in wanted]
            if held:
                what = " and ".join(held)
                reason = f"{each.name} has {what}, and {each.reason}"
                return Blocker(f"{reason} ({each.remedy})", (), FOREIGN)
        return None

    def _is_awaited_by(self, keys: Iterable[Key], key: Key) -> bool:
        """Return True if a service of *keys* waits, directly or not, for a resource of *key*."""
        wants = {
            other.key: {container.key for _, container in self._held_by_others(other)}
            for other in self._services.values()
        }
        return any(graph.shortest_path(wants, start, key) for start in keys)

    def has_lost_volume(self, container: Container) -> bool:
        """Return True if a container writes to a volume now exclusive to another service."""
        volumes, key = container.writes, container.key
        if not volumes:
            return False
        return self._resources.is_exclusive_to_others(volumes, key, self._services)

    # Dependencies

    def blockers(self, service: Service) -> Blockers:
        """Return the unmet dependencies of a declared service."""
        wanted = dependencies_of(service.key, service.spec)
        hook = _hook_blocker(self.hooks.before(service))
        if not wanted:
            return NO_BLOCKERS if hook is None else Blockers(hook=hook)
        # A sidecar without its namespaces serves nothing, so it doesn't wait for all other slots.
        lost = left_behind(service, self._observed.of(service.key), self._everything)
        return Blockers(
            start=self._blocker(wanted, replacing=False),
            replace=self._blocker(wanted, replacing=not lost),
            hook=hook,
        )

    def unshared(self, service: Service) -> Mapping[int, Blocker]:
        """Return the slots of a sidecar without a running container to share with."""
        shared = shared_service(service.key, service.spec)
        if shared is None or shared in self._starting:
            return {}
        running = {c.slot for c in self._everything.of(shared) if c.running}
        return {
            slot: Blocker(f"waiting for a container of {shared.name} in slot {slot}", (shared,))
            for slot in range(1, service.spec.replicas + 1)
            if slot not in running
        }

    def following(self, service: Service) -> list[Delay]:
        """Return the replacements of a sidecar's containers that follow from the plan so far."""
        shared = shared_service(service.key, service.spec)
        if shared is None:
            return []
        cause = f"replaced after {shared.name}, whose namespaces it shares"
        return [
            Delay(object=service.key, target=each.name, slot=each.slot, cause=cause, on=(shared,))
            for each in self._observed.of(service.key)
            if each.running and not self._stopping.isdisjoint(each.shares)
        ]

    def hook_after(self, service: Service) -> Barrier | NeedsOperator | None:
        """Return the wait for a job after a service's rollout; None without any."""
        blocker = _hook_blocker(self.hooks.due_after(service))
        if blocker is None:
            return None
        if blocker.code:
            return NeedsOperator(
                object=service.key,
                target=service.key.name,
                cause=blocker.cause,
                on=blocker.on,
                code=blocker.code,
            )
        return blocker.barrier(service.key)

    def _blocker(
        self, wanted: Mapping[Key, DependencyCondition], *, replacing: bool
    ) -> Blocker | None:
        unmet: dict[DependencyStatus, list[tuple[Key, str]]] = {
            status: [] for status in DependencyStatus
        }
        for key, condition in wanted.items():
            if key.kind == "Job":
                status, cause = self._job_status(key)
            else:
                status, cause = status_of(self._dependency(key, condition, replacing=replacing))
            unmet[status].append((key, cause))
        for status, code in ((DependencyStatus.FAILED, FAILED), (DependencyStatus.WAITING, "")):
            if unmet[status]:
                cause = "; ".join(each for _, each in unmet[status])
                on = unmet[DependencyStatus.FAILED] + unmet[DependencyStatus.WAITING]
                return Blocker(cause, tuple(key for key, _ in on), code)
        return None

    def _job_status(self, key: Key) -> tuple[DependencyStatus, str]:
        memory = self._everything.jobs.get(key, NO_RUNS)
        return job_status(key, self._services.get(key), memory, self._now.of(key))

    def _dependency(
        self, key: Key, condition: DependencyCondition, *, replacing: bool
    ) -> DependencyState:
        return DependencyState(
            key=key,
            condition=condition,
            service=self._services.get(key),
            containers=self._everything.of(key),
            slots=self._slots_of(key),
            stalled=self._stalled.get(key, ""),
            crash_looping=frozenset(slot for owner, slot in self._crash_looping if owner == key),
            suspended=key in self._suspended,
            starting=key in self._starting,
            replacing=replacing,
        )

    def _slots_of(self, key: Key) -> tuple[SlotState, ...]:
        service = self._services.get(key)
        if service is None:
            return ()
        if key not in self._slots:
            containers = by_slot(self._everything.of(key))
            self._slots[key] = tuple(
                slot_of(number, containers.get(number, ()), service)
                for number in range(1, service.spec.replicas + 1)
            )
        return self._slots[key]

    def teardown_blocker(self, key: Key) -> Blocker | None:
        """Return the leaving dependents with a running container: *key* is removed after them."""
        if not _runs(self._observed.of(key)):
            return None
        dependents = self._dependents.get(key, set()) - self._left
        overdue = self._known_services.overdue
        if key in overdue:
            # An overdue service waits only for dependents that began to leave later.
            dependents -= overdue
        staying = tuple(k for k in sorted(dependents) if _runs(self._everything.of(k)))
        if not staying:
            return None
        names = ", ".join(other.name for other in staying)
        verb = "depends" if len(staying) == 1 else "depend"
        return Blocker(f"waiting for {names} to be gone, which {verb} on it", staying)

    def causes(self, key: Key) -> frozenset[str]:
        """Return the causes of all blockers of a service."""
        service = self._services.get(key)
        dependencies = NO_BLOCKERS if service is None else self.blockers(service)
        conflict = None if service is None else self.resource_conflict(service)
        after = None if service is None else _hook_blocker(self.hooks.due_after(service))
        unshared = {} if service is None else self.unshared(service)
        blockers = (
            *(dependencies.start, dependencies.replace, dependencies.hook, after),
            *(conflict, self.teardown_blocker(key), *unshared.values()),
        )
        return frozenset(blocker.cause for blocker in blockers if blocker is not None)

    def record_planned(
        self, key: Key, actions: Iterable[AnyAction], problems: Iterable[Problem]
    ) -> None:
        """Record the plan of a service, as input for the plans of later services."""
        stalled = [problem.message for problem in problems if problem.severity is Severity.ERROR]
        waits = behind_barrier = False
        for action in actions:
            if isinstance(action, StopContainer) and not is_denied(action):
                self._stopping.add(action.precondition.id)
            if is_denied(action):
                stalled.append(action.verdict.reason)
            elif isinstance(action, StartContainer) and not behind_barrier:
                self._starting.add(key)
            elif isinstance(action, NeedsOperator):
                stalled.append(action.cause)
            elif isinstance(action, Barrier | Delay):
                waits, behind_barrier = True, behind_barrier or isinstance(action, Barrier)
        if stalled:
            self._stalled[key] = stalled[0]
        elif key in self._leaving and not waits:
            self._left.add(key)


def _hook_blocker(hook: HookState | None) -> Blocker | None:
    if hook is None:
        return None
    code = {HookWord.FAILED: HOOK_FAILED, HookWord.BLOCKED: FAILED}.get(hook.word, "")
    return Blocker(hook.text[:CAUSE_MAX], (hook.job,), code)


def _runs(containers: Iterable[Container]) -> bool:
    return any(container.state in ALIVE for container in containers)


class ExclusiveResources:
    """The ports and volumes in use by the containers of a snapshot."""

    def __init__(self, containers: Iterable[Container]) -> None:
        self._held: dict[object, list[tuple[ResourceClaim, Container]]] = {}
        for container in containers:
            if container.origin == "controller" and container.state in ALIVE:
                claims = [
                    *map(ResourceClaim, container.ports),
                    *(ResourceClaim(volume, exclusive=False) for volume in container.writes),
                ]
                for claim in claims:
                    self._held.setdefault(claim.group, []).append((claim, container))

    def held_by_others(self, service: Service) -> list[tuple[str, Container]]:
        """Return the exclusive resources of *service* in use by other services, with the holder."""
        return [
            (wanted.name, container)
            for wanted in claims_of(service.spec, service.volume_name)
            for held, container in self._held.get(wanted.group, ())
            if wanted.exclusive and wanted.conflicts(held) and container.key != service.key
        ]

    def is_exclusive_to_others(
        self, volumes: Iterable[str], key: Key, services: Mapping[Key, Service]
    ) -> bool:
        """Return True if a service other than *key* has one of *volumes* (engine names)
        exclusively.
        """
        return any(
            claim.resource == volume and claim.exclusive
            for volume in volumes
            for _, container in self._held.get(volume, ())
            if container.key != key and (service := services.get(container.key))
            for claim in claims_of(service.spec, service.volume_name)
        )
