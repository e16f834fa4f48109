"""Pending moves: services whose containers still go by an earlier name.

A move restarts nothing: the broker's inventory lets the containers go on under the new name. While
the move is pending, no plan removes the containers.

While an unread document possibly declares the earlier name, the service waits. Containers of its own
would end the move, and start on empty volumes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from controller.model.desired.desired import Desired, Service
from controller.model.desired.plan import MoveService, NeedsOperator
from controller.model.names import Key
from controller.model.observed import Container, Observed

#: The code of a move that waits for an unread document.
WAITS = "moved.unread"


@dataclass(frozen=True, slots=True)
class PendingMove:
    """Containers of the service *source* that are to go on under the name of *service*."""

    source: Key
    service: Service
    #: The number of containers.
    count: int
    #: True if an unread document possibly declares *source*.
    waits: bool = False

    @property
    def step(self) -> MoveService | NeedsOperator:
        """The part of a plan: the move, or the wait for the unread document."""
        if not self.waits:
            return self.action
        key, name = self.service.key, f"{self.source.namespace}/{self.source.name}"
        cause = f"an unread document possibly declares {name}, whose containers go on here"
        return NeedsOperator(object=key, target=key.name, cause=cause, code=WAITS)

    @property
    def action(self) -> MoveService:
        """The action for the move."""
        named, key = f"{self.source.namespace}/{self.source.name}", self.service.key
        return MoveService(
            object=key,
            target=key.name,
            cause=f"{named} is now {key.name}; {_goes_on(self.count, self.source.name)}",
            source=self.source,
            owner=self.service.owner,
        )


def _goes_on(count: int, name: str) -> str:
    """Return what becomes of the containers: no engine gives a running container another name."""
    if count == 1:
        return f"its container goes on, and answers to {name} until its replacement"
    return f"its {count} containers go on, and answer to {name} until their replacement"


def pending_moves(desired: Desired, observed: Observed) -> tuple[PendingMove, ...]:
    """Return the moves to make or to wait for, by their services.

    A service with a container of its own takes no other containers over. Nothing is planned for a
    suspended service and its containers.
    """
    return tuple(
        PendingMove(source, service, len(observed.of(source)), waits=desired.is_blind_for(source))
        for service, source in _sources(desired, observed)
        if not _is_held(desired, service)
    )


def declared_moves(desired: Desired, service: Service) -> Iterator[MoveService]:
    """Yield the moves to a service's name that the documents permit, whatever runs."""
    for source in service.moved:
        is_free = source not in desired.workloads_by_key and not desired.is_blind_for(source)
        if is_free and not _is_held(desired, service):
            yield PendingMove(source, service, 0).action


def claimed_keys(desired: Desired, observed: Observed) -> frozenset[Key]:
    """Return the undeclared services whose containers wait for a move."""
    return frozenset(source for _, source in _sources(desired, observed))


def present_key(key: Key, desired: Desired, observed: Observed) -> Key | None:
    """Return the service that the containers of an earlier key wait to move to, None for none."""
    return next((new.key for new, source in _sources(desired, observed) if source == key), None)


def _sources(desired: Desired, observed: Observed) -> Iterator[tuple[Service, Key]]:
    """Yield the services whose containers run under an earlier key, with the key."""
    for service in desired.moved_services:
        source = _source_of(service, desired, observed)
        if source is not None:
            yield service, source


def _is_held(desired: Desired, service: Service) -> bool:
    """Return True if no plan has an action for the service."""
    return service.key in desired.suspended or service.key in desired.blind_keys


def _source_of(service: Service, desired: Desired, observed: Observed) -> Key | None:
    """Return the earlier key under which the containers of a service run."""
    if observed.of(service.key):
        return None
    for source in service.moved:
        if source not in desired.workloads_by_key and observed.of(source):
            return source
    return None


def with_moves(observed: Observed, moves: Iterable[PendingMove]) -> Observed:
    """Return a snapshot as it will be after the moves."""
    targets = {move.source: move.service.key for move in moves if not move.waits}
    if not targets:
        return observed
    containers = tuple(
        _moved(c, targets[c.key]) if c.key in targets else c for c in observed.containers
    )
    return replace(observed, containers=containers)


def _moved(container: Container, target: Key) -> Container:
    if container.origin != "controller":
        return container
    former = container.former or container.key.name
    admitted = () if container.admitted is None else container.admitted.networks
    known = dict(container.admitted_aliases)
    names = {n: tuple(sorted({*known.get(n, ()), container.key.name})) for n in admitted}
    further = tuple(sorted((known | names).items()))
    return replace(
        container,
        key=target,
        former="" if former == target.name else former,
        admitted_aliases=further,
    )
