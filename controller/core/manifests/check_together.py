"""Declarations to the desired state: checks over all documents together.

If two documents claim the same thing, neither takes effect. A person must decide between them.
Until then running containers stay unchanged, because both keys are blind.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from typing import assert_never, cast

from controller.core.encoding.json_values import digest, only_set
from controller.core.files import mounts
from controller.core.files.content import check_config, content_id, files_of
from controller.core.manifests import job_checks, object_checks
from controller.core.manifests.declaration import (
    Declaration,
    FolderReading,
    ParsedDocument,
    ResourceSpec,
)
from controller.core.manifests.named_files import check_secret, declared_secret, source_of
from controller.core.manifests.named_files import names_of as secret_names
from controller.core.manifests.object_checks import (
    ResourceClaim,
    claims_of,
    find_conflicts,
    names_of,
)
from controller.core.manifests.parse import SOURCE_KIND, read_text
from controller.core.manifests.revision_hash import revision_of, spec_digest
from controller.core.manifests.service_checks import check_moves, check_shared_services, unmoved
from controller.core.yaml.documents import YamlPath
from controller.model.desired.desired import (
    BoundName,
    Config,
    Desired,
    GitSource,
    Network,
    Notification,
    Release,
    Secret,
    Service,
    SourceIdentity,
    Volume,
)
from controller.model.desired.spec.mounts import ConfigSpec, SecretSpec, VolumeSpec
from controller.model.desired.spec.network import NetworkSpec
from controller.model.desired.spec.notification import NotificationSpec
from controller.model.desired.spec.service import JobSpec, ReleaseSpec, ServiceSpec
from controller.model.errors import Problem, Severity
from controller.model.names import DEFAULT_NAMESPACE, SERVICE_NAME_MAX, Key, is_dns_label
from controller.model.observed import HostPort

#: Names of the engine's own networks and of the implied networks of a namespace.
RESERVED_NETWORKS = ("bridge", "host", "none", "default", "ingress")
RESERVED_NETWORK_PREFIX = "platform-"


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
    found = [*problems]
    blind = blind or any(p.severity is Severity.ERROR and p.key is None for p in found)
    blind_keys = {r.key for r in readings if r.declaration is None and r.key is not None}
    found += [problem for reading in readings for problem in reading.problems]
    blind = blind or any(reading.blind for reading in readings)
    unread = frozenset(r.blind_namespace for r in readings if r.blind_namespace)
    declarations = [r.declaration for r in readings if r.declaration is not None]
    sources = [d for d in declarations if d.key.kind == SOURCE_KIND]
    services = [d for d in declarations if isinstance(d.spec, ServiceSpec)]
    partials = [
        r.partial
        for r in readings
        if r.partial is not None and r.key is not None and isinstance(r.partial.spec, ServiceSpec)
    ]

    def add(problems: Iterable[Problem]) -> None:
        new = [*problems]
        found.extend(new)
        blind_keys.update(p.key for p in new if p.key and p.severity is Severity.ERROR)

    # In this order: later checks leave out the keys that earlier ones blind.
    add(_check_doubles(declarations, blind_keys))
    add(job_checks.check_shared_names(services))
    add(_check_networks(declarations))
    add(object_checks.check_engine_names(declarations))
    add(_check_sources(sources))
    bound = object_checks.bound_documents(declarations, blind_keys)
    add(_check_claims(services, bound))
    add(check_moves(declarations))
    add(_check_names(services))
    add(_check_attach([*services, *partials], declarations, blind_keys))
    configs = [(d, d.spec) for d in declarations if isinstance(d.spec, ConfigSpec)]
    add(problem for config, spec in configs for problem in check_config(config, spec))
    secrets = [(d, d.spec) for d in declarations if isinstance(d.spec, SecretSpec)]
    add(problem for secret, spec in secrets for problem in check_secret(secret, spec))
    known = _known_contents(configs, blind_keys) | _known_secrets(secrets, blind_keys)
    mounting = [(d, job_checks.service_spec(d)) for d in [*services, *partials]]
    add(object_checks.check_volume_mounts(mounting, blind_keys))
    add(check_shared_services(mounting[: len(services)], blind_keys))
    add(mounts.check_mounts(mounting, known, blind_keys))
    # Of two documents with one key, either one will do: both are broken.
    by_key = {declaration.key: declaration for declaration in services}
    known_keys, whole = by_key.keys() | blind_keys, [] if blind else partials
    whole = [each for each in whole if each.key.namespace not in unread]
    undeclared = job_checks.find_undeclared(whole, known=known_keys)
    flaws = job_checks.find_flaws(by_key, broken=frozenset(blind_keys), blind=blind, unread=unread)
    add([*flaws, *undeclared])
    blind_keys |= unmoved(readings, blind_keys)
    sound = [d for d in declarations if d.key not in blind_keys]
    members: dict[Key, list[Key]] = {}
    for reading in readings:
        if reading.release is not None and reading.declaration is not None:
            members.setdefault(reading.release, []).append(reading.declaration.key)
    state = Desired(
        problems=tuple(
            sorted(dict.fromkeys(found), key=lambda p: (p.file, p.line, p.column, p.code))
        ),
        blind_keys=frozenset(blind_keys),
        blind=blind,
        blind_namespaces=unread,
        identity=identity,
        sources=_git_sources([d for d in sound if d.key.kind == SOURCE_KIND]),
    )
    own = [d for d in sound if d.key.kind != SOURCE_KIND]
    return _with_resources(state, own, members, known, bound)


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


def _known_contents(
    configs: Iterable[tuple[Declaration, ConfigSpec]], blind_keys: Collection[Key]
) -> dict[Key, mounts.KnownContent]:
    """Return the contents of the sound Configs."""
    known = {}
    for config, spec in configs:
        if config.key not in blind_keys:
            files = files_of(config, spec)
            known[config.key] = mounts.KnownContent(
                config.owner, content_id(files), frozenset(files)
            )
    return known


def _known_secrets(
    secrets: Iterable[tuple[Declaration, SecretSpec]], blind_keys: Collection[Key]
) -> dict[Key, mounts.KnownContent]:
    """Return the names of the sound Secrets' files. Their contents are known to the broker alone."""
    return {
        secret.key: mounts.KnownContent(secret.owner, "", secret_names(source_of(secret, spec)))
        for secret, spec in secrets
        if secret.key not in blind_keys
    }


