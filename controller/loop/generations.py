"""Generations: which resources were declared anew, or as something else than before."""

from __future__ import annotations

from controller.core.canonical import digest
from controller.loop.memory import Memory
from controller.model.desired import Desired, Network, Release, Service, Volume
from controller.model.names import Key


def accept(desired: Desired, memory: Memory) -> frozenset[Key]:
    """Count up the generation of each resource whose spec changed; return their keys.

    What can't be read now keeps its generation: nothing was accepted.
    """
    changed = set()
    resources: tuple[Service | Network | Volume, ...] = (
        *desired.services,
        *desired.networks,
        *desired.volumes,
    )
    for resource in resources:
        if resource.key not in desired.blind_keys and memory.accept(
            resource.key, spec_of(resource)
        ):
            changed.add(resource.key)
    for release in desired.releases:
        if memory.accept(release.key, digest(_release(release))):
            # Its members carry it out; by itself it asks for nothing.
            generation = memory.generation(release.key)
            assert generation is not None
            memory.acted_on(release.key, generation.number)
    return frozenset(changed)


def spec_of(resource: Service | Network | Volume) -> str:
    """Return a digest of all that a resource asks for, wherever in the files it stands."""
    text = resource.spec.model_dump_json(by_alias=True)
    labels = resource.labels if isinstance(resource, Service) else ()
    return digest([resource.owner, text, [list(label) for label in labels]])


def _release(release: Release) -> list[object]:
    return [release.owner, release.chart, [str(member) for member in release.members]]
