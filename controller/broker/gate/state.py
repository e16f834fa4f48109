"""The state shared by all requests: the policy, the inventory, and the state of each feature.

``GateState`` is read and changed by a single thread, between two commands of a flow. The driver
replaces ``policy`` (reload) and ``inventory`` (after each record); handlers never do. Each feature
keeps its state in a small class, so that a handler names the state in use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from math import inf
from typing import TYPE_CHECKING, TypeVar

from controller.core.admission.create import PortClaim
from controller.core.admission.dns_names import DnsNames
from controller.core.enforcement.approvals import ApprovalView
from controller.core.enforcement.limits import Buckets, Counted
from controller.core.engine_api.requests import ExecRequest
from controller.core.engine_api.streams import Access
from controller.model.inventory import Inventory, released_holders
from controller.model.names import ForeignContainer
from controller.model.policy.document import Policy
from controller.model.records import Role
from controller.ports import Clock, EngineFacts, JournalHealth, NewId

if TYPE_CHECKING:
    from controller.broker.gate.commands import SecretOpened
    from controller.core.proofs.proven_commit import OtherLine
    from controller.core.proofs.rendering import Rendering
    from controller.core.secrets.declared import SecretName

#: The API versions that clients may use. The engine is called with the lower of its own version
#: and the newest.
OLDEST_API = (1, 44)
NEWEST_API = (1, 45)
#: Times of records beyond which those that matter no more are dropped.
TIMES_MAX = 8192
#: Intents of creates that are remembered. Containers of older ones have been listed long ago.
OWN_CREATES_MAX = 4096
#: Views of approvals that are remembered.
VIEWS_MAX = 16


@dataclass(slots=True)
class IntentState:
    """Intents of the process (``gate.mutate``, ``guards.recovery``)."""

    #: Intents that a request still works on. Recovery closes every other open intent; until then
    #: the object of the intent is held.
    in_flight: set[str] = field(default_factory=set)
    #: Intents that recovery is settling now.
    settling: set[str] = field(default_factory=set)
    #: When an intent that is still open was recorded, by the monotonic clock.
    recorded_at: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class CreatedExec:
    """An exec created by the broker, for its creator to start once. Times are monotonic."""

    container: str
    uid: int
    role: Role
    created_at: float
    #: The start time of the container when the exec was created, as the engine shows it.
    container_started: str
    #: The request, to be judged again at the start; None once the exec was started.
    request: ExecRequest | None
    started_at: float = 0.0
    ended_at: float | None = None


@dataclass(slots=True)
class ExecState:
    """Execs created by the broker (``handlers.container_exec``), by the engine's id."""

    created: dict[str, CreatedExec] = field(default_factory=dict)
    #: Execs with a connection that is being relayed.
    attached: set[str] = field(default_factory=set)
    #: How many starts of a container are in progress, with their hooks.
    hooked: Counter[str] = field(default_factory=Counter)
    #: The latest run of the hooks of a container's start. Earlier runs record no result.
    hook_runs: dict[str, object] = field(default_factory=dict)
    #: The containers with hooks of a stop in progress.
    stopping: set[str] = field(default_factory=set)
    #: How often the broker tried to end an exec that ran out of time.
    end_attempts: dict[str, int] = field(default_factory=dict)
    #: Sessions under supervision: a second look does not begin meanwhile.
    supervised: set[str] = field(default_factory=set)


@dataclass(slots=True)
class VerificationState:
    """Containers under comparison with their admission (``guards.kernel_verify``)."""

    #: The number of verifications of each container: none begins after an event meanwhile.
    in_progress: Counter[str] = field(default_factory=Counter)
    #: When the limits and networks of a container were restored lately, by the monotonic clock.
    restored_at: dict[str, tuple[float, ...]] = field(default_factory=dict)
    #: The DNS names that a container got past the broker and nobody else had, at the last look.
    found_names: dict[str, frozenset[str]] = field(default_factory=dict)

    @contextmanager
    def holding(self, *containers: str) -> Iterator[None]:
        """Count a verification of the containers until the block ends."""
        self.in_progress.update(containers)
        try:
            yield
        finally:
            self.in_progress = self.in_progress - Counter(containers)  # drops counts of zero


