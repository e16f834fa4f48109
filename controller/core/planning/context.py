"""The inputs of a plan: knowledge of earlier passes, and the situation of a service.

StartFirst or StopFirst: whether a replacement starts before its predecessor stops, and how many at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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
from controller.model.desired.desired import Service
from controller.model.desired.spec.service import Order
from controller.model.names import Key, SlotKey
from controller.model.observed import Container, HostPort
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
