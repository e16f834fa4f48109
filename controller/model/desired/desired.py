"""The desired state: the content of the files, parsed, validated and resolved.

Operator overrides and revisions of a service.

The files have the desired state. The controller must remember these values itself.

The limits of a service that an engine can change on a living container.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

from controller.model.delivery import Delivery
from controller.model.desired.spec.container import Resources
from controller.model.desired.spec.mounts import ConfigSpec, SecretSpec, VolumeSpec
from controller.model.desired.spec.network import NetworkSpec
from controller.model.desired.spec.notification import NotificationSpec
from controller.model.desired.spec.service import Boot, RestartPolicy, ServiceSpec
from controller.model.errors import Problem, Severity, ValuePlaces
from controller.model.names import Key, job_key, qualified
from controller.model.observed import LIMIT_NAMES, EngineLimits, LimitValue, Settings

if TYPE_CHECKING:
    from controller.model.desired.source_spec import SourceSpec
    from controller.model.sources import SourceStatus


#: The fields of ``spec.resources`` by the limit of the engine that each declares, if it changes in place.
_FIELDS: Mapping[str, str] = MappingProxyType(
    {name: name for name in LIMIT_NAMES if name in Resources.model_fields} | {"nano_cpus": "cpus"}
)
#: The same fields by their names in documents.
IN_PLACE_RESOURCES = tuple(Resources.model_fields[name].alias or name for name in _FIELDS.values())
#: A lower value can end what a program does. A weight, a reservation and a set of CPUs are no such limit.
_TIGHT = ("memory", "nano_cpus", "pids")
_NANO_OF_MILLI = 1_000_000


@dataclass(frozen=True, slots=True)
class DeclaredLimits(EngineLimits):
    """The limits in a document. Unset: the policy provides the limit, or there is none."""

    #: The word of the restart policy, such as ``Always``.
    restart: str = RestartPolicy.ALWAYS.value
    #: ``Ordered`` if the controller starts the containers; None if the engine does.
    boot: str | None = None

    @classmethod
    def of(cls, spec: ServiceSpec) -> DeclaredLimits:
        """Return the limits of a document."""
        values = {name: getattr(spec.resources, field) for name, field in _FIELDS.items()}
        if spec.resources.cpus is not None:
            values["nano_cpus"] = round(spec.resources.cpus * 1000) * _NANO_OF_MILLI
        boot = Boot.ORDERED.value if spec.restart.boot is Boot.ORDERED else None
        declared = {name: value for name, value in values.items() if value is not None}
        return cls(**declared, restart=spec.restart.policy.value, boot=boot)

    @property
    def engine_limits(self) -> dict[str, LimitValue]:
        """The declared limits by their names in ``Settings``.

        Swap follows the memory, as in a create: no swap beside the memory.
        """
        values = {name: getattr(self, name) for name in LIMIT_NAMES} | {"memory_swap": self.memory}
        return {name: value for name, value in values.items() if value}

    def differing_from(self, admitted: Settings) -> dict[str, LimitValue]:
        """Return the declared limits that a container wasn't admitted with."""
        changed = {
            name: value
            for name in _FIELDS
            if (value := getattr(self, name)) and value != getattr(admitted, name)
        }
        return changed | ({"memory_swap": self.memory} if "memory" in changed else {})

    def is_lower_than(self, other: DeclaredLimits) -> bool:
        """Return True if some limit is lower than in *other*."""
        pairs = ((getattr(self, name), getattr(other, name)) for name in _TIGHT)
        return any(one and two and one < two for one, two in pairs)


#: The fields of a Service with a recorded line, by their paths under spec. ``journal explain`` shows
#: these lines as the source of a container's settings.
TRACED: Final = (
    *("image", "env", "ports", "mounts", "network", "healthcheck", "restart", "logs"),
    *("resources.memory", "resources.cpus", "resources.pids", "resources.cpuset"),
    *("security.capAdd", "security.readOnlyRootFilesystem"),
)


@dataclass(frozen=True, slots=True)
class SourceLocation:
    """Where a resource was declared."""

    #: Relative to DIR; ``SOURCE:FILE`` for a file of a Git source, relative to its ``path``.
    file: str
    line: int = 0  # from 1
    #: The commit checked out in DIR, also for a file with uncommitted changes; '' if unknown.
    commit: str = ""
    #: The line of each written field, by the path under spec (``resources.memory``).
    lines: tuple[tuple[str, int], ...] = ()
    #: The text of the document; '' if not available.
    text: str = field(default="", repr=False, compare=False)
    #: The places of a document that was made from other files. None: they are in ``text``.
    places: ValuePlaces | None = field(default=None, repr=False, compare=False)
    #: The Release, with its place, for which a chart was rendered.
    release: str = field(default="", compare=False)
    #: The name of the Git source; '' for DIR.
    origin: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Restarting:
    """A requested restart: the listed containers are outdated, whatever their revision.

    The restart is complete when none of the containers exists any more.
    """

    ids: frozenset[str]  # of containers
    by: str  # the requester


