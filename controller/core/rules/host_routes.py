"""Routes of the host: a network with chosen addresses must not overlap them."""

from __future__ import annotations

import ipaddress
import sys

EVERYWHERE = "0.0.0.0/0"
_UP = 0x1
#: Longest prefix of a default route. A VPN may write the default route as two halves (/1), which
#: take precedence over another default route.
_DEFAULT_MAX = 1


def parse_routes(text: str) -> tuple[str, ...]:
    """Return the active IPv4 networks of ``/proc/net/route``, without default routes.

    See proc(5) for the columns.

    Raises:
        ValueError: the text is not in the kernel's form.
    """
    routes = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 8:
            raise ValueError(f"not a route: {line[:200]!r}")
        destination, mask = (_address(fields[column]) for column in (1, 7))
        network = ipaddress.IPv4Network(f"{destination}/{mask}")
        if int(fields[3], 16) & _UP and network.prefixlen > _DEFAULT_MAX:
            routes.append(str(network))
    return tuple(sorted(set(routes)))


def overlapping_route(subnet: str, routes: tuple[str, ...]) -> str:
    """Return the first route that overlaps a subnet, '' if there is none."""
    network = ipaddress.IPv4Network(subnet)
    return next((route for route in routes if network.overlaps(ipaddress.IPv4Network(route))), "")


def _address(digits: str) -> ipaddress.IPv4Address:
    """Return an address from the kernel's hexadecimal form: 4 bytes in machine order."""
    if len(digits) != 8:
        raise ValueError(f"not an address: {digits[:200]!r}")
    return ipaddress.IPv4Address(
        int.from_bytes(bytes.fromhex(digits), "big").to_bytes(4, sys.byteorder)
    )
