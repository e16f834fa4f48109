"""Host ports: whether another program holds a port of the next container, before anything stops.

The answer is given only where it is certain. Listening ports come from the network namespace of
this process. The engine has the same namespace only if the published ports of the service's own
containers show up there.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Iterable

from controller.model.desired.desired import Service
from controller.model.observed import Container, HostPort

_LISTEN = "0A"
#: The state of udp(7) sockets that are bound and not connected.
_UNBOUND = "07"


def parse_sockets(text: str, protocol: str) -> frozenset[HostPort]:
    """Return the bound ports in ``/proc/net/tcp``, ``tcp6``, ``udp`` or ``udp6`` (proc(5)).

    *protocol* is ``tcp`` or ``udp``. Unreadable lines are skipped.
    """
    wanted = _LISTEN if protocol == "tcp" else _UNBOUND
    found = set()
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 4 or fields[3] != wanted:
            continue
        address, _, port = fields[1].partition(":")
        try:
            found.add(HostPort(_address(address), int(port, 16), protocol))
        except ValueError:
            continue
    return frozenset(found)


def _address(digits: str) -> str:
    """Return an address from the kernel's hex: words of four bytes in the machine's order."""
    raw = bytes.fromhex(digits)
    if len(raw) not in (4, 16):
        raise ValueError(digits)
    words = (raw[at : at + 4] for at in range(0, len(raw), 4))
    packed = b"".join(int.from_bytes(word, "big").to_bytes(4, sys.byteorder) for word in words)
    return str(ipaddress.ip_address(packed))


def taken(
    service: Service, containers: Iterable[Container], listening: frozenset[HostPort]
) -> HostPort | None:
    """Return a host port of *service* that another program holds; None if there is none, or
    unknown.

    *containers* are the service's own.
    """
    own = {port for container in containers for port in container.ports}
    if not own or not own <= listening:
        return None
    for port in service.spec.ports:
        if port.host is None:
            continue
        wanted = HostPort(port.host_ip, port.host, port.protocol)
        if any(meet(wanted, other) for other in listening - own):
            return wanted
    return None


def meet(one: HostPort, other: HostPort) -> bool:
    """Return True if only one of two ports can be bound."""
    if (one.port, one.protocol) != (other.port, other.protocol):
        return False
    first, second = ipaddress.ip_address(one.address), ipaddress.ip_address(other.address)
    return first == second or first.is_unspecified or second.is_unspecified
