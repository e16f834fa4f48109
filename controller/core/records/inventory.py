"""The broker's inventory, folded from the journal: our objects, and their admitted settings.

Pure, and a function of records alone, so that the journal can rebuild the inventory. An intent
stays open until its closing record. The request takes effect with the closing record, if that says
so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from controller.core.encoding.json_members import mapping_member, text_member, texts_of
from controller.core.records import container_effects as containers
from controller.core.records.closing import Closing
from controller.core.records.container_effects import RecordEffect, without
from controller.model import mutations, names
from controller.model.inventory import (
    APPROVALS_MAX,
    USED,
    VOLUME,
    Approval,
    ExecSession,
    Inventory,
    OpenIntent,
    OwnedObject,
    TrustedImage,
)
from controller.model.mutations import Mutation
from controller.model.records import Record


def fold(inventory: Inventory, record: Record) -> Inventory:
    """Return the inventory after one more record.

    A closing record without a known intent changes nothing: the segment of the intent expired
    before the inventory was rebuilt.
    """
    assert record.seq > inventory.seq, f"record {record.seq} after record {inventory.seq}"
    # RFC 3339 in UTC with milliseconds sorts as text. ``max``: the clock may have been set back.
    inventory = replace(inventory, seq=record.seq, time=max(inventory.time, record.time))
    entry = record.entry
    route = text_member(entry.request, "route")
    match entry.stage:
        case "intent":
            return _open_intent(inventory, record)
        case "outcome" | "recovered":
            return _close_intent(inventory, record)
        case "operator":
            return _apply_operator_act(inventory, record, route)
        case "violation" if entry.result.get("putBack") is not True:
            return containers.record_violation(inventory, record)
        case "read" if route in _GONE and entry.actor.get("role") == "broker":
            return _GONE[route](inventory, text_member(entry.request, "object"))
        case _:
            return inventory


def _open_intent(inventory: Inventory, record: Record) -> Inventory:
    entry = record.entry
    role, uid = text_member(entry.actor, "role"), entry.actor.get("uid")
    intent = OpenIntent(
        record.seq,
        record.time,
        role,
        dict(entry.request),
        uid=uid if isinstance(uid, int) else -1,
    )
    inventory = replace(inventory, open={**inventory.open, entry.id: intent})
    return _record_used_approvals(containers.record_takedown(inventory, record, role), record)


def _close_intent(inventory: Inventory, record: Record) -> Inventory:
    intent = inventory.open.get(record.entry.id)
    if intent is None:
        return inventory
    inventory = replace(inventory, open=without(inventory.open, record.entry.id))
    closing = Closing.of(intent, record)
    route = text_member(intent.request, "route")
    if closing.applied or (route == Mutation.CONTAINER_REMOVE and closing.is_gone):
        inventory = containers.record_ending(inventory, route, closing, record.time)
    effect = _EFFECTS.get(route)
    return inventory if effect is None else effect(inventory, closing)


# Operators' acts


def _apply_operator_act(inventory: Inventory, record: Record, route: str) -> Inventory:
    """Return the inventory after an operator's act that does not involve the engine."""
    summary = mapping_member(record.entry.request, "summary")
    match route:
        case mutations.TRUST:
            return _trust_image(inventory, summary)
        case mutations.EXEC_END:
            sessions = without(inventory.sessions, text_member(summary, "exec"))
            return replace(inventory, sessions=sessions)
        case mutations.ADOPT:
            return fold_adoption(inventory, record.seq, record.entry.request)
        case mutations.APPROVE:
            return _add_approval(inventory, record)
        case mutations.SERVICE_RESTART:
            return _forget_pin(inventory, summary)
        case _ if summary.get("act") == mutations.DOWN:
            return replace(inventory, taken_down=record.entry.id)
        case _:
            return inventory


def fold_adoption(inventory: Inventory, seq: int, request: Mapping[str, Any]) -> Inventory:
    """Return the inventory with an adopted object, as if a create had made it."""
    summary, identifier = mapping_member(request, "summary"), text_member(request, "object")
    effect = _ADOPTIONS.get(text_member(summary, "kind"))
    if effect is None:
        return inventory  # the record of the whole adoption, which names no object
    closing = Closing(
        id=text_member(mapping_member(summary, "labels"), names.INTENT),
        seq=seq,
        role="operator",
        object=identifier,
        summary=summary,
        result={"container": identifier, "object": identifier},
        recovered=False,
        applied=True,
    )
    inventory = effect(inventory, closing)
    item = inventory.containers.get(identifier)
    if item is None or not summary.get("started"):
        return inventory
    effective = text_member(summary, "effective")
    return containers.with_item(inventory, replace(item, started=True, effective=effective))


def _forget_pin(inventory: Inventory, summary: Mapping[str, Any]) -> Inventory:
    """Forget the pin of a revision, if its image is to be resolved again."""
    if summary.get("anew") is not True:
        return inventory
    return replace(inventory, pins=without(inventory.pins, text_member(summary, "revision")))


def _add_approval(inventory: Inventory, record: Record) -> Inventory:
    summary = mapping_member(record.entry.request, "summary")
    objects = tuple(str(each) for each in summary.get("objects") or ())
    approval = Approval(record.entry.id, text_member(summary, "plan"), objects, record.time)
    approvals = {**inventory.approvals, approval.id: approval}
    return replace(inventory, approvals=dict([*approvals.items()][-APPROVALS_MAX:]))


