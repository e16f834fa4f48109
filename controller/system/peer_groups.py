"""The groups of the process at the other end of a connection (SO_PEERGROUPS, unix(7))."""

from __future__ import annotations

import ctypes
import errno
import socket
import struct

_libc = ctypes.CDLL(None, use_errno=True)
_SO_PEERGROUPS = 59
_UCRED = struct.Struct("iII")  # pid, uid, gid
#: Groups read at first: the memory for all costs more than the call. NGROUPS_MAX of the kernel.
_FEW_GROUPS, _GROUPS_MAX = 64, 65536


def peer_groups(connection: socket.socket) -> frozenset[int]:
    """Return the gids of a peer: its own, and the supplementary ones. Python's getsockopt supports only 256.

    Raises:
        OSError: the kernel returns no credentials.
    """
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    own: int = _UCRED.unpack(raw)[2]
    option = (connection.fileno(), socket.SOL_SOCKET, _SO_PEERGROUPS)
    for count in (_FEW_GROUPS, _GROUPS_MAX):
        groups = (ctypes.c_uint32 * count)()
        size = ctypes.c_uint32(ctypes.sizeof(groups))
        if _libc.getsockopt(*option, groups, ctypes.byref(size)) == 0:
            return frozenset((own, *groups[: size.value // ctypes.sizeof(ctypes.c_uint32)]))
        if ctypes.get_errno() != errno.ERANGE:
            break
    return frozenset({own})  # no further group grants nothing
