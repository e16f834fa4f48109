"""Checks of networks and volumes: names on the engine, and what only one replica or service can hold.

Resources that only one replica or service can hold: host ports and written volumes.

Names on the engine of declared volumes and networks: ``engineName``, and who uses it.

Checks of the ports and networks of a Service.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from controller.core.manifests.declaration import Declaration, valid_name
from controller.core.manifests.validation_errors import FieldProblem
from controller.core.yaml.documents import YamlPath
from controller.model.desired.desired import BoundName, Service
from controller.model.desired.spec.mounts import VolumeMount, VolumeSpec
from controller.model.desired.spec.network import NetworkMode, NetworkSpec, Port, SinglePort
from controller.model.desired.spec.service import ServiceSpec
from controller.model.errors import Problem
from controller.model.names import SERVICE_NAME_MAX, Key, is_dns_label, qualified
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


_PATH: YamlPath = ("spec", "engineName")


def _engine_name(declaration: Declaration) -> str:
    """Return the engine's name of a declared volume or network, '' for another kind."""
    spec, key = declaration.spec, declaration.key
    if not isinstance(spec, VolumeSpec | NetworkSpec):
        return ""
    return spec.engine_name or qualified(key.namespace, key.name)


def bound_documents(
    declarations: Iterable[Declaration], blind_keys: Collection[Key]
) -> dict[Key, BoundName]:
    """Return the engine's names of the sound documents with an ``engineName``."""
    return {
        each.key: BoundName(
            "Network" if isinstance(each.spec, NetworkSpec) else "Volume",
            each.key.name,
            each.spec.engine_name,
            has_way_out=isinstance(each.spec, NetworkSpec) and not each.spec.internal,
        )
        for each in declarations
        if isinstance(each.spec, VolumeSpec | NetworkSpec)
        and each.spec.engine_name is not None
        and each.key not in blind_keys
    }


def volume_names(namespace: str, bound: Mapping[Key, BoundName]) -> Callable[[str], str]:
    """Return a function from the name of a volume of the namespace to the engine's name."""

    def engine_name(name: str) -> str:
        found = bound.get(Key("Volume", namespace, name))
        return qualified(namespace, name) if found is None else found.engine_name

    return engine_name


def bound_names(service: Service, bound: Mapping[Key, BoundName]) -> tuple[BoundName, ...]:
    """Return the names of *bound* that a service mounts or joins."""
    namespace, spec = service.key.namespace, service.spec
    volumes = {m.source for m in spec.mounts if isinstance(m, VolumeMount)}
    networks = {each.name for each in spec.network.attach}
    used = [Key("Network", namespace, name) for name in sorted(networks)]
    used += [Key("Volume", namespace, name) for name in sorted(volumes)]
    return tuple(bound[key] for key in used if key in bound)


def check_engine_names(declarations: Iterable[Declaration]) -> Iterator[Problem]:
    """Yield a problem for each document of a shared volume or network of the engine.

    An adopted volume can't be released: the controller never removes data that others made.
    """
    groups: dict[tuple[str, str], list[Declaration]] = {}
    for each in declarations:
        if isinstance(each.spec, VolumeSpec) and each.spec.engine_name and not each.spec.retain:
            yield each.problem(
                ("spec", "retain"),
                "volume.retain",
                f"{each.key} is the adopted volume {each.spec.engine_name}, which trimtab never removes",
                "remove retain; an operator removes the volume with `trimtab volume remove`",
            )
        if name := _engine_name(each):
            groups.setdefault((each.key.kind, name), []).append(each)
    for (kind, name), group in groups.items():
        if len({each.key for each in group}) < 2:
            continue
        for each in group:
            other = next(o for o in group if o.key != each.key)
            bound = isinstance(each.spec, VolumeSpec | NetworkSpec) and each.spec.engine_name
            yield each.problem(
                _PATH if bound else ("metadata", "name"),
                "engine-name.duplicate",
                f"the engine's {kind.lower()} {name} is also that of {other.key} ({other.place})",
                "let one document name it; until then nothing is changed for either",
            )


def check_volume_mounts(
    services: Iterable[tuple[Declaration, ServiceSpec]], broken: Collection[Key]
) -> Iterator[Problem]:
    """Yield the mounts of volumes whose documents have errors.

    The engine's name of such a volume is unknown: another name would be an empty volume.
    """
    for service, spec in services:
        for index, mount in enumerate(spec.mounts):
            if not isinstance(mount, VolumeMount):
                continue
            key = Key("Volume", service.key.namespace, mount.source)
            if key in broken:
                path: YamlPath = ("spec", "mounts", index, "source")
                message, remedy = f"the document of {key} has errors", "correct that document"
                yield service.problem(path, "volume.broken", message, remedy)


