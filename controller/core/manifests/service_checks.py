"""Checks of one Service beyond its schema.

An explicit choice that cannot work is a problem with a remedy, never a silent fallback. Checks over
several documents are in ``check_together``. The policy is checked elsewhere.

Checks of ``spec.shares``: settings of a namespace that the containers don't have, and the other service.

Checks of ``metadata.moved``: the earlier names of a service.

A wrong claim must cost nothing. So the containers of a claimed name stay as they are while the
document that claims the name has errors.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator

from controller.core.manifests import object_checks
from controller.core.manifests.declaration import (
    Declaration,
    Metadata,
    ParsedDocument,
    check_labels,
    valid_name,
)
from controller.core.manifests.validation_errors import FieldProblem
from controller.core.yaml.documents import Document, YamlPath
from controller.model.desired.spec.container import IpcMode, Shares
from controller.model.desired.spec.fields import is_env_name
from controller.model.desired.spec.mounts import BindMount, VolumeMount
from controller.model.desired.spec.network import NetworkMode
from controller.model.desired.spec.service import Boot, Order, RestartPolicy, ServiceSpec
from controller.model.errors import Problem, Severity
from controller.model.names import (
    DEFAULT_NAMESPACE,
    NAMESPACE_MAX,
    SERVICE_NAME_MAX,
    WORKLOADS,
    Key,
    is_dns_label,
)
from controller.model.quantities import format_bytes, format_duration_ms

_SHARES = ("spec", "shares")


def check_shares(spec: ServiceSpec) -> Iterator[FieldProblem]:
    """Yield the problems of one document with shared namespaces."""
    shares = spec.shares
    if spec.observe is not None:
        network = spec.observe.network and "network" in spec.model_fields_set
        for field, is_wrong in (("shares", shares is not None), ("network", network)):
            if is_wrong:
                message = f"spec.{field} beside spec.observe: the namespaces are the host's"
                path: YamlPath = ("spec", field)
                yield FieldProblem(path, "shares.own", message, remedy="remove it", at_key=True)
    if shares is None:
        return
    if not is_dns_label(shares.service, length=SERVICE_NAME_MAX):
        message = f"{json.dumps(shares.service[:80])} is not a valid name of a Service"
        remedy = valid_name(shares.service, SERVICE_NAME_MAX)
        yield FieldProblem((*_SHARES, "service"), "shares.name", message, remedy=remedy)
    if not (shares.network or shares.ipc or shares.pid):
        message = "spec.shares names no namespace"
        remedy = "write network: true, ipc: true or pid: true"
        yield FieldProblem(_SHARES, "shares.nothing", message, remedy=remedy, at_key=True)
    for own_path, namespace in _own_settings(spec, shares):
        yield FieldProblem(
            own_path,
            "shares.own",
            f"{'.'.join(map(str, own_path))} belongs to the namespace {namespace}, which is that of {shares.service}",
            remedy=f"write it in the document of {shares.service}",
            at_key=True,
        )


def _own_settings(spec: ServiceSpec, shares: Shares) -> Iterator[tuple[YamlPath, str]]:
    """Yield the settings of the shared namespaces, with the name of the namespace."""
    check = spec.healthcheck
    if shares.network:
        for field, is_set in (
            ("network", "network" in spec.model_fields_set),
            ("ports", spec.ports),
            ("hostname", spec.hostname),
            ("domainname", spec.domainname),
            ("extraHosts", spec.extra_hosts),
            ("dns", "dns" in spec.model_fields_set),
        ):
            if is_set:
                yield ("spec", field), "network"
        if check is not None and check.probed:
            yield ("spec", "healthcheck", "http" if check.http is not None else "tcp"), "network"
    for name in spec.sysctls:
        of_network = name.startswith("net.")
        if shares.network if of_network else shares.ipc:
            yield ("spec", "sysctls", name), "network" if of_network else "ipc"
    if shares.ipc:
        if spec.ipc is not IpcMode.PRIVATE:
            yield ("spec", "ipc"), "ipc"
        if spec.resources.shm is not None:
            yield ("spec", "resources", "shm"), "ipc"


def check_shared_services(
    services: Iterable[tuple[Declaration, ServiceSpec]], broken: Collection[Key]
) -> Iterator[Problem]:
    """Yield the problems of services that share the namespaces of other services.

    An undeclared service is reported as an undeclared dependency.
    """
    known = {declaration.key: (declaration, spec) for declaration, spec in services}
    for declaration, spec in known.values():
        shares = spec.shares
        if shares is None or declaration.key in broken:
            continue
        found = known.get(Key("Service", declaration.key.namespace, shares.service))
        if found is not None:
            yield from _with_other(declaration, spec, shares, *found)


def _with_other(
    declaration: Declaration,
    spec: ServiceSpec,
    shares: Shares,
    other: Declaration,
    others: ServiceSpec,
) -> Iterator[Problem]:
    name, path = shares.service, (*_SHARES, "service")
    if other.owner != declaration.owner:
        message = f"{name} ({other.place}) has another owner"
        yield declaration.problem(
            path, "shares.owner", message, "share with a service of one owner"
        )
    if others.shares is not None and other.key != declaration.key:
        message = f"{name} ({other.place}) shares the namespaces of {others.shares.service} itself"
        remedy = f"write service: {others.shares.service}"
        yield declaration.problem(path, "shares.chain", message, remedy)
    if shares.ipc and others.ipc is not IpcMode.SHAREABLE:
        message = f"{name} ({other.place}) keeps its IPC to itself"
        remedy = f"write ipc: shareable for {name}"
        yield declaration.problem((*_SHARES, "ipc"), "shares.ipc", message, remedy)
    if spec.replicas > others.replicas > 0:
        message = f"{spec.replicas} replicas can't share with {others.replicas} of {name}"
        remedy = f"write replicas: {others.replicas}, or more replicas of {name}"
        yield declaration.problem(("spec", "replicas"), "shares.replicas", message, remedy)


#: The controller probes all containers of a host, so each probe is limited in frequency and time.
PROBE_INTERVAL_MIN_MS = 1_000
PROBE_TIMEOUT_MAX_MS = 60_000


def check_service(spec: ServiceSpec) -> Iterator[FieldProblem]:
    """Yield the problems of a Service with valid fields."""
    yield from check_labels(("spec", "containerLabels"), spec.container_labels)
    yield from _image(spec)
    yield from _env(spec)
    yield from object_checks.check_ports(spec)
    yield from _mounts(spec)
    yield from object_checks.check_networks(spec)
    yield from check_shares(spec)
    yield from _limits(spec)
    yield from _devices(spec)
    yield from _order(spec)
    yield from _healthcheck(spec)
    yield from _dependencies(spec)
    yield from _boot(spec)


def _image(spec: ServiceSpec) -> Iterator[FieldProblem]:
    last = spec.image.rpartition("/")[2]
    if "@" in last:
        return
    tag = last.partition(":")[2]
    if tag not in {"", "latest"}:
        return
    yield FieldProblem(
        ("spec", "image"),
        "image.latest",
        f"image {spec.image} has no version: whichever image has that name at the first start is run",
        remedy="write a tag other than latest, or a digest",
        severity=Severity.WARNING,
    )


def _env(spec: ServiceSpec) -> Iterator[FieldProblem]:
    for name in spec.env:
        if not is_env_name(name):
            yield FieldProblem(
                ("spec", "env", name),
                "env.name",
                f"{json.dumps(name[:80])} is not a valid name of an environment variable",
                expected="letters, digits, '_', '.' and '-', and no digit first",
                remedy="rename the variable",
                at_key=True,
            )
    for name, variable in spec.secrets_of_env.items():
        yield FieldProblem(
            ("spec", "env", name),
            "env.secret",
            f"{name} shows the value of {variable.secret}/{variable.key} to the engine's users and to "
            "each process in the container",
            remedy="mount the Secret as a file, if the program can read one",
            severity=Severity.WARNING,
            at_key=True,
        )


def _mounts(spec: ServiceSpec) -> Iterator[FieldProblem]:
    targets: dict[str, int] = {}
    for index, mount in enumerate(spec.mounts):
        path: YamlPath = ("spec", "mounts", index)
        if mount.target in targets:
            yield FieldProblem(
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
            yield FieldProblem(
                (*path, "source"),
                "volume.name",
                f"{json.dumps(mount.source[:80])} is not a valid name of a volume",
                expected=f"a name of lower-case letters, digits and '-', at most {SERVICE_NAME_MAX} characters",
                remedy="write type: bind for a path of the host"
                if slash
                else valid_name(mount.source, SERVICE_NAME_MAX),
            )
        if isinstance(mount, BindMount) and not mount.read_only:
            yield FieldProblem(
                path,
                "mount.writable",
                "the bind mount is writable, so the container can change files of the host",
                remedy="set readOnly: true, or use a volume",
                severity=Severity.WARNING,
            )
    if spec.replicas > 1:
        for volume, index in object_checks.exclusive_volumes(spec).items():
            yield FieldProblem(
                ("spec", "mounts", index),
                "volume.exclusive",
                f"volume {volume} can be written to by one replica only, and replicas is {spec.replicas}",
                remedy="set replicas: 1, or readOnly: true, or shared: true if the program can share it",
            )


def _devices(spec: ServiceSpec) -> Iterator[FieldProblem]:
    seen: set[str] = set()
    for index, device in enumerate(spec.devices):
        target = device.target or device.name
        if target in seen:
            yield FieldProblem(
                ("spec", "devices", index),
                "device.duplicate",
                f"device {target} is listed twice",
                remedy="remove one of them",
            )
        seen.add(target)


def _limits(spec: ServiceSpec) -> Iterator[FieldProblem]:
    reservation, memory = spec.resources.memory_reservation, spec.resources.memory
    if reservation is not None and memory is not None and reservation > memory:
        yield FieldProblem(
            ("spec", "resources", "memoryReservation"),
            "memory.reservation",
            "spec.resources.memoryReservation is above spec.resources.memory",
            expected=f"at most {format_bytes(memory)}",
            remedy=f"write at most {format_bytes(memory)}, or raise memory",
        )


def _order(spec: ServiceSpec) -> Iterator[FieldProblem]:
    held = object_checks.exclusive_resources(spec)
    for path, order in (
        (("order",), spec.rollout.order),
        (("rollback", "order"), spec.rollout.rollback.order),
    ):
        if order is not Order.START_FIRST or not held:
            continue
        yield FieldProblem(
            ("spec", "rollout", *path),
            "rollout.order",
            f"StartFirst is impossible: two replicas can't have {held[0]} at the same time",
            remedy="use StopFirst, or leave order out",
        )


def _healthcheck(spec: ServiceSpec) -> Iterator[FieldProblem]:
    check, path = spec.healthcheck, ("spec", "healthcheck")
    if check is None or not check.probed:
        return
    if check.start_interval is not None:
        yield FieldProblem(
            (*path, "startInterval"),
            "healthcheck.start-interval",
            "spec.healthcheck.startInterval is for exec: other checks are made more often anyway "
            "while a container starts",
            remedy="remove it",
            at_key=True,
        )
    kind = "http" if check.http is not None else "tcp"
    if spec.network.mode is NetworkMode.NONE:
        yield FieldProblem(
            (*path, kind),
            "healthcheck.no-network",
            f"a {kind} check is impossible: on network mode none the container has no address",
            remedy="use exec: [...] with a command of the image, or mode isolated",
            at_key=True,
        )
    if check.interval < PROBE_INTERVAL_MIN_MS:
        yield FieldProblem(
            (*path, "interval"),
            "healthcheck.interval",
            f"spec.healthcheck.interval is too small for {kind}",
            expected=f"at least {format_duration_ms(PROBE_INTERVAL_MIN_MS)}",
            remedy=f"write {format_duration_ms(PROBE_INTERVAL_MIN_MS)} or more",
        )
    if check.timeout > PROBE_TIMEOUT_MAX_MS:
        yield FieldProblem(
            (*path, "timeout"),
            "healthcheck.timeout",
            f"spec.healthcheck.timeout is too large for {kind}",
            expected=f"at most {format_duration_ms(PROBE_TIMEOUT_MAX_MS)}",
            remedy=f"write {format_duration_ms(PROBE_TIMEOUT_MAX_MS)} or less",
        )


def _dependencies(spec: ServiceSpec) -> Iterator[FieldProblem]:
    seen: set[str] = set()
    for index, dependency in enumerate(spec.depends_on):
        name, path = dependency.name, ("spec", "dependsOn", index, "name")
        if not is_dns_label(name, length=SERVICE_NAME_MAX):
            message = f"{json.dumps(name[:80])} is not a valid name of a {dependency.kind}"
            remedy = valid_name(name, SERVICE_NAME_MAX)
            yield FieldProblem(path, "dependency.name", message, remedy=remedy)
        elif name in seen:
            message = f"{dependency.kind.lower()} {name} is listed twice"
            remedy = "remove one of them"
            yield FieldProblem(path, "dependency.duplicate", message, remedy=remedy)
        seen.add(name)


def _boot(spec: ServiceSpec) -> Iterator[FieldProblem]:
    if spec.restart.boot is Boot.ORDERED and spec.restart.policy is RestartPolicy.NEVER:
        yield FieldProblem(
            ("spec", "restart", "boot"),
            "restart.boot",
            "restart.boot is Ordered, and with policy Never nothing is started again",
            remedy="write policy: Always or OnFailure, or leave boot out",
        )


MOVABLE = "Service"
_FORM = "NAME or NAMESPACE/NAME"


def check_moved(kind: str, metadata: Metadata) -> Iterator[FieldProblem]:
    """Yield the problems of the earlier names of one document."""
    if metadata.moved and kind != MOVABLE:
        yield FieldProblem(
            ("metadata", "moved"),
            "moved.kind",
            f"a {kind} can't be moved; metadata.moved is for kind {MOVABLE}",
            remedy="remove it",
            at_key=True,
        )
        return
    for index, moved in enumerate(metadata.moved):
        source = _key_of(moved.source, kind, metadata.namespace)
        if source is None:
            yield FieldProblem(
                _path(index),
                "moved.form",
                f"{json.dumps(moved.source[:80])} is no earlier name of a service",
                expected=_FORM,
                remedy="write the name that the document had before",
            )
        elif source.namespace != metadata.namespace:
            yield FieldProblem(
                _path(index),
                "moved.namespace",
                f"a service can't leave its namespace {source.namespace}",
                remedy="remove this earlier name; take the data along with trimtab volume dump and restore",
            )


def moved_of(document: Document, key: Key | None) -> tuple[Key, ...]:
    """Return the valid earlier keys in a document, also in one with errors."""
    match document.value:
        case {"metadata": {"moved": list(entries)}} if key is not None and key.kind == MOVABLE:
            texts = [e.get("from") for e in entries if isinstance(e, dict)]
        case _:
            return ()
    namespace = key.namespace
    keys = (_key_of(text, MOVABLE, namespace) for text in texts if isinstance(text, str))
    return tuple(dict.fromkeys(each for each in keys if each is not None))


def _key_of(text: str, kind: str, namespace: str) -> Key | None:
    head, slash, name = text.rpartition("/")
    place = head if slash else namespace or DEFAULT_NAMESPACE
    if not is_dns_label(name, length=SERVICE_NAME_MAX):
        return None
    return Key(kind, place, name) if is_dns_label(place, length=NAMESPACE_MAX) else None


def _path(index: int) -> YamlPath:
    return ("metadata", "moved", index, "from")


def check_moves(declarations: Iterable[Declaration]) -> Iterator[Problem]:
    """Yield a problem for each impossible earlier name."""
    declarations = tuple(declarations)
    by_key = {declaration.key: declaration for declaration in declarations}
    claims: dict[Key, list[Declaration]] = {}
    for declaration in declarations:
        for source in declaration.moved:
            claims.setdefault(source, []).append(declaration)
    for declaration in declarations:
        for index, source in enumerate(declaration.moved):
            fault = _fault(declaration, source, by_key, claims[source])
            if fault is not None:
                yield declaration.problem(_path(index), *fault)


def _fault(
    declaration: Declaration,
    source: Key,
    by_key: dict[Key, Declaration],
    claimants: list[Declaration],
) -> tuple[str, str, str] | None:
    """Return code, message and remedy of a wrong claim."""
    key = declaration.key
    if source == key:
        return "moved.self", f"{key} is its own earlier name", "write the name that it had before"
    there = by_key.get(source)
    if there is not None and key in _origins(there, by_key):
        message = f"{key} was {source}, and {source} ({there.place}) was {key}: a circle"
        return "moved.cycle", message, "keep the claim of the service that is new"
    if there is not None:
        message = f"{source} is still declared in {there.place}"
        return "moved.declared", message, "remove that document, or this earlier name"
    others = [by_key[k] for kind in WORKLOADS if (k := source._replace(kind=kind)) in by_key]
    if others:
        message = f"{others[0].key} ({others[0].place}) has this name, and a move keeps the kind"
        return "moved.kind", message, "remove this earlier name"
    rivals = [other.place for other in claimants if other is not declaration]
    if rivals:
        message = f"{source} is also claimed in {', '.join(rivals[:5])}"
        return "moved.claimed", message, "keep the claim of the service that goes on"
    return None


def _origins(declaration: Declaration, by_key: dict[Key, Declaration]) -> set[Key]:
    """Return all earlier keys of a declaration, and of the declarations that have these keys."""
    found: set[Key] = set()
    frontier = [declaration]
    while frontier:
        for key in frontier.pop().moved:
            if key not in found:
                found.add(key)
                frontier += [by_key[key]] if key in by_key else []
    return found


def unmoved(readings: Iterable[ParsedDocument], blind_keys: Collection[Key]) -> set[Key]:
    """Return the earlier keys of services whose documents have errors.

    Their containers stay as they are, unless another document declares the key.
    """
    readings = tuple(readings)
    declared = {r.declaration.key for r in readings if r.declaration is not None}
    claimed = {
        key
        for reading in readings
        for key in reading.moved
        if reading.declaration is None or reading.declaration.key in blind_keys
    }
    return claimed - declared
