"""Journal records, requests and replies: what passes the gate and what is written of it.

A record is one JSON line (docs/operations/journal.md). Facts that recovery and the inventory need are in
``request.summary``; claims are what the controller said, and prove nothing but that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal


class Role(StrEnum):
    """Who a peer is to the gate."""

    CONTROLLER = "controller"
    OPERATOR = "operator"
    CLIENT = "client"
    BROKER = "broker"  # the broker itself: recovery, its own pulls


@dataclass(frozen=True, slots=True)
class Actor:
    """The peer of a connection, by SO_PEERCRED. The pid is only a hint.

    ``owner`` is the client's owner by the policy. ``separated`` is false when controller and
    operator share a uid, so that the role rests on the request's own word.
    """

    uid: int
    gid: int
    pid: int
    role: Role
    owner: str = ""
    separated: bool = True


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


@dataclass(frozen=True, slots=True)
class Request:
    """One request as the wire gave it, framing checked: ``path`` and ``query`` still raw."""

    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]  # names in lower case
    body: bytes
    actor: Actor


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer: of the engine, or of the gate itself."""

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


#: The members of an entry that hold what was asked and what came of it.
ENTRY_PARTS = ("actor", "request", "verdict", "claims", "result")


@dataclass(frozen=True, slots=True)
class Entry:
    """What is to be recorded; the writer adds seq, time, prev and hash.

    ``id`` is a UUIDv7, the same for an intent and its closing record. The members are JSON-ready
    mappings (strings, integers, booleans, lists, mappings; no floats), already redacted.
    """

    id: str
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
