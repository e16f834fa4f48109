"""Snapshots: putting a look at one key into the snapshot of everything."""

from __future__ import annotations

from dataclasses import replace

from controller.model.names import Key
from controller.model.observed import Container, Observed, ObservedNetwork
from controller.ports import ContainerSummary


def merged(whole: Observed, part: Observed, key: Key) -> Observed:
    """Return *whole* with what *part* shows, which was a look at *key* alone.

    Such a look shows one service's containers, the networks of its namespace and all volumes.
    """
    containers = whole.containers
    if key.kind == "Service":
        others = (c for c in whole.containers if c.key != key)
        containers = tuple(sorted((*others, *part.containers), key=lambda c: c.id))
    elsewhere = (n for n in whole.networks if n.namespace != key.namespace)
    here = (n for n in part.networks if n.namespace == key.namespace)
    return replace(
        whole,
        instance=part.instance,
        engine_id=part.engine_id,
        containers=containers,
        networks=tuple(sorted((*elsewhere, *here), key=_network_order)),
        volumes=part.volumes,
        images={**whole.images, **part.images},
        pins=part.pins,
        image_volumes={**whole.image_volumes, **part.image_volumes},
        listening=part.listening,
        endings=part.endings,
        taken_down=part.taken_down,
    )


def differing(known: Observed, seen: frozenset[ContainerSummary]) -> frozenset[Key]:
    """Return the services of the controller's in which a cheap look shows something else."""
    before = {_glimpse(container) for container in known.containers}
    # A client's container has no namespace, and isn't looked after.
    return frozenset(glimpse.key for glimpse in before ^ seen if glimpse.key.namespace)


def owner_of(known: Observed, container_id: str) -> Key | None:
    """Return the service of the controller's that a container belongs to, if it is known."""
    mine = (c for c in known.containers if c.id == container_id and c.origin == "controller")
    return next((container.key for container in mine), None)


def _glimpse(container: Container) -> ContainerSummary:
    return ContainerSummary(
        id=container.id,
        name=container.name,
        state=container.state.value,
        key=container.key,
        networks=container.settings.networks,
    )


def _network_order(network: ObservedNetwork) -> tuple[str, str]:
    return (network.name, network.id)
