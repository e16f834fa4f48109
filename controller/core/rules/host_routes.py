"""Routes of the host: what a network with addresses of its own choosing must not overlap."""

from __future__ import annotations

import ipaddress
import sys

EVERYWHERE = "0.0.0.0/0"
_UP = 0x1
#: A default route is one; a VPN may write it as two halves, so that it wins over the other.
_DEFAULT_MAX = 1


def parse_routes(text: str) -> tuple[str, ...]:
    """Return the IPv4 networks that ``/proc/net/route`` has routes to, apart from default ones (proc(5)).

    Raises:
        ValueError: it isn't what the kernel writes.
    """
    found = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 8:
            raise ValueError(f"not a route: {line[:200]!r}")
        destination, mask = (_address(fields[column]) for column in (1, 7))
        network = ipaddress.IPv4Network(f"{destination}/{mask}")
        if int(fields[3], 16) & _UP and network.prefixlen > _DEFAULT_MAX:
            found.append(str(network))
    return tuple(sorted(set(found)))


def overlapped(subnet: str, routes: tuple[str, ...]) -> str:
    """Return the first of some routes that a subnet overlaps, '' if there is none."""
    network = ipaddress.IPv4Network(subnet)
    return next((each for each in routes if network.overlaps(ipaddress.IPv4Network(each))), "")


def _address(digits: str) -> ipaddress.IPv4Address:
    """Return an address from the kernel's hex: four bytes in the machine's order."""
    if len(digits) != 8:
        raise ValueError(f"not an address: {digits[:200]!r}")
    return ipaddress.IPv4Address(
        int.from_bytes(bytes.fromhex(digits), "big").to_bytes(4, sys.byteorder)
    )
