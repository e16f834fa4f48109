"""Files in plans: contents before their containers, and contents changed in place.

Files in a plan: deliver contents before containers need them, and put changed contents in place.

A content that is part of the revision is delivered before the create. A content that changes in
place is delivered while its containers run; then those that ask for it get a signal, once each.

Binding Secrets to their contents: the broker alone knows the content id of a source.

A service with a Secret of unknown content is left unchanged: an unknown content is no reason to
replace a container.

Nobody opens the Secrets of files that are only planned, such as those of a pull request. They are
bound by their sources: a source that the host has opened has the host's content; any other source
has a content of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from controller.core.compose.translation.scope import SECRET_COPY
from controller.core.drift.actions import ContainerHandle
from controller.core.files.mounts import KINDS, revision_contents
from controller.core.manifests.check_together import desired_digest
from controller.core.manifests.revision_hash import revision_of
from controller.model.delivery import Delivery, FileSet, MountedFiles, short_content
from controller.model.desired.desired import Config, Desired, Secret, Service
from controller.model.desired.plan import AnyAction, DeliverFiles
from controller.model.errors import Problem
from controller.model.names import Key
from controller.model.observed import Container, Observed


@dataclass(frozen=True, slots=True)
class FileDeliveries:
    """Contents at the broker, and contents of declared Configs and Secrets."""

    desired: Desired
    observed: Observed
    _declared: dict[Key, Config | Secret] = field(init=False)

    def __post_init__(self) -> None:
        """Index the Configs and Secrets."""
        declared: list[Config | Secret] = [*self.desired.configs, *self.desired.secrets]
        object.__setattr__(self, "_declared", {each.key: each for each in declared})

    def missing(self, service: Service) -> Iterator[DeliverFiles]:
        """Yield the deliveries before a container of the service can be created."""
        for delivery in _once(service.deliveries):
            if not self._is_there(delivery, service):
                config = self._config(delivery, service)
                if config is not None:
                    yield _deliver(delivery, service, config)

    def problem(self, service: Service) -> Problem | None:
        """Return the problem of a content that is lost; None without a lost content."""
        for delivery in service.deliveries:
            there = self._is_there(delivery, service)
            if not there and self._config(delivery, service) is None:
                source, what = service.source, f"{KINDS[delivery.kind]} {delivery.name}"
                return Problem(
                    "files.lost",
                    f"the content {short_content(delivery.content)} of {what}, which this revision "
                    "mounts, is neither declared nor kept",
                    source.file,
                    source.line,
                    remedy=f"declare {what} with that content again, or change the service",
                    key=service.key,
                )
        return None

    def _is_there(self, delivery: Delivery, service: Service) -> bool:
        stored = self.observed.files.get(str(files_of(delivery, service)))
        found = None if stored is None else stored.find(delivery.content)
        if stored is None or found is None or found.owner != service.owner:
            return False
        return not delivery.is_stable or stored.current == delivery.content

    def _config(self, delivery: Delivery, service: Service) -> Config | Secret | None:
        """Return the declared Config or Secret with the content of a delivery."""
        key = Key(KINDS[delivery.kind], service.key.namespace, delivery.name)
        config = self._declared.get(key)
        return config if config is not None and config.content == delivery.content else None


def changed_files(
    service: Service,
    containers: Iterable[Container],
    desired: Desired,
    observed: Observed,
    *,
    made: Collection[tuple[str, str]],
) -> list[AnyAction]:
    """Return the actions for contents that change in running containers.

    The plan has deliveries of *made* (kind, name) already.
    """
    stable = [delivery for delivery in service.deliveries if delivery.is_stable]
    running = [each for each in containers if each.running and _mounted(each, stable)]
    if not running:
        return []
    deliveries = FileDeliveries(desired, observed)
    actions: list[AnyAction] = [
        action
        for action in deliveries.missing(service)
        if (action.kind, action.target) not in made
        and any((d.kind, d.name) == (action.kind, action.target) for d in stable)
    ]
    for container in running:
        mounted = {each.target: each for each in container.files}
        for signal in sorted({d.signal for d in stable if d.signal}):
            late = [d for d in stable if d.signal == signal and _is_late(mounted.get(d.target), d)]
            if late:
                names = ", ".join(sorted({d.name for d in late}))
                cause = f"the content of {names} has changed"
                actions.append(ContainerHandle.of(container).send_signal(signal, cause))
    return actions


def _mounted(container: Container, deliveries: Iterable[Delivery]) -> bool:
    targets = {each.target for each in container.files if each.is_stable}
    return any(delivery.target in targets for delivery in deliveries)


def _is_late(mounted: MountedFiles | None, delivery: Delivery) -> bool:
    """Return True if a container has had no signal for the content of now."""
    if mounted is None or not mounted.is_stable or mounted.name != delivery.name:
        return False
    return mounted.content != delivery.content


def files_of(delivery: Delivery, service: Service) -> FileSet:
    """Return the name under which the broker stores the files."""
    return FileSet(delivery.kind, service.key.namespace, delivery.name)


def _deliver(delivery: Delivery, service: Service, config: Config | Secret) -> DeliverFiles:
    return DeliverFiles(
        object=service.key,
        target=delivery.name,
        cause=f"the content {short_content(delivery.content)} isn't with the broker",
        kind=delivery.kind,
        owner=config.owner,
        content=delivery.content,
        files=config.files if isinstance(config, Config) else (),
        secret=None if isinstance(config, Config) else config.declared,
    )


def _once(deliveries: Iterable[Delivery]) -> Iterator[Delivery]:
    seen: set[tuple[str, str]] = set()
    for delivery in deliveries:
        if (delivery.kind, delivery.name) not in seen:
            seen.add((delivery.kind, delivery.name))
            yield delivery


_SECRET = "secret"  # noqa: S105 — the kind


@dataclass(frozen=True, slots=True)
class SecretFault:
    """Why the content of a Secret isn't known."""

    code: str
    message: str
    remedy: str = ""