def _record_used_approvals(inventory: Inventory, record: Record) -> Inventory:
    """Record the approvals that an intent used up for its object."""
    request = record.entry.request
    subject = text_member(request, "object")
    if request.get("route") == Mutation.VOLUME_REMOVE:
        subject = VOLUME + subject
    approvals = inventory.approvals
    for rule in texts_of(record.entry.verdict.get("rules")):
        approval = approvals.get(rule.removeprefix(USED))
        if rule.startswith(USED) and approval is not None:
            used = replace(approval, used=(*approval.used, subject))
            approvals = {**approvals, approval.id: used}
    if approvals is inventory.approvals:
        return inventory
    return replace(inventory, approvals=approvals)


# Networks and volumes


def _create_network(inventory: Inventory, closing: Closing) -> Inventory:
    created = _owned_object(closing)
    if created is None:
        return inventory
    return replace(inventory, networks={**inventory.networks, created.id: created})


def _create_volume(inventory: Inventory, closing: Closing) -> Inventory:
    created = _owned_object(closing)
    if created is None:
        return inventory
    return replace(inventory, volumes={**inventory.volumes, created.id: created})


def _owned_object(closing: Closing) -> OwnedObject | None:
    """Return the created network or volume; None if the create failed."""
    identifier = text_member(closing.result, "object")
    if not closing.applied or not identifier:
        return None
    return OwnedObject(
        id=identifier,
        name=text_member(closing.summary, "name"),
        namespace=closing.label(names.NAMESPACE),
        owner=closing.label(names.OWNER),
        origin=closing.label(names.ORIGIN),
        intent=closing.id,
    )


def _remove_network(inventory: Inventory, closing: Closing) -> Inventory:
    return _forget_network(inventory, closing.object) if closing.is_gone else inventory


def _remove_volume(inventory: Inventory, closing: Closing) -> Inventory:
    return _forget_volume(inventory, closing.object) if closing.is_gone else inventory


def _forget_network(inventory: Inventory, identifier: str) -> Inventory:
    return replace(inventory, networks=without(inventory.networks, identifier))


def _forget_volume(inventory: Inventory, identifier: str) -> Inventory:
    return replace(inventory, volumes=without(inventory.volumes, identifier))


# Images and execs


def _pull_image(inventory: Inventory, closing: Closing) -> Inventory:
    return _trust_image(inventory, closing.result) if closing.applied else inventory


def _trust_image(inventory: Inventory, members: Mapping[str, Any]) -> Inventory:
    reference, image = text_member(members, "reference"), text_member(members, "id")
    if not reference or not image:
        return inventory
    trusted = TrustedImage(reference, image, text_member(members, "digest"))
    return replace(inventory, ledger={**inventory.ledger, reference: trusted})


def _remove_image(inventory: Inventory, closing: Closing) -> Inventory:
    """Forget untagged names and deleted images.

    A revision with a pin to a deleted image resolves its image again.
    """
    if not closing.is_gone:
        return inventory
    untagged = {closing.object, *texts_of(closing.result.get("untagged"))}
    deleted = {closing.object, *texts_of(closing.result.get("deleted"))}
    ledger = {
        reference: trusted
        for reference, trusted in inventory.ledger.items()
        if reference not in untagged and trusted.id not in deleted
    }
    pins = {
        revision: image for revision, image in inventory.pins.items() if image.id not in deleted
    }
    return replace(inventory, ledger=ledger, pins=pins)


def _start_exec(inventory: Inventory, closing: Closing) -> Inventory:
    """Add an exec session, also if the engine's reply was lost: the exec may be running."""
    identifier = text_member(closing.summary, "exec")
    unknown = closing.recovered and not closing.applied
    if not identifier or not (closing.applied or unknown):
        return inventory
    session = ExecSession(identifier, closing.object, closing.uid, closing.id, closing.time)
    return replace(inventory, sessions={**inventory.sessions, identifier: session})


#: The effect of a closing record by its route. Other routes do not change the inventory.
_EFFECTS: dict[str, RecordEffect] = {
    Mutation.CONTAINER_CREATE: containers.create_container,
    Mutation.CONTAINER_START: containers.start_container,
    Mutation.CONTAINER_STOP: containers.stop_container,
    Mutation.CONTAINER_PAUSE: containers.stop_container,
    Mutation.CONTAINER_RESTART: containers.start_container,
    Mutation.CONTAINER_UNPAUSE: containers.unpause_container,
    Mutation.CONTAINER_RENAME: containers.container_change(containers.rename),
    Mutation.CONTAINER_UPDATE: containers.container_change(containers.update_settings),
    Mutation.CONTAINER_REMOVE: containers.remove_container,
    Mutation.NETWORK_CREATE: _create_network,
    Mutation.NETWORK_REMOVE: _remove_network,
    Mutation.NETWORK_CONNECT: containers.connect,
    Mutation.NETWORK_DISCONNECT: containers.network_change(containers.leave_network),
    Mutation.VOLUME_CREATE: _create_volume,
    Mutation.VOLUME_REMOVE: _remove_volume,
    Mutation.IMAGE_PULL: _pull_image,
    Mutation.IMAGE_REMOVE: _remove_image,
    Mutation.EXEC_START: _start_exec,
}
_ADOPTIONS: dict[str, RecordEffect] = {
    "container": containers.create_container,
    "network": _create_network,
    "volume": _create_volume,
}
#: The effect of the broker's own records about objects that were removed past the gate.
_GONE: dict[str, Callable[[Inventory, str], Inventory]] = {
    mutations.CONTAINER_GONE: containers.forget_container,
    mutations.NETWORK_GONE: _forget_network,
    mutations.VOLUME_GONE: _forget_volume,
}
