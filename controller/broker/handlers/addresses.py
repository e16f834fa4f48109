"""Addresses at the gate: subnets for networks, and the addresses of slots (``core.addresses``)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from controller.broker.gate.call import Flow, GateRequest, read_json, read_members
from controller.broker.gate.commands import EndConnections
from controller.broker.gate.state import GateState, reserving
from controller.broker.guards.lookup import OwnContainer
from controller.core.addresses import key_of, slot_address, slot_key, subnets_of, with_addresses
from controller.core.records.parts import EndpointPart, NetworkPart, RequestPart
from controller.core.rules.context import NetworkFacts
from controller.core.rules.verdict import AdmissionDecision
from controller.model import names
from controller.model.inventory import ContainerItem, Inventory
from controller.model.records import Role


def taken_subnets(state: GateState) -> Flow[tuple[str, ...]]:
    """Return the networks that a new subnet must not overlap.

    They are the engine's, those whose creation is in progress, and the routes of the engine's host.
    """
    listed = yield from read_members("/networks")
    requests = (RequestPart.read(intent.request) for intent in state.inventory.open.values())
    under_way = (
        subnet for request in requests for subnet in request.summary.part(NetworkPart).subnets
    )
    return (*subnets_of(listed), *under_way, *state.routes())


#: The beginning of an endpoint's key, in place of the id of a container that is starting.
ENDPOINT = "ep-"


def reserve(
    call: GateRequest, state: GateState, slot: str, judged: AdmissionDecision
) -> AbstractContextManager[None]:
    """Keep the addresses chosen for a slot from others, until the inventory remembers them.

    Other requests are judged before the intent is durable.
    """
    chosen = EndpointPart.read(judged.summary).slot_addresses
    return reserving(state.reservations.addresses, {call.id: (slot, chosen)})


def _known(state: GateState) -> Inventory:
    """Return the inventory with the addresses that requests in progress have chosen."""
    inventory = state.inventory
    for slot, named in state.reservations.addresses.values():
        inventory = replace(inventory, addresses=with_addresses(inventory, slot, named))
    return inventory


def of_slot(
    state: GateState,
    labels: Mapping[str, Any],
    networks: Mapping[str, NetworkFacts],
    asked: Mapping[str, str],
) -> dict[str, str]:
    """Return the addresses for a new container of a slot, by the name of the network.

    *asked* are those that its document chose.

    Other containers of the slot let go of the address before the new one starts. A container of a
    client, and the run of a job, has no slot.
    """
    slot = slot_of(labels)
    namespace, service, number = slot.split("/")
    if not number.isdecimal():
        return {}
    items = state.inventory.items.of_service(namespace, service)
    own = {item.id for item in items if key_of(item) == slot}
    return {
        name: slot_address(
            _known(state),
            slot,
            network=facts.id,
            subnet=facts.subnet,
            held=facts.held,
            own=own,
            asked=asked.get(name, ""),
        )
        for name, facts in networks.items()
        if facts.subnet
    }


def held_by_others(state: GateState, network: Mapping[str, Any]) -> dict[str, str]:
    """Return the containers outside of the inventory at addresses of slots: the name by address.

    *network* is the inspect of a network. Somebody named the address on the engine's own socket. While a
    container starts, the engine shows its endpoint in place of its id: that is nobody's yet.
    """
    known = {*state.inventory.addresses.get(str(network.get("Id", "")), {}).values()}
    held = {
        str(end.get("IPv4Address") or "").partition("/")[0]: str(end.get("Name") or identifier)
        for identifier, end in (network.get("Containers") or {}).items()
        if identifier not in state.inventory.containers and not identifier.startswith(ENDPOINT)
    }
    return {address: name for address, name in sorted(held.items()) if address in known}


def slot_of(labels: Mapping[str, Any]) -> str:
    """Return the key of the slot that the labels of a new container name."""
    namespace, service, number = (
        str(labels.get(name, "")) for name in (names.NAMESPACE, names.SERVICE, names.SLOT)
    )
    return slot_key(namespace, service, number)


def ends_connections(
    state: GateState, call: GateRequest, found: OwnContainer, network: NetworkFacts
) -> EndConnections | None:
    """Return how connections end before the controller takes a container from an address that clients know.

    It is that of its slot, or another one under its service's name. None if the container is at neither.
    """
    at = {container: address for address, container in network.held.items()}.get(found.item.id, "")
    slot = key_of(found.item)
    if call.actor.role is not Role.CONTROLLER or not at or not slot or not network.subnet:
        return None
    joined = (found.inspect.get("NetworkSettings") or {}).get("Networks") or {}
    named = found.item.service in ((joined.get(network.name) or {}).get("Aliases") or ())
    if not named and state.inventory.addresses.get(network.id, {}).get(slot) != at:
        return None
    pid = (found.inspect.get("State") or {}).get("Pid")
    return EndConnections(pid if isinstance(pid, int) else 0, found.item.id, at)


def of_item(state: GateState, item: ContainerItem, network: NetworkFacts) -> Flow[str]:
    """Return the address of a container's slot in a network; '' while another container has it.

    A container without a place in the network (``engine.responses``) has it until its end.
    """
    slot = key_of(item)
    if not slot or not network.subnet:
        return ""
    items = state.inventory.items.of_service(item.namespace, item.service)
    others = {each.id for each in items if key_of(each) == slot} - {item.id, *network.held.values()}
    for other in sorted(others):
        inspect = (yield from read_json(f"/containers/{other}/json")) or {}
        joined = ((inspect.get("NetworkSettings") or {}).get("Networks") or {}).values()
        here = any((end or {}).get("NetworkID") == network.id for end in joined)
        if here and (inspect.get("State") or {}).get("Running") is True:
            return ""
    return slot_address(
        _known(state), slot, network=network.id, subnet=network.subnet, held=network.held
    )
