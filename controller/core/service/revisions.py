"""Revisions: which ones of a service are remembered, for looking back and for going back.

Ten of a service are kept, the oldest going first, but never the one that it is pinned to nor one
of which a container is there. What a revision runs as image is the broker's to know.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import TypeVar

from controller.core.manifests.revision_hash import service_text, slot_text, spec_digest
from controller.model.desired.desired import Restarting, Service, SourceLocation
from controller.model.desired.overrides import Overrides, Pin, Revision, RevisionOutcome, Suspension
from controller.model.desired.spec import RunState
from controller.model.names import Key
from controller.model.observed import Container

_T = TypeVar("_T")
#: Revisions that are kept of a service.
KEPT = 10
#: Characters of all specs that are kept: beyond, the oldest can be told of, and not gone back to.
SPECS_MAX = 8 * 1024 * 1024


def noted(
    steering: Overrides,
    service: Service,
    *,
    generation: int,
    since: str,
    containers: tuple[Container, ...] | None,
) -> Overrides:
    """Return a service's steering after its document was read.

    *generation* is that of the document, *since* now, *containers* what is there of the service
    (None: not known). Ends what the document ends: a pin when it asks for something else, a
    restart when nothing is to run.
    """
    steering = _declared(steering, service, generation, since)
    if not is_pinned(steering, service):
        steering = replace(steering, pin=None)
    at_rest = service.spec.state is RunState.STOPPED or service.spec.replicas == 0
    if steering.restarting is not None and at_rest:
        steering = replace(steering, restarting=None)
    if containers is None:
        return steering
    return _trimmed(replaced(steering, containers), frozenset(c.revision for c in containers))


def is_pinned(steering: Overrides, service: Service) -> bool:
    """Tell whether a service is pinned, and its document doesn't ask for something else by now."""
    pin = steering.pin
    return pin is not None and pin.asked in (service.revision, spec_digest(service))


def replaced(steering: Overrides, containers: Iterable[Container]) -> Overrides:
    """Return the steering after a look at a service: a restart is over once nothing of it is left."""
    restarting = steering.restarting
    if restarting is None or any(container.id in restarting.ids for container in containers):
        return steering
    return replace(steering, restarting=None)


def _declared(steering: Overrides, service: Service, generation: int, since: str) -> Overrides:
    revisions = steering.revisions
    if revisions and revisions[-1].revision == service.revision:
        return steering
    before = steering.find_revision(service.revision)
    entry = Revision(
        revision=service.revision,
        generation=generation,
        since=since,
        owner=service.owner,
        image=service.spec.image,
        spec=slot_text(service.spec),
        source=service.source,
        # One that failed is tried again; one that ran well did so.
        outcome="good" if before is not None and before.outcome == "good" else "",
    )
    others = tuple(each for each in revisions if each.revision != service.revision)
    return replace(steering, revisions=(*others, entry))


def _trimmed(steering: Overrides, running: frozenset[str]) -> Overrides:
    surplus = len(steering.revisions) - KEPT
    if surplus <= 0:
        return steering
    pinned = "" if steering.pin is None else steering.pin.revision
    # The last is the declared one.
    dropped = [
        each.revision
        for each in steering.revisions[:-1]
        if each.revision not in running and each.revision != pinned
    ][:surplus]
    return replace(
        steering,
        revisions=tuple(each for each in steering.revisions if each.revision not in dropped),
    )


def judged(
    steering: Overrides, revision: str, outcome: RevisionOutcome, reason: str = ""
) -> Overrides:
    """Return the steering with what became of a revision."""
    revisions = tuple(
        replace(each, outcome=outcome, reason=reason) if each.revision == revision else each
        for each in steering.revisions
    )
    return replace(steering, revisions=revisions)


def applied(steering: Overrides, service: Service) -> Overrides:
    """Return the steering once a service's document was fully acted on."""
    return replace(steering, applied=service_text(service.spec))


def left(steering: Overrides, revision: str) -> Overrides:
    """Return the steering once a revision was gone back from by itself."""
    revisions = tuple(
        replace(each, left=True) if each.revision == revision else each
        for each in steering.revisions
    )
    return replace(steering, revisions=revisions)


def in_force(steering: Overrides, declared: str) -> str:
    """Return the revision that passes work for."""
    return declared if steering.pin is None else steering.pin.revision


