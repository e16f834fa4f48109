"""The desired state of passes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from controller.model.desired.desired import Desired, Network, Service, Volume
from controller.model.desired.plan import Blocked
from controller.model.names import Key

DeclaredResource = Service | Network | Volume


@dataclass(frozen=True, slots=True)
class DesiredView:
    """The desired state with overrides applied, and the prune guard's decision on exactly this state."""

    desired: Desired = field(default_factory=Desired)
    prunable: frozenset[Key] = frozenset()
    blocked: tuple[Blocked, ...] = ()

    def goal(self, key: Key) -> tuple[object, ...]:
        """Return the parts of the desired state that a pass of *key* works towards."""
        desired = self.desired
        left_alone = (key in desired.suspended, desired.is_unread(key))
        service = desired.workload(key)
        if service is None:
            return left_alone
        spec = service.spec
        if key.kind == "Job":
            return (*left_alone, service.revision, spec)
        slots = (service.revision, service.limits, spec.state, spec.replicas)
        return (*left_alone, *slots, service.restarting, service.deliveries)

    def able(self, keys: Iterable[Key]) -> frozenset[Key]:
        """Return the keys whose passes can act: not the suspended, blind and held back ones."""
        declared, suspended = self.resources(), self.desired.suspended
        return frozenset(
            key
            for key in keys
            if (key in declared or key in self.prunable or key.kind == "Network")
            and key not in self.desired.blind_keys
            and key not in suspended
        )

    def resources(self) -> dict[Key, DeclaredResource]:
        """Return the declared services, networks and volumes."""
        resources: tuple[DeclaredResource, ...] = (
            *self.desired.workloads,
            *self.desired.networks,
            *self.desired.volumes,
        )
        return {resource.key: resource for resource in resources}
