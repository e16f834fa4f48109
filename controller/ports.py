"""Ports: the interfaces of the outside world, as narrow as their users need.

Adapters are built in ``app`` and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    # A port loads nothing of its own: each process has only some of the ports.
    from collections.abc import Iterator
    from concurrent.futures import Future

    from controller.core.drift.probe_verdict import Probe, ProbeResult
    from controller.core.records.query import Page, Question
    from controller.model.container_output import LogLine
    from controller.model.desired.desired import Desired
    from controller.model.desired.plan import AnyAction
    from controller.model.inventory import Inventory
    from controller.model.names import Key
    from controller.model.observed import Observed
    from controller.model.records import Context, Entry, Record


class Clock(Protocol):
    """A source of time, passed as an argument."""

    def now(self) -> float:
        """Return the wall-clock time in seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Return seconds on a clock that never jumps."""
        ...


class Timer(Clock, Protocol):
    """A clock that can also wait."""

    def pause(self, seconds: float) -> None:
        """Return after the given time."""
        ...


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """Version and resources of the engine behind the broker."""

    engine_id: str
    version: str
    api_version: str
    cpus: int
    memory_bytes: int
    #: The folders in which the engine reads CDI specifications; () if it doesn't support them.
    cdi_folders: tuple[str, ...] = ()
    #: The limits that the engine drops, by their members of HostConfig
    #: (``core.enforcement.kept_settings``).
    ignores: tuple[str, ...] = ()
    #: Where the engine keeps its images (``core.engine_api.engine_objects``); '' if it didn't say.
    image_store: str = ""


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """A hint: an object of this instance changed.

    Events carry no facts to act on: the receiver observes the engine. A reported health only tells
    an event that is no news, a signal only who ended a container.
    """

    time_ns: int
    kind: str  # container, network, volume, image
    action: str
    id: str
    key: Key | None
    #: The health that the engine reports; '' for other events.
    health: str = ""
    #: The number of the signal of a ``kill``; '' for other events.
    signal: str = ""


class ContainerSummary(NamedTuple):
    """A container of this instance in the engine's list, without an inspect.

    A tuple: each plan of everything makes and compares two for each container.
    """

    id: str
    name: str
    state: str
    key: Key
    networks: tuple[str, ...] = ()


#: The code of the error that ends a subscription after a long silence. Possibly nothing happened.
EVENTS_SILENT = "events.silent"


class Events(Protocol):
    """A running subscription to events."""

    def __iter__(self) -> Iterator[EngineEvent]: ...

    def __next__(self) -> EngineEvent: ...

    def close(self) -> None:
        """End the subscription. Any thread can call it; a blocked reader then ends."""
        ...


class Engine(Protocol):
    """The engine as the controller sees it, through the broker.

    Every method raises a ``model.errors.EngineError``; none retries a mutation.
    """

    def observe(self, *, images: frozenset[str], only: Key | None = None) -> Observed:
        """Return a snapshot. With ``only``, the snapshot has the containers of that service alone."""
        ...

    def list_containers(self) -> frozenset[ContainerSummary]:
        """Return all containers of this instance from one cheap list request."""
        ...

    def perform(self, action: AnyAction, context: Context) -> str:
        """Perform one action as one mutating request. Return the id of a created object, or ''."""
        ...

    def events(self, *, since_ns: int) -> Events:
        """Subscribe to events from *since_ns* on. Return when the subscription is established.

        Reading the events raises EngineUnavailable when the stream breaks.
        """
        ...


class OutputReader(Protocol):
    """A reader of containers' output."""

    def last_output(self, container: str) -> tuple[LogLine, ...]:
        """Return the last lines of a container, within a few seconds.

        Raises:
            EngineError: the lines cannot be read.
        """
        ...


class ProbeTransport(Protocol):
    """A sender of probes to the containers' own addresses.

    One thread uses it. A second thread can call ``wake`` only.
    """

    def ask(self, probe: Probe) -> None:
        """Start a probe without waiting.

        The result comes exactly once, within the probe's timeout.
        """
        ...

    def answers(self, *, wait_s: float) -> list[ProbeResult]:
        """Wait for a result or for ``wake``, at most *wait_s*. Return the results so far."""
        ...

    def wake(self) -> None:
        """End a wait of ``answers``, from another thread."""
        ...


class DesiredSource(Protocol):
    """The files of the desired state.

    Each call reads all of them and never raises for their content.
    """

    def load(self) -> Desired: ...


class Journal(Protocol):
    """The broker's journal."""

    def append(self, entry: Entry) -> Record:
        """Make *entry* durable and return its record; blocks until the fsync.

        Raises:
            JournalUnavailable: the entry is not durable and not in the chain.
        """
        ...

    def records(self, *, after: int = 0) -> Iterator[Record]:
        """Yield the durable records with ``seq`` above *after*, in order."""
        ...


#: The code of JournalUnavailable for an entry without access to the disk reserve. The journal works.
RESERVED = "journal.reserved"


@dataclass(frozen=True, slots=True)
class JournalHealth:
    """The health of the journal."""

    #: The last record covered by a signed checkpoint.
    signed: int = 0
    free_bytes: int = 0
    #: The remaining disk space is reserved for the controller, operators and closing records
    #: (``journal.writer.append_log``).
    reserved: bool = False
    #: The clock is in doubt, so no record counts as too old to keep (``journal.writer.retention``).
    clock_doubted: bool = False


class QueuedJournal(Journal, Protocol):
    """The journal as the broker's event loop uses it."""

    @property
    def last_health(self) -> JournalHealth:
        """The health at the last write or attempted write."""
        ...

    @property
    def last_seq(self) -> int:
        """The ``seq`` of the last durable record; 0 before the first."""
        ...

    @property
    def signed_at_open(self) -> int:
        """The last record that a checkpoint covered when the journal was opened; 0 if none did."""
        ...

    @property
    def error(self) -> str:
        """Why the last append failed, or ''."""
        ...

    def pruned_inventory(self, *, known: int) -> Inventory | None:
        """Return the inventory to continue from for a reader of the records up to *known*.

        Return None if all following records still exist.

        Raises:
            StateError: the inventory cannot be read.
        """
        ...

    def submit(self, entry: Entry) -> Future[Record]:
        """Queue *entry*. Futures complete in the order of the records, each when durable.

        The future fails with JournalUnavailable.
        """
        ...

    def close(self) -> None:
        """Write the queued entries, then release the folder."""
        ...


class Archive(Protocol):
    """Queries of the journal while it is being written.

    Any thread can call each method.
    """

    @property
    def durable(self) -> int:
        """The last record that can be queried."""
        ...

    @property
    def indexed(self) -> int:
        """The last indexed record; later records are read one by one."""
        ...

    @property
    def error(self) -> str:
        """Why indexing has stopped, or ''."""
        ...

    def ask(self, question: Question) -> Page:
        """Answer a question from all durable records.

        Raises:
            StateError: the journal is damaged, cannot be read, or is not indexed yet.
        """
        ...

    def wake(self) -> None:
        """Signal new records to index."""
        ...

    def close(self) -> None:
        """Stop indexing and leave the index in its current state."""
        ...


#: Returns a new UUIDv7 as text.
NewId = Callable[[], str]
