"""Generations: which resources were declared anew, or as something else than before."""

from __future__ import annotations

from controller.core.encoding.canonical_json import digest
from controller.core.manifests.dependencies import dependencies_of
from controller.core.manifests.revision_hash import spec_digest
from controller.core.service import revisions
from controller.loop.state.store import StateStore
from controller.model.desired.desired import Desired, Network, Release, Service, Volume
from controller.model.names import Key
from controller.model.observed import Observed


def accept(
    declared: Desired, memory: StateStore, observed: Observed | None, *, now: str
) -> set[Key]:
    """Count up the generation of each resource whose spec changed, and return their keys.

    Notes the revisions and what services depend on, and ends what a document ends (*now* is RFC
    3339). What can't be read now keeps its generation: nothing was accepted.
    """
    memory.depend({s.key: frozenset(dependencies_of(s.key, s.spec)) for s in declared.services})
    changed = set()
    resources: tuple[Service | Network | Volume, ...] = (
        *declared.services,
        *declared.networks,
        *declared.volumes,
    )
    for resource in resources:
        if resource.key not in declared.blind_keys and memory.accept(
            resource.key, spec_digest(resource)
        ):
            changed.add(resource.key)
    for release in declared.releases:
        if memory.accept(release.key, digest(_release(release))):
            # Its members carry it out; by itself it asks for nothing.
            generation = memory.generation(release.key)
            assert generation is not None
            memory.acted_on(release.key, generation.number)
    _note(declared, memory, observed, now)
    return changed


def _note(declared: Desired, memory: StateStore, observed: Observed | None, now: str) -> None:
    grown = False
    for service in declared.services:
        before, generation = memory.steering(service.key), memory.generation(service.key)
        if generation is None:
            continue  # its document has errors beside: nothing was accepted
        after = revisions.noted(
            before,
            service,
            generation=generation.number,
            since=now,
            containers=None if observed is None else observed.of(service.key),
        )
        grown = grown or after.revisions != before.revisions
        memory.steer(service.key, after)
    if grown:
        for key, steering in revisions.slimmed(memory.steerings()).items():
            memory.steer(key, steering)


def _release(release: Release) -> list[object]:
    return [release.owner, release.chart, [str(member) for member in release.members]]