def _with_references(
    service: Service, known: Mapping[Key, mounts.KnownContent], bound: Mapping[Key, BoundName]
) -> Service:
    """Return a service with the contents and the engine's names to which its document refers.

    Both are a part of the revision.
    """
    names = object_checks.bound_names(service, bound)
    if not names and not mounts.has_files(service.spec):
        return service
    deliveries = mounts.deliveries_of(service.spec, service.key.namespace, known)
    contents = mounts.revision_contents(deliveries, names)
    revision = revision_of(service.owner, service.key, service.spec, contents)
    return replace(service, revision=revision, deliveries=deliveries, bound_names=names)


def _with_resources(
    state: Desired,
    sound: list[Declaration],
    members: Mapping[Key, list[Key]],
    known: Mapping[Key, mounts.KnownContent],
    bound: Mapping[Key, BoundName],
) -> Desired:
    services: list[Service] = []
    jobs: list[Service] = []
    networks: list[Network] = []
    volumes: list[Volume] = []
    configs: list[Config] = []
    secrets: list[Secret] = []
    releases: list[Release] = []
    notifications: list[Notification] = []
    for declaration in sorted(sound, key=lambda d: d.key):
        key, owner, source = declaration.key, declaration.owner, declaration.source
        resource = cast("ResourceSpec", declaration.spec)
        match resource:
            case ServiceSpec() as spec:
                revision, labels = declaration.revision, declaration.labels
                moved = declaration.moved
                service = Service(key, owner, spec, revision, source, labels, moved=moved)
                workloads = jobs if isinstance(spec, JobSpec) else services
                workloads.append(_with_references(service, known, bound))
            case NetworkSpec() as spec:
                networks.append(Network(key, owner, spec, source))
            case VolumeSpec() as spec:
                volumes.append(Volume(key, owner, spec, source))
            case ConfigSpec() as spec:
                files = tuple(sorted(files_of(declaration, spec).items()))
                configs.append(Config(key, owner, spec, source, known[key].content, files))
            case SecretSpec() as spec:
                secrets.append(declared_secret(declaration, spec))
            case ReleaseSpec() as spec:
                rendered = tuple(sorted(members.get(key, ())))
                releases.append(Release(key, owner, spec.chart, rendered, source))
            case NotificationSpec() as spec:
                notifications.append(Notification(key, owner, spec, source))
            case _:
                assert_never(resource)
    return replace(
        state,
        services=tuple(services),
        jobs=tuple(jobs),
        networks=tuple(networks),
        volumes=tuple(volumes),
        configs=tuple(configs),
        secrets=tuple(secrets),
        releases=tuple(releases),
        notifications=tuple(notifications),
        digest=desired_digest(services, networks, volumes, jobs=jobs),
    )


