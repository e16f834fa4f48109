"""The observed state: one frozen snapshot of the engine.

The snapshot has only objects of this instance (instance label and broker inventory). The exception
are networks and volumes with a name needed by this instance; they have ``ours=False``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from functools import cached_property
from typing import Literal

from controller.model.delivery import MountedFiles, StoredFiles
from controller.model.names import ForeignContainer, Key

#: The events of hooks, in records.
POST_START, PRE_STOP = "postStart", "preStop"
#: Results of the hooks of a start. Any other text is the reason of a failure.
HOOKS_PENDING, HOOKS_SUCCEEDED = "pending", "succeeded"


class ContainerState(StrEnum):
    """``State.Status`` of the engine's inspect."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"


CPU_SHARES_MAX = 4_096
#: The value of a limit in ``Settings``: a number, or a text such as a set of CPUs.
LimitValue = int | str


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """The limits that an engine can change on a living container. 0 and '' are unset.

    Units: bytes, nano-CPUs, microseconds.
    """

    memory: int = 0
    memory_swap: int = 0
    memory_reservation: int = 0
    nano_cpus: int = 0
    cpu_quota: int = 0
    cpu_period: int = 0
    cpu_shares: int = 0
    cpuset: str = ""
    pids: int = 0

    @property
    def quota_cpus(self) -> int:
        """The CPUs in nano-CPUs, given as ``nano_cpus`` or as quota and period; 0 without a limit."""
        quota = max(0, self.cpu_quota)
        return self.nano_cpus or quota * 10**9 // (self.cpu_period or _CPU_PERIOD_US)


#: The engine's default.
_CPU_PERIOD_US = 100_000
#: The names of all limits.
LIMIT_NAMES = tuple(each.name for each in fields(EngineLimits))


@dataclass(frozen=True, slots=True)
class Settings(EngineLimits):
    """The settings of a running container that can change from outside, as the engine shows them.

    The inventory has the same shape, as admitted at the create or at the last update. A difference
    between the two is drift.
    """

    name: str
    restart: str = "no"
    restart_max: int = 0
    networks: tuple[str, ...] = ()  # sorted names
    others: tuple[str, ...] = ()  # limits that are never admitted, as NAME=VALUE


@dataclass(frozen=True, slots=True, order=True)
class HostPort:
    """An address and port of the host; ``protocol`` is ``tcp`` or ``udp``."""

    address: str
    port: int
    protocol: str = "tcp"

    def overlaps(self, other: HostPort) -> bool:
        """Return True if two sockets cannot be bound to both."""
        if (self.port, self.protocol) != (other.port, other.protocol):
            return False
        one, two = ipaddress.ip_address(self.address), ipaddress.ip_address(other.address)
        return one == two or (
            one.version == two.version and (one.is_unspecified or two.is_unspecified)
        )


@dataclass(frozen=True, slots=True)
class Ending:
    """The mutation that ended a container's last run, or removed the container."""

    container: str
    route: str  # of the mutation: container.stop, container.kill, container.remove
    #: controller, operator, client or broker; outside: on the engine's own socket
    role: str
    uid: int
    time: str  # of the record: RFC 3339, UTC
    reason: str = ""  # the violation, RULE: SENTENCE, if the broker ended the run


@dataclass(frozen=True, slots=True)
class JobRun:
    """A run of a job, as the broker recorded the run."""

    number: int
    revision: str
    #: Why the run was made: ``change``, ``manual:ID``, ``schedule:INSTANT`` or ``rollout:…``.
    occasion: str
    container: str  # its full id
    created: str  # RFC 3339, UTC, like all times of a run
    started: str = ""  # '' if never started
    ended: str = ""  # '' while the run is not known to have ended
    #: ``cut``: ended from outside, or unknown. ``unstarted``: removed before any start. '' until the end.
    outcome: Literal["", "succeeded", "failed", "cut", "unstarted"] = ""
    why: str = ""  # the end in words, for example ``exited with 1``


@dataclass(frozen=True, slots=True)
class JobOccasion:
    """All runs of a job for a revision and an occasion."""

    revision: str
    name: str
    runs: int = 0
    #: Runs that failed or were cut.
    failed: int = 0
    cut: int = 0
    #: Of the run that ended last. An unstarted run counts only if no other run ended. ``held``: there was
    #: no run, and none is made for this occasion.
    outcome: Literal["", "succeeded", "failed", "cut", "unstarted", "held"] = ""
    last: int = 0  # the number of the last run
    ended: str = ""  # when that run ended; '' while the only run at a time goes on
    why: str = ""  # how that run ended
    succeeded: int = 0
    #: How many runs must succeed, and how many go on at a time, as the first run's label says.
    completions: int = 1
    parallelism: int = 1

    @property
    def is_complete(self) -> bool:
        """True if no further run is to succeed."""
        if self.completions == 1:
            # A new run of the occasion begins anew, and the number of successes counts all.
            return self.outcome == "succeeded"
        return self.succeeded >= self.completions

    @property
    def progress(self) -> str:
        """The successes, such as ``2/3 completed``."""
        succeeded = int(self.is_complete) if self.completions == 1 else self.succeeded
        return f"{succeeded}/{self.completions} completed"


