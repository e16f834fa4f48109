"""The broker's inventory: the objects of this instance on the engine, as they were admitted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import count
from math import inf
from operator import attrgetter
from types import MappingProxyType
from typing import Final, TypeVar

from controller.model.confinement import Confinement
from controller.model.delivery import StoredFiles
from controller.model.names import ForeignContainer, Key, container_name, run_slot
from controller.model.observed import Ending, JobMemory, Settings

_K = TypeVar("_K")
_V = TypeVar("_V")

#: Limit of recorded take-downs. No instance takes down more within the disruption budget's window.
TAKEN_MAX: Final = 4096
APPROVALS_MAX: Final = 64
#: Ten revisions of four hundred services. Each observation has all of them: about 1 MB at most.
PINS_MAX: Final = 4096
#: Signed revisions of a service that are remembered, and services with such revisions.
SIGNED_REVISIONS_MAX: Final = 10
SIGNED_MAX: Final = 4096
#: Jobs that are remembered. Beyond, the one that ran least recently is forgotten.
JOBS_MAX: Final = 2048
#: The prefix of a volume in an approval.
VOLUME: Final = "volume:"
#: The prefix of the approval that an intent used up, among the rules of its verdict.
USED: Final = "approval:"


@dataclass(frozen=True, slots=True)
class ContainerItem:
    """A container created by a settled intent or found by recovery."""

    id: str  # the full id
    namespace: str  # "" for a client's
    service: str
    slot: int
    revision: str
    owner: str
    origin: str  # controller | client
    intent: str
    image: str  # reference as written
    admitted: Settings
    started: bool = False  # a start was admitted and settled at least once
    seq: int = 0  # of the intent of the create
    recovered: bool = False  # found by recovery: the create never got an answer
    confined: Confinement | None = None  # None: created before confinement was recorded
    #: The verification of the last start: verified, unverified: REASON, violation.
    effective: str = ""
    violation: str = ""  # the record of the violation for which the container was stopped
    aliases: tuple[str, ...] = ()  # further names in its networks
    #: The names that the controller gave the container, by network, apart from its service's name.
    network_aliases: tuple[tuple[str, tuple[str, ...]], ...] = ()
    #: The ids of the admitted networks, and the identities of the admitted volumes (``OwnedObject.identity``),
    #: by name. A name without one was adopted.
    network_ids: tuple[tuple[str, str], ...] = ()
    volume_ids: tuple[tuple[str, str], ...] = ()
    #: Published ports, as ADDRESS:PORT:PORT/PROTOCOL.
    ports: tuple[str, ...] = ()
    #: The contents, as KIND/NAME=CONTENT, of which the container got a signal.
    signalled: tuple[str, ...] = ()
    #: True for a run of a job: ``service`` is the job's name, and ``slot`` the run's number.
    is_run: bool = False
    #: True for a container that was adopted as found: it carries no label of the instance.
    adopted: bool = False
    #: The hardening that an adopted container lacks (``core.adoption.gaps``).
    gaps: tuple[str, ...] = ()
    #: The service's name in the container's labels, if a move changed the name; '' otherwise.
    former: str = ""
    #: The keyed digest of the hooks in the container's label; '' without hooks.
    hooks: str = ""
    #: The hooks of the last start: ``HOOKS_PENDING``, ``HOOKS_SUCCEEDED``, or the reason of the failure; '' for none.
    post_start: str = ""
    #: The shape of the create that a proof admitted (``core.proofs``); '' without a proof.
    signed: str = ""
    #: The members of the create or of an update that the engine dropped, sorted.
    ignored: tuple[str, ...] = ()
    #: The uid that asked for the create; -1 if unknown.
    uid: int = -1

    @property
    def volumes(self) -> tuple[str, ...]:
        """The named volumes that the container mounts, sorted; () if that wasn't recorded."""
        mounts = () if self.confined is None else self.confined.mounts
        return tuple(sorted({m.source for m in mounts if m.type == "volume" and m.source}))

    @property
    def slot_label(self) -> str:
        """The label of the slot."""
        return run_slot(self.slot) if self.is_run else str(self.slot)


@dataclass(frozen=True, slots=True)
class OwnedObject:
    """A network (by id) or a volume (by name) created by this instance, or adopted."""

    id: str
    name: str
    namespace: str
    owner: str
    origin: str
    intent: str
    #: The identity of an adopted foreign object, which carries no label of ours: the network's id,
    #: or the volume's time of creation. '' for an object with our labels.
    adopted: str = ""
    #: Of a volume: the time of its last dump, RFC 3339; '' without one.
    dumped: str = ""

    @property
    def identity(self) -> str:
        """What no later object of the same name shares: volumes have no id in the engine."""
        return self.adopted or self.intent


