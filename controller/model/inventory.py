"""The broker's inventory: what of the engine is ours, and with what it was admitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from controller.model.confinement import Confinement
from controller.model.observed import Ending, Image, Settings

#: More take-downs than these within the blast radius' window can't be told apart: there are none.
TAKEN_MAX: Final = 4096
APPROVALS_MAX: Final = 64
#: Ten revisions of four hundred services. All are told in each look: about a megabyte at most.
PINS_MAX: Final = 4096
#: How an approval names a volume.
VOLUME: Final = "volume:"
#: How an intent names the approval that it used up: among the rules of its verdict.
USED: Final = "approval:"


@dataclass(frozen=True, slots=True)
class ContainerItem:
    """A container that a settled intent created (or recovery found), by full id."""

    id: str
    namespace: str  # "" for a client's
    service: str
    slot: int
    revision: str
    owner: str
    origin: str  # controller | client
    intent: str
    image: str  # reference as written
    admitted: Settings
    started: bool = False  # a start of it was ever admitted and settled
    seq: int = 0  # of its create's intent
    recovered: bool = False  # its creator never got an answer: recovery found it
    confined: Confinement | None = None  # None: created before that was recorded
    effective: str = ""  # what its last start showed: verified, unverified: …, violation
    violation: str = ""  # the id of the record for which it was stopped
    aliases: tuple[str, ...] = ()  # what it answers to in its networks, besides its name


@dataclass(frozen=True, slots=True)
class OwnedObject:
    """A network (by id) or a volume (by name) that we made."""

    id: str
    name: str
    namespace: str
    owner: str
    origin: str
    intent: str


@dataclass(frozen=True, slots=True)
class TrustedImage:
    """A local image that the ledger vouches for under a reference."""

    reference: str
    id: str
    digest: str = ""


@dataclass(frozen=True, slots=True)
class ExecSession:
    """An exec that was started and isn't known to have ended."""

    id: str  # the engine's
    container: str
    uid: int  # whose it is
    intent: str  # of its start
    time: str  # of that intent's record: RFC 3339, UTC


@dataclass(frozen=True, slots=True)
class OpenIntent:
    """An intent without its closing record, with all that is needed to close it."""

    seq: int
    time: str  # of its record: RFC 3339, UTC
    role: str
    request: dict[str, object]  # as recorded: method, route, object, summary, digest
    uid: int = -1


@dataclass(frozen=True, slots=True)
class TakenDown:
    """A container that runs no more, or soon won't, because the controller had it taken down."""

    container: str
    service: str  # NAMESPACE/NAME
    route: str
    last: bool  # its service was left without a running slot, and nobody approved that
    intent: str
    seq: int
    time: str  # of the intent's record
    down: bool = False  # it was down once: if it runs now, it was started since


@dataclass(frozen=True, slots=True)
class Approval:
    """An operator's approval: of each object once, in mutations that are part of a plan."""

    id: str  # of its record
    plan: str  # digest
    objects: tuple[str, ...]  # full ids of containers, ``volume:NAME``
    time: str
    used: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Inventory:
    """Folded from the journal, record by record (``core.records.inventory``); ``seq`` is the last one.

    ``time`` is the latest of any record, which is no part of what is ours.
    """

    seq: int = 0
    time: str = field(default="", compare=False)
    containers: dict[str, ContainerItem] = field(default_factory=dict)
    networks: dict[str, OwnedObject] = field(default_factory=dict)
    volumes: dict[str, OwnedObject] = field(default_factory=dict)
    ledger: dict[str, TrustedImage] = field(default_factory=dict)
    # Revision -> image first admitted; the one that a container was created of last comes last.
    pins: dict[str, Image] = field(default_factory=dict)
    sessions: dict[str, ExecSession] = field(default_factory=dict)  # by the exec's id
    open: dict[str, OpenIntent] = field(default_factory=dict)  # by the intent's id
    taken: dict[str, TakenDown] = field(default_factory=dict)  # by the container's id
    approvals: dict[str, Approval] = field(default_factory=dict)  # by the record's id
    endings: Mapping[str, Ending] = field(default_factory=dict)  # by the container's id
    taken_down: str = ""  # the record of the last ``trimtab down``
