"""Addresses that clients and documents choose: within the policy's ranges, off the host's routes."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Iterable
from dataclasses import replace

from controller.core.addresses import subnets
from controller.core.encoding.quoting import quote
from controller.core.engine_api.requests import Finding, Findings, NetworkRequest, Pool
from controller.model.policy.document import Policy

POOLS_MAX = 4
#: The largest networks that an engine makes by itself are of this prefix.
PREFIX_LEAST = 16
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


def judge_pools(request: NetworkRequest, policy: Policy, routes: tuple[str, ...]) -> Findings:
    """Yield the addresses that a network must not have: they could shadow routes of the host."""
    granted = policy.networks.subnets
    if len(request.pools) > POOLS_MAX:
        reason = f"{len(request.pools)} subnets: at most {POOLS_MAX}"
        yield Finding("network.address", "IPAM.Config", reason, "name fewer")
        return
    for index, pool in enumerate(request.pools):
        if not granted:
            reason = "it could shadow routes of the host"
            remedy = "leave out Config, or list its range in networks.subnets of the policy"
        elif not _is_within(pool.subnet, granted):
            reason = f"{quote(pool.subnet)} is not an IPv4 network within {', '.join(granted)}"
            remedy = "choose a subnet of those, or leave out Config"
        elif ipaddress.IPv4Network(pool.subnet).prefixlen < PREFIX_LEAST:
            # A larger one would take several of the engine's pools at once, past the quota.
            reason = f"{pool.subnet} is larger than a network of the engine's own choice"
            remedy = f"choose a subnet of /{PREFIX_LEAST} or smaller"
        elif not all(
            _is_within(part, (pool.subnet,)) for part in (pool.ip_range, pool.gateway) if part
        ):
            reason, remedy = (
                "its range or gateway is outside of the subnet",
                "choose them within it",
            )
        elif route := overlapping_route(pool.subnet, routes):
            # Traffic of the host and its containers to the route would end in this network.
            reason = f"{pool.subnet} overlaps {route}, to which this host has a route"
            remedy = "choose another subnet, or leave out Config"
        else:
            continue
        yield Finding("network.address", f"IPAM.Config[{index}]", reason, remedy)


def with_slot_addresses(
    request: NetworkRequest, policy: Policy, taken: Iterable[str]
) -> NetworkRequest:
    """Return the create of a network on which slots have addresses, if there is a subnet for it.

    The subnet is the requested one, or one of the policy's pools that overlaps none of *taken*. A
    network on which containers don't reach one another needs none.
    """
    pool = request.pools[0] if request.pools else Pool()
    if request.icc is False or len(request.pools) > 1 or pool.ip_range or pool.gateway:
        return request
    subnet = pool.subnet or subnets.choose_subnet(policy.networks.address_pools, taken)
    if not subnets.can_be_halved(subnet):
        return request
    halved = Pool(subnet, subnets.dynamic_range(subnet), subnets.gateway_of(subnet))
    return replace(request, pools=(halved,))


def _is_within(text: str, ranges: Iterable[str]) -> bool:
    """Return True if a text is an IPv4 network or address within any of *ranges*."""
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError:
        return False
    return any(network.subnet_of(ipaddress.IPv4Network(text)) for text in ranges)