def desired_digest(
    services: Iterable[Service],
    networks: Iterable[Network],
    volumes: Iterable[Volume],
    *,
    jobs: Iterable[Service] = (),
    suspended: frozenset[Key] = frozenset(),
) -> str:
    """Return the SHA-256, in hex, of the desired resources, without places and problems."""
    return digest(
        {
            "services": [
                {
                    "key": str(one.key),
                    "revision": one.revision,
                    "limits": only_set(**asdict(one.limits)),
                    "labels": dict(one.labels),
                    "state": one.spec.state.value,
                    "replicas": one.spec.replicas,
                    "pullPolicy": one.spec.pull_policy.value,
                    "order": one.spec.rollout.order.value if one.spec.rollout.order else "",
                    **({"suspended": True} if one.key in suspended else {}),
                    "dependsOn": [[d.name, d.condition.value] for d in one.spec.depends_on],
                    **_stable_contents(one),
                }
                for one in services
            ],
            "networks": [
                {
                    "key": str(one.key),
                    "owner": one.owner,
                    "internal": one.spec.internal,
                    **_network_terms(one.spec),
                    **_engine_name(one),
                }
                for one in networks
            ],
            "volumes": [
                {
                    "key": str(one.key),
                    "owner": one.owner,
                    **({"size": one.spec.size} if one.spec.size else {}),
                    **(
                        {"remote": one.spec.model_dump(mode="json", by_alias=True)["remote"]}
                        if one.spec.remote
                        else {}
                    ),
                    **_engine_name(one),
                }
                for one in volumes
            ],
            **only_set(
                jobs=[
                    {"key": str(job.key), "revision": job.revision, "spec": spec_digest(job)}
                    for job in jobs
                ]
            ),
        }
    )


def _stable_contents(service: Service) -> dict[str, object]:
    """Return the contents that change without a new revision."""
    stable = [[each.name, each.content] for each in service.deliveries if each.is_stable]
    return {"files": stable} if stable else {}


def _network_terms(spec: NetworkSpec) -> dict[str, object]:
    shown = {"internal", "engine_name"}
    return spec.model_dump(mode="json", by_alias=True, exclude_none=True, exclude=shown)


def _engine_name(one: Network | Volume) -> dict[str, object]:
    return {"engineName": one.spec.engine_name} if one.spec.engine_name else {}


def _check_doubles(
    declarations: list[Declaration], blind_keys: Collection[Key]
) -> Iterator[Problem]:
    groups: dict[Key, list[Declaration]] = {}
    for declaration in declarations:
        groups.setdefault(declaration.key, []).append(declaration)
    for key, group in groups.items():
        if len(group) == 1 and key not in blind_keys:
            continue
        for declaration in group:
            others = [other.place for other in group[:6] if other is not declaration][:5]
            where = ", ".join(others) if others else "a document that has errors"
            yield declaration.problem(
                ("metadata", "name"),
                "document.duplicate",
                f"{key} is also declared in {where}",
                "remove one of them; until then nothing is changed for either",
            )


def _check_networks(declarations: list[Declaration]) -> Iterator[Problem]:
    for declaration in declarations:
        key = declaration.key
        plain = key.namespace == DEFAULT_NAMESPACE and key.name in RESERVED_NETWORKS
        stem = key.name if key.namespace == DEFAULT_NAMESPACE else key.namespace
        reserved = plain or stem.startswith(RESERVED_NETWORK_PREFIX)
        if not isinstance(declaration.spec, NetworkSpec):
            continue
        named = declaration.spec.engine_name
        if named is not None and is_reserved_network(named):
            yield declaration.problem(
                ("spec", "engineName"),
                "network.reserved",
                f"{json.dumps(named)} is a network of the engine, or of every namespace",
                "name a network that somebody made",
            )
        if reserved:
            yield declaration.problem(
                ("metadata", "name"),
                "network.reserved",
                f"the name {json.dumps(key.name)} is reserved in namespace {json.dumps(key.namespace)}:"
                " the engine or every namespace has a network of that name",
                "choose another name",
            )