@dataclass(frozen=True, slots=True)
class ImageVolume:
    """A VOLUME path of a service's image without a mount in the spec."""

    path: str
    #: The policy's choice: each slot keeps a volume of its own at the path, or a tmpfs is mounted.
    keeping: Literal["slot", "scratch"]


@dataclass(frozen=True, slots=True, order=True)
class BoundName:
    """The engine's name of an adopted volume or network that a service uses."""

    kind: Literal["Network", "Volume"]
    #: The name of the document, in the service's namespace.
    name: str
    engine_name: str
    #: True for a network with a way out. The engine publishes ports there.
    has_way_out: bool = False


@dataclass(frozen=True)
class Service:
    """A supervised workload as declared; with a JobSpec, the job whose runs it makes."""

    key: Key
    owner: str
    spec: ServiceSpec
    #: The name of the slots' revision: ``canonical``, or an earlier name under which containers run.
    revision: str
    source: SourceLocation
    labels: tuple[tuple[str, str], ...] = ()
    restarting: Restarting | None = None
    #: Why the slots have another revision than the document, if they do.
    because: str = ""
    #: Added to the document before planning (``core.rules.images``). None: slots keep volumes,
    #: and the image's declarations are not known yet.
    image_volumes: tuple[ImageVolume, ...] | None = ()
    #: The revision by the present rule; '' if equal to ``revision``.
    canonical: str = ""
    #: The files that the service mounts, with their contents.
    deliveries: tuple[Delivery, ...] = ()
    #: The revision of a service whose pinned image a job's run uses; '' for the own revision.
    image_revision: str = ""
    #: True if the service mounts Secrets that nothing restores before the engine starts.
    has_late_secrets: bool = False
    #: The engine's names of used volumes and networks with an ``engineName``.
    bound_names: tuple[BoundName, ...] = ()
    #: The earlier keys of the service.
    moved: tuple[Key, ...] = ()

    def volume_name(self, name: str) -> str:
        """Return the engine's name of a volume of the namespace."""
        return self._engine_name("Volume", name)

    def network_name(self, name: str) -> str:
        """Return the engine's name of a declared network of the namespace."""
        return self._engine_name("Network", name)

    def _engine_name(self, kind: Literal["Network", "Volume"], name: str) -> str:
        for bound in self.bound_names:
            if (bound.kind, bound.name) == (kind, name):
                return bound.engine_name
        return qualified(self.key.namespace, name)

    @cached_property
    def limits(self) -> DeclaredLimits:
        """The limits that change in place. Asked several times for each container."""
        return DeclaredLimits.of(self.spec)

    @property
    def is_boot_ordered(self) -> bool:
        """Return True if the controller makes every start and restart, and the engine makes none."""
        return self.spec.restart.boot is Boot.ORDERED or self.has_late_secrets


@dataclass(frozen=True, slots=True)
class Network:
    """A declared network."""

    key: Key
    owner: str
    spec: NetworkSpec
    source: SourceLocation

    @property
    def engine_name(self) -> str:
        """The engine's name."""
        return self.spec.engine_name or qualified(self.key.namespace, self.key.name)


@dataclass(frozen=True, slots=True)
class Volume:
    """A declared volume."""

    key: Key
    owner: str
    spec: VolumeSpec
    source: SourceLocation

    @property
    def engine_name(self) -> str:
        """The engine's name."""
        return self.spec.engine_name or qualified(self.key.namespace, self.key.name)


