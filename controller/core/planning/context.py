"""The inputs of a plan: knowledge of earlier passes, the situation of a service, and pending moves.

StartFirst or StopFirst: whether a replacement starts before its predecessor stops, and how many at once.

A move restarts nothing: the broker's inventory lets the containers go on under the new name. While
the move is pending, no plan removes the containers.

While an unread document possibly declares the earlier name, the service waits. Containers of its own
would end the move, and start on empty volumes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from controller.core.drift.actions import Judge
from controller.core.drift.availability import Availability, AvailabilityWord, at_first_sight
from controller.core.drift.classify import restart_of
from controller.core.engine_api.create_body import joined_networks
from controller.core.jobs.decision import NO_TIME, JobTime
from controller.core.manifests.object_checks import exclusive_resources
from controller.core.planning.images_networks_volumes import Prerequisites
from controller.core.planning.quarantine import NO_QUARANTINE, Quarantine
from controller.core.planning.service_order import (
    NO_BLOCKERS,
    NO_SERVICES,
    Blocker,
    Blockers,
    KnownServices,
)
from controller.model.desired.desired import Desired, Service
from controller.model.desired.plan import MoveService, NeedsOperator
from controller.model.desired.spec.service import Order
from controller.model.names import Key, SlotKey
from controller.model.observed import Container, HostPort, Observed
from controller.model.quantities import format_instant


def order_of(service: Service) -> Order:
    """Return whether a replacement starts before or after its predecessor stops."""
    return service.spec.rollout.order or (
        Order.STOP_FIRST if exclusive_of(service) else Order.START_FIRST
    )


def replaced_at_once(service: Service) -> int:
    """Return how many slots of a service are replaced at a time."""
    rollout = service.spec.rollout
    count = rollout.parallelism or rollout.max_unavailable
    if order_of(service) is Order.START_FIRST:
        return count
    return min(count, rollout.max_unavailable)


def why_order(service: Service) -> str:
    """Return the reason for the result of ``order_of``, for the status report."""
    if service.spec.rollout.order is not None:
        return "declared"
    what = exclusive_of(service)
    if what:
        return f"{what} can't be held by two containers"
    return "no host port and no exclusive volume forbids it"


def exclusive_of(service: Service) -> str:
    """Return a resource only one container can hold, so the old container stops first; '' if none."""
    if resources := exclusive_resources(service.spec):
        return resources[0]
    for volume in service.image_volumes or ():
        if volume.keeping == "slot":
            return f"the volume at {volume.path}"
    return ""


@dataclass(frozen=True, slots=True)
class SlotPause:
    """Why a slot is left alone, and until when."""

    reason: str
    #: Seconds since the epoch, by the wall clock.
    until: float

    @property
    def text(self) -> str:
        """The reason with the instant of the next try. The text is stable while time passes."""
        return f"{self.reason}, next try at {format_instant(self.until)}"


@dataclass(frozen=True, slots=True)
class PlanContext:
    """Knowledge of earlier passes. No snapshot of the engine shows any of it."""

    #: Why a slot is in backoff, and until when.
    backoff: Mapping[SlotKey, str] = field(default_factory=dict)
    #: Slots in a crash loop: the controller restarts their containers, the engine does not.
    controller_restarts: frozenset[SlotKey] = frozenset()
    #: Availability by container id.
    availability: Mapping[str, Availability] = field(default_factory=dict)
    #: Containers to replace although their revision is current: the reason by container id.
    replace_reasons: Mapping[str, str] = field(default_factory=dict)
    #: The last revision of each service that completed its watch period.
    last_good: Mapping[Key, str] = field(default_factory=dict)
    #: Services of which the last pass failed.
    last_pass_failed: frozenset[Key] = frozenset()
    #: Ids of unhealthy containers of older revisions that have run long enough to be restarted.
    failing_predecessors: frozenset[str] = frozenset()
    #: How the last container of an empty slot disappeared, if trimtab did not remove it.
    removed_from_outside: Mapping[SlotKey, str] = field(default_factory=dict)
    #: Services whose rollout is paused, with the reason: serving containers are not replaced.
    paused: Mapping[Key, str] = field(default_factory=dict)
    #: Alterations that are not healed yet, by slot and by ``Alteration.what``, with the reason.
    #: A stop and a removal count as alterations (``core.drift.contention.ENDED``).
    contended: Mapping[SlotKey, Mapping[str, str]] = field(default_factory=dict)
    #: How long pruned containers are kept, and the time left for each.
    quarantine: Quarantine = NO_QUARANTINE
    #: The services that others depend on.
    known_services: KnownServices = NO_SERVICES
    #: The time, for the runs of jobs.
    now: JobTime = NO_TIME
    #: The revisions whose image was pulled, while no create was tried since. With ``pullPolicy:
    #: Always`` these are not pulled again: the create follows, with the image's volumes known.
    pulled: frozenset[tuple[Key, str]] = frozenset()
    #: The networks, by the engine's name, that a pass is remaking now.
    remaking: frozenset[str] = frozenset()


NO_CONTEXT = PlanContext()


@dataclass(frozen=True, slots=True)
class ServiceContext:
    """The inputs for the plan of one service."""

    service: Service
    #: All containers of the service, by slot and name.
    containers: tuple[Container, ...]
    prerequisites: Prerequisites
    #: The policy's verdict on an action.
    judge: Judge
    #: True if the prune guard lets the service be scaled to 0 or stopped.
    prunable: bool
    plan_context: PlanContext = NO_CONTEXT
    #: Dependencies that are not ready.
    blockers: Blockers = NO_BLOCKERS
    #: Host ports on which a program listens.
    listening: frozenset[HostPort] = frozenset()
    #: Containers of other services that hold a port or volume of this service.
    resource_conflict: Blocker | None = None
    #: Slots of a sidecar without a running container whose namespaces they could share.
    unshared: Mapping[int, Blocker] = field(default_factory=dict)
    #: A network of the service that is to be remade: no container is created before.
    network_remake: Blocker | None = None
    #: Ids of containers that write to a volume which now belongs to another service alone.
    volume_lost: frozenset[str] = frozenset()
    #: Slots whose running container keeps its memory limit for now.
    kept_memory: frozenset[int] = frozenset()

    @property
    def key(self) -> Key:
        """The service's key."""
        return self.service.key

    @property
    def is_remaking(self) -> bool:
        """Return True if a pass is remaking a network of the service now."""
        networks = joined_networks(self.service, self.prerequisites.names)
        return not self.plan_context.remaking.isdisjoint(networks)

    @property
    def parallelism(self) -> int:
        """How many slots may be replaced at a time."""
        return replaced_at_once(self.service)

    def availability_of(self, container: Container) -> AvailabilityWord:
        """Return the availability of a container, from the snapshot alone for a new one."""
        return (self.plan_context.availability.get(container.id) or at_first_sight(container)).word

    def backoff_reason(self, slot: int) -> str | None:
        """Return why a slot is in backoff; None if it is not."""
        return self.plan_context.backoff.get((self.key, slot))

    def deferred_repairs(self, slot: int) -> Mapping[str, str]:
        """Return the alterations in a slot that are not healed yet, with the reason."""
        return self.plan_context.contended.get((self.key, slot), {})

    def is_restarted_by_controller(self, slot: int) -> bool:
        """Return True if the controller, and not the engine, restarts the slot's containers."""
        return (
            self.service.is_boot_ordered
            or (self.key, slot) in self.plan_context.controller_restarts
        )

    def restart_policy(self, slot: int) -> tuple[str, int]:
        """Return the engine's restart policy, and its retries, for a container in *slot*."""
        controller_restarts = self.is_restarted_by_controller(slot)
        return restart_of(self.service, controller_restarts=controller_restarts)


