"""The facts for admission about the engine and the host.

The gate looks them up; a rule never does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from controller.core.effective.accounts import Accounts
from controller.core.engine_api.cdi import CdiDevice
from controller.model.files.delivery import StoredFiles
from controller.model.host_paths import PathFacts
from controller.model.inventory import PinnedImage, TrustedImage
from controller.model.observed import JobMemory, Settings

DEFAULT_VOLUMES_ROOT = "/var/lib/docker/volumes"


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """A local image."""

    id: str
    digest: str = ""  # of the manifest, if the registry gave one
    #: As the engine shows it: containers inherit of it (``core.effective.merge``).
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
    """Objects that count in quotas, with those under creation (``core.enforcement.quota_counts``)."""

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
    #: Volumes that the gate creates if they are absent (``core.rules.images.image_volumes``). The VOLUMEs
    #: that the image declares add to them.
    kept: tuple[str, ...] = ()
    #: The CDI names to look up in the specifications.
    cdi: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stamp:
    """The broker's labels on every admitted object."""

    instance: str
    intent: str  # UUIDv7 of the intent
