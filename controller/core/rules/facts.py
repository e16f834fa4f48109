"""What admission must know of the world: looked up by the gate, never by the rules themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from controller.model.host_paths import PathFacts
from controller.model.inventory import TrustedImage
from controller.model.observed import Settings

DEFAULT_VOLUMES_ROOT = "/var/lib/docker/volumes"


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """A local image, and what of its config shows through in a container."""

    id: str
    digest: str = ""  # of the manifest, where a registry named it
    volumes: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    user: str = ""
    exposed_ports: tuple[str, ...] = ()
    platform: str = ""  # os/architecture[/variant]


@dataclass(frozen=True, slots=True)
class NetworkFacts:
    """A network of the engine. ``ours``: by instance label and inventory."""

    id: str
    name: str
    ours: bool
    owner: str = ""
    namespace: str = ""
    internal: bool = False
    driver: str = "bridge"
    masquerade: bool = True
    icc: bool = True
    plain: bool = True  # no options of the engine but those two, no IPAM of its own
    instance: str = ""  # the one that its labels name


@dataclass(frozen=True, slots=True)
class VolumeFacts:
    """A named volume of the engine. ``ours``: by instance label and inventory."""

    name: str
    ours: bool
    owner: str = ""
    namespace: str = ""
    driver: str = "local"
    options: tuple[tuple[str, str], ...] = ()
    instance: str = ""  # the one that its labels name


@dataclass(frozen=True, slots=True)
class HostFacts:
    """The engine's host; 0 is unknown. ``now`` is the wall clock, for the expiry of exceptions."""

    cpus: int = 0
    memory_bytes: int = 0
    platform: str = ""  # os/architecture
    volumes_root: str = DEFAULT_VOLUMES_ROOT
    now: float = 0.0


@dataclass(frozen=True, slots=True)
class CreateFacts:
    """Facts for one create, for all that ``needs`` asked.

    ``image`` is what the reference means on the engine now or, when it resolves to nothing, the
    image of the ledger's id; None when there is neither. ``trusted`` is the ledger's entry of
    the canonical reference. ``pinned`` tells that ``image`` is the one of the revision's pin: it
    was trusted when it was pinned. ``networks`` and ``volumes`` have what exists, by the name
    that was asked for. Counts hold open create intents too, not this one.
    """

    host: HostFacts = HostFacts()
    image: ImageFacts | None = None
    trusted: TrustedImage | None = None
    pinned: bool = False
    paths: Mapping[str, PathFacts] = field(default_factory=dict)
    networks: Mapping[str, NetworkFacts] = field(default_factory=dict)
    volumes: Mapping[str, VolumeFacts] = field(default_factory=dict)
    service_count: int = 0
    owner_count: int = 0
    replaces: bool = False  # the inventory has a container of that slot: a rollout's surge
    name_taken: str = ""  # "foreign" when a container that isn't ours has the name already
    name_of: str = ""  # the instance that its labels name
    existing: bool = False  # the container is there already, with the volumes that it was made with


@dataclass(frozen=True, slots=True)
class ContainerFacts:
    """A container of ours as it is now, for an update or a connect."""

    settings: Settings
    owner: str
    namespace: str
    service: str
    origin: str
    image: str = ""
    id: str = ""
    auto_remove: bool = False
    network_mode: str = ""  # by name
    published: bool = False  # it has published ports
    admitted_networks: tuple[str, ...] = ()  # those that it was made with


@dataclass(frozen=True, slots=True)
class Needs:
    """What to look at before a create can be judged.

    ``image`` is the canonical reference; ``networks`` has every name to inspect; ``implied`` are
    those of them that the gate makes when they are absent (a client's implied networks). ``kept``
    are volumes that the gate makes when they are absent (``core.rules.image_volumes``); what the image
    declares adds to them.
    """

    image: str
    paths: tuple[str, ...]
    networks: tuple[str, ...]
    volumes: tuple[str, ...]
    implied: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stamp:
    """What the broker writes onto what it lets through."""

    instance: str
    intent: str  # UUIDv7 of the intent
