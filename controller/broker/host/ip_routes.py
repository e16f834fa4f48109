"""The routes of the engine's network namespace, in which its networks are."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

from controller.core.rules.host_routes import (
    EVERYWHERE,
    EVERYWHERE_IPV6,
    parse_ipv6_routes,
    parse_routes,
)

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
        return _routes(Path(f"/proc/{pid}/net"))
    except (OSError, ValueError):
        return host_routes()


def host_routes(folder: Path = Path("/proc/self/net")) -> tuple[str, ...]:
    """Return the networks in the host's routing tables, everything if a table can't be read."""
    try:
        return _routes(folder)
    except (OSError, ValueError):
        return (EVERYWHERE, EVERYWHERE_IPV6)


def _routes(folder: Path) -> tuple[str, ...]:
    found = parse_routes((folder / "route").read_text("ascii"))
    try:
        return (*found, *parse_ipv6_routes((folder / "ipv6_route").read_text("ascii")))
    except FileNotFoundError:
        return (*found, EVERYWHERE_IPV6)  # a kernel without IPv6: no network there has any
