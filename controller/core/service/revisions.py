"""The kept revisions of a service, for its history and for rollbacks.

Ten revisions per service are kept; the oldest is dropped first. The pinned revision, and revisions
with a container, are never dropped. The broker knows the image of each revision.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from controller.core.encoding.stored_form import StoredForm
from controller.core.manifests.revision_hash import service_text, slot_text, spec_digest
from controller.model.desired.desired import Service, SourceLocation
from controller.model.desired.limits import DeclaredLimits
from controller.model.desired.overrides import (
    Overrides,
    Revision,
    RevisionOutcome,
)
from controller.model.desired.spec.rollout import RunState
from controller.model.names import Key
from controller.model.observed import Container

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

    A changed document ends a pin. A service with nothing to run ends a restart.

    *since* is now, as RFC 3339. *containers* is None if unknown.
    """
    overrides = _declared(overrides, service, generation, since)
    if not is_pinned(overrides, service):
        overrides = replace(overrides, pin=None)
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
