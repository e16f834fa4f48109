"""Ports: what the shells need of the outside, as narrow as they need it.

Only ``app`` builds adapters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from controller.core.drift.probe import Probe, ProbeResult
from controller.core.records.views import Page, Question
from controller.model.container_output import LogLine
from controller.model.desired.desired import Desired
from controller.model.desired.plan import AnyAction
from controller.model.inventory import Inventory
from controller.model.names import Key
from controller.model.observed import Observed
from controller.model.records import Context, Entry, Record


class Clock(Protocol):
    """Time as an argument. ``now`` is the wall (seconds since the epoch), ``monotonic`` never jumps."""

    def now(self) -> float: ...

    def monotonic(self) -> float: ...


class Timer(Clock, Protocol):
    """A clock that can be waited by: ``pause`` returns after so many seconds."""

    def pause(self, seconds: float) -> None: ...


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """Who answers behind the broker."""

    engine_id: str
    version: str
    api_version: str
    cpus: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """A hint that something happened to an object of ours; carries no facts to act on."""

    time_ns: int
    kind: str  # container, network, volume, image
    action: str
    id: str
    key: Key | None


@dataclass(frozen=True, slots=True)
class ContainerSummary:
    """A container of ours in the engine's list: as much as a cheap look shows."""

    id: str
    name: str
    state: str
    key: Key
    networks: tuple[str, ...] = ()


#: The code of the error with which a subscription ends that was silent for long: it may be that
#: nothing happened.
EVENTS_SILENT = "events.silent"


class Events(Protocol):
    """A running subscription to events."""

    def __iter__(self) -> Iterator[EngineEvent]: ...

    def __next__(self) -> EngineEvent: ...

    def close(self) -> None:
        """End it; may be called from another thread, whose reader then ends."""
        ...


class Engine(Protocol):
    """The engine as the controller sees it, through the broker.

    Every method raises a ``model.errors.EngineError``; none retries a mutation.
    """

    def facts(self) -> EngineFacts: ...

    def observe(self, *, images: frozenset[str], only: Key | None = None) -> Observed:
        """Return one snapshot; ``only`` narrows the containers to one service's."""
        ...

    def list_containers(self) -> frozenset[ContainerSummary]:
        """Return what a cheap list shows of all containers of ours."""
        ...

    def perform(self, action: AnyAction, context: Context) -> str:
        """Do one action, as one mutating call; return the id of what was made, or ''."""
        ...

    def events(self, *, since_ns: int) -> Events:
        """Subscribe: return once the subscription stands, with the events from *since_ns* on.

        Reading it raises EngineUnavailable when the stream breaks.
        """
        ...


class OutputReader(Protocol):
    """Reads what a container printed."""

    def last_output(self, container: str) -> tuple[LogLine, ...]:
        """Return its last lines, within a few seconds.

        Raises:
            EngineError: they can't be read.
        """
        ...


class ProbeTransport(Protocol):
    """Asks containers at their own addresses; of two callers, only ``wake`` may be the second."""

    def ask(self, probe: Probe) -> None:
        """Begin to ask, without waiting; the answer comes once, within the probe's time-out."""
        ...

    def answers(self, *, wait_s: float) -> list[ProbeResult]:
        """Return the answers that came, having waited for one, or for ``wake``, so long at most."""
        ...

    def wake(self) -> None:
        """End a wait, from another thread."""
        ...


class DesiredSource(Protocol):
    """The files: read whole at each call, never raising for what users wrote."""

    def load(self) -> Desired: ...


class Journal(Protocol):
    """The broker's journal."""

    def append(self, entry: Entry) -> Record:
        """Make *entry* durable and return its record; blocks until fsynced.

        Raises:
            JournalUnavailable: it isn't durable (and isn't in the chain).
        """
        ...

    def records(self, *, after: int = 0) -> Iterator[Record]:
        """Yield the durable records with ``seq`` above *after*, in order."""
        ...


#: The code of JournalUnavailable for what may not use the last of the disk: the journal is well.
RESERVED = "journal.reserved"


@dataclass(frozen=True, slots=True)
class JournalHealth:
    """How the journal is. ``signed`` is the last record that a checkpoint is of; while
    ``reserved``, the rest of the disk is for the controller, operators and ends (``journal.writer.disk_reserve``);
    while ``clock_doubted``, no record is too old to be kept (``journal.writer.clock_guard``).
    """

    signed: int = 0
    free_bytes: int = 0
    reserved: bool = False
    clock_doubted: bool = False


class QueuedJournal(Journal, Protocol):
    """The journal as the broker's event loop uses it."""

    @property
    def vitals(self) -> JournalHealth:
        """How it was when something was last written, or tried."""
        ...

    @property
    def last_seq(self) -> int:
        """The last durable record's seq; 0 before the first."""
        ...

    @property
    def error(self) -> str:
        """Why the last append failed, or ''."""
        ...

    def foundation(self, *, known: int) -> Inventory | None:
        """Return what to go on from for somebody who knows the records up to *known*.

        None where all that follow are there. Raises StateError when it can't be read.
        """
        ...

    def submit(self, entry: Entry) -> Future[Record]:
        """Queue *entry*; futures are done in the order of the records, each once it is durable.

        The future fails with JournalUnavailable.
        """
        ...

    def close(self) -> None:
        """Write what is queued, then give back the folder."""
        ...


class Archive(Protocol):
    """The journal, to be asked while it is written. Any thread may call each method."""

    @property
    def durable(self) -> int:
        """The last record that can be asked for."""
        ...

    @property
    def indexed(self) -> int:
        """The last record that is indexed; those after it are read one by one."""
        ...

    @property
    def error(self) -> str:
        """Why no more are indexed, or ''."""
        ...

    def ask(self, question: Question) -> Page:
        """Answer a question, with every durable record.

        Raises:
            StateError: the journal is damaged, can't be read, or isn't indexed yet.
        """
        ...

    def wake(self) -> None:
        """Say that there is more to index."""
        ...

    def close(self) -> None:
        """Leave the index as it is."""
        ...


#: Returns a new UUIDv7 as text.
NewId = Callable[[], str]


class ActionPerformer(Protocol):
    """What the executor needs of the engine."""

    def perform(self, action: AnyAction, context: Context) -> str: ...