@dataclass(frozen=True, slots=True)
class JobMemory:
    """The broker's memory of a job. It outlives the containers of the runs."""

    last: int = 0  # the highest number of a run
    runs: tuple[JobRun, ...] = ()  # the latest ones, by number
    occasions: tuple[JobOccasion, ...] = ()  # the latest ones, by their last run
    #: Operators' requests without a run: the ids of their records.
    requests: tuple[str, ...] = ()

    def occasion(self, revision: str, name: str) -> JobOccasion | None:
        """Return the runs of a revision for an occasion; None if there were none."""
        found = (o for o in self.occasions if (o.revision, o.name) == (revision, name))
        return next(found, None)

    @property
    def open_runs(self) -> tuple[JobRun, ...]:
        """The runs that are not known to have ended."""
        return tuple(run for run in self.runs if not run.ended)

    def runs_of(self, occasion: JobOccasion) -> tuple[JobRun, ...]:
        """Return the remembered runs of an occasion. All runs that go on are remembered."""
        wanted = (occasion.revision, occasion.name)
        return tuple(run for run in self.runs if (run.revision, run.occasion) == wanted)


NO_RUNS = JobMemory()


@dataclass(frozen=True, slots=True)
class ContainerUse:
    """What the kernel counts of a running container."""

    #: Processor time since its start, in seconds.
    cpu_s: float
    #: Without inactive pages of files, which the kernel gives back when memory is short.
    memory_bytes: int
    processes: int = 0


@dataclass(frozen=True, slots=True)
class Container:
    """A container of this instance."""

    id: str
    key: Key  # of the Service or Job; for origin=client, of the service that the client named
    slot: int  # 0 for a client's; of a Job, the number of the run
    revision: str
    owner: str
    origin: str  # "controller" or "client"
    intent: str  # id of the intent that created it
    image: str  # the reference as written (label io.trimtab.image)
    image_id: str
    state: ContainerState
    settings: Settings
    admitted: Settings | None  # None: not in the inventory (recovery in progress)
    health: str = ""  # "", starting, healthy, unhealthy
    complaint: str = ""  # why the last check, or a postStart hook, failed; without its output
    #: What the last failed check of the engine printed, cut: output of the container, so possibly secret.
    check_output: str = field(default="", repr=False)
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""
    started_at: str = ""  # RFC 3339, as the engine writes it; "" when never started
    finished_at: str = ""
    restart_count: int = 0
    stop_grace_s: int | None = None  # Config.StopTimeout; None if the create set none
    addresses: tuple[tuple[str, str], ...] = ()  # network name, address
    #: Likewise: the addresses that the engine was told to give the container.
    chosen: tuple[tuple[str, str], ...] = ()
    #: Likewise: the addresses of the container's slot, as the broker remembers them.
    slot_addresses: tuple[tuple[str, str], ...] = ()
    #: Network name, address of the slot, and the name of the container of others at that address.
    holders: tuple[tuple[str, str, str], ...] = ()
    ports: tuple[HostPort, ...] = ()  # published now, sorted
    writes: tuple[str, ...] = ()  # the named volumes mounted writable, sorted
    #: Each network with the requested aliases; by name, as ``settings.networks``.
    aliases: tuple[tuple[str, tuple[str, ...]], ...] = ()
    #: The aliases by network to which the container is admitted besides its service's name.
    admitted_aliases: tuple[tuple[str, tuple[str, ...]], ...] = ()
    #: Networks in the container's inspect that do not list the container.
    cut_off: tuple[str, ...] = ()
    #: The verification of the last start: verified, unverified: REASON, violation; '' if unknown.
    effective: str = ""
    violation: str = ""  # the record of the violation for which the broker stopped it
    ending: Ending | None = None  # who ended the last run, if known
    #: The delivered files that the container has.
    files: tuple[MountedFiles, ...] = ()
    adopted: bool = False  # as found, by an operator
    gaps: tuple[str, ...] = ()  # the hardening that an adopted container lacks
    unknown: tuple[str, ...] = ()  # members of the inspect without a row in MEMBERS, by path
    #: The service's name in the container's labels, if a move changed the name; '' otherwise.
    former: str = ""
    #: The hooks of the last start (``ContainerItem.post_start``).
    post_start: str = ""
    #: The ids of the containers whose namespaces the container shares.
    shares: tuple[str, ...] = ()
    #: The members of the create or of an update that the engine dropped, sorted.
    ignored: tuple[str, ...] = ()

    @property
    def awaits_hooks(self) -> bool:
        """Return True if a hook of the start has not ended, or has failed."""
        return self.post_start not in ("", HOOKS_SUCCEEDED)

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def running(self) -> bool:
        """Return True if the container runs and is not paused."""
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
    #: An operator adopted the network, which existed before.
    adopted: bool = False
    subnets: tuple[str, ...] = ()
    #: The host's interface of a macvlan network, and the range of its addresses.
    parent: str = ""
    ip_range: str = ""
    #: The connected containers that the controller did not create: of clients, or of others.
    outsiders: int = 0
    #: Slots have addresses of their own here, which successors take over.
    has_slot_addresses: bool = False
    #: The containers of others at addresses of slots: address, name.
    held: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ObservedVolume:
    """A named volume on the engine."""

    name: str
    ours: bool
    origin: str = ""
    driver: str = "local"
    options: tuple[tuple[str, str], ...] = ()
    #: Of an adopted volume: the namespace; else ''.
    belongs_to: str = ""
    #: The time of its last dump, RFC 3339; '' without one.
    dumped: str = ""


