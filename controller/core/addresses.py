"""Addresses of slots: the subnets of networks, and the address that a slot keeps in a network.

The address that a slot has in a network with slot addresses.

A slot gets an address with its first container there, and keeps the address: for its next containers, and
while it has none. The broker's inventory remembers the addresses (``Inventory.addresses``).

Subnets with slot addresses.

A network of the controller gets a subnet of the policy's pools. The engine hands out addresses of the
upper half only: to containers of clients, and to successors until they take over. The lower half
belongs to slots (see above), so no other container gets the address of a slot.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from controller.model.inventory import ContainerItem, Inventory, without


def slot_key(namespace: str, service: str, slot: int | str) -> str:
    """Return the key of a slot: NAMESPACE/SERVICE/SLOT."""
    return f"{namespace}/{service}/{slot}"


def key_of(item: ContainerItem) -> str:
    """Return the key of a container's slot; '' for a container of a client or of a job."""
    is_replica = item.origin == "controller" and not item.is_run and item.slot > 0
    return slot_key(item.namespace, item.service, item.slot) if is_replica else ""


def slot_address(
    inventory: Inventory,
    slot: str,
    *,
    network: str,
    subnet: str,
    held: Mapping[str, str],
    own: Collection[str] = (),
    asked: str = "",
) -> str:
    """Return the address of a slot in a network; '' if the engine must choose one.

    Args:
        inventory: it remembers the addresses of slots.
        slot: its key.
        network: the id of the network.
        subnet: of the network.
        held: the containers that are connected now, by their addresses.
        own: the ids of containers of the slot that let go of the address before it is needed.
        asked: the address that the document chose; '' for none. It is nobody else's, or the answer is ''.
    """
    known = inventory.addresses.get(network, {})
    others = {address: other for other, address in known.items() if other != slot}
    if asked and asked in others and _has_container(inventory, others[asked]):
        return ""
    found = (
        asked
        or known.get(slot)
        or _first_address(subnet, known, held, own, lambda other: _has_container(inventory, other))
    )
    return found if held.get(found, "") in {"", *own} else ""


def _first_address(
    subnet: str,
    known: Mapping[str, str],
    held: Mapping[str, str],
    own: Collection[str],
    is_used: Callable[[str], bool],
) -> str:
    """Return an address for a slot without one.

    In order: the address of a container of the slot, if the inventory was lost; the lowest address that
    no slot ever had; the address of the slot without containers whose last container is oldest.
    """
    network = ipaddress.IPv4Network(subnet)
    lowest, count = int(network.network_address), network.num_addresses
    taken = {*known.values(), *held}
    # Without the network's own address and the gateway.
    free = (str(ipaddress.IPv4Address(lowest + number)) for number in range(2, count // 2))
    mine = {address for address, container in held.items() if container in own}
    mine -= {*known.values()}
    half = ipaddress.IPv4Network((lowest, network.prefixlen + 1))
    for address in sorted(mine):
        if ipaddress.IPv4Address(address) in half:
            return address
    fresh = next((address for address in free if address not in taken), "")
    unused = (a for slot, a in known.items() if a not in held and not is_used(slot))
    return fresh or next(unused, "")


def _has_container(inventory: Inventory, slot: str) -> bool:
    namespace, service, _ = slot.split("/")
    return any(key_of(each) == slot for each in inventory.items.of_service(namespace, service))


def with_addresses(
    inventory: Inventory, slot: str, named: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    """Return the remembered addresses after a request that names addresses of a slot, by network.

    The slot named last comes last. An address belongs to one slot.
    """
    changed = {network: dict(slots) for network, slots in inventory.addresses.items()}
    for network, address in named.items():
        slots = without(changed.get(network, {}), slot)
        slots = {other: each for other, each in slots.items() if each != address}
        changed[network] = {**slots, slot: address}
    return changed


def moved_addresses(inventory: Inventory, source: str, target: str) -> dict[str, dict[str, str]]:
    """Return the remembered addresses after a move of a service, named as NAMESPACE/SERVICE."""
    return {
        network: {
            f"{target}/{slot.rpartition('/')[2]}" if slot.rpartition("/")[0] == source else slot: a
            for slot, a in slots.items()
        }
        for network, slots in inventory.addresses.items()
    }


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
