"""Peer credentials: the kernel's data about the process at the other end of a connection.

SO_PEERCRED returns uid, gid and pid of the process that connected, SO_PEERGROUPS its supplementary
groups (unix(7)). The pid is only a hint. The broker uses the pid to detect a peer in another pid
namespace, such as a container with access to the socket.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Literal

from controller.model.records import Actor, Role, ViewerScope
from controller.system.slots import SlotUser
from controller.system.syscalls import peer_groups

_SO_PEERPIDFD = 77
_UCRED = struct.Struct("iII")  # pid, uid, gid
_NSPID = re.compile(r"^NSpid:\t([0-9\t]+)$", re.MULTILINE | re.ASCII)

#: The pid namespace of a peer: the broker's, another, of an ended process, or not readable.
Where = Literal["here", "elsewhere", "gone", "hidden"]


class PeerGroup(StrEnum):
    """A group of peers with connections of its own. The broker's own tasks are a group too."""

    OPERATOR = "operator"
    CONTROLLER = "controller"
    CLIENT = "client"
    VIEWER = "viewer"
    NO_ROLE = "no-role"
    BROKER = "broker"


@dataclass(frozen=True, slots=True)
class Peer:
    """The kernel's data about a peer."""

    uid: int
    gid: int
    pid: int
    groups: frozenset[int]
    where: Where


@dataclass(frozen=True, slots=True)
class PeerRules:
    """The rules that map peers to roles."""

    controller_uid: int
    #: The broker's own uid.
    own_uid: int
    #: The uids that the policy names as operators.
    operators: frozenset[int] = frozenset()
    #: Pairs of a client's uid and its owner name.
    clients: tuple[tuple[int, str], ...] = ()
    #: Viewers by uid. A viewer needs no group.
    viewers: Mapping[int, ViewerScope] = field(default_factory=dict)
    #: The uids allowed to connect from another pid namespace. Operators are never allowed.
    container_peers: frozenset[int] = frozenset()
    #: The gid of the group trimtab, None without such a group.
    group: int | None = None
    #: The uids of operators: root, the broker's own, and the operators of the policy.
    operating: frozenset[int] = field(init=False)
    #: The uids of clients.
    client_uids: frozenset[int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "operating", self.operators | {0, self.own_uid})
        object.__setattr__(self, "client_uids", frozenset(uid for uid, _ in self.clients))

    @property
    def is_separated(self) -> bool:
        """True if the controller's uid is not an operator's uid."""
        return self.controller_uid not in self.operating


@dataclass(frozen=True, slots=True)
class UnknownPeer:
    """A peer without a role: the rule, the reason and the remedy of the refusal."""

    rule: str
    reason: str
    remedy: str


def identify(peer: Peer, rules: PeerRules, *, claims_controller: bool) -> Actor | UnknownPeer:
    """Return the actor of one request. *claims_controller*: the request has a Trimtab-Context.

    The controller needs its uid *and* the header. If the controller shares its uid with an
    operator, only the header distinguishes the two, and the actor is marked as not separated.
    """
    if refused := _check_namespace(peer, rules):
        return refused
    shared = not rules.is_separated
    if peer.uid == rules.controller_uid and claims_controller:
        return Actor(peer.uid, peer.gid, peer.pid, Role.CONTROLLER, separated=not shared)
    if peer.uid in rules.operating:
        separated = not (shared and peer.uid == rules.controller_uid)
        return Actor(peer.uid, peer.gid, peer.pid, Role.OPERATOR, separated=separated)
    if peer.uid == rules.controller_uid:
        return UnknownPeer(
            "role.denied",
            "the controller's requests carry a Trimtab-Context, and this one has none",
            "ask as an operator, or as a client that the policy names",
        )
    if (scope := rules.viewers.get(peer.uid)) is not None:
        return Actor(peer.uid, peer.gid, peer.pid, Role.VIEWER, scope=scope)
    owner = dict(rules.clients).get(peer.uid)
    if owner is None:
        return UnknownPeer(
            "role.denied",
            f"the policy names no role for uid {peer.uid}",
            "name the uid under `operators`, `clients` or `viewers` in the policy",
        )
    if rules.group is not None and rules.group not in peer.groups | {peer.gid}:
        return UnknownPeer(
            "role.denied",
            f"uid {peer.uid} isn't in the group trimtab",
            "add the user to the group trimtab, and log in again",
        )
    return Actor(peer.uid, peer.gid, peer.pid, Role.CLIENT, owner=owner)