#: The content id of each Secret, or why it isn't known.
SecretContents = Mapping[Key, str | SecretFault]
#: Returns the contents of Secrets, as far as a broker knows them.
AskSecrets = Callable[[Iterable[Secret]], SecretContents]
NOT_ASKED = SecretFault(
    "secret.unknown",
    "no broker was asked for the content",
    "run it beside a running instance",
)
NOT_OPENED = SecretFault(
    "secret.unknown",
    "the host of the plan hasn't opened its source",
    "look at 'trimtab status' on the host",
)


def source_of(secret: Secret) -> str:
    """Return the identity of a Secret's source: its key, and the digest of what it declares."""
    return f"{secret.key} {secret.digest}"


@dataclass(frozen=True, slots=True)
class HostSecrets:
    """The Secrets of a host, for a plan of files whose Secrets nobody opens."""

    #: The content id of each declared source (``source_of``); '' for a source that can't be opened.
    contents: Mapping[str, str] = field(default_factory=dict)
    #: The host restores the files of Secrets before the engine starts.
    restored_at_boot: bool = True
    #: The host's revisions, by the revision that a service has with ``contents``. Empty if equal.
    revisions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, desired: Desired, *, restored_at_boot: bool) -> HostSecrets:
        """Return the Secrets of a host's desired state."""
        contents = {source_of(each): each.content for each in desired.secrets}
        return cls(contents, restored_at_boot)

    def bind(self, desired: Desired) -> Desired:
        """Return the desired state of planned files. A source unknown to the host has its own id."""
        contents: dict[Key, str | SecretFault] = {}
        for secret in desired.secrets:
            source = source_of(secret)
            of_source = f"sha256:{hashlib.sha256(source.encode()).hexdigest()}"
            contents[secret.key] = self.contents.get(source, of_source) or NOT_OPENED
        bound = bind_secrets(desired, contents, restored_at_boot=self.restored_at_boot)

        def as_on_host(service: Service) -> Service:
            revision = self.revisions.get(service.revision, service.revision)
            return replace(service, revision=revision)

        return replace(
            bound,
            services=tuple(map(as_on_host, bound.services)),
            jobs=tuple(map(as_on_host, bound.jobs)),
        )


def bind_secrets(
    desired: Desired, contents: SecretContents, *, restored_at_boot: bool = True
) -> Desired:
    """Return the desired state with the contents of its Secrets.

    Services with an unknown Secret become blind keys, with a problem at the Secret. A Secret with a
    known content needs no warning that its file must be copied.
    *restored_at_boot*: the host restores the files of Secrets before the engine starts.
    """
    if not desired.secrets:
        return desired
    known: dict[Key, str] = {}
    problems: list[Problem] = []
    for secret in desired.secrets:
        found = contents.get(secret.key, NOT_ASKED)
        if isinstance(found, SecretFault):
            problems.append(_problem(secret, found))
        else:
            known[secret.key] = found
    services = _all_bound(desired.services, known)
    if not restored_at_boot:
        services = tuple(
            replace(each, has_late_secrets=True) if has_secret_files(each) else each
            for each in services
        )
    jobs = _all_bound(desired.jobs, known)
    declared = {service.key for service in (*desired.services, *desired.jobs)}
    unbound = declared - {service.key for service in (*services, *jobs)}
    there = (p for p in desired.problems if p.code != SECRET_COPY or p.key not in known)
    ordered = sorted((*there, *problems), key=lambda p: (p.file, p.line, p.column, p.code))
    return replace(
        desired,
        services=services,
        jobs=jobs,
        secrets=tuple(replace(each, content=known.get(each.key, "")) for each in desired.secrets),
        problems=tuple(ordered),
        blind_keys=desired.blind_keys | unbound | {p.key for p in problems if p.key is not None},
        digest=desired_digest(services, desired.networks, desired.volumes, jobs=jobs),
    )


def _all_bound(services: Iterable[Service], known: Mapping[Key, str]) -> tuple[Service, ...]:
    bound = (_bound(service, known) for service in services)
    return tuple(each for each in bound if each is not None)


def _problem(secret: Secret, fault: SecretFault) -> Problem:
    return Problem(
        fault.code,
        f"the content of {secret.key} is unknown, so services that mount it stay as they are: "
        f"{fault.message}",
        secret.source.file,
        secret.source.line,
        remedy=fault.remedy,
        key=secret.key,
    )


def _mounts_secret(service: Service) -> bool:
    return any(delivery.kind == _SECRET for delivery in service.deliveries)


def has_secret_files(service: Service) -> bool:
    """Return True if a service mounts a Secret. Variables are kept by the engine."""
    return any(each.kind == _SECRET and not each.variable for each in service.deliveries)


def _bound(service: Service, known: Mapping[Key, str]) -> Service | None:
    """Return a service with the contents of its Secrets; None if one is unknown."""
    if not _mounts_secret(service):
        return service
    deliveries = []
    for delivery in service.deliveries:
        key = Key(KINDS[delivery.kind], service.key.namespace, delivery.name)
        if delivery.kind == _SECRET and key not in known:
            return None
        content = known[key] if delivery.kind == _SECRET else delivery.content
        deliveries.append(replace(delivery, content=content))
    contents = revision_contents(deliveries, service.bound_names)
    revision = revision_of(service.owner, service.key, service.spec, contents)
    return replace(service, revision=revision, deliveries=tuple(deliveries))
