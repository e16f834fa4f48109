"""The history of a service: its revisions with their outcomes, kept for rollbacks and renames.

The history of a service: revisions with their outcomes, and overrides.

The kept revisions of a service, for its history and for rollbacks.

Ten revisions per service are kept; the oldest is dropped first. The pinned revision, and revisions
with a container, are never dropped. The broker knows the image of each revision.

Revisions from before a move: a service keeps the revision under which its containers run.

A revision depends on the service's name. A document with the same settings under another name goes on
under the revision of the former name: its containers are current, and its image, outcomes and rollbacks
are found under the same name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from controller.core.drift.failures import run_json
from controller.core.encoding.stored_form import StoredForm
from controller.core.engine_api.comparable_fields import limits_text
from controller.core.files.mounts import revision_contents
from controller.core.manifests.check_together import desired_digest
from controller.core.manifests.revision_hash import (
    revision_of,
    service_text,
    slot_text,
    spec_digest,
)
from controller.model.container_output import FailedRun
from controller.model.desired.desired import (
    NO_OVERRIDES,
    DeclaredLimits,
    Desired,
    Overrides,
    Revision,
    RevisionOutcome,
    Service,
    SourceLocation,
)
from controller.model.desired.spec.service import RunState, ServiceSpec
from controller.model.names import Key
from controller.model.observed import Container, Image, Observed

#: Revisions kept per service.
KEPT = 10
#: The most characters of all kept specs. Beyond that, the oldest revisions lose their spec:
#: they stay in the history, but a rollback to them is impossible.
SPECS_MAX = 8 * 1024 * 1024


def record_document(
    overrides: Overrides,
    service: Service,
    *,
    generation: int,
    since: str,
    containers: tuple[Container, ...] | None,
) -> Overrides:
    """Return a service's overrides after its document was read.

    A changed document ends a pin, a changed number of replicas a scaling. A service with nothing to run
    ends a restart.

    *since* is now, as RFC 3339. *containers* is None if unknown.
    """
    overrides = _declared(overrides, service, generation, since)
    if not is_pinned(overrides, service):
        overrides = replace(overrides, pin=None)
    if not is_scaled(overrides, service):
        overrides = replace(overrides, scaling=None)
    at_rest = service.spec.state is RunState.STOPPED or service.spec.replicas == 0
    if overrides.restarting is not None and at_rest:
        overrides = replace(overrides, restarting=None)
    if containers is None:
        return overrides
    return _trimmed(
        finish_restart(overrides, containers), frozenset(c.revision for c in containers)
    )


def is_pinned(overrides: Overrides, service: Service) -> bool:
    """Return True if a service is pinned, and its document has not asked for something else since."""
    pin = overrides.pin
    if pin is None or not pin.automatic:
        return pin is not None and pin.asked in (service.revision, spec_digest(service))
    return pin.asked == service.revision and pin.asked_limits == service.limits


def is_scaled(overrides: Overrides, service: Service) -> bool:
    """Return True if a service is scaled, and its document still declares the same replicas."""
    scaling = overrides.scaling
    return scaling is not None and scaling.declared == service.spec.replicas


def without_ended(overrides: Overrides, now: float) -> Overrides:
    """Return the overrides at *now*, in seconds since the epoch: without a scaling that has ended."""
    scaling = overrides.scaling
    if scaling is None or scaling.until is None or now < scaling.until:
        return overrides
    return replace(overrides, scaling=None)


def finish_restart(overrides: Overrides, containers: Iterable[Container]) -> Overrides:
    """Return the overrides after an observation: a restart ends once its old containers are gone."""
    restarting = overrides.restarting
    if restarting is None or any(container.id in restarting.ids for container in containers):
        return overrides
    return replace(overrides, restarting=None)


def _declared(overrides: Overrides, service: Service, generation: int, since: str) -> Overrides:
    revisions = overrides.revisions
    if revisions and revisions[-1].is_variant(service.revision, service.limits):
        return overrides
    before = overrides.find_revision(service.revision, service.limits)
    entry = Revision(
        revision=service.revision,
        generation=generation,
        since=since,
        owner=service.owner,
        image=service.spec.image,
        spec=slot_text(service.spec),
        # The place alone: the text of the document can have values.
        source=SourceLocation(service.source.file, service.source.line, service.source.commit),
        # A failed revision is tried again. A good one stays good.
        outcome="good" if before is not None and before.outcome == "good" else "",
        canonical=service.canonical,
        limits=service.limits,
        deliveries=service.deliveries,
        bound_names=service.bound_names,
    )
    others = tuple(each for each in revisions if not _is_superseded(each, service))
    return replace(overrides, revisions=(*others, entry))


def _is_superseded(kept: Revision, service: Service) -> bool:
    """Return True for an earlier declaration of a service's slots and limits, by any name."""
    canonical = service.canonical or service.revision
    same = kept.revision == service.revision or (kept.canonical or kept.revision) == canonical
    return same and kept.limits == service.limits


def _trimmed(overrides: Overrides, running: frozenset[str]) -> Overrides:
    surplus = len(overrides.revisions) - KEPT
    if surplus <= 0:
        return overrides
    pin = overrides.pin
    newest = {each.revision: each for each in overrides.revisions if each.revision in running}
    # The last revision is the declared one.
    dropped = [
        each
        for each in overrides.revisions[:-1]
        if newest.get(each.revision) is not each
        and not (pin is not None and each.is_variant(pin.revision, pin.limits))
    ][:surplus]
    return replace(
        overrides, revisions=tuple(each for each in overrides.revisions if each not in dropped)
    )


