"""Port conflicts: a host port that another owner's container holds is refused at the create.

The engine would accept the create, and the start too while the holder is stopped. A start needs no
check: of two containers with one port, the create of the second was refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from controller.broker.gate.call import GateRequest
from controller.broker.gate.refusals import Denied
from controller.broker.gate.state import GateState
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


@contextmanager
def reserve_ports(call: GateRequest, state: GateState, mine: PortClaim) -> Iterator[None]:
    """Reserve host ports for a create in progress.

    Raises:
        Denied: ``port.taken``. A client doesn't learn the holder.
    """
    conflict = find_conflict(state, mine)
    if conflict is not None:
        found = finding_of(conflict, names_holder=can_see(call.actor, conflict.holder.owner))
        raise Denied(found.rule, found.reason, found.remedy, status=409, subject=mine.name)
    state.reservations.ports[call.id] = mine
    try:
        yield
    finally:
        state.reservations.ports.pop(call.id, None)
