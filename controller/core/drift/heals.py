"""Heals: the containers that a pass put back after they drifted."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from controller.core.drift.classify import Drift, ReplicaState
from controller.model.desired.desired import Service
from controller.model.desired.plan import IN_PLACE, AnyAction, StartContainer
from controller.model.observed import Container

#: What is put back. Other differences are rollouts: of a changed document, or by a person.
_HEALED = frozenset({Drift.ALTERED, Drift.STOPPED, Drift.UNHEALTHY})


def heals(
    service: Service, containers: Iterable[Container], done: Collection[AnyAction], *, is_good: bool
) -> Iterator[Drift]:
    """Yield the drift of each slot that a pass put back.

    *containers* are those before the pass, *done* the actions of the pass. *is_good*: the service's
    revision served before, so that a missing container was lost and isn't new.
    """
    ended = {action.slot for action in done if isinstance(action, (StartContainer, *IN_PLACE))}
    found: dict[int, list[Drift]] = {slot: [] for slot in sorted(ended)}
    for container in containers:
        if container.slot in found:
            found[container.slot].append(ReplicaState(container, service).drift)
    for drifts in found.values():
        if not is_good or any(drift in {Drift.STALE, Drift.LIMITS} for drift in drifts):
            continue
        yield from [each for each in drifts if each in _HEALED][:1] or (
            [] if drifts else [Drift.MISSING]
        )