def check_ports(spec: ServiceSpec) -> Iterator[FieldProblem]:
    """Yield the problems of ports: twice in the list, without a network, or with several replicas."""
    if spec.ports and spec.network.mode is NetworkMode.NONE:
        yield FieldProblem(
            ("spec", "ports"),
            "port.no-network",
            "a container on network mode none can't have ports",
            remedy="use mode isolated, or remove the ports",
            at_key=True,
        )
    seen: set[SinglePort] = set()
    for index, entry in enumerate(spec.ports):
        path: YamlPath = ("spec", "ports", index)
        ports = [_identity(port) for port in entry.each]
        if twice := [port for port in ports if port in seen]:
            message = f"port {twice[0].container}/{entry.protocol} is listed twice"
            yield FieldProblem(path, "port.duplicate", message, remedy="remove one of them")
        seen.update(ports)
        if entry.host is not None and spec.replicas > 1:
            yield _replicas((*path, "host"), entry, spec.replicas)


def _identity(port: SinglePort) -> SinglePort:
    """Return a port without its address, if the address has no effect."""
    return port if port.host else SinglePort(port.container, None, "", port.protocol)


def _replicas(path: YamlPath, entry: Port, replicas: int) -> FieldProblem:
    what = "host port" if isinstance(entry.host, int) else "host ports"
    return FieldProblem(
        path,
        "port.replicas",
        f"{what} {entry.host} can belong to one replica only, and replicas is {replicas}",
        remedy="set replicas: 1, or publish a single service in front of this one",
    )


def names_of(spec: ServiceSpec) -> Iterator[tuple[str, YamlPath]]:
    """Yield the names that a service's containers answer to besides the service's own name."""
    network: YamlPath = ("spec", "network")
    if spec.hostname is not None:
        yield spec.hostname, ("spec", "hostname")
    for index, alias in enumerate(spec.network.aliases):
        yield alias, (*network, "aliases", index)
    for number, attached in enumerate(spec.network.attach):
        for index, alias in enumerate(attached.aliases):
            yield alias, (*network, "attach", number, "aliases", index)


def check_networks(spec: ServiceSpec) -> Iterator[FieldProblem]:
    """Yield the problems of a network mode with the names and the attached networks."""
    path: YamlPath = ("spec", "network", "attach")
    yield from _check_mode(spec)
    seen: set[str] = set()
    for index, attached in enumerate(spec.network.attach):
        name = attached.name
        if "/" in name:
            message = "attaching to a network of another namespace is not supported yet"
            remedy = "name a Network of this namespace, without a slash"
            yield FieldProblem((*path, index), "unsupported", message, remedy=remedy)
        elif not is_dns_label(name, length=SERVICE_NAME_MAX):
            message = f"{json.dumps(name[:80])} is not a valid name of a Network"
            remedy = valid_name(name, SERVICE_NAME_MAX)
            yield FieldProblem((*path, index), "network.name", message, remedy=remedy)
        elif name in seen:
            message, remedy = f"network {name} is listed twice", "remove one of them"
            yield FieldProblem((*path, index), "network.duplicate", message, remedy=remedy)
        if attached.address and spec.replicas > 1:
            yield FieldProblem(
                (*path, index, "address"),
                "address.replicas",
                f"{attached.address} can belong to one replica only, and replicas is {spec.replicas}",
                remedy="set replicas: 1, or leave the address out and use the service's name",
            )
        seen.add(name)


def _check_mode(spec: ServiceSpec) -> Iterator[FieldProblem]:
    network, path = spec.network, ("spec", "network")
    if network.mode is NetworkMode.NONE:
        if network.attach:
            yield FieldProblem(
                (*path, "attach"),
                "network.none",
                "a container on network mode none can't be attached to other networks",
                remedy="use mode isolated, or remove attach",
                at_key=True,
            )
        if network.aliases:
            yield FieldProblem(
                (*path, "aliases"),
                "network.none",
                "a container on network mode none has no names on networks",
                remedy="use mode isolated, or remove aliases",
                at_key=True,
            )
    if network.mode is NetworkMode.DECLARED:
        if not network.attach:
            yield FieldProblem(
                (*path, "mode"),
                "network.nothing-declared",
                "mode declared joins the networks in attach only, and attach is empty",
                remedy="write attach: [NAME] with a declared Network, or mode: none",
            )
        if network.aliases:
            yield FieldProblem(
                (*path, "aliases"),
                "network.nothing-implied",
                "mode declared implies no network on which aliases could resolve",
                remedy="write the names at a network: attach: [{name: NETWORK, aliases: [NAME]}]",
                at_key=True,
            )
