"""Names that others hold: refused before the engine is asked, and without saying whose they are.

The engine's own refusal of a name that is taken tells the holder's id; and it takes any alias.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from controller.broker.gate.call import Flow, GateRequest, read_json
from controller.broker.gate.refusals import Denied
from controller.broker.gate.state import GateState
from controller.broker.guards.lookup import OwnContainer, can_see
from controller.core.admission.dns_names import (
    DnsNames,
    clashes,
    make_dns_names,
    of_item,
    of_summary,
    service_of,
)
from controller.core.encoding.json_members import mapping_member
from controller.model import names
from controller.model.inventory import ContainerItem
from controller.model.mutations import Mutation
from controller.model.records import Role


def name_path(name: str) -> str:
    """Return the path of whichever container has a name."""
    return f"/containers/{name}/json"


@dataclass(frozen=True, slots=True)
class Holder:
    """The container that has a name: its id ('' for none), ours by that id, and the instance that
    its labels name ('' for what isn't one).
    """

    id: str = ""
    item: ContainerItem | None = None
    instance: str = ""


def find_holder(state: GateState, name: str) -> Flow[Holder]:
    """Return who has a name."""
    inspect = (yield from read_json(name_path(name))) if name else None
    if inspect is None or inspect.get("Name") != f"/{name}":
        return Holder()
    identifier = str(inspect.get("Id", ""))
    instance = str(((inspect.get("Config") or {}).get("Labels") or {}).get(names.INSTANCE) or "")
    ours = instance == state.instance
    item = state.inventory.containers.get(identifier) if ours else None
    return Holder(identifier, item, instance if names.is_instance(instance) else "")


def refuse_if_taken(call: GateRequest, name: str, taken: Holder) -> None:
    """Refuse a client a name that isn't free, in one way whoever holds it.

    Its own container's name is the engine's to refuse: the client may know that id.

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


def names_in_use(state: GateState) -> Iterator[DnsNames]:
    """Yield what every container of ours answers to: those there are, and those on their way."""
    for item in state.inventory.containers.values():
        yield of_item(item)
    for intent in state.inventory.open.values():
        if intent.request.get("route") == Mutation.CONTAINER_CREATE:
            yield of_summary(mapping_member(intent.request, "summary"))
    yield from state.reservations.names.values()


@contextmanager
def reserve_names(call: GateRequest, state: GateState, mine: DnsNames) -> Iterator[None]:
    """Keep names for the caller while they are being taken.

    Raises:
        Denied: ``network.name-taken``.
    """
    for finding in clashes(mine, names_in_use(state), free=call.policy.networks.aliases):
        raise Denied(finding.rule, finding.reason, finding.remedy, subject=call.route.name)
    state.reservations.names[call.id] = mine
    try:
        yield
    finally:
        state.reservations.names.pop(call.id, None)


def names_after_rename(found: OwnContainer, name: str) -> DnsNames:
    """Return what a container answers to under another name."""
    item = found.item
    return make_dns_names(item.owner, item.admitted.networks, [name], service=service_of(item))


def names_after_join(found: OwnContainer, network: str, aliases: tuple[str, ...]) -> DnsNames:
    """Return what a container answers to in a network that it joins."""
    whole = of_item(found.item)
    host = str((found.inspect.get("Config") or {}).get("Hostname") or "")
    told = (*whole.names, host, *aliases)
    return make_dns_names(found.item.owner, [network], told, service=whole.service)
