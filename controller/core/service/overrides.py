"""Overrides: applies suspensions, pins, scalings and restarts by people to the declared state.

A suspended service is left alone. A pinned service has the slot settings of an earlier revision.
Its replicas, and all settings of the service as a whole, come from the current document. A pin ends
when the document changes; an automatic pin ends only with a change of the slot settings. A pinned
revision can conflict with newer documents of other services: then all of them are left alone.

A scaled service has another number of replicas than its document says. A scaling ends when the document
declares another number, and at its own time. A scaling that a newer document doesn't permit leaves the
service alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from controller.core.drift.classify import short_revision
from controller.core.engine_api.comparable_fields import limits_text
from controller.core.files.mounts import revision_contents
from controller.core.manifests.check_together import desired_digest
from controller.core.manifests.object_checks import claims_of, exclusive_resources
from controller.core.manifests.revision_hash import NOT_OF_THE_SLOT, revision_of
from controller.core.service.history import is_pinned, is_scaled, kept_spec
from controller.model.delivery import Delivery
from controller.model.desired.desired import (
    NO_OVERRIDES,
    DeclaredLimits,
    Desired,
    OverrideReason,
    Overrides,
    Pin,
    Revision,
    Scaling,
    Service,
    Suspension,
)
from controller.model.desired.spec.service import Order
from controller.model.errors import Severity
from controller.model.names import DEFAULT_NAMESPACE, Key
from controller.model.observed import HostPort
from controller.model.quantities import format_instant

#: The reason of a service that an operator stopped.
STOPPED = "Stopped"


def apply_overrides(declared: Desired, all_overrides: Mapping[Key, Overrides]) -> Desired:
    """Return the desired state: *declared* with overrides, or *declared* itself without any."""
    services: list[Service] = []
    holds: list[OverrideReason] = []
    for service in declared.services:
        overrides = all_overrides.get(service.key, NO_OVERRIDES)
        overridden, own = _with_overrides(service, overrides)
        services.append(overridden)
        holds += own
    there = {service.key for service in services}
    for key, overrides in all_overrides.items():
        # A missing or unreadable document does not end a suspension.
        if overrides.suspension is not None and key not in there:
            holds.append(suspension_of(key, overrides.suspension, None))
    pinned = {hold.key for hold in holds if hold.word == "pinned"}
    scaled = {hold.key for hold in holds if hold.word == "scaled"}
    holds += (*_clashes(services, pinned), *_scale_clashes(services, scaled))
    if not holds and all(a is b for a, b in zip(services, declared.services, strict=True)):
        return declared
    result = replace(declared, services=tuple(services), holds=tuple(sorted(holds, key=_order)))
    digest = desired_digest(
        services,
        declared.networks,
        declared.volumes,
        jobs=declared.jobs,
        suspended=result.suspended,
    )
    return replace(result, digest=digest)


def persistent_keys(declared: Desired, all_overrides: Mapping[Key, Overrides]) -> frozenset[Key]:
    """Return the services whose overrides are kept without any container or readable document.

    A suspension lasts until a person ends it, and goes with a renamed service. A pin is kept while
    its document is unreadable.
    """
    earlier = {
        key
        for service in declared.moved_services
        for key in service.moved
        if not declared.is_blind_for(key)
    }
    unread = declared.blind_keys if declared.whole else all_overrides.keys()
    return frozenset(
        key
        for key, overrides in all_overrides.items()
        if (overrides.suspension and key not in earlier) or (overrides.pin and key in unread)
    )


def _order(hold: OverrideReason) -> tuple[Key, str, str]:
    return (hold.key, hold.word, hold.reason)


def _with_overrides(service: Service, overrides: Overrides) -> tuple[Service, list[OverrideReason]]:
    holds: list[OverrideReason] = []
    if overrides.suspension is not None or service.spec.suspend:
        holds.append(suspension_of(service.key, overrides.suspension, service))
    pin = overrides.pin
    if pin is not None and is_pinned(overrides, service):
        earlier = slots_of(overrides.find_revision(pin.revision, pin.limits), service)
        if earlier is None:
            holds.append(_lost(service.key, pin))
        else:
            holds.append(_pinned(service, pin, earlier.limits))
            spec = earlier.spec.model_copy(update={"rollout": service.spec.rollout.of_rollback})
            service = replace(earlier, spec=spec, because=_because(pin))
    if overrides.scaling is not None and is_scaled(overrides, service):
        holds.append(_scaled(service.key, overrides.scaling))
        service = with_scaling(service, overrides)
    if overrides.restarting is not None:
        service = replace(service, restarting=overrides.restarting)
    return service, holds


def with_scaling(service: Service, overrides: Overrides) -> Service:
    """Return a service with the number of replicas that it is scaled to, if it is scaled."""
    if overrides.scaling is None or not is_scaled(overrides, service):
        return service
    spec = service.spec.model_copy(update={"replicas": overrides.scaling.replicas})
    return replace(service, spec=spec)


def slots_of(earlier: Revision | None, service: Service) -> Service | None:
    """Return a service with the slot settings of an earlier revision; None if those are not kept."""
    spec = None if earlier is None else kept_spec(earlier)
    if earlier is None or spec is None:
        return None
    contents = revision_contents(earlier.deliveries, earlier.bound_names)
    now = revision_of(earlier.owner, service.key, spec, contents)
    if now != (earlier.canonical or earlier.revision) and not earlier.hidden:
        return None
    fields = {name: getattr(service.spec, name) for name in NOT_OF_THE_SLOT}
    return replace(
        service,
        owner=earlier.owner,
        spec=spec.model_copy(update=fields),
        revision=earlier.revision,
        canonical=earlier.canonical,
        source=earlier.source,
        deliveries=_kept_deliveries(earlier, service),
        bound_names=earlier.bound_names,
    )


def _kept_deliveries(earlier: Revision, service: Service) -> tuple[Delivery, ...]:
    """Return the files of an earlier revision; files that change in place have today's content."""
    today = {(each.kind, each.name): each.content for each in service.deliveries}
    return tuple(
        replace(each, content=today.get((each.kind, each.name), each.content))
        if each.is_stable
        else each
        for each in earlier.deliveries
    )


