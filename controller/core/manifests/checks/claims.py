"""Resources that only one replica or service can hold: host ports and written volumes."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from controller.core.yaml.documents import YamlPath
from controller.model.desired.spec.mounts import VolumeMount
from controller.model.desired.spec.service import ServiceSpec
from controller.model.observed import HostPort


def exclusive_volumes(spec: ServiceSpec) -> dict[str, int]:
    """Return the volumes with one writing replica at most, with the index of their first mount.

    A volume is exclusive if its mount is writable and not ``shared``.
    """
    volumes: dict[str, int] = {}
    for index, mount in enumerate(spec.mounts):
        if isinstance(mount, VolumeMount) and not mount.read_only and not mount.shared:
            volumes.setdefault(mount.source, index)
    return volumes


def exclusive_resources(spec: ServiceSpec) -> list[str]:
    """Return the resources of a service that only one replica can hold, such as ``host port 80``."""
    shares = spec.shares
    network = [f"the network of {shares.service}"] if shares is not None and shares.network else []
    return network + [claim.name for claim in claims_of(spec, str) if claim.exclusive]


@dataclass(frozen=True, slots=True)
class ResourceClaim:
    """The use of a host port, or the write access to a volume."""

    #: A volume by its name on the engine.
    resource: HostPort | str
    #: The resource in messages, such as ``host port 80``.
    name: str = ""
    #: False if a volume can be shared with other writers.
    exclusive: bool = True
    path: YamlPath = ()

    @property
    def group(self) -> object:
        """Claims of different groups never conflict."""
        resource = self.resource
        return resource if isinstance(resource, str) else (resource.port, resource.protocol)

    def conflicts(self, other: ResourceClaim) -> bool:
        """Return True if two services cannot have both claims at the same time."""
        if isinstance(self.resource, HostPort) and isinstance(other.resource, HostPort):
            return self.resource.overlaps(other.resource)
        return self.resource == other.resource and (self.exclusive or other.exclusive)

    @property
    def scope(self) -> tuple[int, object, bool]:
        """The IP version, the address, and whether every claim of the same version and group conflicts.

        A volume has no address: two claims of it conflict only if one of them is exclusive.
        """
        if isinstance(self.resource, str):
            return 0, None, self.exclusive
        address = ipaddress.ip_address(self.resource.address)
        return address.version, address, address.is_unspecified


def find_conflicts(claims: Sequence[ResourceClaim]) -> Iterator[tuple[int, int]]:
    """Yield the indexes of each claim with a conflict, and of the first claim that it conflicts with.

    The claims are of one group. Claims are many: no claim is compared with all others.
    """
    scopes = [claim.scope for claim in claims]
    first: dict[object, list[int]] = {}
    for index, (version, address, is_wide) in enumerate(scopes):
        kinds: list[object] = [version]
        kinds += [(version, address)] if address is not None else []
        kinds += [(version, "wide")] if is_wide else []
        for kind in kinds:
            found = first.setdefault(kind, [])
            if len(found) < 2:  # one of them can be the claim itself
                found.append(index)
    for index, (version, address, is_wide) in enumerate(scopes):
        kinds = [version] if is_wide else [(version, "wide"), (version, address)]
        others = [other for kind in kinds for other in first.get(kind, ()) if other != index]
        if others:
            yield index, min(others)


def claims_of(spec: ServiceSpec, volume_name: Callable[[str], str]) -> list[ResourceClaim]:
    """Return the host ports and the written volumes of a service, each volume once.

    *volume_name* returns the engine's name of a volume of the namespace.
    """
    claims = [
        ResourceClaim(
            port.published, f"host port {port.host}", path=("spec", "ports", index, "host")
        )
        for index, each in enumerate(spec.ports)
        for port in each.each
        if port.published is not None
    ]
    exclusive = exclusive_volumes(spec)
    written = {
        mount.source: index
        for index, mount in reversed([*enumerate(spec.mounts)])
        if isinstance(mount, VolumeMount) and not mount.read_only
    }
    return claims + [
        ResourceClaim(
            volume_name(name), f"volume {name}", name in exclusive, ("spec", "mounts", at)
        )
        for name, at in sorted((written | exclusive).items(), key=lambda item: item[1])
    ]