def is_reserved_network(engine_name: str) -> bool:
    """Return True if a network of the engine is its own, or implied by a namespace."""
    return engine_name in RESERVED_NETWORKS or engine_name.startswith(RESERVED_NETWORK_PREFIX)


def _check_sources(sources: list[Declaration]) -> Iterator[Problem]:
    if len(sources) < 2:
        return
    from controller.core.manifests.source_document import sharing_conflicts

    for declaration, path, message in sharing_conflicts(sources):
        remedy = "let one of them list it, or set shared: true on both"
        yield declaration.problem(path, "source.shared", message, remedy)


def _git_sources(sources: list[Declaration]) -> tuple[GitSource, ...]:
    if not sources:
        return ()
    from controller.core.manifests.source_document import git_source

    return tuple(git_source(d) for d in sorted(sources, key=lambda d: d.key))


def _check_claims(services: list[Declaration], bound: Mapping[Key, BoundName]) -> Iterator[Problem]:
    """Yield the host ports and exclusive volumes that two documents, or two ports, claim.

    *bound* has the engine's names of volumes with an ``engineName``.
    """
    claimed: dict[object, list[tuple[Declaration, ResourceClaim]]] = {}
    for declaration in services:
        name_of = object_checks.volume_names(declaration.key.namespace, bound)
        for claim in claims_of(job_checks.service_spec(declaration), name_of):
            claimed.setdefault(claim.group, []).append((declaration, claim))
    found: dict[int, list[tuple[Declaration, ResourceClaim, Declaration]]] = {}
    for claimants in claimed.values():
        for index, first in find_conflicts([claim for _, claim in claimants]):
            (one, claim), (other, _) = claimants[index], claimants[first]
            found.setdefault(id(one), []).append((one, claim, other))
    # By document: the places of its values are found by one look at its text.
    for one, claim, other in (each for conflicts in found.values() for each in conflicts):
        where = "this service" if other is one else f"{other.key} ({other.place})"
        if isinstance(port := claim.resource, HostPort):
            yield one.problem(
                claim.path,
                "port.conflict",
                f"{claim.name}/{port.protocol} on {port.address} is also claimed by {where}",
                "give each its own port or address; until then nothing is changed for either",
            )
        else:
            yield one.problem(
                claim.path,
                "volume.exclusive",
                f"{claim.name} is also written to by {where}",
                "set readOnly: true on one, or shared: true on both if the programs can share it",
            )


def _check_names(services: list[Declaration]) -> Iterator[Problem]:
    """Yield the aliases and host names that are the name of another service of the namespace."""
    known = {declaration.key: declaration for declaration in services}
    for declaration in services:
        for name, path in names_of(job_checks.service_spec(declaration)):
            key = declaration.key._replace(name=name.lower())
            other = known.get(key)
            if other is None or other is declaration:
                continue
            yield declaration.problem(
                path,
                "network.name-of-another",
                f"{json.dumps(name[:80])} is the name of {key} ({other.place})",
                "choose another name: both would get the requests for it",
            )


def _check_attach(
    services: list[Declaration], declarations: list[Declaration], blind_keys: Collection[Key]
) -> Iterator[Problem]:
    networks = {d.key for d in declarations if isinstance(d.spec, NetworkSpec)}
    sound = networks - set(blind_keys)
    known = ", ".join(sorted({key.name for key in sound})[:5])
    for declaration in services:
        for index, attached in enumerate(job_checks.service_spec(declaration).network.attach):
            name = attached.name
            key = Key("Network", declaration.key.namespace, name)
            if key in sound or not is_dns_label(name, length=SERVICE_NAME_MAX):
                continue  # an invalid name is a problem of its document already
            path: YamlPath = ("spec", "network", "attach", index)
            if key in blind_keys:
                message, remedy = f"the document of {key} has errors", "correct that document"
                yield declaration.problem(path, "network.broken", message, remedy)
            else:
                remedy = f"declare a document of kind Network called {name}"
                remedy += f", or use {known}" if known else ""
                message = f"{key} is not declared"
                yield declaration.problem(path, "network.undeclared", message, remedy)
