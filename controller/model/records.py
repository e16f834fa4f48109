"""Requests, replies and journal records.

A record is one JSON line (docs/operations/journal.md). ``request.summary`` has the facts for
recovery and the inventory. Claims come from the controller and are not proven.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal

from controller.model.errors import Problem


class Role(StrEnum):
    """The role of a peer at the gate."""

    CONTROLLER = "controller"
    OPERATOR = "operator"
    CLIENT = "client"
    VIEWER = "viewer"
    BROKER = "broker"  # the broker itself: recovery, its own pulls


#: Roles that learn nothing about other owners.
RESTRICTED: Final = frozenset({Role.CLIENT, Role.VIEWER})


@dataclass(frozen=True, slots=True)
class ViewerScope:
    """The owners that a viewer reads about."""

    #: None for all owners.
    owners: frozenset[str] | None = frozenset()
    #: The owners of the containers with readable output.
    logs: frozenset[str] = frozenset()

    def has(self, owner: str) -> bool:
        """Return True if the viewer reads about an owner's objects."""
        return self.owners is None or owner in self.owners


NO_SCOPE: Final = ViewerScope()


@dataclass(frozen=True, slots=True)
class Actor:
    """The peer of a connection, identified by SO_PEERCRED."""

    uid: int
    gid: int
    pid: int  # only a hint
    role: Role
    owner: str = ""  # the client's owner by the policy
    scope: ViewerScope = NO_SCOPE  # of a viewer, by the policy
    #: False if controller and operator share a uid. The role then rests on the request's claim.
    separated: bool = True


@dataclass(frozen=True, slots=True)
class Verdict:
    """The policy's decision on a mutation."""

    decision: Literal["allow", "mutate", "deny", "audit-deny"]
    rules: tuple[str, ...] = ()  # the ids of the deciding rules
    reason: str = ""
    remedy: str = ""
    mutations: tuple[str, ...] = ()  # the injected settings, a sentence each
    #: Each finding at its place in the document, for a mutation on behalf of a document.
    problems: tuple[Problem, ...] = ()


ALLOW = Verdict("allow")


@dataclass(frozen=True, slots=True)
class Precondition:
    """The required state right before a change, checked while no other change is admitted.

    Either an object with the name ``absent`` must not exist, or the object must have this id and
    revision.
    """

    absent: str = ""
    id: str = ""
    revision: str = ""


NO_PRECONDITION = Precondition()
#: The code of an unmet precondition: the engine changed since the plan. Observe again.
UNMET = "precondition.unmet"


@dataclass(frozen=True, slots=True)
class Context:
    """The claims of a controller's mutation (header Trimtab-Context)."""

    cause: str = ""
    file: str = ""
    line: int = 0
    commit: str = ""
    plan: str = ""
    on_behalf_of: str = ""
    lines: tuple[tuple[str, int], ...] = ()  # of the fields in the file, by their paths under spec
    #: Not a claim: the broker refuses the mutation unless the precondition holds.
    precondition: Precondition = NO_PRECONDITION


@dataclass(frozen=True, slots=True)
class Request:
    """One request as received, with checked framing."""

    method: str
    path: str  # raw
    query: str  # raw
    headers: tuple[tuple[str, str], ...]  # names in lower case
    body: bytes
    actor: Actor
    #: A change of a client that had nothing left of its share of changes.
    is_beyond_share: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """One response of the engine or of the gate."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


Stage = Literal[
    "intent",
    "outcome",
    "recovered",
    "refusal",
    "violation",
    "summary",
    "read",
    "operator",
    "policy",
    "checkpoint",
    "segment",
]


#: The members of an entry with the request and its result.
ENTRY_PARTS = ("actor", "request", "verdict", "claims", "result")


@dataclass(frozen=True, slots=True)
class Entry:
    """The content of a record; the writer adds seq, time, prev and hash.

    The members are JSON-ready mappings (strings, integers, booleans, lists, mappings; no floats).
    Secrets are redacted already.
    """

    id: str  # a UUIDv7, the same for an intent and its closing record
    stage: Stage
    actor: dict[str, object] = field(default_factory=dict)
    request: dict[str, object] = field(default_factory=dict)
    verdict: dict[str, object] = field(default_factory=dict)
    claims: dict[str, object] = field(default_factory=dict)
    result: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Record:
    """A durable line of the journal."""

    seq: int
    time: str  # RFC 3339, UTC, milliseconds
    entry: Entry
    prev: str
    hash: str
