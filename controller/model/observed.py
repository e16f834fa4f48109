"""The observed state: what the engine shows, as one frozen snapshot.

Only objects that are ours (instance label and the broker's inventory) are in it; the one
exception are networks and volumes that hold a name we would use, marked ``ours=False``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from controller.model.names import Key


class ContainerState(StrEnum):
    """``State.Status`` of the engine's inspect."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Settings:
    """What can be changed on a living container from outside, as the engine shows it.

    The same shape, as admitted by the broker at create or at our last update, is in the
    inventory; a difference between the two is an alteration. Bytes, nano-CPUs, microseconds.
    """

    name: str
    memory: int = 0
    memory_swap: int = 0
    memory_reservation: int = 0
    nano_cpus: int = 0
    cpu_quota: int = 0
    cpu_period: int = 0
    cpu_shares: int = 0
    cpuset: str = ""
    pids: int = 0
    restart: str = "no"
    restart_max: int = 0
    networks: tuple[str, ...] = ()  # sorted names
    others: tuple[str, ...] = ()  # limits that nobody is admitted with, as NAME=VALUE


@dataclass(frozen=True, slots=True, order=True)
class HostPort:
    """An address and port of the host; ``protocol`` is ``tcp`` or ``udp``."""

    address: str
    port: int
    protocol: str = "tcp"


@dataclass(frozen=True, slots=True)
class Ending:
    """Who ended a container's last run, or removed it, by a mutation through the gate."""

    container: str
    route: str  # of the mutation: container.stop, container.kill, container.remove
    role: str  # controller, operator, client or broker
    uid: int
    time: str  # of the record that says so: RFC 3339, UTC
    reason: str = ""  # the violation for which the broker ended it: RULE: what was found


@dataclass(frozen=True, slots=True)
class Container:
    """A container of ours."""

    id: str
    key: Key  # of the Service; for origin=client, of the service that the client named
    slot: int  # 0 for a client's
    revision: str
    owner: str
    origin: str  # "controller" or "client"
    intent: str  # id of the intent that created it
    image: str  # the reference as written (label io.trimtab.image)
    image_id: str
    state: ContainerState
    settings: Settings
    admitted: Settings | None  # None: the inventory doesn't know (recovery in progress)
    health: str = ""  # "", starting, healthy, unhealthy
    complaint: str = ""  # why an http or tcp check of it wasn't good the last time
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""
    started_at: str = ""  # RFC 3339, as the engine writes it; "" when never started
    finished_at: str = ""
    restart_count: int = 0
    stop_grace_s: int | None = None  # Config.StopTimeout; None: none was set at its create
    addresses: tuple[tuple[str, str], ...] = ()  # network name, address
    ports: tuple[HostPort, ...] = ()  # published now, sorted
    writes: tuple[str, ...] = ()  # the named volumes that it may write to, sorted
    #: Network name, and the aliases that were asked for there; by name, as ``settings.networks``.
    aliases: tuple[tuple[str, tuple[str, ...]], ...] = ()
    cut_off: tuple[str, ...] = ()  # networks that it is shown in, and that don't know of it
    #: What the kernel showed at its last start: verified, unverified: …, violation; '' if unknown.
    effective: str = ""
    violation: str = ""  # the record for which the broker stopped it
    ending: Ending | None = None  # who ended its last run, where the broker knows
    unknown: tuple[str, ...] = ()  # what its inspect shows and nobody here knows, by path

    @property
    def name(self) -> str:
        """The container's name now."""
        return self.settings.name

    @property
    def running(self) -> bool:
        """Tell whether its process runs (and isn't frozen)."""
        return self.state is ContainerState.RUNNING


@dataclass(frozen=True, slots=True)
class ObservedNetwork:
    """A network on the engine."""

    id: str
    name: str
    ours: bool
    origin: str = ""
    namespace: str = ""
    internal: bool = False
    driver: str = "bridge"
    masquerade: bool = True
    icc: bool = True
    containers: int = 0


@dataclass(frozen=True, slots=True)
class ObservedVolume:
    """A named volume on the engine."""

    name: str
    ours: bool
    origin: str = ""
    driver: str = "local"
    options: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Image:
    """A local image: its id (``sha256:…``) and, where a registry named it, its digest."""

    id: str
    digest: str = ""  # "" for an image built here


@dataclass(frozen=True, slots=True)
class Observed:
    """One look at the engine. ``images`` has every reference asked for; None: not there.

    ``pins`` maps a revision to the image that it was first admitted with. ``listening`` is what is
    bound in the network namespace of whoever looked; empty where nobody looked. ``endings`` has what
    the broker knows of runs that ended and of removals, by the container's id, ``taken_down`` the
    record of the last ``trimtab down``.
    """

    instance: str
    engine_id: str = ""
    containers: tuple[Container, ...] = ()
    networks: tuple[ObservedNetwork, ...] = ()
    volumes: tuple[ObservedVolume, ...] = ()
    images: dict[str, Image | None] = field(default_factory=dict)
    pins: dict[str, Image] = field(default_factory=dict)
    #: The paths that each image of ``images`` declares as VOLUMEs, by the image's id.
    image_volumes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    listening: frozenset[HostPort] = frozenset()
    endings: Mapping[str, Ending] = field(default_factory=dict)
    taken_down: str = ""
    # Made when first asked for: a plan of everything asks once for each service.
    _by_key: dict[Key, tuple[Container, ...]] | None = field(
        init=False, repr=False, compare=False, default=None
    )

    def of(self, key: Key) -> tuple[Container, ...]:
        """Return the containers of a service that the controller made, by slot and name."""
        index = self._by_key
        if index is None:
            index = self._indexed()
            # Whole, so that no other thread sees half of it.
            object.__setattr__(self, "_by_key", index)
        return index.get(key, ())

    def _indexed(self) -> dict[Key, tuple[Container, ...]]:
        found: dict[Key, list[Container]] = {}
        for container in sorted(self.containers, key=lambda c: (c.slot, c.name)):
            if container.origin == "controller":
                found.setdefault(container.key, []).append(container)
        return {key: tuple(containers) for key, containers in found.items()}