#: The code of a move that waits for an unread document.
WAITS = "moved.unread"


@dataclass(frozen=True, slots=True)
class PendingMove:
    """Containers of the service *source* that are to go on under the name of *service*."""

    source: Key
    service: Service
    #: The number of containers.
    count: int
    #: True if an unread document possibly declares *source*.
    waits: bool = False

    @property
    def step(self) -> MoveService | NeedsOperator:
        """The part of a plan: the move, or the wait for the unread document."""
        if not self.waits:
            return self.action
        key, name = self.service.key, f"{self.source.namespace}/{self.source.name}"
        cause = f"an unread document possibly declares {name}, whose containers go on here"
        return NeedsOperator(object=key, target=key.name, cause=cause, code=WAITS)

    @property
    def action(self) -> MoveService:
        """The action for the move."""
        named, key = f"{self.source.namespace}/{self.source.name}", self.service.key
        return MoveService(
            object=key,
            target=key.name,
            cause=f"{named} is now {key.name}; {_goes_on(self.count, self.source.name)}",
            source=self.source,
            owner=self.service.owner,
        )


def _goes_on(count: int, name: str) -> str:
    """Return what becomes of the containers: no engine gives a running container another name."""
    if count == 1:
        return f"its container goes on, and answers to {name} until its replacement"
    return f"its {count} containers go on, and answer to {name} until their replacement"


