"""Operator overrides and revisions of a service.

The files have the desired state. The controller must remember these values itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from controller.model.desired.desired import BoundName, Restarting, SourceLocation
from controller.model.desired.limits import DeclaredLimits
from controller.model.files.delivery import Delivery
from controller.model.names import Key

RevisionOutcome = Literal["", "good", "failed"]


@dataclass(frozen=True, slots=True)
class Revision:
    """An accepted revision, with everything needed to create its replicas."""

    revision: str
    #: Generation and time (RFC 3339) of the last declaration.
    generation: int
    since: str
    owner: str
    image: str
    #: The slot spec as JSON; '' if too large to keep.
    spec: str
    source: SourceLocation
    outcome: RevisionOutcome = ""  # '' until known
    reason: str = ""  # why the revision failed
    left: bool = False  # rolled back automatically since the last declaration
    #: From a snapshot of a host: the spec is without values, and doesn't hash to the revision.
    hidden: bool = False
    #: The revision by the service's present name; '' if equal to ``revision``.
    canonical: str = ""
    #: The limits, which are no part of the revision.
    limits: DeclaredLimits = field(default_factory=DeclaredLimits)
    #: The mounted files, with the contents that are part of the revision.
    deliveries: tuple[Delivery, ...] = ()
    #: The engine's names of its adopted volumes and networks, a part of the revision.
    bound_names: tuple[BoundName, ...] = ()

    def is_variant(self, revision: str, limits: DeclaredLimits | None) -> bool:
        """Return True for this revision with these limits; None for any limits."""
        return self.revision == revision and limits in (None, self.limits)


@dataclass(frozen=True, slots=True)
class Pin:
    """A service runs an earlier revision until its document changes."""

    revision: str
    generation: int
    #: The digest of the document at the time of the pin. For an automatic pin, the failed revision:
    #: a change outside the slot spec does not start it again.
    asked: str
    by: str
    since: str
    reason: str = ""
    automatic: bool = False
    #: The limits of the pinned revision.
    limits: DeclaredLimits = field(default_factory=DeclaredLimits)
    #: The limits of the failed revision, for an automatic pin.
    asked_limits: DeclaredLimits | None = None


@dataclass(frozen=True, slots=True)
class Suspension:
    """A service is left unchanged."""

    by: str
    since: str
    #: The operator also stopped the containers.
    stopped: bool = False

    @property
    def word(self) -> str:
        """``stopped`` or ``suspended``."""
        return "stopped" if self.stopped else "suspended"


@dataclass(frozen=True, slots=True)
class Overrides:
    """The revisions and overrides of one service."""

    #: In the order of their declarations.
    revisions: tuple[Revision, ...] = ()
    pin: Pin | None = None
    suspension: Suspension | None = None
    restarting: Restarting | None = None
    #: The service-wide fields, as JSON, of the last document acted on completely.
    applied: str | None = None
    #: The downtime of the last StopFirst replacement, from before the stop until after the start.
    #: None if unknown.
    down_ms: int | None = None

    def find_revision(self, revision: str, limits: DeclaredLimits | None = None) -> Revision | None:
        """Return a kept revision with *limits*; with None, its last declared limits."""
        matching = (each for each in reversed(self.revisions) if each.is_variant(revision, limits))
        return next(matching, None)


NO_OVERRIDES = Overrides()

Verb = Literal["rollback", "restart", "suspend", "resume", "stop", "start"]


@dataclass(frozen=True, slots=True)
class ServiceAct:
    """A requested act on a service."""

    verb: Verb
    key: Key
    by: str
    #: The first digits of a revision; '' for the last good one.
    to: str = ""
    reason: str = ""
    #: Requested by a failed rollout, not by an operator.
    automatic: bool = False
