"""What the gate knows besides the request: one mutable value that all requests share.

It is read and changed only between two commands, by one thread; the driver replaces ``policy``
(reload) and ``inventory`` (after each record), never a request's handler.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from controller.core.admission.dns_names import DnsNames
from controller.core.engine_api.pull_errors import Access
from controller.core.engine_api.requests import ExecRequest
from controller.model.inventory import Inventory
from controller.model.policy.document import Policy
from controller.model.records import Role
from controller.ports import Clock, EngineFacts, JournalHealth, NewId

#: What the gate speaks upwards; the engine is spoken to in the lower of the newer one and its own.
OLDEST_API = (1, 44)
NEWEST_API = (1, 45)
#: What was made longer ago isn't about to show up late.
MINTED_MAX = 4096


@dataclass(slots=True)
class CreatedExec:
    """An exec that the broker had made for somebody: for one start, by the same one.

    ``request`` is what was judged, to be judged again at the start; None once it was started.
    Times are of the monotonic clock.
    """

    container: str
    uid: int
    role: Role
    at: float
    container_started: str  # since when the container ran
    request: ExecRequest | None
    begun: float = 0.0
    ended: float | None = None


@dataclass(slots=True)
class GateState:
    """The broker's knowledge.

    ``start_seq`` is the journal's last record when this process started, ``start_monotonic``
    when that was: what is older belongs to a broker before this one. ``in_flight`` has the
    intents that a request of this process is still working on: an open intent that isn't in it
    is recovery's to close (``settling`` while it is at it), and its object is held until then.
    ``begun`` has when this process recorded the intents that aren't closed, by the monotonic
    clock; ``noted`` when it recorded what the inventory has of take-downs and approvals, and
    ``start_wall`` what the wall clock said at the start, for those from before it (``age_s``);
    ``reserved`` whose the containers are that are about to be created, ``answering`` the names
    that requests under way are taking.
    """

    policy: Policy
    inventory: Inventory
    instance: str
    engine: EngineFacts
    clock: Clock
    new_id: NewId
    volumes_root: str = "/var/lib/docker/volumes"
    hash_key: bytes = b""  # of the keyed hashes of what may be secret (``redact.hashes``)
    start_seq: int = 0
    start_monotonic: float = 0.0
    start_wall: float = -1.0
    journal_error: str = ""  # why nothing can be recorded now, '' if it can
    #: The last record of the journal's index, and why no more are in it, '' if they are.
    indexed: int = 0
    index_error: str = ""
    journal: JournalHealth = field(default_factory=JournalHealth)
    policy_error: str = ""  # why the last reload kept the policy before it
    policy_reloads: int = 0  # how often the file was read again, with or without success
    access: Access = field(default_factory=Access)  # registries that there are credentials for
    access_error: str = ""  # why the credentials before are kept
    #: Containers labelled as this instance's that it didn't make, at the last look: id -> name.
    strangers: dict[str, str] = field(default_factory=dict)
    #: Those of them that another broker of this instance must have made (``broker.guards.split_brain``).
    rivals: dict[str, str] = field(default_factory=dict)
    #: There may be some: look before anything is changed but by an operator.
    in_doubt: bool = False
    #: By the wall clock: intents that are later are this process's, or another broker's.
    alone_since: float = 0.0
    minted: dict[str, None] = field(default_factory=dict)  # intents of creates, of this process
    seccomp: bool = True  # the engine has it
    routes: Callable[[], tuple[str, ...]] = tuple  # networks that the host has routes to, now
    #: Containers whose effective state is being looked at: one look at a time.
    judging: set[str] = field(default_factory=set)
    #: When (monotonic) a container's limits and networks were put back, of late.
    put_back: dict[str, tuple[float, ...]] = field(default_factory=dict)
    in_flight: set[str] = field(default_factory=set)
    settling: set[str] = field(default_factory=set)
    begun: dict[str, float] = field(default_factory=dict)
    noted: dict[str, float] = field(default_factory=dict)
    reserved: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    answering: dict[str, DnsNames] = field(default_factory=dict)
    execs: dict[str, CreatedExec] = field(default_factory=dict)  # by the engine's id
    attached: set[str] = field(default_factory=set)  # execs whose connection is being relayed
    cut: dict[str, int] = field(default_factory=dict)  # how often an exec's end was tried
    unjournaled: int = 0  # refusals that were answered and couldn't be recorded

    def __post_init__(self) -> None:
        """Take note of the wall clock, once."""
        if self.start_wall < 0:
            self.start_wall = self.clock.now()

    def mint(self, identifier: str) -> None:
        """Take note of an intent of ours that a label will carry."""
        self.minted[identifier] = None
        if len(self.minted) > MINTED_MAX:
            del self.minted[next(iter(self.minted))]

    def note(self, identifier: str) -> None:
        """Take note of when a record is made whose age will matter."""
        known = {each.intent for each in self.inventory.taken.values()}
        known |= self.inventory.approvals.keys() | self.in_flight
        self.noted = {name: at for name, at in self.noted.items() if name in known}
        self.noted[identifier] = self.clock.monotonic()

    def age_s(self, identifier: str, time: str) -> float:
        """Return the age of a record: by the monotonic clock, however the wall clock jumps.

        What is from before this process has the age that the wall clock said at its start, and
        grows older by the monotonic clock as well; below 0 it would be of the future.
        """
        now = self.clock.monotonic()
        at = self.noted.get(identifier)
        if at is not None:
            return now - at
        before_s = self.start_wall - datetime.fromisoformat(time).timestamp()
        return before_s + (now - self.start_monotonic)

    @property
    def api_version(self) -> tuple[int, int]:
        """The version that the engine is spoken to in."""
        major, _, minor = self.engine.api_version.partition(".")
        known = minor.isascii() and minor.isdigit() and major == "1"
        return min(NEWEST_API, (1, int(minor))) if known else NEWEST_API