def pending_moves(desired: Desired, observed: Observed) -> tuple[PendingMove, ...]:
    """Return the moves to make or to wait for, by their services.

    A service with a container of its own takes no other containers over. Nothing is planned for a
    suspended service and its containers.
    """
    return tuple(
        PendingMove(source, service, len(observed.of(source)), waits=desired.is_blind_for(source))
        for service, source in _sources(desired, observed)
        if not _is_held(desired, service)
    )


def declared_moves(desired: Desired, service: Service) -> Iterator[MoveService]:
    """Yield the moves to a service's name that the documents permit, whatever runs."""
    for source in service.moved:
        is_free = source not in desired.workloads_by_key and not desired.is_blind_for(source)
        if is_free and not _is_held(desired, service):
            yield PendingMove(source, service, 0).action


def claimed_keys(desired: Desired, observed: Observed) -> frozenset[Key]:
    """Return the undeclared services whose containers wait for a move."""
    return frozenset(source for _, source in _sources(desired, observed))


def present_key(key: Key, desired: Desired, observed: Observed) -> Key | None:
    """Return the service that the containers of an earlier key wait to move to, None for none."""
    return next((new.key for new, source in _sources(desired, observed) if source == key), None)


def _sources(desired: Desired, observed: Observed) -> Iterator[tuple[Service, Key]]:
    """Yield the services whose containers run under an earlier key, with the key."""
    for service in desired.moved_services:
        source = _source_of(service, desired, observed)
        if source is not None:
            yield service, source


def _is_held(desired: Desired, service: Service) -> bool:
    """Return True if no plan has an action for the service."""
    return service.key in desired.suspended or service.key in desired.blind_keys


def _source_of(service: Service, desired: Desired, observed: Observed) -> Key | None:
    """Return the earlier key under which the containers of a service run."""
    if observed.of(service.key):
        return None
    for source in service.moved:
        if source not in desired.workloads_by_key and observed.of(source):
            return source
    return None


def with_moves(observed: Observed, moves: Iterable[PendingMove]) -> Observed:
    """Return a snapshot as it will be after the moves."""
    targets = {move.source: move.service.key for move in moves if not move.waits}
    if not targets:
        return observed
    containers = tuple(
        _moved(c, targets[c.key]) if c.key in targets else c for c in observed.containers
    )
    return replace(observed, containers=containers)


def _moved(container: Container, target: Key) -> Container:
    if container.origin != "controller":
        return container
    former = container.former or container.key.name
    admitted = () if container.admitted is None else container.admitted.networks
    known = dict(container.admitted_aliases)
    names = {n: tuple(sorted({*known.get(n, ()), container.key.name})) for n in admitted}
    further = tuple(sorted((known | names).items()))
    return replace(
        container,
        key=target,
        former="" if former == target.name else former,
        admitted_aliases=further,
    )
