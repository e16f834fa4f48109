"""The desired state: what the files ask for, parsed, checked and rendered."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from controller.model.desired.spec import NetworkSpec, ServiceSpec, VolumeSpec
from controller.model.errors import Problem, Severity
from controller.model.names import Key

#: The fields of a Service whose lines are kept, by their paths under spec: what a container's records
#: are explained by.
TRACED: Final = (
    *("image", "env", "ports", "mounts", "network", "healthcheck", "restart", "logs"),
    *("resources.memory", "resources.cpus", "resources.pids", "resources.cpuset"),
    *("security.capAdd", "security.readOnlyRootFilesystem"),
)


@dataclass(frozen=True, slots=True)
class SourceLocation:
    """Where a resource was declared: file (relative to DIR), line from 1, the commit checked out there.

    The commit is '' where that isn't known. A file that was changed since is told with it, too.
    ``lines`` are those of the fields that were written, by their paths under spec (``resources.memory``).
    ``text`` is the document's own text, empty where that isn't at hand; ``release`` names the Release
    that a chart was rendered for, and its place.
    """

    file: str
    line: int = 0
    commit: str = ""
    lines: tuple[tuple[str, int], ...] = ()
    text: str = field(default="", repr=False, compare=False)
    release: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Restarting:
    """That somebody asked for a restart: these containers are stale, whatever they are.

    It is over once none of them is there any more.
    """

    ids: frozenset[str]
    by: str


@dataclass(frozen=True, slots=True)
class ImageVolume:
    """A path that a service's image declares as a VOLUME and that no mount covers.

    ``keeping`` is the policy's word: each slot keeps a volume of its own there, or it is a tmpfs.
    """

    path: str
    keeping: Literal["slot", "scratch"]


@dataclass(frozen=True, slots=True)
class Service:
    """A supervised workload as declared; ``revision`` is that of its slots.

    ``because`` says why its slots are another revision's than its document says, if so.
    ``image_volumes`` is laid over the document before a plan (``core.rules.image_volumes``); None: slots
    would keep volumes, and what the image declares isn't known yet.
    """

    key: Key
    owner: str
    spec: ServiceSpec
    revision: str
    source: SourceLocation
    labels: tuple[tuple[str, str], ...] = ()
    restarting: Restarting | None = None
    because: str = ""
    image_volumes: tuple[ImageVolume, ...] | None = ()


@dataclass(frozen=True, slots=True)
class Network:
    """A declared network."""

    key: Key
    owner: str
    spec: NetworkSpec
    source: SourceLocation


@dataclass(frozen=True, slots=True)
class Volume:
    """A declared volume."""

    key: Key
    owner: str
    spec: VolumeSpec
    source: SourceLocation


@dataclass(frozen=True, slots=True)
class Release:
    """A chart with values; ``members`` are the keys of what it rendered to."""

    key: Key
    owner: str
    chart: str
    members: tuple[Key, ...]
    source: SourceLocation


@dataclass(frozen=True, slots=True)
class OverrideReason:
    """That a service isn't brought to what its document says, because a person wants it so.

    A suspended one is left as it is, a pinned one runs an earlier revision: ``revision``. ``code`` is
    the reason of the condition that tells it.
    """

    key: Key
    word: Literal["suspended", "pinned"]
    code: str
    reason: str
    remedy: str
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class SourceIdentity:
    """What DIR is right now: the device tells another filesystem (an unmounted one) apart.

    ``commit`` is the one that is checked out there, '' where that isn't known.
    """

    path: str
    present: bool
    device: int = 0
    documents: int = 0
    commit: str = ""


@dataclass(frozen=True, slots=True)
class Desired:
    """Everything that one look at the files gave.

    ``blind_keys`` are resources that a bad document may have declared: they are left as they
    are. ``blind`` is true when some document or file might have declared anything: creating goes
    on, pruning doesn't. ``holds`` are what people hold (``core.service.overrides``), by key; a suspended
    service need not be among the services.
    """

    services: tuple[Service, ...] = ()
    networks: tuple[Network, ...] = ()
    volumes: tuple[Volume, ...] = ()
    releases: tuple[Release, ...] = ()
    problems: tuple[Problem, ...] = ()
    blind_keys: frozenset[Key] = field(default_factory=frozenset)
    blind: bool = False
    identity: SourceIdentity = SourceIdentity(path="", present=False)
    digest: str = ""
    holds: tuple[OverrideReason, ...] = ()

    @property
    def suspended(self) -> frozenset[Key]:
        """The services that are left as they are."""
        return frozenset(hold.key for hold in self.holds if hold.word == "suspended")

    @property
    def whole(self) -> bool:
        """Tell whether nothing else may be declared, but for the ``blind_keys``."""
        return not self.blind and self.identity.present and self.identity.documents > 0

    @property
    def valid(self) -> bool:
        """Tell whether no problem is an error."""
        return not any(problem.severity is Severity.ERROR for problem in self.problems)

    def service(self, key: Key) -> Service | None:
        """Return the service of that key, if it is declared."""
        return next((service for service in self.services if service.key == key), None)
