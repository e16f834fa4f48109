"""The routes of the engine's network namespace, in which its networks are."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

from controller.core.rules.host_routes import EVERYWHERE, parse_routes

_CONNECT_S = 1.0
_UCRED = struct.Struct("iII")  # pid, uid, gid


def engine_routes(engine_socket: str) -> tuple[str, ...]:
    """Return the networks to which the host of an engine has routes.

    If these can't be read, the broker's own routes: most engines share its network namespace.
    """
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_CONNECT_S)
            connection.connect(engine_socket)
            found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        pid, _, _ = _UCRED.unpack(found)
        return parse_routes(Path(f"/proc/{pid}/net/route").read_text("ascii"))
    except (OSError, ValueError):
        return host_routes()


def host_routes(file: Path = Path("/proc/self/net/route")) -> tuple[str, ...]:
    """Return the networks in the host's routing table, everything if the table can't be read."""
    try:
        return parse_routes(file.read_text("ascii"))
    except (OSError, ValueError):
        return (EVERYWHERE,)
