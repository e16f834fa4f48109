"""Checks of one Service beyond its schema.

An explicit choice that cannot work is a problem with a remedy, never a silent fallback. Checks over
several documents are in ``check_together``. The policy is checked elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from controller.core.manifests.checks.claims import exclusive_resources, exclusive_volumes
from controller.core.manifests.checks.metadata import check_labels, valid_name
from controller.core.manifests.checks.networks import check_networks, check_ports
from controller.core.manifests.checks.sharing import check_shares
from controller.core.manifests.validation_errors import problem_at
from controller.core.yaml.documents import Document, YamlPath
from controller.model.desired.spec.fields import is_env_name
from controller.model.desired.spec.mounts import BindMount, VolumeMount
from controller.model.desired.spec.network import NetworkMode
from controller.model.desired.spec.rollout import Boot, Order, RestartPolicy
from controller.model.desired.spec.service import ServiceSpec
from controller.model.errors import Problem, Severity
from controller.model.names import SERVICE_NAME_MAX, is_dns_label
from controller.model.quantities import format_bytes, format_duration_ms

#: The controller probes all containers of a host, so each probe is limited in frequency and time.
PROBE_INTERVAL_MIN_MS = 1_000
PROBE_TIMEOUT_MAX_MS = 60_000


def check_service(document: Document, spec: ServiceSpec) -> Iterator[Problem]:
    """Yield the problems of a Service with valid fields."""
    yield from check_labels(document, ("spec", "containerLabels"), spec.container_labels)
    yield from _image(document, spec)
    yield from _env(document, spec)
    yield from check_ports(document, spec)
    yield from _mounts(document, spec)
    yield from check_networks(document, spec)
    yield from check_shares(document, spec)
    yield from _limits(document, spec)
    yield from _devices(document, spec)
    yield from _order(document, spec)
    yield from _healthcheck(document, spec)
    yield from _dependencies(document, spec)
    yield from _boot(document, spec)


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
    for name, variable in spec.secrets_of_env.items():
        yield problem_at(
            document,
            ("spec", "env", name),
            "env.secret",
            f"{name} shows the value of {variable.secret}/{variable.key} to the engine's users and to "
            "each process in the container",
            remedy="mount the Secret as a file, if the program can read one",
            severity=Severity.WARNING,
            at_key=True,
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


def _devices(document: Document, spec: ServiceSpec) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, device in enumerate(spec.devices):
        target = device.target or device.name
        if target in seen:
            yield problem_at(
                document,
                ("spec", "devices", index),
                "device.duplicate",
                f"device {target} is listed twice",
                remedy="remove one of them",
            )
        seen.add(target)


def _limits(document: Document, spec: ServiceSpec) -> Iterator[Problem]:
    reservation, memory = spec.resources.memory_reservation, spec.resources.memory
    if reservation is not None and memory is not None and reservation > memory:
        yield problem_at(
            document,
            ("spec", "resources", "memoryReservation"),
            "memory.reservation",
            "spec.resources.memoryReservation is above spec.resources.memory",
            expected=f"at most {format_bytes(memory)}",
            remedy=f"write at most {format_bytes(memory)}, or raise memory",
        )


def _order(document: Document, spec: ServiceSpec) -> Iterator[Problem]:
    held = exclusive_resources(spec)
    for path, order in (
        (("order",), spec.rollout.order),
        (("rollback", "order"), spec.rollout.rollback.order),
    ):
        if order is not Order.START_FIRST or not held:
            continue
        yield problem_at(
            document,
            ("spec", "rollout", *path),
            "rollout.order",
            f"StartFirst is impossible: two replicas can't have {held[0]} at the same time",
            remedy="use StopFirst, or leave order out",
        )


def _healthcheck(document: Document, spec: ServiceSpec) -> Iterator[Problem]:
    check, path = spec.healthcheck, ("spec", "healthcheck")
    if check is None or not check.probed:
        return
    if check.start_interval is not None:
        yield problem_at(
            document,
            (*path, "startInterval"),
            "healthcheck.start-interval",
            "spec.healthcheck.startInterval is for exec: other checks are made more often anyway "
            "while a container starts",
            remedy="remove it",
            at_key=True,
        )
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


def _boot(document: Document, spec: ServiceSpec) -> Iterator[Problem]:
    if spec.restart.boot is Boot.ORDERED and spec.restart.policy is RestartPolicy.NEVER:
        yield problem_at(
            document,
            ("spec", "restart", "boot"),
            "restart.boot",
            "restart.boot is Ordered, and with policy Never nothing is started again",
            remedy="write policy: Always or OnFailure, or leave boot out",
        )