@dataclass(frozen=True, slots=True)
class VolumeHold:
    """A dump or restore of a volume in progress. Containers with the volume aren't started."""

    #: Of the record, and the name of the volume.
    id: str
    volume: str
    #: dump or restore.
    act: str
    #: The containers go on running.
    live: bool
    #: The ids of the containers that ran before, and run again afterwards.
    users: tuple[str, ...]
    time: str  # of the record


@dataclass(frozen=True, slots=True)
class TrustedImage:
    """A local image trusted by the ledger under a reference."""

    reference: str
    id: str
    digest: str = ""
    #: The owner whose documents built the image: nobody else's containers run it. '' for everybody.
    owner: str = ""


@dataclass(frozen=True, slots=True)
class PinnedImage:
    """The image of a revision: the first admitted one. Later slots and repairs run the same image.

    A pin answers which image a revision runs. It admits the image only under its own repository, and
    only as long as the policy in force admits the repository.
    """

    id: str
    digest: str  # of the manifest in the repository; '' for a local image
    repository: str  # HOST/PATH, of the reference under which the image was admitted
    #: Only the policy's ``images.trustLocal`` admitted the image. The pin then gives no trust: the
    #: policy in force must trust the repository too.
    by_policy: bool = False
    #: A create with a proof made the pin (``core.proofs``).
    signed: bool = False


@dataclass(frozen=True, slots=True)
class AcceptedCommit:
    """The newest accepted commit of a signed source."""

    source: str
    commit: str
    #: The policy's ``since`` when the commit was accepted.
    since: str
    signer: str
    key: str  # its fingerprint
    record: str  # the id of the record
    time: str
    #: The commit of another line that an operator approved as the next one; '' for none.
    next: str = ""


@dataclass(frozen=True, slots=True)
class SignedRevision:
    """A create of a service, as a proof admitted it."""

    shape: str
    commit: str
    #: The names of the containers by network.
    endpoints: tuple[tuple[str, tuple[str, ...]], ...]
    replicas: int
    #: A container of the shape was started.
    started: bool = False
    #: The proof of the commit: its source, its signer, and the document that declares the shape.
    source: str = ""
    signer: str = ""
    key: str = ""  # the fingerprint of the signer's key
    path: str = ""
    blob: str = ""
    #: The shape without the members of updates, and their values in JSON.
    base: str = ""
    updates: tuple[tuple[str, str], ...] = ()
    formers: tuple[str, ...] = ()  # earlier names of the service: the shape can have one of them


@dataclass(frozen=True, slots=True)
class ExecSession:
    """A started exec without a known end."""

    id: str  # the engine's
    container: str
    uid: int  # of the user who started it
    intent: str  # of the start
    time: str  # of the intent's record: RFC 3339, UTC
    hook: str = ""  # postStart or preStop, if the exec is a hook
    detached: bool = False  # nobody takes its output


@dataclass(frozen=True, slots=True)
class OpenIntent:
    """An intent without a closing record, with everything needed to close it."""

    seq: int
    time: str  # of the record: RFC 3339, UTC
    role: str
    request: dict[str, object]  # as recorded: method, route, object, summary, digest
    uid: int = -1


@dataclass(frozen=True, slots=True)
class RecordTime:
    """A record as an instant."""

    id: str = ""  # of the entry
    time: str = ""  # RFC 3339, UTC; "" if it was long ago


@dataclass(frozen=True, slots=True)
class Capacity:
    """The limits of a container that the disruption budget compares; 0 is unlimited."""

    memory: int = 0  # bytes
    nano_cpus: int = 0
    pids: int = 0
    cpu_shares: int = 0
    cpus: int = 0  # of its set of CPUs

    @classmethod
    def of(cls, settings: Settings) -> Capacity:
        """Return the capacity of a container's settings."""
        return cls(
            memory=settings.memory,
            nano_cpus=settings.quota_cpus,
            pids=max(0, settings.pids),
            cpu_shares=settings.cpu_shares or _CPU_SHARES,
            cpus=_count_cpus(settings.cpuset),
        )

    def is_below_half_of(self, other: Capacity, *, host_cpus: int = 0) -> bool:
        """Return True if a limit is less than half of the other's.

        Without a set, a container has the *host_cpus*: a number without an end if it is unknown (0).
        """
        mine, its = (replace(each, cpus=each.cpus or host_cpus) for each in (self, other))
        return any(limit < least / 2 for limit, least in _bounds(mine, its))

    def largest(self, other: Capacity) -> Capacity:
        """Return the larger of both, limit by limit."""
        return Capacity(*(0 if inf in pair else int(max(pair)) for pair in _bounds(self, other)))


