"""Snapshots: merge a key's snapshot into the snapshot of everything."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from operator import attrgetter

from controller.model.names import WORKLOADS, Key
from controller.model.observed import Container, Observed
from controller.ports import ContainerSummary, EngineEvent


def merge(whole: Observed, part: Observed, key: Key) -> Observed:
    """Return *whole* updated by *part*, a snapshot of *key* alone.

    Such a snapshot has the containers of one service, the networks of its namespace and all
    volumes.
    """
    containers = whole.containers
    if key.kind in WORKLOADS:
        # *whole* has a moved container under another name of its service. After a move there and
        # back, nothing of the container itself tells so.
        gone = {each.id for each in (*whole.groups.get(key, ()), *part.containers)}
        others = (each for each in containers if each.id not in gone)
        containers = tuple(sorted((*others, *part.containers), key=attrgetter("id")))
    unread = {each: why for each, why in whole.unread.items() if each != key}
    elsewhere = (n for n in whole.networks if n.namespace != key.namespace)
    here = (n for n in part.networks if n.namespace == key.namespace)
    return replace(
        whole,
        instance=part.instance,
        engine_id=part.engine_id,
        untested=part.untested,
        containers=containers,
        networks=tuple(sorted((*elsewhere, *here), key=lambda n: (n.name, n.id))),
        volumes=part.volumes,
        images={**whole.images, **part.images},
        pins=part.pins,
        image_volumes={**whole.image_volumes, **part.image_volumes},
        image_settings={**whole.image_settings, **part.image_settings},
        # A part without published ports has none, whatever is bound.
        listening=part.listening or whole.listening,
        endings=part.endings,
        files=part.files,
        taken_down=part.taken_down,
        jobs={**whole.jobs, **part.jobs},
        unread={**unread, **part.unread},
    )


def refreshed(whole: Observed, keys: Iterable[Key], observe: Callable[[Key], Observed]) -> Observed:
    """Return *whole* updated by new snapshots of *keys*."""
    for key in keys:
        whole = merge(whole, observe(key), key)
    return whole


def changed_services(known: Observed, listed: frozenset[ContainerSummary]) -> frozenset[Key]:
    """Return the controller's services whose containers in the engine's list differ from *known*."""
    before = {_summary(container) for container in known.containers}
    # A client's container has no namespace: the controller doesn't manage it.
    return frozenset(summary.key for summary in before ^ listed if summary.key.namespace)


def owner_of(known: Observed, container_id: str) -> Key | None:
    """Return the controller's service of a container; None if unknown."""
    found = known.find(container_id)
    return found.key if found is not None and found.origin == "controller" else None


def displaced(known: Observed) -> frozenset[Key]:
    """Return the services with a slot whose address a container of others has."""
    if not any(network.held for network in known.networks):
        return frozenset()
    return frozenset(each.key for each in known.containers if each.holders)


def has_health(known: Observed, key: Key, event: EngineEvent) -> bool:
    """Return True if an event reports the health that a running container has in *known*."""
    return event.health != "" and any(
        each.running and each.health == event.health
        for each in known.of(key)
        if each.id == event.id
    )


def _summary(container: Container) -> ContainerSummary:
    return ContainerSummary(
        id=container.id,
        name=container.name,
        state=container.state.value,
        key=container.key,
        networks=container.settings.networks,
    )