@dataclass(frozen=True, slots=True)
class Config:
    """A declared set of files."""

    key: Key
    owner: str
    spec: ConfigSpec
    source: SourceLocation
    #: The id of the content.
    content: str
    files: tuple[tuple[str, bytes], ...] = field(default=(), repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Secret:
    """A declared Secret. Nothing here is plain text."""

    key: Key
    owner: str
    spec: SecretSpec
    source: SourceLocation
    #: The source in the form that the broker takes (``core.secrets.declared``).
    declared: Mapping[str, object] = field(repr=False, compare=False)
    #: The digest of that form.
    digest: str
    #: The id of the content; '' until the broker has told it.
    content: str = ""


@dataclass(frozen=True, slots=True)
class Release:
    """A chart with values."""

    key: Key
    owner: str
    chart: str
    #: The keys of the rendered resources.
    members: tuple[Key, ...]
    source: SourceLocation


@dataclass(frozen=True, slots=True)
class Notification:
    """Which incidents are sent to which destinations. Nothing on the host is made of it."""

    key: Key
    owner: str
    spec: NotificationSpec
    source: SourceLocation


@dataclass(frozen=True, slots=True)
class GitSource:
    """A declared Git source."""

    key: Key
    owner: str
    spec: SourceSpec
    source: SourceLocation
    #: As the fetcher reports it, for people; None without a report.
    report: SourceStatus | None = None


@dataclass(frozen=True, slots=True)
class OverrideReason:
    """Why a service is not brought to its declared state: an operator overrides it.

    A suspended service is left unchanged. A pinned service runs an earlier revision. A scaled one has
    another number of replicas.
    """

    key: Key
    word: Literal["suspended", "pinned", "scaled"]
    code: str  # the reason of the condition in the status
    reason: str
    remedy: str
    revision: str | None = None  # of a pinned service


@dataclass(frozen=True, slots=True)
class SourceIdentity:
    """The identity of the folder DIR at this time."""

    path: str
    present: bool
    #: Distinguishes another filesystem, such as an unmounted one.
    device: int = 0
    documents: int = 0
    commit: str = ""  # checked out there; '' if unknown


class Declared(StrEnum):
    """How DIR declares a source."""

    ACTIVE = "active"
    #: ``spec.suspend: true``.
    SUSPENDED = "suspended"
    #: The document has errors.
    BROKEN = "broken"
    #: Without a document.
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class SourceScope:
    """DIR, or a Git source, in one reading: the resources, and how complete the reading is."""

    #: '' for DIR.
    name: str
    identity: SourceIdentity
    #: An unread file or document possibly declares any resource of the namespaces.
    blind: bool = False
    #: The namespaces of its resources; None for any.
    namespaces: frozenset[str] | None = None
    #: The resources that it declared last.
    keys: frozenset[Key] = frozenset()
    declared: Declared = Declared.ACTIVE
    #: The namespaces of Compose projects that can't be read: each possibly declares any resource of its
    #: namespace, and no other.
    blind_namespaces: frozenset[str] = frozenset()

    @property
    def whole(self) -> bool:
        """Return True if no further resource can be declared.

        DIR without any document can be the wrong folder. So can be a source, if it declared any.
        """
        is_new = bool(self.name) and not self.keys
        has_documents = self.identity.documents > 0 or is_new
        is_read = not self.blind and not self.blind_namespaces
        return is_read and self.identity.present and has_documents

    def is_blind_for(self, key: Key) -> bool:
        """Return True if an unread document of the source possibly declares the resource."""
        return self.blind or key.namespace in self.blind_namespaces

    def may_declare(self, key: Key) -> bool:
        """Return True if the source's namespaces include the key's."""
        return self.namespaces is None or key.namespace in self.namespaces


@dataclass(frozen=True, slots=True)
class Desired:
    """The desired state from one reading of the files."""

    services: tuple[Service, ...] = ()
    networks: tuple[Network, ...] = ()
    volumes: tuple[Volume, ...] = ()
    configs: tuple[Config, ...] = ()
    secrets: tuple[Secret, ...] = ()
    #: The jobs: their key has the kind Job, and their spec is a JobSpec.
    jobs: tuple[Service, ...] = ()
    releases: tuple[Release, ...] = ()
    notifications: tuple[Notification, ...] = ()
    problems: tuple[Problem, ...] = ()
    #: Resources that a broken document possibly declares: they are left unchanged.
    blind_keys: frozenset[Key] = field(default_factory=frozenset)
    #: A broken document or file, of DIR or a source, possibly declares any resource of its scope:
    #: creating continues, pruning stops.
    blind: bool = False
    #: The namespaces of Compose projects that can't be read, of DIR or a source.
    blind_namespaces: frozenset[str] = frozenset()
    #: The identity of DIR.
    identity: SourceIdentity = SourceIdentity(path="", present=False)
    digest: str = ""
    #: The overrides (``core.service.overrides``), by key. A suspended service can be undeclared.
    holds: tuple[OverrideReason, ...] = ()
    #: The declared Git sources.
    sources: tuple[GitSource, ...] = ()
    #: DIR and the Git sources; empty without any Git source.
    scopes: tuple[SourceScope, ...] = ()
    # Built at the first call of ``workload``: each pass calls it for one key.
    _by_key: dict[Key, Service] | None = field(init=False, repr=False, compare=False, default=None)
    _by_hook: dict[Key, tuple[Service, ...]] | None = field(
        init=False, repr=False, compare=False, default=None
    )
    _followers: dict[Key, tuple[Service, ...]] | None = field(
        init=False, repr=False, compare=False, default=None
    )
    _moved: tuple[Service, ...] | None = field(init=False, repr=False, compare=False, default=None)

    @property
    def workloads(self) -> tuple[Service, ...]:
        """The services and the jobs: everything with containers."""
        return (*self.services, *self.jobs)

    @property
    def suspended(self) -> frozenset[Key]:
        return frozenset(hold.key for hold in self.holds if hold.word == "suspended")

    @property
    def held(self) -> frozenset[Key]:
        """The services that overrides keep from their documents; a number of replicas doesn't count."""
        return frozenset(hold.key for hold in self.holds if hold.word != "scaled")

    @property
    def whole(self) -> bool:
        """Return True if no further resource can be declared, except for the ``blind_keys``."""
        return not self.blind and all(scope.whole for scope in self.all_scopes)

    @property
    def all_scopes(self) -> tuple[SourceScope, ...]:
        """DIR and the Git sources."""
        if self.scopes:
            return self.scopes
        unread = self.blind_namespaces
        return (SourceScope("", self.identity, self.blind, blind_namespaces=unread),)

    def scopes_of(self, key: Key) -> tuple[SourceScope, ...]:
        """Return the source of a resource; for an unknown source, all that may declare it."""
        scopes = self.all_scopes
        known = tuple(scope for scope in scopes if key in scope.keys)
        return known or tuple(scope for scope in scopes if scope.may_declare(key))

    def commit_without(self, key: Key) -> str:
        """Return the commit in which an undeclared resource is missing, '' if unknown."""
        scopes = self.scopes_of(key)
        return scopes[0].identity.commit if len(scopes) == 1 else self.identity.commit

    def is_blind_for(self, key: Key) -> bool:
        """Return True if an unread document possibly declares the resource."""
        if key in self.blind_keys:
            return True
        if not self.scopes:
            return self.blind or key.namespace in self.blind_namespaces
        return any(scope.is_blind_for(key) for scope in self.scopes_of(key))

    def is_unread(self, key: Key) -> bool:
        """Return True if the resource's own document, or its Compose project, can't be read.

        Such a resource is left as it is.
        """
        if key in self.blind_keys:
            return True
        if key.namespace not in self.blind_namespaces or key in self.workloads_by_key:
            return False
        return any(key.namespace in scope.blind_namespaces for scope in self.scopes_of(key))

    @property
    def valid(self) -> bool:
        """Return True if no problem is an error."""
        return not any(problem.severity is Severity.ERROR for problem in self.problems)

    @property
    def workloads_by_key(self) -> Mapping[Key, Service]:
        """The services and jobs by key, made once."""
        index = self._by_key
        if index is None:
            index = {workload.key: workload for workload in self.workloads}
            # Assigned when complete, so no other thread sees a partial index.
            object.__setattr__(self, "_by_key", index)
        return index

    @property
    def services_by_hook(self) -> Mapping[Key, tuple[Service, ...]]:
        """The services that name each job in ``rollout.before`` or ``rollout.after``, made once."""
        index = self._by_hook
        if index is None:
            index = {}
            for service in self.services:
                rollout = service.spec.rollout
                for name in (*rollout.before, *rollout.after):
                    job = job_key(service.key.namespace, name)
                    index[job] = (*index.get(job, ()), service)
            object.__setattr__(self, "_by_hook", index)
        return index

    @property
    def moved_services(self) -> tuple[Service, ...]:
        """The services with an earlier key, found once: each pass asks, and there are few."""
        found = self._moved
        if found is None:
            found = tuple(service for service in self.services if service.moved)
            object.__setattr__(self, "_moved", found)
        return found

    @property
    def followers(self) -> Mapping[Key, tuple[Service, ...]]:
        """The services to replace after each service or job, computed once.

        Followers have ``restart: true`` on the key, or share the namespaces of the key's containers.
        """
        index = self._followers
        if index is None:
            index = {}
            for service in self.services:
                spec, namespace = service.spec, service.key.namespace
                leads = {Key(d.kind, namespace, d.name) for d in spec.depends_on if d.restart}
                if spec.shares is not None:
                    leads.add(spec.shares.key_in(namespace))
                for lead in leads:
                    index[lead] = (*index.get(lead, ()), service)
            object.__setattr__(self, "_followers", index)
        return index

    def service(self, key: Key) -> Service | None:
        """Return the service of a key; None if no document declares one."""
        return self.workload(key) if key.kind == "Service" else None

    def workload(self, key: Key) -> Service | None:
        """Return a service or a job."""
        return self.workloads_by_key.get(key)

    def chosen_workloads(self, only: Key | frozenset[Key] | None) -> tuple[Service, ...]:
        """Return the services and jobs of *only* some keys, or all."""
        if only is None:
            return self.workloads
        found = map(self.workload, sorted({only} if isinstance(only, Key) else only))
        return tuple(workload for workload in found if workload is not None)


RevisionOutcome = Literal["", "good", "failed"]


@dataclass(frozen=True, slots=True)
class Revision:
    """An accepted revision, with everything needed to create its replicas."""

    revision: str
    #: Generation and time (RFC 3339) of the last declaration.
    generation: int
    since: str
    owner: str
    image: str
    #: The slot spec as JSON; '' if too large to keep.
    spec: str
    source: SourceLocation
    outcome: RevisionOutcome = ""  # '' until known
    reason: str = ""  # why the revision failed
    left: bool = False  # rolled back automatically since the last declaration
    #: From a snapshot of a host: the spec is without values, and doesn't hash to the revision.
    hidden: bool = False
    #: The revision by the service's present name; '' if equal to ``revision``.
    canonical: str = ""
    #: The limits, which are no part of the revision.
    limits: DeclaredLimits = field(default_factory=DeclaredLimits)
    #: The mounted files, with the contents that are part of the revision.
    deliveries: tuple[Delivery, ...] = ()
    #: The engine's names of its adopted volumes and networks, a part of the revision.
    bound_names: tuple[BoundName, ...] = ()

    def is_variant(self, revision: str, limits: DeclaredLimits | None) -> bool:
        """Return True for this revision with these limits; None for any limits."""
        return self.revision == revision and limits in (None, self.limits)


@dataclass(frozen=True, slots=True)
class Pin:
    """A service runs an earlier revision until its document changes."""

    revision: str
    generation: int
    #: The digest of the document at the time of the pin. For an automatic pin, the failed revision:
    #: a change outside the slot spec does not start it again.
    asked: str
    by: str
    since: str
    reason: str = ""
    automatic: bool = False
    #: The limits of the pinned revision.
    limits: DeclaredLimits = field(default_factory=DeclaredLimits)
    #: The limits of the failed revision, for an automatic pin.
    asked_limits: DeclaredLimits | None = None


@dataclass(frozen=True, slots=True)
class Suspension:
    """A service is left unchanged."""

    by: str
    since: str
    #: The operator also stopped the containers.
    stopped: bool = False

    @property
    def word(self) -> str:
        """``stopped`` or ``suspended``."""
        return "stopped" if self.stopped else "suspended"


@dataclass(frozen=True, slots=True)
class Scaling:
    """A service has another number of replicas, until its document declares another one."""

    replicas: int
    #: The number in the document at the time of the act.
    declared: int
    by: str
    since: str
    #: When the override ends, in seconds since the epoch; None: not by itself.
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Overrides:
    """The revisions and overrides of one service."""

    #: In the order of their declarations.
    revisions: tuple[Revision, ...] = ()
    pin: Pin | None = None
    suspension: Suspension | None = None
    restarting: Restarting | None = None
    scaling: Scaling | None = None
    #: The service-wide fields, as JSON, of the last document acted on completely.
    applied: str | None = None
    #: The downtime of the last StopFirst replacement, from before the stop until after the start.
    #: None if unknown.
    down_ms: int | None = None

    def find_revision(self, revision: str, limits: DeclaredLimits | None = None) -> Revision | None:
        """Return a kept revision with *limits*; with None, its last declared limits."""
        matching = (each for each in reversed(self.revisions) if each.is_variant(revision, limits))
        return next(matching, None)


NO_OVERRIDES = Overrides()

Verb = Literal["rollback", "restart", "suspend", "resume", "stop", "start", "scale"]


@dataclass(frozen=True, slots=True)
class ServiceAct:
    """A requested act on a service."""

    verb: Verb
    key: Key
    by: str
    #: The first digits of a revision; '' for the last good one.
    to: str = ""
    reason: str = ""
    #: Requested by a failed rollout, not by an operator.
    automatic: bool = False
    #: The number of replicas of a scaling.
    replicas: int = 0
    #: When a scaling ends, in seconds since the epoch; None: not by itself.
    until: float | None = None
