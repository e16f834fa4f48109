"""Host ports: whether another program holds a port of the next container, before anything stops.

The answer is given only where it is certain. Listening ports come from the network namespace of
this process. The engine has the same namespace only if the published ports of the service's own
containers show up there.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Iterable
from dataclasses import replace

from controller.model.desired.desired import Service
from controller.model.observed import Container, HostPort

_LISTEN = "0A"
#: The state of udp(7) sockets that are bound and not connected.
_UNBOUND = "07"
_ANY_IPV4 = str(ipaddress.IPv4Address(0))


def parse_sockets(text: str, protocol: str) -> frozenset[HostPort]:
    """Return the bound ports in ``/proc/net/tcp``, ``tcp6``, ``udp`` or ``udp6`` (proc(5)).

    *protocol* is ``tcp`` or ``udp``. Unreadable lines are skipped.
    """
    wanted = _LISTEN if protocol == "tcp" else _UNBOUND
    ports = set()
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 4 or fields[3] != wanted:
            continue
        address, _, port = fields[1].partition(":")
        try:
            ports.add(HostPort(_address(address), int(port, 16), protocol))
        except ValueError:
            continue
    return frozenset(ports)


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
    others = set(listening - own)
    # A socket bound to :: takes connections of IPv4 as well.
    others |= {replace(port, address=_ANY_IPV4) for port in others if port.address == "::"}
    published = (port.published for each in service.spec.ports for port in each.each)
    return next((p for p in published if p and any(map(p.overlaps, others))), None)