def last_good(steering: Overrides, declared: str) -> Revision | None:
    """Return the last revision that ran well before the one that passes work for."""
    now = in_force(steering, declared)
    places = [n for n, each in enumerate(steering.revisions) if each.revision == now]
    before = steering.revisions[: places[0] if places else None]
    good = (each for each in reversed(before) if each.outcome == "good" and each.spec)
    return next(good, None)


def slimmed(steerings: Mapping[Key, Overrides]) -> dict[Key, Overrides]:
    """Return what of *steerings* must change so that all specs stay within their bound.

    The oldest lose theirs; never a declared or a pinned one.
    """
    total = sum(len(each.spec) for s in steerings.values() for each in s.revisions)
    if total <= SPECS_MAX:
        return {}
    changed: dict[Key, Overrides] = {}
    for _, key, revision in sorted(
        (each.since, key, each.revision)
        for key, steering in steerings.items()
        for each in steering.revisions[:-1]
        if each.spec and (steering.pin is None or each.revision != steering.pin.revision)
    ):
        steering = changed.get(key, steerings[key])
        revisions = tuple(
            replace(each, spec="") if each.revision == revision else each
            for each in steering.revisions
        )
        total -= sum(len(e.spec) for e in steering.revisions) - sum(len(e.spec) for e in revisions)
        changed[key] = replace(steering, revisions=revisions)
        if total <= SPECS_MAX:
            break
    return changed


# The file


def to_json(steering: Overrides) -> dict[str, object]:
    """Return a steering as JSON; what there is none of isn't in it."""
    members: dict[str, object] = {"revisions": [asdict(each) for each in steering.revisions]}
    if steering.pin is not None:
        members["pin"] = asdict(steering.pin)
    if steering.suspension is not None:
        members["suspension"] = asdict(steering.suspension)
    if steering.restarting is not None:
        restarting = steering.restarting
        members["restarting"] = {"ids": sorted(restarting.ids), "by": restarting.by}
    if steering.applied is not None:
        members["applied"] = steering.applied
    if steering.down_ms is not None:
        members["downMs"] = steering.down_ms
    return members


def from_json(value: Mapping[str, object]) -> Overrides:
    """Read back what ``to_json`` wrote.

    Raises:
        ValueError: *value* isn't a steering.
    """
    match value:
        case {"revisions": list(revisions)}:
            return Overrides(
                revisions=tuple(_revision(each) for each in revisions),
                pin=_pin(value["pin"]) if "pin" in value else None,
                suspension=_suspension(value["suspension"]) if "suspension" in value else None,
                restarting=_restarting(value["restarting"]) if "restarting" in value else None,
                applied=_member(value, "applied", str),
                down_ms=_member(value, "downMs", int),
            )
        case _:
            raise ValueError(f"not a service's steering: {value!r:.200}")


def _member(value: Mapping[str, object], name: str, kind: type[_T]) -> _T | None:
    member = value.get(name)  # older files lack it
    if member is not None and not isinstance(member, kind):
        raise ValueError(f"not a steering's {name}: {member!r:.200}")
    return member


def _revision(value: object) -> Revision:
    match value:
        case {
            "revision": str(revision),
            "generation": int(generation),
            "since": str(since),
            "owner": str(owner),
            "image": str(image),
            "spec": str(spec),
            "source": {"file": str(file), "line": int(line), "commit": str(commit)},
            "outcome": "" | "good" | "failed" as outcome,
            "reason": str(reason),
            **more,
        }:
            source = SourceLocation(file, line, commit)
            was_left = more.get("left") is True  # older files lack it
            return Revision(
                revision, generation, since, owner, image, spec, source, outcome, reason, was_left
            )
        case _:
            raise ValueError(f"not a revision: {value!r:.200}")


def _pin(value: object) -> Pin:
    match value:
        case {
            "revision": str(revision),
            "generation": int(generation),
            "asked": str(asked),
            "by": str(by),
            "since": str(since),
            "reason": str(reason),
            "automatic": bool(automatic),
        }:
            return Pin(revision, generation, asked, by, since, reason, automatic)
        case _:
            raise ValueError(f"not a pin: {value!r:.200}")


def _suspension(value: object) -> Suspension:
    match value:
        case {"by": str(by), "since": str(since)}:
            return Suspension(by, since)
        case _:
            raise ValueError(f"not a suspension: {value!r:.200}")


def _restarting(value: object) -> Restarting:
    match value:
        case {"ids": list(ids), "by": str(by)} if all(isinstance(each, str) for each in ids):
            return Restarting(frozenset(ids), by)
        case _:
            raise ValueError(f"not a restart: {value!r:.200}")