# Reasons


def display_name(key: Key) -> str:
    """Return a service's name as commands accept it: ``web`` or ``shop/web``."""
    return key.name if key.namespace == DEFAULT_NAMESPACE else f"{key.namespace}/{key.name}"


def suspension_of(
    key: Key, suspension: Suspension | None, service: Service | None
) -> OverrideReason:
    """Return the override reason of a service suspended by a command or by its document."""
    reasons, remedies = [], []
    if suspension is not None:
        reasons.append(f"{suspension.word} by {suspension.by} since {suspension.since}")
        verb = "start" if suspension.stopped else "resume"
        remedies.append(f"trimtab {verb} {display_name(key)}")
    if service is not None and service.spec.suspend:
        where = service.source
        reasons.append(f"spec.suspend is true in {where.file}:{where.line}")
        remedies.append("set spec.suspend: false")
    code = "Declared" if suspension is None else "ByCommand"
    if suspension is not None and suspension.stopped:
        code = STOPPED
    return OverrideReason(key, "suspended", code, "; ".join(reasons), ", and ".join(remedies))


def _pinned(service: Service, pin: Pin, limits: DeclaredLimits) -> OverrideReason:
    why = f": {pin.reason}" if pin.reason else ""
    to, says = short_revision(pin.revision), short_revision(service.revision)
    if pin.revision == service.revision:
        to = f"{to} with {limits_text(limits)}"
        says = limits_text(service.limits)
    reason = f"pinned to {to} by {pin.by} since {pin.since}{why}; its document says {says}"
    but = " (image, env …; not only replicas or rollout)" if pin.automatic else ""
    remedy = f"change its document{but}, or trimtab resume {display_name(service.key)}"
    code = "Automatic" if pin.automatic else "ByCommand"
    return OverrideReason(service.key, "pinned", code, reason, remedy, revision=pin.revision)


