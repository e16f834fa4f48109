"""Subnets with slot addresses.

A network of the controller gets a subnet of the policy's pools. The engine hands out addresses of the
upper half only: to containers of clients, and to successors until they take over. The lower half
belongs to slots (``core.addresses.slots``), so no other container gets the address of a slot.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

#: A bridge has at most 1023 ports, and the lower half of such a subnet has 1022 addresses for slots.
SUBNET_PREFIX = 21
#: A declared subnet that is smaller than this has too few addresses to be cut in halves.
PREFIX_MAX = 24
#: Candidates that are compared with the taken subnets. A larger pool has enough of them.
_CANDIDATES_MAX = 4096


def choose_subnet(pools: Iterable[str], taken: Iterable[str]) -> str:
    """Return the first subnet of the pools that overlaps none of *taken*; '' if there is none.

    Texts in *taken* that are no IPv4 networks are ignored: the engine has IPv6 networks too.
    """
    others = [*_networks(taken)]
    for pool in pools:
        for subnet in islice(_cut(pool), _CANDIDATES_MAX):
            if not any(subnet.overlaps(other) for other in others):
                return str(subnet)
    return ""


def dynamic_range(subnet: str) -> str:
    """Return the half of a subnet from which the engine chooses addresses."""
    return str([*ipaddress.IPv4Network(subnet).subnets(prefixlen_diff=1)][1])


def gateway_of(subnet: str) -> str:
    """Return the gateway of a subnet, its first address."""
    return str(ipaddress.IPv4Network(subnet)[1])


def is_usable(address: str, subnet: str) -> bool:
    """Return True if a container can have an address: neither the ends of the subnet nor the gateway."""
    network, found = ipaddress.IPv4Network(subnet), ipaddress.IPv4Address(address)
    ends = {network.network_address, network.broadcast_address, network[1]}
    return found in network and found not in ends


def can_be_halved(subnet: str) -> bool:
    """Return True if a declared subnet has room for slot addresses."""
    try:
        return ipaddress.IPv4Network(subnet).prefixlen <= PREFIX_MAX
    except ValueError:
        return False


def slot_subnet(inspect: Mapping[str, Any]) -> str:
    """Return the subnet of a network with slot addresses; '' for any other network.

    An engine never changes the subnet of a network, so its inspect tells how it was made.
    """
    pools = (inspect.get("IPAM") or {}).get("Config") or ()
    found = [pool for pool in pools if ":" not in str(pool.get("Subnet") or "")]
    if len(found) != 1 or not (subnet := str(found[0].get("Subnet") or "")):
        return ""
    halved = can_be_halved(subnet) and found[0].get("IPRange") == dynamic_range(subnet)
    return subnet if halved else ""


def subnets_of(inspects: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the subnets of networks of the engine."""
    return tuple(
        str(pool.get("Subnet"))
        for inspect in inspects
        for pool in (inspect.get("IPAM") or {}).get("Config") or ()
        if pool.get("Subnet")
    )


def _cut(pool: str) -> Iterator[ipaddress.IPv4Network]:
    network = ipaddress.IPv4Network(pool)
    return network.subnets(new_prefix=max(SUBNET_PREFIX, network.prefixlen))


def _networks(texts: Iterable[str]) -> Iterator[ipaddress.IPv4Network]:
    for text in texts:
        try:
            yield ipaddress.IPv4Network(text, strict=False)
        except ValueError:
            continue