@dataclass(slots=True)
class DroppedState:
    """What the engine dropped of creates and updates (``handlers.ignored_settings``).

    Forgotten at a start, a new connection to the engine, and a change of the policy.
    """

    members: frozenset[str] = frozenset()
    #: What was in force as they were learned.
    policy: Policy | None = None
    engine: EngineFacts | None = None


V = TypeVar("V")


@contextmanager
def reserving(table: dict[str, V], claims: Mapping[str, V]) -> Iterator[None]:
    """Keep claims in a table of the state, such as ``ReservationState.names``, during the block."""
    table.update(claims)
    try:
        yield
    finally:
        for identifier in claims:
            table.pop(identifier, None)


@dataclass(slots=True)
class ReservationState:
    """The claims of creates, renames and joins in progress, by the id of the request."""

    #: Objects that are being created, for quotas, by the id of their intent.
    objects: dict[str, Counted] = field(default_factory=dict)
    #: DNS names of a container (``guards.conflicts``).
    names: dict[str, DnsNames] = field(default_factory=dict)
    #: Host ports of a container (``guards.conflicts``).
    ports: dict[str, PortClaim] = field(default_factory=dict)
    #: A slot, and its addresses by the network's id (``handlers.addresses``).
    addresses: dict[str, tuple[str, Mapping[str, str]]] = field(default_factory=dict)


@dataclass(slots=True)
class ShareState:
    """The spent part of each client's shares, by uid (``guards.client_shares``)."""

    mutations: Buckets = field(default_factory=dict)
    #: Bytes.
    journal: Buckets = field(default_factory=dict)


@dataclass(slots=True)
class HoldState:
    """Dumps and restores of volumes in progress (``handlers.volumes``)."""

    #: When the command of a hold was last heard of, by the hold's id, monotonic.
    renewed_at: dict[str, float] = field(default_factory=dict)
    #: The containers that the end of a hold starts now, each with the volume of the hold.
    starting: set[tuple[str, str]] = field(default_factory=set)
    #: The holds that end since their command was silent, by id: their containers may run.
    ending: set[str] = field(default_factory=set)
    #: Restores that ended amid the exchange of the data, by the name of the volume.
    unfinished: set[str] = field(default_factory=set)


@dataclass(slots=True)
class ProofState:
    """The rendered commits of signed sources (``handlers.proofs.uploads``), by the source's name.

    Empty after a start or a reload of the policy: the controller uploads the proofs again.
    """

    renderings: dict[str, Rendering] = field(default_factory=dict)
    #: The sources with a commit that is being recorded.
    accepting: set[str] = field(default_factory=set)
    #: By source: the newest upload of a signed commit of another line.
    lines: dict[str, OtherLine] = field(default_factory=dict)
    #: How often the renderings were forgotten: a proof under verification has the keys of before.
    forgotten: int = 0

    def forget(self) -> None:
        """Forget the renderings at a reload, even of an invalid policy: keys can have been revoked."""
        self.renderings.clear()
        self.lines.clear()
        self.forgotten += 1


@dataclass(slots=True)
class SecretState:
    """Opened Secrets (``deliveries.secrets``)."""

    #: Contents that were new as they were opened, and whose record isn't written yet.
    unrecorded: dict[tuple[SecretName, str], SecretOpened] = field(default_factory=dict)


@dataclass(slots=True)
class SplitBrainState:
    """Containers with the label of the instance, created by another process.

    See ``guards.split_brain``.
    """

    #: Containers that are not in the inventory, at the last list: id -> name.
    unknown: dict[str, str] = field(default_factory=dict)
    #: The namespaces in the labels of the unknown containers.
    unknown_namespaces: frozenset[str] = frozenset()
    #: Those of the unknown containers that run, or that the engine may start. Rivals are left out.
    holders: tuple[ForeignContainer, ...] = ()
    #: The unknown containers that another broker of this instance created.
    rivals: dict[str, str] = field(default_factory=dict)
    #: There may be rivals: list containers before anyone but an operator changes anything.
    in_doubt: bool = False
    #: The containers were listed, since this process began.
    listed: bool = False
    #: Wall clock time: this process or another broker recorded every later intent.
    alone_since: float = 0.0
    #: Intents of creates of this process; the keys are in order.
    own_creates: dict[str, None] = field(default_factory=dict)

    @property
    def is_alone(self) -> bool:
        """True if no container with the label of the instance is unknown, as far as was looked."""
        return self.listed and not self.unknown

    def add_create(self, intent: str) -> None:
        """Remember the intent in the label of a new container."""
        self.own_creates[intent] = None
        if len(self.own_creates) > OWN_CREATES_MAX:
            del self.own_creates[next(iter(self.own_creates))]


