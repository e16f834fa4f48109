"""The address that a slot has in a network with slot addresses.

A slot gets an address with its first container there, and keeps the address: for its next containers, and
while it has none. The broker's inventory remembers the addresses (``Inventory.addresses``).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Mapping

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
