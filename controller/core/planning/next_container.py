"""The next container of a slot: its name, and its create action."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from controller.core.planning.images_networks_volumes import Prerequisites
from controller.model.desired.desired import Service
from controller.model.desired.plan import CreateContainer
from controller.model.names import CONTAINER_NAME_MAX, container_name
from controller.model.observed import Container
from controller.model.records import Precondition


def next_name(service: Service, slot: int, containers: Iterable[Container]) -> str:
    """Return the name of a slot's next container.

    The number follows the highest attempt among *containers* of the same slot and revision. With a
    stale snapshot the create then fails with a name conflict, instead of making a second container.
    """
    everyone = tuple(containers)
    stem = container_name(
        service.key.namespace, service.key.name, slot=slot, revision=service.revision
    )
    taken = {name for container in everyone for name in _names_of(container)}
    mine = [c for c in everyone if c.slot == slot and c.revision == service.revision]
    attempts = [_attempt(name, stem) for container in mine for name in _names_of(container)]
    first = max([len(mine), *attempts]) + 1
    # Numbers start again only if they no longer fit into a name.
    for attempt in chain(range(first, first + len(taken) + 1), range(1, len(taken) + 2)):
        name = stem if attempt == 1 else f"{stem}.{attempt}"
        if name not in taken and len(name) <= CONTAINER_NAME_MAX:
            return name
    raise AssertionError(f"no name is left for slot {slot} of {service.key}")


def _names_of(container: Container) -> set[str]:
    # A renamed container has two names: its current one, and its admitted one.
    return {container.name, *([container.admitted.name] if container.admitted else [])}


def _attempt(name: str, stem: str) -> int:
    if name == stem:
        return 1
    digits = name.removeprefix(f"{stem}.")
    return int(digits) if digits != name and digits.isascii() and digits.isdigit() else 0


def create_of(
    service: Service,
    prerequisites: Prerequisites,
    *,
    slot: int,
    containers: Iterable[Container],
    cause: str,
    with_alias: bool = True,
) -> CreateContainer:
    """Return the create action of a slot's next container.

    *with_alias*: the container answers to its service's name as soon as it runs.
    """
    name = next_name(service, slot, containers)
    return CreateContainer(
        object=service.key,
        target=name,
        cause=cause,
        slot=slot,
        precondition=Precondition(absent=name),
        service=service,
        image=prerequisites.images.of(service),
        with_alias=with_alias,
    )


def hypothetical_create(
    service: Service, prerequisites: Prerequisites, *, slot: int = 1
) -> CreateContainer:
    """Return the create action of a slot's first container, as input for a policy verdict."""
    return create_of(service, prerequisites, slot=slot, containers=(), cause="as declared")
