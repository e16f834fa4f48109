"""Who is at the other end of a connection: by the kernel's word, never by the peer's.

SO_PEERCRED gives uid, gid and pid of the process that connected, SO_PEERGROUPS its other groups
(unix(7)). The pid is only a hint: it serves to see whether the peer lives in another pid
namespace, which is how a container looks that got hold of the socket.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from controller.model.records import Actor, Role

_libc = ctypes.CDLL(None, use_errno=True)
_SO_PEERGROUPS = 59
_SO_PEERPIDFD = 77
_UCRED = struct.Struct("iII")  # pid, uid, gid
#: NGROUPS_MAX of the kernel.
_GROUPS_MAX = 65536
_NSPID = re.compile(r"^NSpid:\t([0-9\t]+)$", re.MULTILINE | re.ASCII)

#: Where a peer lives, seen from here; "hidden" where that can't be read.
Where = Literal["here", "elsewhere", "gone", "hidden"]


@dataclass(frozen=True, slots=True)
class Peer:
    """What the kernel says of a peer."""

    uid: int
    gid: int
    pid: int
    groups: frozenset[int]
    where: Where


@dataclass(frozen=True, slots=True)
class PeerRules:
    """Who is who: ``clients`` maps uids to owners, ``group`` is trimtab's gid (None: no group).

    ``container_peers`` are uids that may speak from another pid namespace, operators' never.
    """

    controller_uid: int
    own_uid: int
    operators: frozenset[int] = frozenset()
    clients: tuple[tuple[int, str], ...] = ()
    container_peers: frozenset[int] = frozenset()
    group: int | None = None

    @property
    def separated(self) -> bool:
        """Whether the controller's uid can't be taken for an operator's."""
        return self.controller_uid not in self.operating

    @property
    def operating(self) -> frozenset[int]:
        """The uids of operators: root's, the broker's own, and those that the policy names."""
        return self.operators | {0, self.own_uid}


@dataclass(frozen=True, slots=True)
class Stranger:
    """A peer that may not speak here, and what would let it."""

    rule: str
    reason: str
    remedy: str


def identify(peer: Peer, rules: PeerRules, *, claims_controller: bool) -> Actor | Stranger:
    """Return who a peer is in one request. ``claims_controller``: it carries a Trimtab-Context.

    A controller is one by its uid *and* its request's claim; where it shares that uid with an
    operator, the claim alone tells the two apart, and the actor says so.
    """
    if stranger := _place(peer, rules):
        return stranger
    shared = not rules.separated
    if peer.uid == rules.controller_uid and claims_controller:
        return Actor(peer.uid, peer.gid, peer.pid, Role.CONTROLLER, separated=not shared)
    if peer.uid in rules.operating:
        separated = not (shared and peer.uid == rules.controller_uid)
        return Actor(peer.uid, peer.gid, peer.pid, Role.OPERATOR, separated=separated)
    if peer.uid == rules.controller_uid:
        return Stranger(
            "role.denied",
            "the controller's requests carry a Trimtab-Context, and this one has none",
            "ask as an operator, or as a client that the policy names",
        )
    owner = dict(rules.clients).get(peer.uid)
    if owner is None:
        return Stranger(
            "role.denied",
            f"the policy names no role for uid {peer.uid}",
            "name the uid under `operators` or `clients` in the policy",
        )
    if rules.group is not None and rules.group not in peer.groups | {peer.gid}:
        return Stranger(
            "role.denied",
            f"uid {peer.uid} isn't in the group trimtab",
            "add the user to the group trimtab, and log in anew",
        )
    return Actor(peer.uid, peer.gid, peer.pid, Role.CLIENT, owner=owner)


def _place(peer: Peer, rules: PeerRules) -> Stranger | None:
    # What a container says of its uid is only as good as the container: no operator lives in one.
    named = peer.uid in rules.container_peers and peer.uid not in rules.operating
    if peer.where == "here" or named:
        return None
    # A process of root's can't be looked at by a broker that isn't root; root needn't hide.
    if peer.where == "hidden" and peer.uid in rules.operating | {rules.controller_uid}:
        return None
    why = {
        "elsewhere": "the peer is in another pid namespace, such as a container's",
        "gone": "the peer's process is gone, so that its pid namespace can't be told",
        "hidden": "the peer's pid namespace can't be read",
    }[peer.where]
    remedy = "connect from the host, or name the uid under `containerPeers` in the policy"
    if peer.uid in rules.operating:
        remedy = "connect from the host: an operator can't speak from a container"
    return Stranger("peer.namespace", why, remedy)


def uid_of(connection: socket.socket) -> int:
    """Return the uid alone of a connected Unix socket's peer: that costs next to nothing.

    Raises:
        OSError: the kernel doesn't tell.
    """
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return int(_UCRED.unpack(raw)[1])


def peer_of(connection: socket.socket, *, locate: Callable[[int], Where] | None = None) -> Peer:
    """Return the peer of a connected Unix socket.

    Raises:
        OSError: the kernel doesn't tell.
    """
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, gid = _UCRED.unpack(raw)
    where = (locate or whereabouts)(pid)
    if where == "here" and not _still_the_same(connection):
        where = "gone"
    return Peer(uid=uid, gid=gid, pid=pid, groups=_groups(connection), where=where)


def _groups(connection: socket.socket) -> frozenset[int]:
    """Return the peer's supplementary groups; Python's own getsockopt stops at 256 of them."""
    groups = (ctypes.c_uint32 * _GROUPS_MAX)()
    size = ctypes.c_uint32(ctypes.sizeof(groups))
    option = (connection.fileno(), socket.SOL_SOCKET, _SO_PEERGROUPS)
    if _libc.getsockopt(*option, groups, ctypes.byref(size)) != 0:
        return frozenset()  # no group is the fail-safe answer
    return frozenset(groups[: size.value // ctypes.sizeof(ctypes.c_uint32)])


def _still_the_same(connection: socket.socket) -> bool:
    """Tell whether the process that connected lives on, so that its pid wasn't used again.

    Kernels before 6.5 can't say; there the pid stays the hint that it is.
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


def whereabouts(pid: int, *, proc: Path = Path("/proc")) -> Where:
    """Tell whether a process is in this process's pid namespace.

    Reading the namespace takes CAP_SYS_PTRACE for processes of others; without it, the number of
    pids that the process has (one per namespace down to its own) tells as much.
    """
    if pid <= 0:
        return "elsewhere"  # the kernel has no number for it in this namespace
    mine = _own_namespace(proc)
    theirs = _namespace(proc / str(pid))
    if isinstance(mine, str) and isinstance(theirs, str):
        return "here" if mine == theirs else "elsewhere"
    if isinstance(theirs, FileNotFoundError | ProcessLookupError):
        return "gone"
    depth, own_depth = _depth(proc / str(pid)), _depth(proc / "self")
    if depth == 0 or own_depth != 1:
        return "hidden"
    return "here" if depth == 1 else "elsewhere"


@cache
def _own_namespace(proc: Path) -> str | OSError:
    """Return this process's own, which never changes; that it can't be read doesn't either."""
    return _namespace(proc / "self")


def _namespace(process: Path) -> str | OSError:
    try:
        return str((process / "ns" / "pid").readlink())
    except OSError as error:
        return error


def _depth(process: Path) -> int:
    try:
        match = _NSPID.search((process / "status").read_text(encoding="ascii", errors="replace"))
    except OSError:
        return 0
    return len(match[1].split()) if match else 0