def record_outcome(
    overrides: Overrides,
    revision: str,
    outcome: RevisionOutcome,
    reason: str = "",
    limits: DeclaredLimits | None = None,
) -> Overrides:
    """Return the overrides with the outcome of a revision with *limits*."""
    kept = overrides.find_revision(revision, limits)
    return _with_changes(overrides, kept, outcome=outcome, reason=reason)


def _with_changes(overrides: Overrides, kept: Revision | None, **changes: Any) -> Overrides:
    revisions = tuple(
        replace(each, **changes) if each is kept else each for each in overrides.revisions
    )
    return replace(overrides, revisions=revisions)


def record_applied(overrides: Overrides, service: Service) -> Overrides:
    """Return the overrides after a service's document was fully applied."""
    return replace(overrides, applied=service_text(service.spec))


def record_rollback(
    overrides: Overrides, revision: str, limits: DeclaredLimits | None = None
) -> Overrides:
    """Return the overrides after an automatic rollback from a revision with *limits*."""
    return _with_changes(overrides, overrides.find_revision(revision, limits), left=True)


def in_force(overrides: Overrides, declared: str) -> str:
    """Return the revision of the desired state: the pinned one, or else the declared one."""
    return declared if overrides.pin is None else overrides.pin.revision


def last_good(
    overrides: Overrides, declared: str, limits: DeclaredLimits | None = None
) -> Revision | None:
    """Return the last good revision before the one in force; None without any.

    *declared* and *limits* are those of the document. The same revision with other limits is
    another one.
    """
    pin, now = overrides.pin, in_force(overrides, declared)
    limits = limits if pin is None else pin.limits
    places = [n for n, each in enumerate(overrides.revisions) if each.is_variant(now, limits)]
    before = overrides.revisions[: places[0] if places else None]
    good = (each for each in reversed(before) if each.outcome == "good" and each.spec)
    return next(good, None)


def drop_old_specs(all_overrides: Mapping[Key, Overrides]) -> dict[Key, Overrides]:
    """Return the changed entries of *steerings*, so that all specs stay within ``SPECS_MAX``.

    The oldest revisions lose their spec first. Declared and pinned ones never do.
    """
    total = sum(len(each.spec) for s in all_overrides.values() for each in s.revisions)
    if total <= SPECS_MAX:
        return {}
    changed: dict[Key, Overrides] = {}
    entries = [
        (each.since, key, each)
        for key, overrides in all_overrides.items()
        for each in overrides.revisions[:-1]
        if each.spec and (overrides.pin is None or each.revision != overrides.pin.revision)
    ]
    for _, key, revision in sorted(entries, key=lambda e: (e[0], e[1], e[2].revision)):
        overrides = changed.get(key, all_overrides[key])
        changed[key] = _with_changes(overrides, revision, spec="")  # its limits stay
        total -= sum(len(e.spec) for e in overrides.revisions)
        total += sum(len(e.spec) for e in changed[key].revisions)
        if total <= SPECS_MAX:
            break
    return changed


#: The overrides of a service in the saved state.
FORM = StoredForm(Overrides)


def history(
    key: Key,
    overrides: Overrides,
    *,
    declared: str,
    generation: int,
    limits: DeclaredLimits | None = None,
    pins: Mapping[str, Image] = MappingProxyType({}),
    running: Mapping[str, int] = MappingProxyType({}),
) -> dict[str, object]:
    """Return a service's history in the shape of ``history --json``, the newest revision first.

    *declared* is the revision of the document; '' if there is none. *limits* are those of the
    document; None for the last declared ones. *pins* has the images to which
    the broker pinned revisions, and *running* the number of containers by revision, as far as known.
    """
    restarting, pin = overrides.restarting, overrides.pin
    current = in_force(overrides, declared) if declared else None
    now = overrides.find_revision(declared, limits)
    chosen = None if pin is None else overrides.find_revision(pin.revision, pin.limits)
    newest = {each.revision: each for each in overrides.revisions}

    def row(each: Revision) -> dict[str, object]:
        image = pins.get(each.revision)
        return {
            "revision": each.revision,
            "generation": each.generation,
            "since": each.since,
            "image": each.image,
            "digest": "" if image is None else image.digest or image.id,
            "file": each.source.file,
            "line": each.source.line,
            "commit": each.source.commit,
            "outcome": each.outcome,
            "reason": each.reason,
            "limits": limits_text(each.limits),
            "current": current is not None and each is (chosen or now),
            "declared": each is now,
            "pinned": each is chosen,
            "containers": running.get(each.revision, 0) if each is newest[each.revision] else 0,
        }

    return {
        "kind": key.kind,
        "namespace": key.namespace,
        "name": key.name,
        "generation": generation,
        "suspended": asdict(overrides.suspension) if overrides.suspension else None,
        "pin": asdict(pin) if pin else None,
        "scaling": asdict(overrides.scaling) if overrides.scaling else None,
        "restarting": {"by": restarting.by, "containers": len(restarting.ids)}
        if restarting
        else None,
        "revisions": [row(each) for each in reversed(overrides.revisions)],
    }


def with_failures(history: dict[str, object], runs: Iterable[FailedRun]) -> dict[str, object]:
    """Return a history with the last failed run of each failed revision, as ``failure``."""
    key = (history["kind"], history["namespace"], history["name"])
    last = {r.revision: r for r in runs if (r.key.kind, r.key.namespace, r.key.name) == key}
    rows = history["revisions"]
    assert isinstance(rows, list), "the revisions of a history are a list"
    return {
        **history,
        "revisions": [
            {**row, "failure": run_json(last[row["revision"]])}
            if row["outcome"] == "failed" and row["revision"] in last
            else row
            for row in rows
        ],
    }


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
