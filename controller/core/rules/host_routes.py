"""Addresses that clients and documents choose: within the policy's ranges, off the host's routes."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Iterable
from dataclasses import replace

from controller.core import addresses
from controller.core.encoding.text import quote
from controller.core.engine_api import requests
from controller.core.rules.context import Case, NetworkFacts
from controller.core.rules.networks import is_own_network, is_within, network_facts
from controller.model.policy.document import Policy

POOLS_MAX = 4
#: The largest networks that an engine makes by itself are of this prefix.
PREFIX_LEAST = 16
EVERYWHERE = "0.0.0.0/0"
EVERYWHERE_IPV6 = "::/0"
#: The addresses that no router of the internet forwards (RFC 4193).
UNIQUE_LOCAL = "fc00::/7"
_UP = 0x1
_IPV6_LEAST, _IPV6_MOST = 64, 112
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


def parse_ipv6_routes(text: str) -> tuple[str, ...]:
    """Return the active networks of ``/proc/net/ipv6_route``, without default and link-local ones.

    Raises:
        ValueError: the text is not in the kernel's form.
    """
    routes = set()
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 10:
            raise ValueError(f"not a route: {line[:200]!r}")
        address = ipaddress.IPv6Address(bytes.fromhex(fields[0]))
        network = ipaddress.IPv6Network((address, int(fields[1], 16)), strict=False)
        is_own = network.is_link_local or network.is_multicast or network.is_loopback
        if int(fields[8], 16) & _UP and network.prefixlen > _DEFAULT_MAX and not is_own:
            routes.add(str(network))
    return tuple(sorted(routes))


def overlapping_route(subnet: str, routes: tuple[str, ...]) -> str:
    """Return the first route that overlaps a subnet, '' if there is none."""
    network = ipaddress.ip_network(subnet)
    for route in routes:
        other = ipaddress.ip_network(route)
        if other.version == network.version and network.overlaps(other):
            return route
    return ""


def _address(digits: str) -> ipaddress.IPv4Address:
    """Return an address from the kernel's hexadecimal form: 4 bytes in machine order."""
    if len(digits) != 8:
        raise ValueError(f"not an address: {digits[:200]!r}")
    return ipaddress.IPv4Address(
        int.from_bytes(bytes.fromhex(digits), "big").to_bytes(4, sys.byteorder)
    )


def judge_pools(
    request: requests.NetworkRequest, policy: Policy, routes: tuple[str, ...]
) -> requests.Findings:
    """Yield the addresses that a network must not have: they could shadow routes of the host."""
    granted = policy.networks.subnets
    if len(request.pools) > POOLS_MAX:
        reason = f"{len(request.pools)} subnets: at most {POOLS_MAX}"
        yield requests.Finding("network.address", "IPAM.Config", reason, "name fewer")
        return
    for index, pool in enumerate(request.pools):
        if ":" in pool.subnet:
            yield from _judge_ipv6(pool, request, routes, f"IPAM.Config[{index}]")
            continue
        if request.driver == requests.MACVLAN:
            continue  # ``judge_macvlan``: the subnet is that of the host's interface
        if not granted:
            reason = "it could shadow routes of the host"
            remedy = "leave out Config, or list its range in networks.subnets of the policy"
        elif not is_within(pool.subnet, granted):
            reason = f"{quote(pool.subnet)} is not an IPv4 network within {', '.join(granted)}"
            remedy = "choose a subnet of those, or leave out Config"
        elif ipaddress.IPv4Network(pool.subnet).prefixlen < PREFIX_LEAST:
            # A larger one would take several of the engine's pools at once, past the quota.
            reason = f"{pool.subnet} is larger than a network of the engine's own choice"
            remedy = f"choose a subnet of /{PREFIX_LEAST} or smaller"
        elif not all(
            is_within(part, (pool.subnet,)) for part in (pool.ip_range, pool.gateway) if part
        ):
            reason = "its range or gateway is outside of the subnet"
            remedy = "choose them within it"
        elif route := overlapping_route(pool.subnet, routes):
            # Traffic of the host and its containers to the route would end in this network.
            reason = f"{pool.subnet} overlaps {route}, to which this host has a route"
            remedy = "choose another subnet, or leave out Config"
        else:
            continue
        yield requests.Finding("network.address", f"IPAM.Config[{index}]", reason, remedy)


def _judge_ipv6(
    pool: requests.Pool, request: requests.NetworkRequest, routes: tuple[str, ...], path: str
) -> requests.Findings:
    if not request.ipv6:
        reason, remedy = "an IPv6 subnet without EnableIPv6", "set both, or none"
    elif not is_within(pool.subnet, (UNIQUE_LOCAL,)) or pool.ip_range or pool.gateway:
        reason = f"{quote(pool.subnet)} is no IPv6 network within {UNIQUE_LOCAL}"
        remedy = "choose one such as fd12:3456:789a::/64, and no range or gateway"
    elif not _IPV6_LEAST <= ipaddress.IPv6Network(pool.subnet).prefixlen <= _IPV6_MOST:
        reason = f"{pool.subnet} has another size than /{_IPV6_LEAST} to /{_IPV6_MOST}"
        remedy = f"choose a subnet of /{_IPV6_LEAST}"
    elif route := overlapping_route(pool.subnet, routes):
        reason = f"{pool.subnet} overlaps {route}, to which this host has a route"
        remedy = "choose another subnet"
    else:
        return
    yield requests.Finding("network.address", path, reason, remedy)


