"""Declarations to the desired state: checks over all documents together.

If two documents claim the same thing, neither takes effect. A person must decide between them.
Until then running containers stay unchanged, because both keys are blind.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import assert_never, cast

from controller.core.encoding.canonical_json import digest
from controller.core.encoding.yaml import YamlPath
from controller.core.manifests.declaration import (
    Declaration,
    FolderReading,
    ParsedDocument,
    ResourceSpec,
)
from controller.core.manifests.dependencies import find_flaws, find_undeclared
from controller.core.manifests.parse import SOURCE_KIND, read_text
from controller.core.manifests.problems import dotted
from controller.core.manifests.validate import exclusive_volumes, overlap
from controller.model.desired.desired import (
    Desired,
    GitSource,
    Network,
    Release,
    Service,
    SourceIdentity,
    Volume,
)
from controller.model.desired.spec import (
    NetworkSpec,
    ReleaseSpec,
    ServiceSpec,
    VolumeMount,
    VolumeSpec,
)
from controller.model.errors import Problem, Severity
from controller.model.names import DEFAULT_NAMESPACE, SERVICE_NAME_MAX, Key, is_dns_label

#: Names of the engine's own networks and of the implied networks of a namespace.
RESERVED_NETWORKS = ("bridge", "host", "none", "default", "ingress")
RESERVED_NETWORK_PREFIX = "platform-"


@dataclass(slots=True)
class _Findings:
    """The problems, and the keys that they blind."""

    problems: list[Problem]
    blind_keys: set[Key] = field(default_factory=set)

    def add(
        self,
        declaration: Declaration,
        path: YamlPath,
        code: str,
        message: str,
        remedy: str = "",
        *,
        severity: Severity = Severity.ERROR,
    ) -> None:
        """Add a problem of a declaration; an error blinds its key."""
        document = declaration.document
        place = document.locate(path)
        if severity is Severity.ERROR:
            self.blind_keys.add(declaration.key)
        self.problems.append(
            Problem(
                code,
                message,
                document.file,
                place.line,
                place.column,
                remedy=remedy,
                severity=severity,
                key=declaration.key,
                field=dotted(path),
            )
        )


def resolve(
    readings: Iterable[ParsedDocument],
    *,
    identity: SourceIdentity = SourceIdentity(path="", present=True),  # noqa: B008 - frozen
    problems: Iterable[Problem] = (),
    blind: bool = False,
) -> Desired:
    """Return the desired state of all documents together.

    *problems* are the problems of reading. An error without a key makes the state blind, as does
    *blind*. The resulting problems are in the order of file and line.
    """
    readings = tuple(readings)
    findings = _Findings([*problems])
    blind = blind or any(p.severity is Severity.ERROR and p.key is None for p in findings.problems)
    for reading in readings:
        findings.problems += reading.problems
        blind = blind or reading.blind
        if reading.declaration is None and reading.key is not None:
            findings.blind_keys.add(reading.key)
    declarations = [r.declaration for r in readings if r.declaration is not None]
    _check_doubles(declarations, findings)
    _check_networks(declarations, findings)
    sources = [d for d in declarations if d.key.kind == SOURCE_KIND]
    _check_sources(sources, findings)
    services = [d for d in declarations if isinstance(d.spec, ServiceSpec)]
    _check_host_ports(services, findings)
    _check_volumes(services, findings)
    partials = [
        r.partial
        for r in readings
        if r.partial is not None and r.key is not None and isinstance(r.partial.spec, ServiceSpec)
    ]
    _check_attach([*services, *partials], declarations, findings)
    _check_dependencies(services, partials, findings, blind=blind)
    sound = [d for d in declarations if d.key not in findings.blind_keys]
    members: dict[Key, list[Key]] = {}
    for reading in readings:
        if reading.release is not None and reading.declaration is not None:
            members.setdefault(reading.release, []).append(reading.declaration.key)
    desired = _build_desired(
        [d for d in sound if d.key.kind != SOURCE_KIND],
        findings,
        members,
        blind=blind,
        identity=identity,
    )
    return replace(desired, sources=_git_sources(sources, findings)) if sources else desired


def desired_from(reading: FolderReading) -> Desired:
    """Return the desired state of one folder."""
    desired = resolve(
        reading.documents,
        identity=reading.identity,
        problems=reading.problems,
        blind=reading.absent,
    )
    if reading.busy is None:
        return desired
    return replace(desired, blind=True, problems=(reading.busy, *desired.problems))


def desired_of(texts: Mapping[str, str]) -> Desired:
    """Return the desired state of the texts of files, by name, without Releases."""
    readings = [reading for file in sorted(texts) for reading in read_text(texts[file], file)]
    count = sum(reading.declaration is not None for reading in readings)
    return resolve(readings, identity=SourceIdentity("texts", present=True, documents=count))


def _build_desired(
    sound: list[Declaration],
    findings: _Findings,
    members: Mapping[Key, list[Key]],
    *,
    blind: bool,
    identity: SourceIdentity,
) -> Desired:
    services: list[Service] = []
    networks: list[Network] = []
    volumes: list[Volume] = []
    releases: list[Release] = []
    for declaration in sorted(sound, key=lambda d: d.key):
        key, owner, source = declaration.key, declaration.owner, declaration.source
        resource = cast("ResourceSpec", declaration.spec)
        match resource:
            case ServiceSpec() as spec:
                revision, labels = declaration.revision, declaration.labels
                services.append(Service(key, owner, spec, revision, source, labels))
            case NetworkSpec() as spec:
                networks.append(Network(key, owner, spec, source))
            case VolumeSpec() as spec:
                volumes.append(Volume(key, owner, spec, source))
            case ReleaseSpec() as spec:
                rendered = tuple(sorted(members.get(key, ())))
                releases.append(Release(key, owner, spec.chart, rendered, source))
            case _:
                assert_never(resource)
    problems = tuple(
        sorted(dict.fromkeys(findings.problems), key=lambda p: (p.file, p.line, p.column, p.code))
    )
    return Desired(
        services=tuple(services),
        networks=tuple(networks),
        volumes=tuple(volumes),
        releases=tuple(releases),
        problems=problems,
        blind_keys=frozenset(findings.blind_keys),
        blind=blind,
        identity=identity,
        digest=desired_digest(services, networks, volumes),
    )


def desired_digest(
    services: Iterable[Service],
    networks: Iterable[Network],
    volumes: Iterable[Volume],
    *,
    suspended: frozenset[Key] = frozenset(),
) -> str:
    """Return the SHA-256, in hex, of the desired resources, without places and problems."""
    return digest(
        {
            "services": [
                {
                    "key": str(one.key),
                    "revision": one.revision,
                    "labels": dict(one.labels),
                    "state": one.spec.state.value,
                    "replicas": one.spec.replicas,
                    "pullPolicy": one.spec.pull_policy.value,
                    "order": one.spec.rollout.order.value if one.spec.rollout.order else "",
                    **({"suspended": True} if one.key in suspended else {}),
                    "dependsOn": [[d.name, d.condition.value] for d in one.spec.depends_on],
                }
                for one in services
            ],
            "networks": [
                {"key": str(one.key), "owner": one.owner, "internal": one.spec.internal}
                for one in networks
            ],
            "volumes": [{"key": str(one.key), "owner": one.owner} for one in volumes],
        }
    )


def _check_doubles(declarations: list[Declaration], findings: _Findings) -> None:
    groups: dict[Key, list[Declaration]] = {}
    for declaration in declarations:
        groups.setdefault(declaration.key, []).append(declaration)
    for key, group in groups.items():
        broken = key in findings.blind_keys
        if len(group) == 1 and not broken:
            continue
        for declaration in group:
            others = [_at(other) for other in group[:6] if other is not declaration][:5]
            where = ", ".join(others) if others else "a document that has errors"
            findings.add(
                declaration,
                ("metadata", "name"),
                "document.duplicate",
                f"{key} is also declared in {where}",
                "remove one of them; until then nothing is changed for either",
            )


def _check_networks(declarations: list[Declaration], findings: _Findings) -> None:
    for declaration in declarations:
        if not isinstance(declaration.spec, NetworkSpec):
            continue
        key = declaration.key
        plain = key.namespace == DEFAULT_NAMESPACE and key.name in RESERVED_NETWORKS
        stem = key.name if key.namespace == DEFAULT_NAMESPACE else key.namespace
        if plain or stem.startswith(RESERVED_NETWORK_PREFIX):
            findings.add(
                declaration,
                ("metadata", "name"),
                "network.reserved",
                f"the name {json.dumps(key.name)} is reserved in namespace {json.dumps(key.namespace)}:"
                " the engine or every namespace has a network of that name",
                "choose another name",
            )


def _check_sources(sources: list[Declaration], findings: _Findings) -> None:
    if len(sources) < 2:
        return
    from controller.core.manifests.source_document import sharing_conflicts

    for declaration, path, message in sharing_conflicts(sources):
        remedy = "let one of them list it, or set shared: true on both"
        findings.add(declaration, path, "source.shared", message, remedy)


def _git_sources(sources: list[Declaration], findings: _Findings) -> tuple[GitSource, ...]:
    from controller.core.manifests.source_document import git_source

    sound = (d for d in sources if d.key not in findings.blind_keys)
    return tuple(git_source(d) for d in sorted(sound, key=lambda d: d.key))


def _check_host_ports(services: list[Declaration], findings: _Findings) -> None:
    claims: dict[tuple[int, str], list[tuple[Declaration, int, str]]] = {}
    for declaration in services:
        assert isinstance(declaration.spec, ServiceSpec), "only Services are passed"
        for index, port in enumerate(declaration.spec.ports):
            if port.host is not None:
                claim = (declaration, index, port.host_ip)
                claims.setdefault((port.host, port.protocol), []).append(claim)
    for (number, protocol), claimants in claims.items():
        for one, index, address in claimants if len(claimants) > 1 else ():
            other = next(
                (
                    (d, i)
                    for d, i, a in claimants
                    if (d is not one or i != index) and overlap(address, a)
                ),
                None,
            )
            if other is None:
                continue
            where = "this service" if other[0] is one else f"{other[0].key} ({_at(other[0])})"
            findings.add(
                one,
                ("spec", "ports", index, "host"),
                "port.conflict",
                f"host port {number}/{protocol} on {address} is also claimed by {where}",
                "give each its own port or address; until then nothing is changed for either",
            )


def _check_volumes(services: list[Declaration], findings: _Findings) -> None:
    writers: dict[tuple[str, str], list[tuple[Declaration, int, bool]]] = {}
    for declaration in services:
        assert isinstance(declaration.spec, ServiceSpec), "only Services are passed"
        exclusive = exclusive_volumes(declaration.spec)
        named: set[str] = set()
        for index, mount in enumerate(declaration.spec.mounts):
            if isinstance(mount, VolumeMount) and not mount.read_only and mount.source not in named:
                named.add(mount.source)
                at = exclusive.get(mount.source, index)
                claim = (declaration, at, mount.source in exclusive)
                writers.setdefault((declaration.key.namespace, mount.source), []).append(claim)
    for (_, volume), claimants in writers.items():
        if len(claimants) < 2 or not any(exclusive for _, _, exclusive in claimants):
            continue
        for one, index, _ in claimants:
            other = next(d for d, _, _ in claimants if d is not one)
            findings.add(
                one,
                ("spec", "mounts", index),
                "volume.exclusive",
                f"volume {volume} is also written to by {other.key} ({_at(other)})",
                "set readOnly: true on one, or shared: true on both if the programs can share it",
            )


def _check_attach(
    services: list[Declaration], declarations: list[Declaration], findings: _Findings
) -> None:
    sound = {d.key for d in declarations if isinstance(d.spec, NetworkSpec)} - findings.blind_keys
    for declaration in services:
        assert isinstance(declaration.spec, ServiceSpec), "only Services are passed"
        for index, name in enumerate(declaration.spec.network.attach):
            key = Key("Network", declaration.key.namespace, name)
            if key in sound or not is_dns_label(name, length=SERVICE_NAME_MAX):
                continue  # an invalid name is a problem of its document already
            broken = key in findings.blind_keys
            findings.add(
                declaration,
                ("spec", "network", "attach", index),
                "network.broken" if broken else "network.undeclared",
                f"the document of {key} has errors" if broken else f"{key} is not declared",
                "correct that document" if broken else _suggestion(name, sound),
            )


def _check_dependencies(
    services: list[Declaration], partials: list[Declaration], findings: _Findings, *, blind: bool
) -> None:
    # Of two documents with one key, either one will do: both are broken.
    by_key = {declaration.key: declaration for declaration in services}
    flaws = list(find_flaws(by_key, broken=frozenset(findings.blind_keys), blind=blind))
    if not blind:
        flaws += find_undeclared(partials, known=by_key.keys() | findings.blind_keys)
    for flaw in flaws:
        findings.add(
            flaw.declaration,
            flaw.path,
            flaw.code,
            flaw.message,
            flaw.remedy,
            severity=flaw.severity,
        )


def _suggestion(name: str, sound: Iterable[Key]) -> str:
    known = ", ".join(_names(sound))
    return f"declare a document of kind Network called {name}" + (
        f", or use {known}" if known else ""
    )


def _names(keys: Iterable[Key]) -> Iterator[str]:
    yield from sorted({key.name for key in keys})[:5]


def _at(declaration: Declaration) -> str:
    return f"{declaration.source.file}:{declaration.source.line}"