@dataclass(slots=True)
class ApprovalState:
    """What operators were shown lately before an approval (``handlers.own.trimtab_api``)."""

    #: By digest; the oldest first. Only the words of a refusal need a view: its digest is enough
    #: to compare.
    shown: dict[str, ApprovalView] = field(default_factory=dict)

    def remember(self, view: ApprovalView) -> None:
        """Remember a view for the words of a later refusal."""
        self.shown = dict([*self.shown.items(), (view.digest, view)][-VIEWS_MAX:])


@dataclass(slots=True)
class HealthState:
    """The report of ``GET health``, besides the engine."""

    journal: JournalHealth = field(default_factory=JournalHealth)
    #: Why no record can be written now; '' while records can be written.
    journal_error: str = ""
    #: The last record in the index of the journal.
    indexed: int = 0
    #: Why the index is behind; '' if it is not.
    index_error: str = ""
    #: Refusals that were answered and could not be recorded.
    unrecorded_refusals: int = 0
    #: Returns the number of connections of each group of peers that are served now.
    connections: Callable[[], Mapping[str, int]] = dict
    #: The names of the containers whose last row in a list was too long to be read whole, by id.
    long_containers: dict[str, str] = field(default_factory=dict)
    #: Connections that got a 503, because their group or their uid has too many.
    refused_connections: int = 0
    #: Returns the longest stall of the event loop in the last one to two minutes.
    longest_stall_s: Callable[[], float] = lambda: 0.0
    #: Returns the processor time of the process in seconds, and its memory in bytes.
    process_use: Callable[[], tuple[float, int]] = lambda: (0.0, 0)
    #: What was counted since the start, by the name of a metric and its labels.
    counted: Counter[tuple[str, ...]] = field(default_factory=Counter)
    #: Why the last reload kept the previous policy: its mistakes, a line each; '' without any.
    policy_error: str = ""
    #: How often the policy file was read again, with or without success.
    policy_reloads: int = 0
    #: The digest of the file of settings that is in force.
    settings_digest: str = ""
    #: Why the last reload kept the previous settings: the mistakes, a line each; '' without any.
    settings_error: str = ""
    #: Keys of the broker's with other values than at its start: they need a restart.
    settings_waiting: tuple[str, ...] = ()
    #: Why the previous registry credentials stay in use.
    access_error: str = ""

    def count_refused_connection(self) -> None:
        """Count a connection that got a 503."""
        self.refused_connections += 1


@dataclass(slots=True)
class TagState:
    """Tags of parts of the inventory. A caller names the tags of its parts, and gets only others."""

    _known: dict[str, tuple[str, object]] = field(default_factory=dict)

    def tag_of(self, name: str, value: object, new_id: NewId) -> str:
        """Return the tag of a part: a new tag for each changed value."""
        tag, known = self._known.get(name, ("", None))
        if not tag or (known is not value and known != value):
            tag = new_id()
        self._known[name] = (tag, value)
        return tag