@dataclass(frozen=True, slots=True)
class Image:
    """A local image: the id (``sha256:…``), and the digest of a registry."""

    id: str
    digest: str = ""  # "" for an image built here


#: Containers by service.
Groups = dict[Key, tuple[Container, ...]]


@dataclass(frozen=True)
class Observed:
    """One observation of the engine."""

    instance: str
    engine_id: str = ""
    #: Of Docker, such as ``26.1.5``.
    engine_version: str = ""
    #: A sentence about an engine that trimtab was not tested on; '' for a tested one.
    untested: str = ""
    containers: tuple[Container, ...] = ()
    networks: tuple[ObservedNetwork, ...] = ()
    volumes: tuple[ObservedVolume, ...] = ()
    #: Every requested reference; None if the engine has no such image.
    images: dict[str, Image | None] = field(default_factory=dict)
    #: The first admitted image of each revision.
    pins: dict[str, Image] = field(default_factory=dict)
    #: The VOLUME paths of each image of ``images``, by the image's id.
    image_volumes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    #: The settings that each image of ``images`` brings, by the image's id: ``entrypoint``,
    #: ``command``, ``user``, ``workingDir``, ``healthcheck``.
    image_settings: dict[str, tuple[str, ...]] = field(default_factory=dict)
    #: The ports bound in the observer's network namespace; empty if not inspected.
    listening: frozenset[HostPort] = frozenset()
    #: Ended runs and removals known to the broker, by the container's id.
    endings: Mapping[str, Ending] = field(default_factory=dict)
    #: The contents that the broker has stored, by ``str(FileSet)``.
    files: Mapping[str, StoredFiles] = field(default_factory=dict)
    taken_down: str = ""  # the record of the last ``trimtab down``
    #: The broker's memory of each job that ran, or was asked to run.
    jobs: Mapping[Key, JobMemory] = field(default_factory=dict)
    foreign: tuple[ForeignContainer, ...] = ()
    #: Why a container of a service can't be read, by the service. The others of it may be missing here.
    unread: Mapping[Key, str] = field(default_factory=dict)

    # Indexes are built at the first use: a plan of everything asks for each service.
    @cached_property
    def groups(self) -> Groups:
        """The containers of each service, of all creators, sorted by slot and name."""
        made: dict[Key, list[Container]] = {}
        for container in sorted(self.containers, key=lambda each: (each.slot, each.name)):
            made.setdefault(container.key, []).append(container)
        return {key: tuple(found) for key, found in made.items()}

    def of(self, key: Key) -> tuple[Container, ...]:
        """Return the containers of a service created by the controller, by slot and name."""
        found = self.groups.get(key, ())
        return tuple([each for each in found if each.origin == "controller"])

    @cached_property
    def services(self) -> frozenset[Key]:
        """The services with containers created by the controller."""
        return frozenset(each.key for each in self.containers if each.origin == "controller")

    def find(self, identifier: str) -> Container | None:
        """Return the container with an id."""
        return next((each for each in self.containers if each.id == identifier), None)
