"""The input of every create rule: the request, its sender, the effective policy and the facts.

``make_case`` resolves owner, namespace, service and exceptions once, for all rules.

The facts for admission about the engine and the host.

The gate looks them up; a rule never does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from pydantic import BaseModel

from controller.core.effective import Accounts, EffectiveRequest, effective
from controller.core.encoding.identifiers import Reference, parse_reference
from controller.core.engine_api.cdi import CdiDevice
from controller.core.engine_api.requests import CreateRequest, EndpointRequest
from controller.model import names
from controller.model.delivery import StoredFiles
from controller.model.host_paths import PathFacts
from controller.model.inventory import ContainerItem, PinnedImage, TrustedImage
from controller.model.names import (
    CONTAINER_NAME_MAX,
    DEFAULT_NAMESPACE,
    is_dns_label,
    namespaced_network,
)
from controller.model.observed import JobMemory, Settings
from controller.model.policy.document import OPERATOR_OWNER, Exemption, Policy
from controller.model.policy.sections import CpuLimit, MemoryLimit, PidLimit
from controller.model.records import Actor, Role

DEFAULT_VOLUMES_ROOT = "/var/lib/docker/volumes"


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """A local image."""

    id: str
    digest: str = ""  # of the manifest, if the registry gave one
    #: As the engine shows it: containers inherit of it (``core.effective``).
    config: Mapping[str, Any] = field(default_factory=dict)
    platform: str = ""  # os/architecture[/variant]
    #: None if they weren't needed, or can't be read.
    accounts: Accounts | None = None


@dataclass(frozen=True, slots=True)
class NetworkFacts:
    """A network of the engine."""

    id: str
    name: str
    ours: bool  # has this instance's label and is in the inventory
    owner: str = ""
    namespace: str = ""
    internal: bool = False
    driver: str = "bridge"
    masquerade: bool = True
    icc: bool = True
    plain: bool = True  # no engine options except masquerade and icc, and no IPAM configuration
    instance: str = ""  # the instance that the labels name
    #: The subnet of a network with slot addresses; '' for any other network.
    subnet: str = ""
    #: The containers that are connected now, by their addresses.
    held: Mapping[str, str] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class VolumeFacts:
    """A named volume of the engine."""

    name: str
    ours: bool  # has this instance's label and is in the inventory
    owner: str = ""
    namespace: str = ""
    driver: str = "local"
    options: tuple[tuple[str, str], ...] = ()
    instance: str = ""  # the instance that the labels name
    identity: str = ""  # ``OwnedObject.identity``; '' if it isn't ours


@dataclass(frozen=True, slots=True)
class HostFacts:
    """The engine's host; 0 and '' mean unknown."""

    cpus: int = 0
    memory_bytes: int = 0
    platform: str = ""  # os/architecture
    volumes_root: str = DEFAULT_VOLUMES_ROOT
    now: float = 0.0  # wall clock, for the expiry of exceptions
    #: The folders in which the engine reads CDI specifications; () if it doesn't support them.
    cdi_folders: tuple[str, ...] = ()
    #: The members of a create that the engine drops.
    ignores: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class QuotaCounts:
    """Objects that count in quotas, with those under creation (``core.enforcement.limits``)."""

    #: Volumes of the owner, and networks that its clients made for themselves.
    volumes: int = 0
    networks: int = 0
    #: Published ports of the owner's containers.
    ports: int = 0
    #: Objects of all owners: of documents for the controller, of clients for others.
    all_containers: int = 0
    all_volumes: int = 0
    all_networks: int = 0
    all_ports: int = 0


NO_COUNTS = QuotaCounts()