def _scaled(key: Key, scaling: Scaling) -> OverrideReason:
    until = "" if scaling.until is None else f" until {format_instant(scaling.until)}"
    reason = (
        f"scaled to {scaling.replicas} by {scaling.by} since {scaling.since}{until}; "
        f"its document says {scaling.declared}"
    )
    remedy = f"change replicas in its document, or trimtab resume {display_name(key)}"
    code = "ByCommand" if scaling.until is None else "Limited"
    return OverrideReason(key, "scaled", code, reason, remedy)


def _because(pin: Pin) -> str:
    return f"rolled back by {pin.by}" + (f", since {pin.reason}" if pin.reason else "")


def _lost(key: Key, pin: Pin) -> OverrideReason:
    reason = (
        f"it is pinned to {short_revision(pin.revision)}, and the data of this revision is lost"
    )
    remedy = f"change its document, or trimtab resume {display_name(key)}"
    return OverrideReason(key, "suspended", "PinLost", reason, remedy)


# Conflicts


def pin_conflict(service: Service) -> str:
    """Return why the current document forbids the slot settings of a pinned revision; '' if it does
    not.
    """
    spec = service.spec
    alone = exclusive_resources(spec)
    if not alone:
        return ""
    if spec.replicas > 1:
        return f"{alone[0]} is for one replica, and replicas is {spec.replicas}"
    if spec.rollout.order is Order.START_FIRST:
        return f"{alone[0]} is for one replica, and rollout.order is StartFirst"
    return ""


def shared_resource(one: Service, other: Service) -> str:
    """Return a port or volume that two services both want exclusively; '' if there is none."""
    theirs = claims_of(other.spec, other.volume_name)
    for claim in claims_of(one.spec, one.volume_name):
        if any(map(claim.conflicts, theirs)):
            port = claim.resource if isinstance(claim.resource, HostPort) else None
            return f"{claim.name}/{port.protocol}" if port else claim.name
    return ""


def _clashes(services: Iterable[Service], pinned: set[Key]) -> Iterator[OverrideReason]:
    if not pinned:
        return
    services = list(services)
    for one in services:
        if one.key not in pinned:
            continue
        if why := pin_conflict(one):
            yield _clash(one.key, one.key, f"the revision that it is pinned to doesn't fit: {why}")
        for other in services:
            if other is not one and (both := shared_resource(one, other)):
                reason = f"{one.key}, as it is pinned, and {other.key} both want {both}"
                yield _clash(one.key, one.key, reason)
                yield _clash(other.key, one.key, reason)


def _scale_clashes(services: Iterable[Service], scaled: set[Key]) -> Iterator[OverrideReason]:
    for key in sorted(scaled):
        for left_alone, why in scale_conflicts(services, key):
            reason = f"{key.name} is scaled to a number that doesn't fit: {why}"
            yield _clash(left_alone, key, reason)


def scale_conflicts(services: Iterable[Service], scaled: Key) -> Iterator[tuple[Key, str]]:
    """Yield the services whose documents don't permit the number of a scaled service, with the reason."""
    from controller.core.manifests.service_checks import check_service  # the status loads none

    by_key = {service.key: service for service in services}
    for problem in check_service(by_key[scaled].spec):
        if problem.severity is Severity.ERROR:
            yield scaled, problem.message
    for one in by_key.values():
        shares = one.spec.shares
        other = None if shares is None else by_key.get(one.key._replace(name=shares.service))
        if other is None or scaled not in {one.key, other.key}:
            continue
        count, others = one.spec.replicas, other.spec.replicas
        if count > others > 0:
            names = display_name(one.key), display_name(other.key)
            yield one.key, f"{count} replicas of {names[0]} can't share with {others} of {names[1]}"


def _clash(key: Key, overridden: Key, reason: str) -> OverrideReason:
    remedy = f"trimtab resume {display_name(overridden)}, or change what its document or the other one wants"
    return OverrideReason(key, "suspended", "Clash", reason, remedy)
