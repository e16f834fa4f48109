"""Which connections to a loopback port are admitted: those of the server's user, and of root.

Any user and any container in the host's network can connect to a loopback port. The kernel's table of
connections names the user at the other end (proc_net(5), ``tcp``).
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Callable

#: TCP_ESTABLISHED (include/net/tcp_states.h). Rows of connections that end have no owner: their uid is 0.
_ESTABLISHED = "01"
_STATE, _UID = 3, 7

SocketAddress = tuple[str, int]


def client_uid(table: str, *, client: SocketAddress, server: SocketAddress) -> int | None:
    """Return the uid of the client of an established IPv4 connection; None if the table lacks it.

    *table* is the content of ``/proc/net/tcp``. An address is a host, such as ``127.0.0.1``, and a port.
    """
    wanted = [_row_form(client), _row_form(server), _ESTABLISHED]
    for line in table.splitlines()[1:]:
        fields = line.split()
        if fields[1 : _STATE + 1] == wanted:
            return int(fields[_UID])
    return None


def _row_form(address: SocketAddress) -> str:
    """Return an address as the table has it: a number in the byte order of the host."""
    host, port = address
    number = int.from_bytes(ipaddress.IPv4Address(host).packed, sys.byteorder)
    return f"{number:08X}:{port:04X}"


def admit_users(
    read_table: Callable[[], str], uids: frozenset[int]
) -> Callable[[SocketAddress, SocketAddress], bool]:
    """Return a function that returns True for a connection, from client to server, of one of the *uids*."""

    def is_admitted(client: SocketAddress, server: SocketAddress) -> bool:
        return client_uid(read_table(), client=client, server=server) in uids

    return is_admitted