@dataclass(frozen=True, slots=True)
class SharedContainer:
    """The running container whose namespaces a create shares."""

    id: str
    #: Its IPC can be joined.
    shareable: bool = False
    #: It shares the namespaces of another container itself.
    joined: bool = False
    #: The size of its /dev/shm; 0 for the engine's default.
    shm: int = 0


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What the broker knows of the job of a new run."""

    memory: JobMemory
    #: The broker's wall clock, in seconds since the epoch.
    now: float = 0.0
    #: A service of the controller's has the job's name.
    is_service: bool = False


@dataclass(frozen=True, slots=True)
class CreateFacts:
    """The facts for a create: the results of every look-up in ``Needs``."""

    host: HostFacts = HostFacts()
    #: The image to which the engine resolves the reference now. If the engine resolves it to none:
    #: the image with the ledger's id. None if there is neither.
    image: ImageFacts | None = None
    #: The ledger's entry of the canonical reference.
    trusted: TrustedImage | None = None
    #: The pin of the revision. If there is one, ``image`` is its image.
    pin: PinnedImage | None = None
    paths: Mapping[str, PathFacts] = field(default_factory=dict)
    #: Stored contents of delivered files, by ``str(FileSet)``, and the path of the host for each
    #: requested mount of files, by its target.
    files: Mapping[str, StoredFiles] = field(default_factory=dict)
    file_paths: Mapping[str, str] = field(default_factory=dict)
    #: Existing networks and volumes, by the name in the request.
    networks: Mapping[str, NetworkFacts] = field(default_factory=dict)
    volumes: Mapping[str, VolumeFacts] = field(default_factory=dict)
    #: The devices of the CDI specifications, by name; empty if the create names none.
    cdi: Mapping[str, CdiDevice] = field(default_factory=dict)
    #: Containers of the service and of the owner. Other open create intents count too.
    service_count: int = 0
    owner_count: int = 0
    counts: QuotaCounts = NO_COUNTS
    #: Kept volumes and implied networks that are created together with the container.
    new_volumes: int = 0
    new_networks: int = 0
    #: The inventory has a container of the same slot: this create is a rollout's surge.
    replaces: bool = False
    #: "foreign" if a container outside the inventory has the name, and the instance in its labels.
    name_taken: str = ""
    name_of: str = ""
    #: The container exists already, with its volumes.
    existing: bool = False
    #: None for a container with namespaces of its own.
    shared: SharedContainer | None = None
    #: None for a container that is no run of a job.
    run: RunFacts | None = None
    #: Who else has the uid of an observer; '' for nobody.
    uid_user: str = ""
    #: The addresses of the container's slot, by the name of the network.
    addresses: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ContainerFacts:
    """The current state of one of our containers, for an update or a connect."""

    settings: Settings
    owner: str
    namespace: str
    service: str
    origin: str
    image: str = ""
    id: str = ""
    auto_remove: bool = False
    network_mode: str = ""  # by name
    published: bool = False  # has published ports
    admitted_networks: tuple[str, ...] = ()  # the networks of its create
    is_run: bool = False  # of a job
    adopted: bool = False  # as found: its mode is that of its old network
    compose_service: str = ""  # the label of docker compose; '' without one
    joined: tuple[str, ...] = ()  # its networks by the inventory and by connects in progress


@dataclass(frozen=True, slots=True)
class Needs:
    """The objects and paths to look up before the rules can judge a create."""

    image: str  # canonical reference
    paths: tuple[str, ...]
    networks: tuple[str, ...]  # names to inspect
    volumes: tuple[str, ...]
    #: The networks among ``networks`` that the gate creates if they are absent: a client's implied
    #: networks.
    implied: tuple[str, ...] = ()
    #: Volumes that the gate creates if they are absent (``core.rules.images``). The VOLUMEs
    #: that the image declares add to them.
    kept: tuple[str, ...] = ()
    #: The CDI names to look up in the specifications.
    cdi: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stamp:
    """The broker's labels on every admitted object."""

    instance: str
    intent: str  # UUIDv7 of the intent


_Section = TypeVar("_Section", bound=BaseModel)
_Limit = TypeVar("_Limit", MemoryLimit, CpuLimit, PidLimit)

COMPOSE_SERVICE = "com.docker.compose.service"
SERVICE_LABEL_MAX = 63


@dataclass(frozen=True, slots=True)
class Case:
    """A create with its sender, and the policy including the service's exceptions."""

    #: What will run: completed by the image's config, once the image is known.
    request: CreateRequest
    name: str
    actor: Actor
    policy: Policy
    facts: CreateFacts | None  # None in a preview
    stamp: Stamp
    platform: str
    owner: str
    namespace: str
    service: str
    reference: Reference | None  # None if the reference cannot be parsed
    exceptions: tuple[str, ...] = ()
    #: The last days of the service's exceptions that have ended.
    ended: tuple[str, ...] = ()
    #: The paths of the request's members that the image's config gave.
    inherited: frozenset[str] = frozenset()
    #: The labels of the image that the container has as ''.
    blanked: frozenset[str] = frozenset()
    #: The policy has such an exception for documents, and a client asks; or the other way round.
    exceptions_of_others: bool = False
    #: The uid that an exception gives to the service as an observer of the host; None without one.
    observer: int | None = None

    @property
    def by_controller(self) -> bool:
        return self.actor.role is Role.CONTROLLER

    @property
    def image(self) -> ImageFacts | None:
        """The image; None if unknown."""
        return self.facts.image if self.facts else None

    @property
    def networks(self) -> ImpliedNetworks:
        return implied(self.policy, self.namespace)


@dataclass(frozen=True, slots=True)
class ImpliedNetworks:
    """The names of a namespace's implied networks."""

    isolated: str
    ingress: str
    bridge: str

    def all(self) -> tuple[str, ...]:
        return (self.isolated, self.ingress, self.bridge)


