"""Checks of one document beyond its schema: conflicting choices and invalid names.

An explicit choice that cannot work is a problem with a remedy, never a silent fallback. Checks over
several documents are in ``check_together``. The policy is checked elsewhere.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from controller.core.encoding.yaml import Document, YamlPath
from controller.core.manifests.validation_errors import problem_at
from controller.model.desired.spec.fields import is_env_name
from controller.model.desired.spec.mounts import BindMount, VolumeMount
from controller.model.desired.spec.network import NetworkMode
from controller.model.desired.spec.rollout import Order
from controller.model.desired.spec.service import ServiceSpec
from controller.model.errors import Problem, Severity
from controller.model.names import NAMESPACE_MAX, PREFIX, SERVICE_NAME_MAX, is_dns_label, qualified
from controller.model.observed import HostPort
from controller.model.quantities import format_duration_ms

OWNER_MAX = 63
#: The controller probes all containers of a host, so each probe is limited in frequency and time.
PROBE_INTERVAL_MIN_MS = 1_000
PROBE_TIMEOUT_MAX_MS = 60_000
LABEL_KEY_MAX = 128


class HasNames(Protocol):
    """The metadata of a document."""

    @property
    def name(self) -> str: ...
    @property
    def namespace(self) -> str: ...
    @property
    def owner(self) -> str: ...
    @property
    def labels(self) -> dict[str, str]: ...


def valid_name(text: str, length: int) -> str:
    """Return a remedy with the nearest valid name, '' if there is none."""
    plain = re.sub("[^a-z0-9]+", "-", text.lower()).strip("-")[:length].strip("-")
    return f"write {plain}" if plain and plain[0].isalpha() else ""


def check_metadata(document: Document, metadata: HasNames) -> Iterator[Problem]:
    """Yield the problems of names and labels."""
    for field, text, length in (
        ("name", metadata.name, SERVICE_NAME_MAX),
        ("namespace", metadata.namespace, NAMESPACE_MAX),
        ("owner", metadata.owner, OWNER_MAX),
    ):
        if not is_dns_label(text, length=length):
            yield problem_at(
                document,
                ("metadata", field),
                f"{field}.invalid",
                f"metadata.{field} {json.dumps(text[:80])} is not a valid name"
                + (f": it has {len(text)} characters" if len(text) > length else ""),
                expected=f"lower-case letters, digits and '-' inside, at most {length} characters",
                remedy=valid_name(text, length),
            )
    yield from _labels(document, ("metadata", "labels"), metadata.labels)


def check_volume(document: Document, metadata: HasNames) -> Iterator[Problem]:
    """Yield the problems of a Volume's name.

    The engine has a stricter rule for names of volumes than for other names.
    """
    name = qualified(metadata.namespace, metadata.name)
    if len(name) == 1:
        yield problem_at(
            document,
            ("metadata", "name"),
            "volume.name",
            f"metadata.name {json.dumps(name)} is too short for a volume of the engine",
            expected="two characters or more",
            remedy="choose a longer name",
        )


def check_service(document: Document, spec: ServiceSpec) -> Iterator[Problem]:
    """Yield the problems of a Service with valid fields."""
    yield from _labels(document, ("spec", "containerLabels"), spec.container_labels)
    yield from _image(document, spec)
    yield from _env(document, spec)
    yield from _ports(document, spec)
    yield from _mounts(document, spec)
    yield from _network(document, spec)
    yield from _order(document, spec)
    yield from _healthcheck(document, spec)
    yield from _dependencies(document, spec)


def is_reserved(label: str) -> bool:
    """Return True if a label's key has trimtab's prefix, in any case or Unicode spelling."""
    return unicodedata.normalize("NFKC", label).casefold().strip().startswith(PREFIX)


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
    return [claim.name for claim in claims_of("", spec) if claim.exclusive]


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


def claims_of(namespace: str, spec: ServiceSpec) -> list[ResourceClaim]:
    """Return the host ports and the written volumes of a service, each volume once."""
    claims = [
        ResourceClaim(
            port.published, f"host port {port.host}", path=("spec", "ports", index, "host")
        )
        for index, port in enumerate(spec.ports)
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
            qualified(namespace, name), f"volume {name}", name in exclusive, ("spec", "mounts", at)
        )
        for name, at in sorted((written | exclusive).items(), key=lambda item: item[1])
    ]


def _labels(document: Document, path: YamlPath, labels: Mapping[str, str]) -> Iterator[Problem]:
    for key in labels:
        if is_reserved(key):
            yield problem_at(
                document,
                (*path, key),
                "label.reserved",
                f"label {json.dumps(key[:80])} begins with {PREFIX}, which is reserved for trimtab",
                remedy="choose another prefix",
                at_key=True,
            )
        elif len(key) > LABEL_KEY_MAX or not key.isprintable() or not key.isascii():
            yield problem_at(
                document,
                (*path, key),
                "label.invalid",
                f"{json.dumps(key[:80])} is not a valid label key",
                expected=f"printable ASCII, at most {LABEL_KEY_MAX} characters",
                remedy="rename the label",
                at_key=True,
            )


def _image(document: Document, spec: ServiceSpec) -> Iterator[Problem]:
    last = spec.image.rpartition("/")[2]
    if "@" in last:
        return
    tag = last.partition(":")[2]
    if tag not in {"", "latest"}:
        return
    yield problem_at(
        document,
        ("spec", "image"),
        "image.latest",
        f"image {spec.image} has no version: whichever image has that name at the first start is run",
        remedy="write a tag other than latest, or a digest",
        severity=Severity.WARNING,
    )


def _env(document: Document, spec: ServiceSpec) -> Iterator[Problem]:
    for name in spec.env:
        if not is_env_name(name):
            yield problem_at(
                document,
                ("spec", "env", name),
                "env.name",
                f"{json.dumps(name[:80])} is not a valid name of an environment variable",
                expected="letters, digits, '_', '.' and '-', and no digit first",
                remedy="rename the variable",
                at_key=True,
            )


def _ports(document: Document, spec: ServiceSpec) -> Iterator[Problem]:
    if spec.ports and spec.network.mode is NetworkMode.NONE:
        yield problem_at(
            document,
            ("spec", "ports"),
            "port.no-network",
            "a container on network mode none can't have ports",
            remedy="use mode isolated, or remove the ports",
            at_key=True,
        )
    seen: dict[tuple[int, str, int | None, str], int] = {}
    for index, port in enumerate(spec.ports):
        path: YamlPath = ("spec", "ports", index)
        same = (port.container, port.protocol, port.host, port.host_ip if port.host else "")
        if same in seen:
            message = f"port {port.container}/{port.protocol} is listed twice"
            yield problem_at(document, path, "port.duplicate", message, remedy="remove one of them")
        seen[same] = index
        if port.host is not None and spec.replicas > 1:
            yield problem_at(
                document,
                (*path, "host"),
                "port.replicas",
                f"host port {port.host} can belong to one replica only, and replicas is {spec.replicas}",
                remedy="set replicas: 1, or publish a single service in front of this one",
            )


def _mounts(document: Document, spec: ServiceSpec) -> Iterator[Problem]:
    targets: dict[str, int] = {}
    for index, mount in enumerate(spec.mounts):
        path: YamlPath = ("spec", "mounts", index)
        if mount.target in targets:
            yield problem_at(
                document,
                (*path, "target"),
                "mount.duplicate",
                f"two mounts have the target {mount.target}",
                remedy="give each mount a target of its own",
            )
        targets[mount.target] = index
        if isinstance(mount, VolumeMount) and not is_dns_label(
            mount.source, length=SERVICE_NAME_MAX
        ):
            slash = "/" in mount.source
            yield problem_at(
                document,
                (*path, "source"),
                "volume.name",
                f"{json.dumps(mount.source[:80])} is not a valid name of a volume",
                expected=f"a name of lower-case letters, digits and '-', at most {SERVICE_NAME_MAX} characters",
                remedy="write type: bind for a path of the host"
                if slash
                else valid_name(mount.source, SERVICE_NAME_MAX),
            )
        if isinstance(mount, BindMount) and not mount.read_only:
            yield problem_at(
                document,
                path,
                "mount.writable",
                "the bind mount is writable, so the container can change files of the host",
                remedy="set readOnly: true, or use a volume",
                severity=Severity.WARNING,
            )
    if spec.replicas > 1:
        for volume, index in exclusive_volumes(spec).items():
            yield problem_at(
                document,
                ("spec", "mounts", index),
                "volume.exclusive",
                f"volume {volume} can be written to by one replica only, and replicas is {spec.replicas}",
                remedy="set replicas: 1, or readOnly: true, or shared: true if the program can share it",
            )


def _network(document: Document, spec: ServiceSpec) -> Iterator[Problem]:
    path: YamlPath = ("spec", "network", "attach")
    if spec.network.attach and spec.network.mode is NetworkMode.NONE:
        yield problem_at(
            document,
            path,
            "network.none",
            "a container on network mode none can't be attached to other networks",
            remedy="use mode isolated, or remove attach",
            at_key=True,
        )
    seen: set[str] = set()
    for index, name in enumerate(spec.network.attach):
        if "/" in name:
            message = "attaching to a network of another namespace is not supported yet"
            remedy = "name a Network of this namespace, without a slash"
            yield problem_at(document, (*path, index), "unsupported", message, remedy=remedy)
        elif not is_dns_label(name, length=SERVICE_NAME_MAX):
            message = f"{json.dumps(name[:80])} is not a valid name of a Network"
            remedy = valid_name(name, SERVICE_NAME_MAX)
            yield problem_at(document, (*path, index), "network.name", message, remedy=remedy)
        elif name in seen:
            message, remedy = f"network {name} is listed twice", "remove one of them"
            yield problem_at(document, (*path, index), "network.duplicate", message, remedy=remedy)
        seen.add(name)


def _order(document: Document, spec: ServiceSpec) -> Iterator[Problem]:
    if spec.rollout.order is not Order.START_FIRST:
        return
    if held := exclusive_resources(spec):
        yield problem_at(
            document,
            ("spec", "rollout", "order"),
            "rollout.order",
            f"StartFirst is impossible: two replicas can't have {held[0]} at the same time",
            remedy="use StopFirst, or leave order out",
        )


def _healthcheck(document: Document, spec: ServiceSpec) -> Iterator[Problem]:
    check, path = spec.healthcheck, ("spec", "healthcheck")
    if check is None or not check.probed:
        return
    kind = "http" if check.http is not None else "tcp"
    if spec.network.mode is NetworkMode.NONE:
        yield problem_at(
            document,
            (*path, kind),
            "healthcheck.no-network",
            f"a {kind} check is impossible: on network mode none the container has no address",
            remedy="use exec: [...] with a command of the image, or mode isolated",
            at_key=True,
        )
    if check.interval < PROBE_INTERVAL_MIN_MS:
        yield problem_at(
            document,
            (*path, "interval"),
            "healthcheck.interval",
            f"spec.healthcheck.interval is too small for {kind}",
            expected=f"at least {format_duration_ms(PROBE_INTERVAL_MIN_MS)}",
            remedy=f"write {format_duration_ms(PROBE_INTERVAL_MIN_MS)} or more",
        )
    if check.timeout > PROBE_TIMEOUT_MAX_MS:
        yield problem_at(
            document,
            (*path, "timeout"),
            "healthcheck.timeout",
            f"spec.healthcheck.timeout is too large for {kind}",
            expected=f"at most {format_duration_ms(PROBE_TIMEOUT_MAX_MS)}",
            remedy=f"write {format_duration_ms(PROBE_TIMEOUT_MAX_MS)} or less",
        )


def _dependencies(document: Document, spec: ServiceSpec) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, dependency in enumerate(spec.depends_on):
        name, path = dependency.name, ("spec", "dependsOn", index, "name")
        if not is_dns_label(name, length=SERVICE_NAME_MAX):
            message = f"{json.dumps(name[:80])} is not a valid name of a {dependency.kind}"
            remedy = valid_name(name, SERVICE_NAME_MAX)
            yield problem_at(document, path, "dependency.name", message, remedy=remedy)
        elif name in seen:
            message = f"{dependency.kind.lower()} {name} is listed twice"
            remedy = "remove one of them"
            yield problem_at(document, path, "dependency.duplicate", message, remedy=remedy)
        seen.add(name)
