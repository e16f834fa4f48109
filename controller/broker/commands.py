"""What the gate asks of its driver: the gate itself does no I/O.

The gate is a generator of these commands; the driver (asyncio in ``server``, synchronous in the
simulation) sends back each one's answer. Every command boundary is a crash point.
"""

from __future__ import annotations

from dataclasses import dataclass

from controller.model.entries import Entry, Record, Reply


@dataclass(frozen=True, slots=True)
class Look:
    """Read from the engine; answered by a Reply, or LOST when the engine doesn't answer."""

    path: str  # without the version prefix, with its query
    method: str = "GET"


@dataclass(frozen=True, slots=True)
class Examine:
    """Look at paths of the host without following symlinks; answered by a tuple of PathFacts."""

    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Write:
    """Make an entry durable; answered by its Record, or None when the journal can't be written."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class Forward:
    """Send a mutation rebuilt by the gate; answered by a Reply, or LOST."""

    method: str
    path: str  # without the version prefix, with its query
    body: bytes = b""
    stream: bool = False  # relay the answer's body as it comes (pull progress)


@dataclass(frozen=True, slots=True)
class Relay:
    """Hand the connection over: relay the engine's answer to the client as it comes."""

    method: str
    path: str
    body: bytes = b""
    hijack: bool = False  # both ways after 101


@dataclass(frozen=True, slots=True)
class Lost:
    """The engine's answer didn't come: whether it acted isn't known."""

    reason: str


@dataclass(frozen=True, slots=True)
class PathFacts:
    """One path of the host as the broker sees it, by openat2 without symlinks.

    ``kind``: dir, file, socket, other, symlink (some component is one), missing, unreadable.
    ``parents_writable_by_others``: the first parent that others may write to, or ''.
    """

    path: str
    kind: str
    device: int = 0
    inode: int = 0
    uid: int = 0
    gid: int = 0
    mode: int = 0
    parents_writable_by_others: str = ""
    protected: str = ""  # what of the broker's own it is, contains or lies under; '' if nothing


Command = Look | Examine | Write | Forward | Relay
Answer = Reply | Lost | Record | None | tuple[PathFacts, ...]
