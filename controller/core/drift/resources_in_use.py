"""Host ports and volumes in use by one service, and wanted exclusively by another.

Documents with such a conflict are refused when they are read. But a running container may stem from
a former document: after a rename, or a move to another namespace, a service exists twice for a
while.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from controller.core.drift.classify import ALIVE
from controller.core.manifests.checks.claims import ResourceClaim, claims_of
from controller.model.desired.desired import Service
from controller.model.names import Key
from controller.model.observed import Container


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