def implied(policy: Policy, namespace: str) -> ImpliedNetworks:
    """Return the names of a namespace's implied networks."""
    networks = policy.networks
    return ImpliedNetworks(
        namespaced_network(networks.isolated, namespace),
        namespaced_network(networks.ingress, namespace),
        namespaced_network(networks.bridge, namespace),
    )


def owner_of(actor: Actor, asked: str) -> str:
    """Return the owner of a new object. Only the controller names an owner freely."""
    match actor.role:
        case Role.CONTROLLER:
            return asked
        case Role.CLIENT:
            return actor.owner
        case _:
            return OPERATOR_OWNER


def namespace_of(actor: Actor, asked: str, policy: Policy) -> str:
    """Return the namespace of a new object."""
    match actor.role:
        case Role.CONTROLLER:
            return asked or DEFAULT_NAMESPACE
        case Role.CLIENT:
            return policy.namespace_of(actor.owner)
        case _:
            return DEFAULT_NAMESPACE


@dataclass(frozen=True, slots=True)
class Placement:
    """The owner, the namespace and the service ('' for none) of a new object."""

    owner: str
    namespace: str
    service: str


def requested_place(labels: Mapping[str, str], actor: Actor, policy: Policy) -> Placement:
    """Return the place of a new container, network or volume with the requested labels.

    Admission, proofs and quotas ask here. So no object is judged in one place and made in another.
    """
    composed = labels.get(COMPOSE_SERVICE, "")
    is_valid = is_dns_label(composed, length=SERVICE_LABEL_MAX)
    return Placement(
        owner_of(actor, labels.get(names.OWNER, "")),
        namespace_of(actor, labels.get(names.NAMESPACE, ""), policy),
        labels.get(names.SERVICE) or (composed if is_valid else ""),
    )


def reference_text(request: CreateRequest, actor: Actor) -> str:
    """Return the reference by which an image is admitted.

    The controller's create may name a pinned image by id or digest. Its label has the reference
    from the document.
    """
    if actor.role is Role.CONTROLLER:
        return request.label(names.IMAGE)
    return request.image


def read_reference(text: str) -> Reference | None:
    """Return a parsed reference, or None if the text is not a reference."""
    try:
        return parse_reference(text)
    except ValueError:
        return None


#: The actors of a preview. No process stands behind them, so their pid is 0.
CONTROLLER = Actor(uid=-1, gid=-1, pid=0, role=Role.CONTROLLER)
OPERATOR = Actor(uid=0, gid=0, pid=0, role=Role.OPERATOR)
#: The stamp of a preview: no instance, and an intent that is never recorded.
PREVIEW_STAMP = Stamp(instance="", intent="00000000-0000-7000-8000-000000000000")


def make_case(
    request: CreateRequest,
    *,
    name: str,
    actor: Actor,
    policy: Policy,
    facts: CreateFacts | None = None,
    stamp: Stamp = PREVIEW_STAMP,
    platform: str = "",
) -> Case:
    """Resolve the container's owner and the exceptions for its service, and complete the request.

    Whose the container is, the request alone says: no label of an image counts. The defaults are those of a preview, without any look-ups.
    """
    place = requested_place(dict(request.labels), actor, policy)
    reference = read_reference(reference_text(request, actor))
    of_service = exceptions_of(policy, place, reference, role=actor.role)
    other = Role.CLIENT if actor.role is Role.CONTROLLER else Role.CONTROLLER
    now = facts.host.now if facts else policy.judged_at
    exceptions = in_force(of_service, now)
    policy, completed = with_exceptions(policy, exceptions), EffectiveRequest(request)
    if facts is not None and facts.image is not None:
        completed = effective(
            request,
            facts.image.config,
            policy,
            accounts=facts.image.accounts,
            existing=facts.existing,
        )
    return Case(
        request=completed.request,
        name=name,
        actor=actor,
        policy=policy,
        facts=facts,
        stamp=stamp,
        platform=platform,
        owner=place.owner,
        namespace=place.namespace,
        service=place.service,
        reference=reference,
        exceptions=tuple(exemption.label for exemption in exceptions),
        ended=tuple(each.expires for each in of_service if each not in exceptions),
        inherited=completed.inherited,
        blanked=completed.blanked,
        observer=next(
            (each.loosens.observer for each in exceptions if each.loosens.observer), None
        ),
        exceptions_of_others=bool(exceptions_of(policy, place, reference, role=other)),
    )


def exceptions_of_item(
    policy: Policy, item: ContainerItem, *, now: float | None
) -> tuple[Exemption, ...]:
    """Return the exceptions in force for a container of the inventory, as at its create."""
    namespace, service = item.namespace, item.service
    if item.origin != Role.CONTROLLER.value:
        namespace = policy.namespace_of(item.owner)
    place, role = Placement(item.owner, namespace, service), creator_role(item.origin, item.owner)
    of_service = exceptions_of(policy, place, read_reference(item.image), role=role)
    return in_force(of_service, now)


