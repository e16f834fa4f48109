"""Revisions from before a move: a service keeps the revision under which its containers run.

A revision depends on the service's name. A document with the same settings under another name goes on
under the revision of the former name: its containers are current, and its image, outcomes and rollbacks
are found under the same name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from pydantic import ValidationError

from controller.core.files.mounts import revision_contents
from controller.core.manifests.check_together import desired_digest
from controller.core.manifests.revision_hash import revision_of
from controller.model.desired.desired import Desired, Service
from controller.model.desired.overrides import NO_OVERRIDES, Overrides, Revision
from controller.model.desired.spec.service import ServiceSpec
from controller.model.names import Key
from controller.model.observed import Container, Observed


def with_kept_revisions(
    declared: Desired, all_overrides: Mapping[Key, Overrides], observed: Observed | None
) -> Desired:
    """Return the desired state with each service under the revision that its containers have.

    *observed* is None before the first observation.
    """
    services = tuple(
        _with_kept_revision(
            service,
            all_overrides.get(service.key, NO_OVERRIDES),
            () if observed is None else _containers_of(service, observed),
        )
        for service in declared.services
    )
    if all(one is other for one, other in zip(services, declared.services, strict=True)):
        return declared
    digest = desired_digest(
        services,
        declared.networks,
        declared.volumes,
        jobs=declared.jobs,
        suspended=declared.suspended,
    )
    return replace(declared, services=services, digest=digest)


def _containers_of(service: Service, observed: Observed) -> tuple[Container, ...]:
    """Return the containers of a service, also under an earlier name."""
    keys = (service.key, *service.moved)
    return next((found for key in keys if (found := observed.of(key))), ())


def _with_kept_revision(
    service: Service, overrides: Overrides, containers: Iterable[Container]
) -> Service:
    canonical = service.canonical or service.revision
    known = _kept_name(service, canonical, overrides, containers)
    return (
        service
        if known == service.revision
        else replace(service, revision=known, canonical=canonical)
    )


def _kept_name(
    service: Service, canonical: str, overrides: Overrides, containers: Iterable[Container]
) -> str:
    kept = reversed(overrides.revisions)
    known = next((e.revision for e in kept if (e.canonical or e.revision) == canonical), "")
    return known or _name_before_moves(service, canonical, containers) or canonical


def _name_before_moves(service: Service, canonical: str, containers: Iterable[Container]) -> str:
    """Return the revision of containers that were made under an earlier name of the service.

    Such containers are current if only the name differs; '' without any.
    """
    formers = {(c.former or c.key.name): c.revision for c in containers}
    if canonical in formers.values():
        return ""
    contents = revision_contents(service.deliveries, service.bound_names)
    for name, revision in sorted(formers.items()):
        key = service.key._replace(name=name)
        made = name != service.key.name and revision_of(service.owner, key, service.spec, contents)
        if made == revision:
            return revision
    return ""


def moved(overrides: Overrides, key: Key) -> Overrides:
    """Return the overrides of a service under its new key.

    Revisions keep the names of running containers and pinned images.
    """
    revisions = []
    for kept in overrides.revisions:
        spec = kept_spec(kept)
        if spec is not None and not kept.hidden:
            contents = revision_contents(kept.deliveries, kept.bound_names)
            canonical = revision_of(kept.owner, key, spec, contents)
            kept = replace(kept, canonical="" if canonical == kept.revision else canonical)  # noqa: PLW2901
        revisions.append(kept)
    return replace(overrides, revisions=tuple(revisions))


def kept_spec(kept: Revision) -> ServiceSpec | None:
    """Return the slot spec of a kept revision; None if it isn't kept, or not readable any more."""
    try:
        return ServiceSpec.model_validate_json(kept.spec) if kept.spec else None
    except ValidationError:
        return None  # of a field that there isn't any more
