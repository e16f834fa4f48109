"""Names and host ports in use are refused before the engine is asked, without naming the holder.

The engine's own refusal of a taken name reveals the id of the holder, and the engine accepts any
alias.

Port conflicts: a host port that another owner's container holds is refused at the create.

The engine would accept the create, and the start too while the holder is stopped. A start is judged
again: a service can have gone to another owner since. The container that was created first has the
port then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from controller.broker.gate.call import Flow, GateRequest, read_json
from controller.broker.gate.refusals import Denied, refuse_for
from controller.broker.gate.state import GateState, reserving
from controller.broker.guards.lookup import OwnContainer, can_see
from controller.core.admission.create import (
    PortClaim,
    PortConflict,
    conflict_of,
    finding_of,
    host_ports_of_item,
    host_ports_of_summary,
)
from controller.core.admission.dns_names import (
    DnsNames,
    clashes,
    make_dns_names,
    of_item,
    of_summary,
    service_of,
    shown_names,
    taken_names,
)
from controller.core.records.parts import RequestPart, SummaryPart
from controller.core.rules import networks as network_rules
from controller.model import names
from controller.model.inventory import ContainerItem
from controller.model.mutations import Mutation
from controller.model.policy.document import Policy
from controller.model.records import Role


def name_path(name: str) -> str:
    """Return the path of the container with a name."""
    return f"/containers/{name}/json"


@dataclass(frozen=True, slots=True)
class Holder:
    """The container that holds a name."""

    #: '' if the name is free.
    id: str = ""
    #: The item in the inventory; None for a container of somebody else.
    item: ContainerItem | None = None
    #: The instance in the labels; '' without a valid one.
    instance: str = ""


def find_holder(state: GateState, name: str) -> Flow[Holder]:
    """Return the holder of a name."""
    inspect = (yield from read_json(name_path(name))) if name else None
    if inspect is None or inspect.get("Name") != f"/{name}":
        return Holder()
    identifier = str(inspect.get("Id", ""))
    instance = str(((inspect.get("Config") or {}).get("Labels") or {}).get(names.INSTANCE) or "")
    item = state.inventory.containers.get(identifier)
    if item is not None and not item.adopted and instance != state.instance:
        item = None
    return Holder(identifier, item, instance if names.is_instance(instance) else "")


def refuse_if_taken(call: GateRequest, name: str, taken: Holder) -> None:
    """Refuse a taken name to a client, with the same message for every foreign holder.

    The engine itself refuses the name of the client's own container: the client can see that id.

    Raises:
        Denied: ``name.taken``.
    """
    if not taken.id or call.actor.role is not Role.CLIENT:
        return
    if taken.item is not None and can_see(call.actor, taken.item.owner):
        return
    raise Denied(
        "name.taken",
        f"the name {name} is taken",
        "choose another name",
        status=409,
        message=f'Conflict. The container name "/{name}" is already in use.',
        subject=name,
    )


def names_in_use(state: GateState, mine: DnsNames | None = None) -> Iterator[DnsNames]:
    """Yield the DNS names of all containers of this instance, including creates in progress.

    Containers that *mine* can't clash with are left out: containers of the same owner, and containers
    without a network in common.
    """
    items = state.inventory.items
    reached = frozenset[str]() if mine is None else mine.networks | mine.joined
    # Asked first: there are thousands of containers, and few networks with several owners.
    if mine is None or items.has_others(reached, mine.owner):
        for item in items.values():
            if mine is None or (
                item.owner != mine.owner and not reached.isdisjoint(item.admitted.networks)
            ):
                yield names_of(state, item)
    yield from map(of_summary, containers_in_progress(state))
    yield from state.reservations.names.values()


def names_of(state: GateState, item: ContainerItem) -> DnsNames:
    """Return the DNS names of a container: the recorded ones, and those that it got past the broker."""
    recorded = _recorded_names(state, item)
    found = state.verification.found_names.get(item.id)
    return recorded.answering_to(found) if found else recorded


def _recorded_names(state: GateState, item: ContainerItem) -> DnsNames:
    """Return the DNS names of a container by its create, joins and renames through the broker.

    A client's container holds none in a later network of the name of a removed one: it never joins
    that network, which can be another owner's.
    """
    known, policy = state.inventory.networks, state.policy
    lost = frozenset(
        name
        for name, identifier in item.network_ids
        if item.origin != "controller"
        and identifier not in known
        and not network_rules.is_implied_for(item, name, policy)
    )
    return of_item(item, without=lost)


def refuse_clashes(call: GateRequest, state: GateState, container: OwnContainer) -> None:
    """Refuse to start a container that would answer to a name of another owner's container.

    The create was judged by the names that it asked for. A start is judged by the names that the engine
    shows as well: somebody can have renamed the container past the broker. From then on those are taken.

    Raises:
        Denied: ``network.name-taken``, ``network.name-reserved``.
    """
    item = container.item
    mine = _recorded_names(state, item).answering_to(shown_names(container.inspect))
    found = clashes(mine, names_in_use(state, mine), policy=call.policy.networks)
    refuse_for(found, subject=item.id)
    find_names(state, item, call.policy, container.inspect)


def find_names(
    state: GateState, item: ContainerItem, policy: Policy, inspect: Mapping[str, Any]
) -> tuple[str, ...]:
    """Return the names of other owners' containers that a client's container got past the broker.

    The controller puts back the names of its own. Further names that a container got so were free:
    they are taken from now on.
    """
    recorded, held = _recorded_names(state, item), state.verification.found_names
    added = recorded.answering_to(shown_names(inspect)).names - recorded.names
    mine = replace(recorded, names=added)
    others = names_in_use(state, mine) if added else ()
    taken = tuple(taken_names(mine, others, policy=policy.networks))
    found = {**held, item.id: added.difference(taken)}
    state.verification.found_names = {
        key: free for key, free in found.items() if free and key in state.inventory.containers
    }
    return taken if item.origin != "controller" else ()


def containers_in_progress(state: GateState) -> Iterator[SummaryPart]:
    """Yield the summaries of creates and adoptions without an outcome."""
    for intent in state.inventory.open.values():
        request = RequestPart.read(intent.request)
        if request.route in {Mutation.CONTAINER_CREATE, Mutation.CONTAINER_ADOPT}:
            yield request.summary


def networks_joined(state: GateState, container: str) -> frozenset[str]:
    """Return the networks that a container is admitted to, with those of connects in progress."""
    item = state.inventory.containers.get(container)
    admitted = frozenset[str]() if item is None else frozenset(item.admitted.networks)
    taken = state.reservations.names.values()
    return admitted.union(*(each.networks for each in taken if each.id == container))


def reserve_names(
    call: GateRequest, state: GateState, mine: DnsNames
) -> AbstractContextManager[None]:
    """Reserve DNS names for a request while it takes them.

    Raises:
        Denied: ``network.name-taken``, ``network.name-reserved``.
    """
    found = clashes(mine, names_in_use(state, mine), policy=call.policy.networks)
    refuse_for(found, subject=call.route.name)
    return reserving(state.reservations.names, {call.id: mine})


def names_after_rename(state: GateState, container: OwnContainer, name: str) -> DnsNames:
    """Return the DNS names of a container under a new name."""
    item, networks = container.item, names_of(state, container.item).networks
    return make_dns_names(item.owner, networks, [name], service=service_of(item))


def names_after_join(
    state: GateState, container: OwnContainer, network: str, aliases: tuple[str, ...]
) -> DnsNames:
    """Return the DNS names of a container in a network that the container joins."""
    whole = names_of(state, container.item)
    host = str((container.inspect.get("Config") or {}).get("Hostname") or "")
    dns_names = (*whole.names, host, *aliases)
    return make_dns_names(
        container.item.owner,
        [network],
        dns_names,
        service=whole.service,
        identifier=whole.id,
        joined=whole.networks,
    )


def ports_in_use(state: GateState) -> Iterator[PortClaim]:
    """Yield the claims of all containers of this instance, including creates in progress."""
    for item in state.inventory.containers.values():
        if item.ports:
            yield host_ports_of_item(item)
    yield from map(host_ports_of_summary, containers_in_progress(state))
    yield from state.reservations.ports.values()


def find_port_conflict(state: GateState, mine: PortClaim) -> PortConflict | None:
    """Return a port of *mine* that another owner's container holds, None if there is none."""
    return conflict_of(mine, ports_in_use(state)) if mine.ports or mine.ranges else None


def refuse_taken_ports(call: GateRequest, state: GateState, item: ContainerItem) -> None:
    """Refuse to start a container with a host port of another owner's earlier container.

    Raises:
        Denied: ``port.taken``. A client doesn't learn the holder.
    """
    mine = host_ports_of_item(item)
    if not mine.ports:
        return
    earlier = (
        host_ports_of_item(other)
        for other in state.inventory.containers.values()
        if other.ports and other.seq < item.seq
    )
    if conflict := conflict_of(mine, earlier):
        raise _taken(call, conflict, item.id)


def reserve_ports(
    call: GateRequest, state: GateState, mine: PortClaim
) -> AbstractContextManager[None]:
    """Reserve host ports for a create in progress.

    Raises:
        Denied: ``port.taken``. A client doesn't learn the holder.
    """
    conflict = find_port_conflict(state, mine)
    if conflict is not None:
        raise _taken(call, conflict, mine.name)
    return reserving(state.reservations.ports, {call.id: mine})


def _taken(call: GateRequest, conflict: PortConflict, subject: str) -> Denied:
    found = finding_of(conflict, names_holder=can_see(call.actor, conflict.holder.owner))
    return Denied(found.rule, found.reason, found.remedy, status=409, subject=subject)
