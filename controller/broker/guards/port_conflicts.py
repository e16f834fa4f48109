"""Port conflicts: a host port that another owner's container holds is refused at the create.

The engine would accept the create, and the start too while the holder is stopped. A start is judged
again: a service can have gone to another owner since. The container that was created first has the
port then.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager

from controller.broker.gate.call import GateRequest
from controller.broker.gate.refusals import Denied
from controller.broker.gate.state import GateState, reserving
from controller.broker.guards.lookup import can_see
from controller.broker.guards.name_conflicts import containers_in_progress
from controller.core.admission.host_ports import (
    PortClaim,
    PortConflict,
    conflict_of,
    finding_of,
    of_item,
    of_summary,
)
from controller.model.inventory import ContainerItem


def ports_in_use(state: GateState) -> Iterator[PortClaim]:
    """Yield the claims of all containers of this instance, including creates in progress."""
    for item in state.inventory.containers.values():
        if item.ports:
            yield of_item(item)
    yield from map(of_summary, containers_in_progress(state))
    yield from state.reservations.ports.values()


def find_conflict(state: GateState, mine: PortClaim) -> PortConflict | None:
    """Return a port of *mine* that another owner's container holds, None if there is none."""
    return conflict_of(mine, ports_in_use(state)) if mine.ports or mine.ranges else None


def refuse_taken(call: GateRequest, state: GateState, item: ContainerItem) -> None:
    """Refuse to start a container with a host port of another owner's earlier container.

    Raises:
        Denied: ``port.taken``. A client doesn't learn the holder.
    """
    mine = of_item(item)
    if not mine.ports:
        return
    earlier = (
        of_item(other)
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
    conflict = find_conflict(state, mine)
    if conflict is not None:
        raise _taken(call, conflict, mine.name)
    return reserving(state.reservations.ports, {call.id: mine})


def _taken(call: GateRequest, conflict: PortConflict, subject: str) -> Denied:
    found = finding_of(conflict, names_holder=can_see(call.actor, conflict.holder.owner))
    return Denied(found.rule, found.reason, found.remedy, status=409, subject=subject)
