"""Names that others hold: refused before the engine is asked, and without saying whose they are.

The engine's own refusal of a name that is taken tells the holder's id; and it takes any alias.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from controller.broker.refusals import Denied
from controller.broker.resolve import Found, sees
from controller.broker.state import GateState
from controller.broker.steps import Call, Steps, seen
from controller.core.answering import Answering, answering, clashes, of_item, of_summary
from controller.model import names
from controller.model.entries import Role
from controller.model.inventory import Item
from controller.model.mutations import Mutation


def name_path(name: str) -> str:
    """Return the path of whichever container has a name."""
    return f"/containers/{name}/json"


def holder(state: GateState, name: str) -> Steps[tuple[str, Item | None]]:
    """Return the id of the container that has a name ('' for none), and ours by that id."""
    inspect = (yield from seen(name_path(name))) if name else None
    if inspect is None or inspect.get("Name") != f"/{name}":
        return "", None
    identifier = str(inspect.get("Id", ""))
    labels = (inspect.get("Config") or {}).get("Labels") or {}
    ours = labels.get(names.INSTANCE) == state.instance
    return identifier, state.inventory.containers.get(identifier) if ours else None


def refuse_if_taken(call: Call, name: str, taken: tuple[str, Item | None]) -> None:
    """Refuse a client a name that isn't free, in one way whoever holds it.

    Its own container's name is the engine's to refuse: the client may know that id.

    Raises:
        Denied: ``name.taken``.
    """
    identifier, item = taken
    if not identifier or call.actor.role is not Role.CLIENT:
        return
    if item is not None and sees(call.actor, item.owner):
        return
    raise Denied(
        "name.taken",
        f"the name {name} is taken",
        "choose another name",
        status=409,
        message=f'Conflict. The container name "/{name}" is already in use.',
        subject=name,
    )


def others(state: GateState) -> Iterator[Answering]:
    """Yield what every container of ours answers to: those there are, and those on their way."""
    for item in state.inventory.containers.values():
        yield of_item(item)
    for intent in state.inventory.open.values():
        if intent.request.get("route") == Mutation.CONTAINER_CREATE:
            summary = intent.request.get("summary")
            yield of_summary(summary if isinstance(summary, Mapping) else {})
    yield from state.answering.values()


@contextmanager
def answers_to(call: Call, state: GateState, mine: Answering) -> Iterator[None]:
    """Keep names for the caller while they are being taken.

    Raises:
        Denied: ``network.name-taken``.
    """
    for finding in clashes(mine, others(state), free=call.policy.networks.aliases):
        raise Denied(finding.rule, finding.reason, finding.remedy, subject=call.route.name)
    state.answering[call.id] = mine
    try:
        yield
    finally:
        state.answering.pop(call.id, None)


def renamed(found: Found, name: str) -> Answering:
    """Return what a container answers to under another name."""
    return answering(found.item.owner, found.item.admitted.networks, [name])


def joining(found: Found, network: str, aliases: tuple[str, ...]) -> Answering:
    """Return what a container answers to in a network that it joins."""
    whole = of_item(found.item)
    host = str((found.inspect.get("Config") or {}).get("Hostname") or "")
    return answering(found.item.owner, [network], (*whole.names, host, *aliases))