#: The engine's default.
_CPU_SHARES = 1024
#: One CPU or a range of CPUs. The kernel knows at most 8192.
_CPU_SPAN = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", re.ASCII)
#: In the order of the fields of a ``Capacity``.
_LIMITS_OF = attrgetter(*(limit.name for limit in fields(Capacity)))


def _count_cpus(cpuset: str) -> int:
    """Return the number of CPUs in a set such as ``0-2,4``; 0 without a set."""
    spans = ((first, last or first) for first, last in _CPU_SPAN.findall(cpuset))
    cpus = {cpu for span in spans for cpu in range(int(span[0]), int(span[1]) + 1)}
    return max(1, len(cpus)) if cpuset else 0


def _bounds(one: Capacity, other: Capacity) -> list[tuple[float, float]]:
    pairs = zip(_LIMITS_OF(one), _LIMITS_OF(other), strict=True)
    return [(mine or inf, its or inf) for mine, its in pairs]


@dataclass(frozen=True, slots=True)
class Replica:
    """A container of the controller's, as the disruption budget counts it."""

    container: str
    service: str  # NAMESPACE/NAME
    networks: tuple[str, ...] = ()  # the admitted ones
    capacity: Capacity = field(default_factory=Capacity)
    granted: Capacity = field(default_factory=Capacity)  # the largest so far
    #: When it was started, or was unaltered again; None: not started, or stopped since.
    up: RecordTime | None = None


@dataclass(frozen=True, slots=True)
class TakenDown:
    """A mutation of the controller that takes a container down."""

    container: str
    service: str  # NAMESPACE/NAME
    route: str
    intent: str
    seq: int
    time: str  # of the intent's record
    network: str = ""  # of a disconnect
    approved: bool = False  # an operator approved it: it is not counted
    closed: bool = False  # the engine answered, or recovery settled the intent
    ended: bool = False  # the container was started, or is unaltered, again
    #: Since when the container is known to be down, or the takedown is ended.
    down_since: RecordTime | None = None


@dataclass(frozen=True, slots=True)
class Approval:
    """An operator's approval of a plan.

    Each object is approved once, and only in mutations of that plan.
    """

    id: str  # of the record
    plan: str  # digest
    objects: tuple[str, ...]  # full ids of containers, ``volume:NAME``
    time: str
    used: tuple[str, ...] = ()  # the objects already used up


class ContainerItems(dict[str, ContainerItem]):
    """The containers of an inventory by id, with an index and counts. Never changed once made."""

    __slots__ = ("by_service", "groups", "members", "ports")

    def __init__(self, items: Mapping[str, ContainerItem] = MappingProxyType({})) -> None:
        super().__init__(items)
        #: The sorted ids of the containers of each namespace and service.
        self.by_service: dict[tuple[str, str], tuple[str, ...]] = {}
        #: The number of containers of each owner and origin.
        self.groups: Counter[tuple[str, str]] = Counter()
        #: The number of published ports of each owner and origin.
        self.ports: Counter[tuple[str, str]] = Counter()
        #: The number of containers of each owner that are admitted to each network.
        self.members: Counter[tuple[str, str]] = Counter()
        if isinstance(items, ContainerItems):
            self.by_service = items.by_service.copy()
            self.groups, self.ports = items.groups.copy(), items.ports.copy()
            self.members = items.members.copy()
            return
        for item in self.values():
            _count(self, item, 1)

    def of_service(self, namespace: str, service: str) -> list[ContainerItem]:
        """Return the containers with these labels; of clients too."""
        return [self[each] for each in self.by_service.get((namespace, service), ())]

    def having(self, item: ContainerItem) -> ContainerItems:
        """Return a copy with *item* added or replaced."""
        made = self.lacking(item.id)
        made = ContainerItems(self) if made is self else made
        made[item.id] = item
        _count(made, item, 1)
        return made

    def lacking(self, identifier: str) -> ContainerItems:
        """Return a copy without a container; the same mapping if it is not there."""
        item = self.get(identifier)
        if item is None:
            return self
        made = ContainerItems(self)
        del made[identifier]
        _count(made, item, -1)
        return made

    def has_others(self, networks: Collection[str], owner: str) -> bool:
        """Return True if a container of another owner is admitted to one of the networks."""
        return any(other != owner and network in networks for network, other in self.members)