def creator_role(origin: str, owner: str) -> Role:
    """Return the role of a container's creator."""
    if origin == Role.CONTROLLER.value:
        return Role.CONTROLLER
    return Role.OPERATOR if owner == OPERATOR_OWNER else Role.CLIENT


def case_of(
    current: ContainerFacts,
    *,
    actor: Actor,
    policy: Policy,
    facts: CreateFacts,
    endpoint: EndpointRequest | None = None,
) -> Case:
    """Return an existing container as the create by which it would be made now.

    The container's creator decides on its rights, not the *actor* who changes it. *endpoint* is a
    network to join.
    """
    role = creator_role(current.origin, current.owner)
    labels = {
        names.OWNER: current.owner,
        names.NAMESPACE: current.namespace,
        names.SERVICE: current.service,
        names.IMAGE: current.image,
        COMPOSE_SERVICE: current.compose_service,
    }
    has_own = not current.network_mode.startswith("container:")
    request = CreateRequest(
        image=current.image,
        labels=tuple(labels.items()),
        network_mode=current.network_mode if has_own else "none",
        endpoints=() if endpoint is None else (endpoint,),
    )
    creator = replace(actor, role=role, owner=current.owner)
    name = current.settings.name
    return make_case(request, name=name, actor=creator, policy=policy, facts=facts)


def exceptions_at(policy: Policy, place: Placement, *, role: Role) -> tuple[Exemption, ...]:
    """Return the policy's exceptions at a place, the expired ones included.

    *role* is that of the container's creator: an exception is for documents, or for clients.
    """
    made_by = "documents" if role is Role.CONTROLLER else "clients"
    return tuple(
        each
        for each in policy.exceptions
        if (each.owner, each.namespace, each.service)
        == (place.owner, place.namespace, place.service)
        and each.made_by == made_by
    )


def exceptions_of(
    policy: Policy, place: Placement, reference: Reference | None, *, role: Role
) -> tuple[Exemption, ...]:
    """Return the policy's exceptions for a container with an image, the expired ones included."""
    repository = None if reference is None else reference.repository
    at = exceptions_at(policy, place, role=role)
    return tuple(each for each in at if each.repository == repository)


def in_force(exceptions: Iterable[Exemption], now: float | None) -> tuple[Exemption, ...]:
    """Return the exceptions that have not ended; without a time all of them.

    Without a time nothing is decided: the broker asks again with facts.
    """
    return tuple(each for each in exceptions if now is None or now < each.ends_at)


def name_of(case: Case) -> str:
    """Return the container's requested name, or a name made from the intent."""
    if case.name:
        return case.name
    stem = (case.service or case.owner)[: CONTAINER_NAME_MAX - 13]
    return f"{stem}-{case.stamp.intent.replace('-', '')[-12:]}"


def with_exceptions(policy: Policy, exceptions: Iterable[Exemption]) -> Policy:
    """Return the effective policy for a service with these exceptions."""
    for exemption in exceptions:
        grant = exemption.loosens
        resources, security, images = policy.resources, policy.security, policy.images
        networks, ports = policy.networks, policy.networks.ports
        volumes = grant.anonymous_volumes
        policy = _with(
            policy,
            capabilities=_with(
                policy.capabilities, allowed=(*policy.capabilities.allowed, *grant.cap_add)
            ),
            resources=_with(
                resources,
                memory=_raised(resources.memory, grant.memory_max),
                cpus=_raised(resources.cpus, grant.cpus_max),
                pids=_raised(resources.pids, grant.pids_max),
                shm_max=max(resources.shm_max, grant.shm_max or 0),
            ),
            security=_with(
                security,
                require_non_root=security.require_non_root and not grant.root,
                require_read_only_root=security.require_read_only_root and not grant.writable_root,
                runtimes=(*security.runtimes, *grant.runtimes),
            ),
            networks=_with(
                networks,
                modes=tuple(dict.fromkeys((*networks.modes, *grant.modes))),
                granted=(*networks.granted, *grant.networks),
                ports=_with(
                    ports,
                    granted=(*ports.granted, *grant.host_ports),
                    host_ips=(*ports.host_ips, *grant.host_ips),
                ),
            ),
            mounts=_with(policy.mounts, allowed=(*policy.mounts.allowed, *grant.mounts)),
            images=images if volumes == "refuse" else _with(images, anonymous_volumes=volumes),
        )
    return policy


def _with(section: _Section, **values: object) -> _Section:
    return section.model_copy(update=values)


def _raised(limit: _Limit, most: int | None) -> _Limit:
    return _with(limit, max=max(limit.max, most or 0))
