"""Generations: count the accepted changes of each resource's spec."""

from __future__ import annotations

from controller.core.encoding.canonical_json import digest
from controller.core.manifests.dependencies import dependencies_of
from controller.core.manifests.revision_hash import spec_digest
from controller.core.service import revisions
from controller.loop.state.store import StateStore
from controller.model.desired.desired import Desired, Network, Service, Volume
from controller.model.names import Key
from controller.model.observed import Observed


def accept_desired(
    declared: Desired, store: StateStore, observed: Observed | None, *, now: str
) -> set[Key]:
    """Increment the generation of each resource whose spec changed; return their keys.

    Also saves the revisions and dependencies of services, and ends the overrides that a new
    document ends. *now* is RFC 3339. A resource whose document can't be read keeps its generation.
    """
    for service in declared.workloads:
        store.of(service.key).dependencies = frozenset(dependencies_of(service.key, service.spec))
    changed = set()
    resources: tuple[Service | Network | Volume, ...] = (
        *declared.workloads,
        *declared.networks,
        *declared.volumes,
    )
    for resource in resources:
        if resource.key not in declared.blind_keys and store.accept_spec(
            resource.key, spec_digest(resource)
        ):
            changed.add(resource.key)
    for release in declared.releases:
        members = [str(member) for member in release.members]
        if store.accept_spec(release.key, digest([release.owner, release.chart, members])):
            # A Release has no passes: its members carry it out.
            generation = store.of(release.key).generation
            assert generation is not None
            store.mark_acted_on(release.key, generation.number)
    _save_revisions(declared, store, observed, now)
    return changed


def _save_revisions(
    declared: Desired, store: StateStore, observed: Observed | None, now: str
) -> None:
    grown = False
    for service in declared.services:
        state = store.of(service.key)
        if state.generation is None:
            continue  # the document has errors: no spec was accepted
        before = state.overrides
        state.overrides = revisions.record_document(
            before,
            service,
            generation=state.generation.number,
            since=now,
            containers=None if observed is None else observed.of(service.key),
        )
        grown = grown or state.overrides.revisions != before.revisions
    if grown:
        for key, overrides in revisions.drop_old_specs(store.all_overrides()).items():
            store.of(key).overrides = overrides