@dataclass(slots=True)
class GateState:
    """Everything that handlers know besides the request."""

    policy: Policy
    inventory: Inventory
    instance: str
    engine: EngineFacts
    clock: Clock
    new_id: NewId
    volumes_root: str = "/var/lib/docker/volumes"
    #: The folders of delivered files, by their kind.
    file_roots: Mapping[str, str] = field(default_factory=dict)
    #: The key of the hashes of values that may be secret (``redact.hashes``).
    hash_key: bytes = b""
    #: The last record of the journal when this process started: an earlier broker wrote all up to
    #: this number.
    start_seq: int = 0
    start_monotonic: float = 0.0
    #: The wall clock at the start, for the age of records from before it (``age_s``).
    start_wall: float = -1.0
    #: The registries for which credentials are configured.
    access: Access = field(default_factory=Access)
    #: Whether the engine supports seccomp.
    seccomp: bool = True
    #: Returns the networks to which the host has routes now.
    routes: Callable[[], tuple[str, ...]] = tuple
    #: When this process wrote the last record of an id, monotonic.
    recorded_at: dict[str, float] = field(default_factory=dict)
    #: When a request at a quota last looked for objects that were removed elsewhere, monotonic.
    forgot_at: float | None = None
    #: The containers of runs whose end is being recorded (``guards.jobs.runs``).
    ending_runs: set[str] = field(default_factory=set)
    intents: IntentState = field(default_factory=IntentState)
    holds: HoldState = field(default_factory=HoldState)
    execs: ExecState = field(default_factory=ExecState)
    verification: VerificationState = field(default_factory=VerificationState)
    reservations: ReservationState = field(default_factory=ReservationState)
    shares: ShareState = field(default_factory=ShareState)
    split_brain: SplitBrainState = field(default_factory=SplitBrainState)
    approvals: ApprovalState = field(default_factory=ApprovalState)
    dropped: DroppedState = field(default_factory=DroppedState)
    proofs: ProofState = field(default_factory=ProofState)
    secrets: SecretState = field(default_factory=SecretState)
    #: The owners of builds in progress, by the id of the request.
    builds: dict[str, str] = field(default_factory=dict)
    health: HealthState = field(default_factory=HealthState)
    tags: TagState = field(default_factory=TagState)

    def __post_init__(self) -> None:
        """Read the wall clock, once."""
        if self.start_wall < 0:
            self.start_wall = self.clock.now()

    def remember_time(self, identifier: str) -> None:
        """Remember when the last record of an id was written: its age may matter."""
        self.recorded_at[identifier] = self.clock.monotonic()
        if len(self.recorded_at) <= TIMES_MAX:
            return
        known = {each.intent for each in self.inventory.taken.values()}
        known |= {each.down_since.id for each in self.inventory.taken.values() if each.down_since}
        known |= {each.up.id for each in self.inventory.replicas.values() if each.up}
        known |= self.inventory.approvals.keys() | self.intents.in_flight | {identifier}
        self.recorded_at = {key: at for key, at in self.recorded_at.items() if key in known}

    def age_s(self, identifier: str, time: str) -> float:
        """Return the age of a record, by the monotonic clock: the wall clock may jump.

        A record from before the start of the process has its age at the start, by the wall clock,
        plus the time since. The age of a record dated in the future is negative. A record without
        a time is infinitely old.
        """
        now = self.clock.monotonic()
        at = self.recorded_at.get(identifier)
        if at is not None:
            return now - at
        if not time:
            return inf
        before_s = self.start_wall - datetime.fromisoformat(time).timestamp()
        return before_s + (now - self.start_monotonic)

    @property
    def ignores(self) -> tuple[str, ...]:
        """The members of a create that the engine drops, by its own words or as seen, sorted."""
        dropped, current = self.dropped, (self.policy, self.engine)
        seen = dropped.members if (dropped.policy, dropped.engine) == current else ()
        return tuple(sorted({*self.engine.ignores, *seen}))

    def learn_dropped(self, members: Iterable[str]) -> None:
        """Remember the members of a change that an inspect didn't show."""
        known = frozenset((*self.ignores, *members))
        self.dropped = DroppedState(known, self.policy, self.engine)

    @property
    def api_version(self) -> tuple[int, int]:
        """The API version of calls to the engine."""
        major, _, minor = self.engine.api_version.partition(".")
        known = minor.isascii() and minor.isdigit() and major == "1"
        return min(NEWEST_API, (1, int(minor))) if known else NEWEST_API

    @property
    def holders(self) -> tuple[ForeignContainer, ...]:
        """The containers without supervision: nothing starts beside them."""
        return (*self.split_brain.holders, *released_holders(self.inventory))

    @property
    def doubted_namespaces(self) -> frozenset[str]:
        """The namespaces with objects that this journal didn't make, as far as was looked.

        Values of their Secrets may have been generated for such objects, and be lost.
        """
        return self.inventory.taken_over | self.split_brain.unknown_namespaces