def judge_macvlan(
    request: requests.NetworkRequest, policy: Policy, *, owner: str, namespace: str
) -> requests.Findings:
    """Yield why a network can't be on an interface of the host, with addresses of the host's network."""
    grants = [
        grant
        for grant in policy.networks.macvlan
        if (grant.owner, grant.namespace, grant.parent) == (owner, namespace, request.parent)
    ]
    if not grants:
        reason = (
            f"a macvlan network on {quote(request.parent)} isn't granted to owner {owner} in "
            f"namespace {namespace}: its containers are machines of the host's own network"
        )
        yield requests.Finding("network.driver", "Driver", reason, "use bridge")
        return
    ranges = tuple(grant.range for grant in grants)
    pools = [pool for pool in request.pools if ":" not in pool.subnet]
    pool = pools[0] if len(pools) == 1 and len(request.pools) == 1 else requests.Pool()
    parts = (pool.ip_range, pool.gateway)
    reason = ""
    if request.internal or request.ipv6 or request.masquerade is False or request.icc is False:
        reason = "a macvlan network has neither a firewall of the engine nor IPv6 here"
    elif not pool.ip_range or not is_within(pool.ip_range, ranges):
        reason = f"its range {quote(pool.ip_range)} is not within {', '.join(ranges)}"
    elif not all(is_within(part, (pool.subnet,)) for part in parts if part):
        reason = "its range or gateway is outside of the subnet"
    if reason:
        remedy = "name one subnet, and a range of it that the policy grants"
        yield requests.Finding("network.address", "IPAM.Config", reason, remedy)


def addresses_allowed(case: Case) -> requests.Findings:
    """A chosen address is free, in a network of the document's namespace or of the client's own."""
    for end in case.request.endpoints:
        if end.asked:
            path = f"NetworkingConfig.EndpointsConfig.{end.network}.IPAMConfig.IPv4Address"
            yield from judge_address(case, end, path)


def judge_address(case: Case, end: requests.EndpointRequest, path: str) -> requests.Findings:
    """Yield why a container can't have a chosen address in a network."""
    facts = network_facts(case, end.network)
    lan = [
        grant.range
        for grant in case.policy.networks.macvlan
        if (grant.owner, grant.namespace) == (case.owner, case.namespace)
    ]
    on_lan = bool(lan) if facts is None else facts.driver == requests.MACVLAN and case.by_controller
    reason, remedy, permit = "", "leave it out, and use the container's name", None
    if not is_within(end.asked, (EVERYWHERE,)) or "/" in end.asked:
        reason = f"{quote(end.asked)} is no IPv4 address"
    elif not on_lan and not case.policy.networks.static_addresses:
        reason = "a chosen address can pose as another's"
        permit = requests.Grant("set", "networks.staticAddresses", True)
    elif facts is not None and on_lan and not is_within(end.asked, lan):
        reason = f"{end.asked} is no address of the host's network that the policy grants"
    elif facts is not None and not on_lan:
        reason, remedy = _misplaced(case, end, facts)
    if reason:
        yield requests.Finding("network.address", path, reason, remedy, permit=permit)


def _misplaced(case: Case, end: requests.EndpointRequest, facts: NetworkFacts) -> tuple[str, str]:
    """Return why a container can't have an address in a bridge, and the remedy; '' if it can."""
    another = "choose another one"
    if not case.by_controller:
        is_own = is_own_network(facts, case.owner)
        return (
            "" if is_own else f"{facts.name} isn't a network of your own"
        ), "use one of your own"
    if not facts.subnet:
        remedy = "declare a Network with a subnet of /24 or larger"
        return f"{facts.name} has no addresses of slots", remedy
    if not addresses.is_usable(end.asked, facts.subnet):
        return f"{end.asked} is no address for containers in {facts.subnet}", another
    if case.facts is not None and case.facts.addresses.get(end.network, "") != end.asked:
        return f"{end.asked} belongs to another slot or container", another
    return "", ""


def with_slot_addresses(
    request: requests.NetworkRequest, policy: Policy, taken: Iterable[str]
) -> requests.NetworkRequest:
    """Return the create of a network on which slots have addresses, if there is a subnet for it.

    The subnet is the requested one, or one of the policy's pools that overlaps none of *taken*. A
    network on which containers don't reach one another needs none.
    """
    pools = [pool for pool in request.pools if ":" not in pool.subnet]
    others = [pool for pool in request.pools if ":" in pool.subnet]
    pool = pools[0] if pools else requests.Pool()
    if request.icc is False or len(pools) > 1 or pool.ip_range or pool.gateway:
        return request
    subnet = pool.subnet or addresses.choose_subnet(policy.networks.address_pools, taken)
    if not addresses.can_be_halved(subnet):
        return request
    halved = requests.Pool(subnet, addresses.dynamic_range(subnet), addresses.gateway_of(subnet))
    return replace(request, pools=(halved, *others))
