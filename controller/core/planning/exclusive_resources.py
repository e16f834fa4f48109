"""Host ports and volumes in use by one service, and wanted exclusively by another.

Documents with such a conflict are refused when they are read. But a running container may stem from
a former document: after a rename, or a move to another namespace, a service exists twice for a
while.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from controller.core.drift.drift import ALIVE
from controller.core.drift.host_ports import meet
from controller.core.manifests.validate import exclusive_volumes
from controller.model.desired.desired import Service
from controller.model.names import Key, qualified
from controller.model.observed import Container, HostPort


class ExclusiveResources:
    """The ports and volumes in use by the containers of a snapshot."""

    def __init__(self, containers: Iterable[Container]) -> None:
        self._ports: dict[tuple[int, str], list[tuple[HostPort, Container]]] = {}
        self._writers: dict[str, list[Container]] = {}
        for container in containers:
            if container.origin != "controller" or container.state not in ALIVE:
                continue
            for port in container.ports:
                self._ports.setdefault((port.port, port.protocol), []).append((port, container))
            for volume in container.writes:
                self._writers.setdefault(volume, []).append(container)

    def held_by_others(self, service: Service) -> list[tuple[str, Container]]:
        """Return the exclusive resources of *service* in use by other services, with the holder."""
        held: list[tuple[str, Container]] = []
        for port in service.spec.ports:
            if port.host is None:
                continue
            wanted = HostPort(port.host_ip, port.host, port.protocol)
            for other, container in self._ports.get((port.host, port.protocol), ()):
                if container.key != service.key and meet(wanted, other):
                    held.append((f"host port {port.host}", container))
        for name in exclusive_volumes(service.spec):
            writers = self._writers.get(qualified(service.key.namespace, name), ())
            held += [(f"volume {name}", container) for container in writers]
        return [(what, container) for what, container in held if container.key != service.key]

    def is_exclusive_to_others(
        self, volumes: Iterable[str], key: Key, services: Mapping[Key, Service]
    ) -> bool:
        """Return True if a service other than *key* has one of *volumes* (engine names)
        exclusively.
        """
        return any(
            volume in own_volumes(services[container.key])
            for volume in volumes
            for container in self._writers.get(volume, ())
            if container.key != key and container.key in services
        )


def own_volumes(service: Service) -> frozenset[str]:
    """Return the engine names of the volumes that a service writes to exclusively."""
    namespace = service.key.namespace
    return frozenset(qualified(namespace, name) for name in exclusive_volumes(service.spec))