def _check_namespace(peer: Peer, rules: PeerRules) -> UnknownPeer | None:
    # A uid in a container is only as trustworthy as the container: operators can't be in one.
    named = peer.uid in rules.container_peers and peer.uid not in rules.operating
    if peer.where == "here" or named:
        return None
    # A broker without root can't inspect a process of root; root has no reason to hide.
    if peer.where == "hidden" and peer.uid in rules.operating | {rules.controller_uid}:
        return None
    why = {
        "elsewhere": "the peer is in another pid namespace, such as a container's",
        "gone": "the peer's process is gone, so its PID namespace is unknown",
        "hidden": "the peer's pid namespace can't be read",
    }[peer.where]
    remedy = "connect from the host, or name the uid under `containerPeers` in the policy"
    if peer.uid in rules.operating:
        remedy = "connect from the host: an operator can't speak from a container"
    return UnknownPeer("peer.namespace", why, remedy)


def user_of(
    connection: socket.socket, rules: PeerRules, *, locate: Callable[[int], Where] | None = None
) -> SlotUser:
    """Return the group and the uid of a connected peer, by one cheap system call for most.

    A process in a container with the uid of an operator or of the controller has no role
    (``identify``), and must not take their connections.

    Raises:
        OSError: the kernel returns no credentials.
    """
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, _gid = _UCRED.unpack(raw)
    if uid in rules.operating or uid == rules.controller_uid:
        group = PeerGroup.OPERATOR if uid in rules.operating else PeerGroup.CONTROLLER
        if (locate or locate_process)(pid) not in {"here", "hidden"}:
            group = PeerGroup.NO_ROLE
    elif uid in rules.viewers:
        group = PeerGroup.VIEWER
    else:
        group = PeerGroup.CLIENT if uid in rules.client_uids else PeerGroup.NO_ROLE
    return SlotUser(group, uid)


def peer_of(connection: socket.socket, *, locate: Callable[[int], Where] | None = None) -> Peer:
    """Return the peer of a connected Unix socket.

    Raises:
        OSError: the kernel returns no credentials.
    """
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, gid = _UCRED.unpack(raw)
    where = (locate or locate_process)(pid)
    if where == "here" and not _is_alive(connection):
        where = "gone"
    return Peer(uid=uid, gid=gid, pid=pid, groups=peer_groups(connection), where=where)


def _is_alive(connection: socket.socket) -> bool:
    """Return True if the process that connected is alive, so its pid has not been reused.

    Kernels before 6.5 don't support the check: then the result is True.
    """
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, 4)
    except OSError:
        return True
    handle = struct.unpack("i", raw)[0]
    try:
        signal.pidfd_send_signal(handle, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    finally:
        os.close(handle)
    return True


def locate_process(pid: int, *, proc: Path = Path("/proc")) -> Where:
    """Return whether a process is in the broker's pid namespace.

    The read of another user's namespace needs CAP_SYS_PTRACE. Without the capability, the number
    of pids of the process decides: a process has one pid per namespace level.
    """
    if pid <= 0:
        return "elsewhere"  # the process has no pid in this namespace
    own = _own_namespace(proc)
    other = _namespace(f"{proc}/{pid}")
    if isinstance(own, str) and isinstance(other, str):
        return "here" if own == other else "elsewhere"
    if isinstance(other, FileNotFoundError | ProcessLookupError):
        return "gone"
    depth, own_depth = _depth(proc / str(pid)), _depth(proc / "self")
    if depth == 0 or own_depth != 1:
        return "hidden"
    return "here" if depth == 1 else "elsewhere"


@cache
def _own_namespace(proc: Path) -> str | OSError:
    """Return the broker's pid namespace, or the error of the read. Neither ever changes."""
    return _namespace(f"{proc}/self")


def _namespace(process: str) -> str | OSError:
    try:
        return os.readlink(f"{process}/ns/pid")  # noqa: PTH115 - each connection reads one
    except OSError as error:
        return error


def _depth(process: Path) -> int:
    try:
        match = _NSPID.search((process / "status").read_text(encoding="ascii", errors="replace"))
    except OSError:
        return 0
    return len(match[1].split()) if match else 0