def _count(items: ContainerItems, item: ContainerItem, number: int) -> None:
    """Change index and counts for a container that was added (1) or is gone (-1)."""
    place = (item.namespace, item.service)
    others = {*items.by_service.pop(place, ())} - {item.id}
    if ids := others | ({item.id} if number > 0 else set()):
        items.by_service[place] = tuple(sorted(ids))
    _add_to(items.groups, (item.owner, item.origin), number)
    _add_to(items.ports, (item.owner, item.origin), number * len(item.ports))
    for network in item.admitted.networks:
        _add_to(items.members, (network, item.owner), number)


def _add_to(counts: Counter[_K], key: _K, number: int) -> None:
    counts[key] += number
    if not counts[key]:
        del counts[key]  # clients make networks of ever new names


def without(mapping: Mapping[_K, _V], key: _K) -> dict[_K, _V]:
    """Return a copy of a mapping without a key."""
    changed = dict(mapping)
    changed.pop(key, None)
    return changed


@dataclass(frozen=True, slots=True)
class Inventory:
    """The inventory, folded from the journal record by record (``core.records.inventory``)."""

    seq: int = 0  # of the last record
    #: The latest time of any record. Not part of the inventory's value.
    time: str = field(default="", compare=False)
    containers: Mapping[str, ContainerItem] = field(default_factory=dict)
    #: Containers that an operator released, by id, until they are gone or adopted again.
    released: Mapping[str, ContainerItem] = field(default_factory=dict)
    networks: dict[str, OwnedObject] = field(default_factory=dict)
    volumes: dict[str, OwnedObject] = field(default_factory=dict)
    ledger: dict[str, TrustedImage] = field(default_factory=dict)
    #: The first admitted image of each revision, in the order of the latest creates.
    pins: Mapping[str, PinnedImage] = field(default_factory=dict)
    sessions: dict[str, ExecSession] = field(default_factory=dict)  # by the exec's id
    open: dict[str, OpenIntent] = field(default_factory=dict)  # by the intent's id
    #: The address of each slot by the network's id, the last one named at the end (``core.addresses``).
    addresses: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    #: The controller's containers, by id, and its outstanding takedowns, by the intent's id.
    replicas: Mapping[str, Replica] = field(default_factory=dict)
    taken: Mapping[str, TakenDown] = field(default_factory=dict)
    approvals: dict[str, Approval] = field(default_factory=dict)  # by the record's id
    endings: Mapping[str, Ending] = field(default_factory=dict)  # by the container's id
    #: Stored contents of delivered files, by ``str(FileSet)``.
    files: Mapping[str, StoredFiles] = field(default_factory=dict)
    taken_down: str = ""  # the record of the last ``trimtab down``
    #: The time of the last record before a restore that no operator has confirmed; '' otherwise.
    restored: str = ""
    #: The instance of the backup that this one began with on another engine, as long; '' otherwise.
    restored_from: str = ""
    taken_over: frozenset[str] = frozenset()  # namespaces with objects of a lost state folder
    jobs: Mapping[Key, JobMemory] = field(default_factory=dict)
    #: Dumps and restores in progress, by the name of the volume.
    holds: Mapping[str, VolumeHold] = field(default_factory=dict)
    #: The newest accepted commit of each signed source, by its name.
    accepted: Mapping[str, AcceptedCommit] = field(default_factory=dict)
    #: The last revisions that proofs admitted, by the key of the service or job; the latest last.
    signed: Mapping[str, tuple[SignedRevision, ...]] = field(default_factory=dict)

    @property
    def items(self) -> ContainerItems:
        """The containers, indexed."""
        known = self.containers
        if not isinstance(known, ContainerItems):
            known = ContainerItems(known)
            object.__setattr__(self, "containers", known)
        return known


def released_holders(inventory: Inventory) -> tuple[ForeignContainer, ...]:
    """Return the released containers as holders of their slots, volumes and networks."""
    return tuple(
        ForeignContainer(
            *(item.id, item.admitted.name, item.namespace, item.service, item.slot_label),
            writes=item.volumes,
            released=True,
            networks=item.admitted.networks,
        )
        for item in inventory.released.values()
    )


def next_name(inventory: Inventory, item: ContainerItem) -> str:
    """Return the name of the next container in the slot of *item*, of its revision."""
    known = (*inventory.containers.values(), *inventory.released.values())
    taken = {each.admitted.name for each in known}
    place = (item.namespace, item.service)
    return next(
        name
        for attempt in count(1)
        if (name := container_name(*place, slot=item.slot, revision=item.revision, attempt=attempt))
        not in taken
    )


def moving(inventory: Inventory, source: Key) -> tuple[ContainerItem, ...]:
    """Return the containers of the controller's service *source*: those that a move takes."""
    found = inventory.items.of_service(source.namespace, source.name)
    return tuple(each for each in found if each.origin == "controller" and not each.is_run)
