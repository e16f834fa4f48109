"""The course of a service: which revisions it had, and what people want of it beside its document.

What is desired is in the files; this is what the controller must remember itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from controller.model.desired.desired import Restarting, SourceLocation
from controller.model.names import Key

RevisionOutcome = Literal["", "good", "failed"]


@dataclass(frozen=True, slots=True)
class Revision:
    """A revision that was accepted, with all that makes its replicas.

    ``generation`` and ``since`` (RFC 3339) tell when it was declared the last time. ``spec`` is
    the slot spec as JSON, '' where it was too much to keep. ``outcome`` is '' until it is known.
    ``left`` says that it was gone back from by itself since then.
    """

    revision: str
    generation: int
    since: str
    owner: str
    image: str
    spec: str
    source: SourceLocation
    outcome: RevisionOutcome = ""
    reason: str = ""  # why it failed
    left: bool = False


@dataclass(frozen=True, slots=True)
class Pin:
    """That a service runs an earlier revision, until its document asks for something else.

    ``asked`` is the digest of what the document asked for when it was pinned or, of an automatic
    one, the revision that failed: that isn't tried again for a change of what isn't of its slots.
    """

    revision: str
    generation: int
    asked: str
    by: str
    since: str
    reason: str = ""
    automatic: bool = False


@dataclass(frozen=True, slots=True)
class Suspension:
    """That a service is left as it is."""

    by: str
    since: str


@dataclass(frozen=True, slots=True)
class Overrides:
    """All of it, of one service. ``revisions`` are in the order in which they were declared.

    ``applied`` are the fields that belong to the service as a whole, as JSON, of the last document that
    was fully acted on. ``down_ms`` is how long a slot was down the last time it was replaced with
    StopFirst, from before the stop until after the start. None is not known.
    """

    revisions: tuple[Revision, ...] = ()
    pin: Pin | None = None
    suspension: Suspension | None = None
    restarting: Restarting | None = None
    applied: str | None = None
    down_ms: int | None = None

    def find_revision(self, revision: str) -> Revision | None:
        """Return a revision that is kept."""
        return next((each for each in self.revisions if each.revision == revision), None)


NO_OVERRIDES = Overrides()

Verb = Literal["rollback", "restart", "suspend", "resume"]


@dataclass(frozen=True, slots=True)
class ServiceAct:
    """What somebody wants of a service. ``to`` begins a revision's digits; '' is the last good one.

    *automatic*: a rollout that failed wants it, for ``reason``, and no person.
    """

    verb: Verb
    key: Key
    by: str
    to: str = ""
    reason: str = ""
    automatic: bool = False
