"""The broker's inventory, folded from the journal: our objects, and their admitted settings.

Pure, and a function of records alone, so that the journal can rebuild the inventory. An intent
stays open until its closing record. The request takes effect with the closing record, if that says
so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import reduce
from typing import Any

from controller.core import addresses, disruption
from controller.core.files import content as retention
from controller.core.files.content import used_contents
from controller.core.jobs import memory as jobs
from controller.core.jobs.memory import RunEnd, job_outcome
from controller.core.records import container_effects, parts, signed_revisions
from controller.core.records.container_effects import RecordEffect
from controller.core.records.inventory_json import replica_of
from controller.model import mutations, names
from controller.model.delivery import FileSet, StoredContent
from controller.model.inventory import (
    APPROVALS_MAX,
    USED,
    VOLUME,
    Approval,
    ExecSession,
    Inventory,
    OpenIntent,
    OwnedObject,
    RecordTime,
    TrustedImage,
    VolumeHold,
    moving,
    without,
)
from controller.model.mutations import Mutation, move_subject
from controller.model.names import Key
from controller.model.observed import HOOKS_PENDING, HOOKS_SUCCEEDED, NO_RUNS, POST_START
from controller.model.records import Entry, Record


def fold(inventory: Inventory, record: Record) -> Inventory:
    """Return the inventory after one more record.

    A closing record without a known intent changes nothing: the segment of the intent expired
    before the inventory was rebuilt.
    """
    assert record.seq > inventory.seq, f"record {record.seq} after record {inventory.seq}"
    # RFC 3339 in UTC with milliseconds sorts as text. ``max``: the clock may have been set back.
    time = max(inventory.time, record.time)
    match record.entry.stage:
        case "intent":
            opened = {**inventory.open, record.entry.id: _intent_of(record)}
            inventory = replace(inventory, seq=record.seq, time=time, open=opened)
            return _open_intent(inventory, record)
        case "outcome" | "recovered" if record.entry.id in inventory.open:
            intent, left = inventory.open[record.entry.id], without(inventory.open, record.entry.id)
            inventory = replace(inventory, seq=record.seq, time=time, open=left)
            return _close_intent(inventory, intent, record)
        case _:
            return _apply_other(replace(inventory, seq=record.seq, time=time), record)


def _apply_other(inventory: Inventory, record: Record) -> Inventory:
    """Return the inventory after a record that neither opens an intent nor closes a known one."""
    entry = record.entry
    request = parts.RequestPart.read(entry.request)
    route = request.route
    match entry.stage:
        case "operator" if route == mutations.SOURCE_LINE:
            return signed_revisions.approve_line(inventory, record)
        case "operator" if route == mutations.SOURCE_ACCEPTED:
            return signed_revisions.accept_commit(inventory, record)
        case "operator" if route == mutations.STATE_RESTORED:
            former = request.summary.part(parts.RestorePart).former
            since = request.summary.before or record.time
            return replace(inventory, restored=since, restored_from=former)
        case "operator" if route == mutations.STATE_CONFIRMED:
            return replace(inventory, restored="", restored_from="")
        case "operator":
            return _apply_operator_act(inventory, record, request)
        case "violation" if not parts.ResultPart.read(entry.result).is_put_back:
            return container_effects.record_violation(inventory, record)
        case "read" if route in _GONE and parts.ActorPart.read(entry.actor).role == "broker":
            return _GONE[route](inventory, request.object, RecordTime(entry.id, record.time))
        case _:
            return inventory


def fold_all(inventory: Inventory, records: Iterable[Record]) -> Inventory:
    """Return the inventory after several records."""
    return reduce(fold, records, inventory)


def _intent_of(record: Record) -> OpenIntent:
    actor = parts.ActorPart.read(record.entry.actor)
    return OpenIntent(
        record.seq,
        record.time,
        actor.role,
        dict(record.entry.request),
        uid=actor.uid if actor.uid is not None else -1,
    )


def _open_intent(inventory: Inventory, record: Record) -> Inventory:
    """Return the inventory after an intent, which is among the open ones already."""
    role = parts.ActorPart.read(record.entry.actor).role
    inventory = _remember_addresses(inventory, record)
    inventory = container_effects.record_takedown(inventory, record, role)
    return _record_used_approvals(inventory, record, _subject_of(record.entry))


def _remember_addresses(inventory: Inventory, record: Record) -> Inventory:
    """Return the inventory with the addresses of a slot, from the intent on: no other slot gets them."""
    request = parts.RequestPart.read(record.entry.request)
    summary = request.summary.part(parts.EndpointPart)
    if not summary.slot_addresses:
        return inventory
    item = inventory.containers.get(request.object)
    labels = (summary.label(each) for each in (names.NAMESPACE, names.SERVICE, names.SLOT))
    slot = addresses.slot_key(*labels) if item is None else addresses.key_of(item)
    named = {network: str(address) for network, address in summary.slot_addresses.items()}
    return replace(inventory, addresses=addresses.with_addresses(inventory, slot, named))


def _close_intent(inventory: Inventory, intent: OpenIntent, record: Record) -> Inventory:
    """Return the inventory after the closing record of an intent, which is no longer open."""
    closing = parts.Closing.of(intent, record)
    route = parts.RequestPart.read(intent.request).route
    if closing.applied or (route == Mutation.CONTAINER_REMOVE and closing.is_gone):
        inventory = container_effects.record_ending(inventory, route, closing, record.time)
    effect = _EFFECTS.get(route)
    inventory = inventory if effect is None else effect(inventory, closing)
    inventory = signed_revisions.record_signed(inventory, route, closing)
    now = RecordTime(record.entry.id, record.time)
    events = container_effects.budget_events(inventory, route, closing)
    inventory = container_effects.with_events(inventory, events, now)
    if route == Mutation.CONTAINER_REMOVE and closing.is_gone:
        return container_effects.remove_container(inventory, closing, now)
    return inventory


# Operators' acts


def _apply_operator_act(
    inventory: Inventory, record: Record, request: parts.RequestPart
) -> Inventory:
    """Return the inventory after an operator's act that does not involve the engine."""
    summary = request.summary
    match request.route:
        case mutations.TRUST:
            return _trust_image(inventory, summary.part(parts.ImagePart).trusted_image)
        case mutations.EXEC_END | mutations.HOOK_END:
            return _end_commands(inventory, record, request)
        case mutations.JOB_RUN | mutations.JOB_ENDED | mutations.JOB_ADOPTED:
            return _apply_job_act(inventory, record, request)
        case mutations.SERVICE_MOVED:
            return _move_service(inventory, record, request)
        case mutations.ADOPT:
            return fold_adoption(inventory, record.seq, record.entry.request)
        case mutations.VOLUME_HOLD | mutations.VOLUME_END:
            return _hold_volume(inventory, record, request)
        case mutations.APPROVE:
            return _add_approval(inventory, record, summary)
        case mutations.SERVICE_RESTART:
            return _forget_pin(inventory, summary)
        case _ if summary.part(parts.ActPart).act == mutations.DOWN:
            return replace(inventory, taken_down=record.entry.id)
        case _:
            return inventory


def _end_commands(inventory: Inventory, record: Record, request: parts.RequestPart) -> Inventory:
    """Return the inventory after the end of an exec, or of the hooks of a start."""
    summary = request.summary.part(parts.ExecPart)
    if request.route == mutations.EXEC_END:
        return replace(inventory, sessions=without(inventory.sessions, summary.exec))
    item = inventory.containers.get(request.object)
    if item is None or summary.hook != POST_START:
        return inventory
    failed = summary.outcome != HOOKS_SUCCEEDED
    reason = parts.ResultPart.read(record.entry.result).reason or "failed"
    post_start = reason if failed else HOOKS_SUCCEEDED
    return container_effects.with_item(inventory, replace(item, post_start=post_start))


def _apply_job_act(inventory: Inventory, record: Record, request: parts.RequestPart) -> Inventory:
    """Return the inventory after the request for a run, the end of a run, or the adoption of a job."""
    summary = request.summary.part(parts.JobPart)
    if request.route == mutations.JOB_ENDED:
        outcome = job_outcome(summary.outcome)
        end = RunEnd(outcome, parts.ResultPart.read(record.entry.result).reason)
        return container_effects.end_run(inventory, request.object, end, record.time)
    key = Key.parse(request.object)
    memory = inventory.jobs.get(key, NO_RUNS)
    if request.route == mutations.JOB_RUN:
        memory = jobs.request(memory, record.entry.id)
    elif summary.outcome == "succeeded":
        why = f"exited with 0, under docker compose as {summary.name}"
        memory = jobs.adopt(memory, summary.revision, summary.identity, time=record.time, why=why)
    else:
        why = "is held since its adoption: no run that counts was found"
        memory = jobs.hold(memory, summary.revision, time=record.time, why=why)
    return replace(inventory, jobs=jobs.with_job(inventory.jobs, key, memory))


def fold_adoption(inventory: Inventory, seq: int, request: Mapping[str, Any]) -> Inventory:
    """Return the inventory with an adopted object, as if a create had made it."""
    part = parts.RequestPart.read(request)
    summary, identifier = part.summary.part(parts.AdoptionPart), part.object
    effect = _ADOPTIONS.get(summary.kind)
    if effect is None:
        return inventory  # the record of the whole adoption, which names no object
    closing = parts.Closing(
        id=summary.label(names.INTENT),
        seq=seq,
        role="operator",
        object=identifier,
        summary=summary,
        result=parts.ResultPart(container=identifier, object=identifier),
        recovered=False,
        applied=True,
    )
    inventory = effect(inventory, closing)
    namespace = summary.label(names.NAMESPACE)
    if namespace and not summary.identity:  # an object with our labels
        inventory = replace(inventory, taken_over=inventory.taken_over | {namespace})
    item = inventory.containers.get(identifier)
    if item is None:
        return inventory
    if item.origin == "controller":
        adopted = replica_of(item, up=RecordTime() if summary.started else None)
        inventory = container_effects.with_events(
            inventory, (disruption.Created(adopted),), RecordTime()
        )
    if not summary.started:
        return inventory
    started = replace(item, started=True, effective=summary.effective)
    if item.post_start:  # they were run at the start
        started = replace(started, post_start=HOOKS_SUCCEEDED)
    return container_effects.with_item(inventory, started)


def _move_service(inventory: Inventory, record: Record, request: parts.RequestPart) -> Inventory:
    source = Key.parse(request.summary.part(parts.ServicePart).moved_from)
    target = Key.parse(request.object)
    owner = request.summary.label(names.OWNER)
    ids = (item.id for item in moving(inventory, source))
    subject = move_subject(source, target, owner, ids)
    inventory = _record_used_approvals(inventory, record, subject)
    if request.summary.proof:
        inventory = signed_revisions.move_revisions(inventory, source, target)
    return container_effects.move_service(inventory, source, target, owner)


def _forget_pin(inventory: Inventory, summary: parts.SummaryPart) -> Inventory:
    """Forget the pin of a revision, if its image is to be resolved again."""
    act = summary.part(parts.ServicePart)
    if not act.resolves_image:
        return inventory
    return replace(inventory, pins=without(inventory.pins, act.revision))


def _add_approval(inventory: Inventory, record: Record, summary: parts.SummaryPart) -> Inventory:
    asked = summary.part(parts.ApprovalPart)
    approval = Approval(record.entry.id, asked.plan, asked.objects, record.time)
    approvals = {**inventory.approvals, approval.id: approval}
    return replace(inventory, approvals=dict([*approvals.items()][-APPROVALS_MAX:]))


def _subject_of(entry: Entry) -> str:
    """Return the object of an intent as approvals name it."""
    request = parts.RequestPart.read(entry.request)
    is_volume = request.route == Mutation.VOLUME_REMOVE
    return VOLUME + request.object if is_volume else request.object


def _record_used_approvals(inventory: Inventory, record: Record, subject: str) -> Inventory:
    """Record the approvals that an intent or a move used up for its object."""
    approvals = inventory.approvals
    for rule in parts.VerdictPart.read(record.entry.verdict).rules:
        approval = approvals.get(rule.removeprefix(USED))
        if rule.startswith(USED) and approval is not None:
            used = replace(approval, used=(*approval.used, subject))
            approvals = {**approvals, approval.id: used}
    if approvals is inventory.approvals:
        return inventory
    return replace(inventory, approvals=approvals)


def _end_approvals(inventory: Inventory, subject: str) -> Inventory:
    """End the approvals of a volume with the volume: its name can become another volume's."""
    approvals = {
        identifier: replace(approval, used=(*approval.used, subject))
        if subject in approval.objects and subject not in approval.used
        else approval
        for identifier, approval in inventory.approvals.items()
    }
    return replace(inventory, approvals=approvals)


# Hooks


def _start_container(inventory: Inventory, closing: parts.Closing) -> Inventory:
    """Record a start. The hooks of a start are due again."""
    inventory = container_effects.start_container(inventory, closing)
    item = inventory.containers.get(closing.object)
    is_start = closing.applied and closing.result.status != parts.NOT_MODIFIED
    if item is None or not item.post_start or not is_start:
        return inventory
    return container_effects.with_item(inventory, replace(item, post_start=HOOKS_PENDING))


# Networks and volumes


def _update_container(inventory: Inventory, closing: parts.Closing) -> Inventory:
    """Change the admitted settings, and the members that the engine dropped."""
    inventory = container_effects.container_change(container_effects.update_settings)(
        inventory, closing
    )
    item = inventory.containers.get(closing.object)
    # The broker doesn't ask what became of the limits that it sends again.
    if item is None or not closing.applied or closing.recovered or closing.role == "broker":
        return inventory
    kept = set(item.ignored) - set(closing.summary.part(parts.SettingsPart).updated_members)
    ignored = tuple(sorted(kept.union(closing.result.ignored)))
    return container_effects.with_item(inventory, replace(item, ignored=ignored))


def _create_network(inventory: Inventory, closing: parts.Closing) -> Inventory:
    return replace(inventory, networks={**inventory.networks, **_created_object(closing)})


def _create_volume(inventory: Inventory, closing: parts.Closing) -> Inventory:
    created = _created_object(closing)
    for identifier in created:
        inventory = _end_approvals(inventory, VOLUME + identifier)
    return replace(inventory, volumes={**inventory.volumes, **created})


def _created_object(closing: parts.Closing) -> dict[str, OwnedObject]:
    """Return the created network or volume by its id; empty if the create failed."""
    identifier, summary = closing.result.object, closing.summary
    if not closing.applied or not identifier:
        return {}
    created = OwnedObject(
        id=identifier,
        name=summary.name,
        namespace=summary.label(names.NAMESPACE),
        owner=summary.label(names.OWNER),
        origin=summary.label(names.ORIGIN),
        intent=closing.id,
        adopted=summary.part(parts.ActPart).identity,
    )
    return {identifier: created}


def _forget_network(
    inventory: Inventory, identifier: str, _now: RecordTime | None = None
) -> Inventory:
    return replace(
        inventory,
        networks=without(inventory.networks, identifier),
        addresses=without(inventory.addresses, identifier),
    )


def _forget_volume(
    inventory: Inventory, identifier: str, _now: RecordTime | None = None
) -> Inventory:
    inventory = _end_approvals(inventory, VOLUME + identifier)
    return replace(inventory, volumes=without(inventory.volumes, identifier))


def _hold_volume(inventory: Inventory, record: Record, request: parts.RequestPart) -> Inventory:
    summary = request.summary.part(parts.HoldPart)
    if request.route == mutations.VOLUME_END:
        return _end_hold(inventory, summary)
    hold = VolumeHold(
        id=record.entry.id,
        volume=summary.name,
        act=summary.act,
        live=summary.live,
        users=summary.objects,
        time=record.time,
    )
    return replace(inventory, holds={**inventory.holds, hold.volume: hold})


def _end_hold(inventory: Inventory, summary: parts.HoldPart) -> Inventory:
    """End a hold. A successful dump is remembered, for the removal of the volume."""
    hold = inventory.holds.get(summary.name)
    if hold is None or hold.id != summary.record:
        return inventory
    inventory = replace(inventory, holds=without(inventory.holds, hold.volume))
    volume = inventory.volumes.get(hold.volume)
    if volume is None or hold.act != "dump" or summary.outcome != "succeeded":
        return inventory
    dumped = replace(volume, dumped=hold.time)
    return replace(inventory, volumes={**inventory.volumes, volume.id: dumped})


def _removal(forget: Callable[[Inventory, str], Inventory]) -> RecordEffect:
    """Return the effect of a removal: *forget*, if the object no longer exists."""
    return lambda inventory, closing: (
        forget(inventory, closing.object) if closing.is_gone else inventory
    )


# Files of Configs


def _deliver_files(inventory: Inventory, closing: parts.Closing) -> Inventory:
    """Add a stored content, and forget unneeded contents."""
    summary = closing.summary.part(parts.DeliveryPart)
    if not closing.applied or not summary.content:
        return inventory
    files = FileSet(summary.kind, summary.namespace, summary.name)
    content = StoredContent(summary.content, summary.owner, summary.size_bytes or 0)
    used = used_contents(inventory)
    return replace(inventory, files=retention.with_delivered(inventory.files, files, content, used))


def _forget_content(
    inventory: Inventory, identifier: str, _now: RecordTime | None = None
) -> Inventory:
    """Forget a content, KIND/NAMESPACE/NAME=CONTENT, that the store has lost."""
    name, _, content = identifier.rpartition("=")
    stored = inventory.files.get(name)
    if stored is None:
        return inventory
    left = tuple(each for each in stored.contents if each.content != content)
    files = without(inventory.files, name)
    return replace(
        inventory, files={**files, name: replace(stored, contents=left)} if left else files
    )


# Images and execs


def _trust_result(inventory: Inventory, closing: parts.Closing) -> Inventory:
    return _trust_image(inventory, closing.result.trusted_image) if closing.applied else inventory


def _trust_image(inventory: Inventory, image: parts.TrustedImagePart) -> Inventory:
    if not image.reference or not image.id:
        return inventory
    trusted = TrustedImage(image.reference, image.id, image.digest, image.builder)
    return replace(inventory, ledger={**inventory.ledger, image.reference: trusted})


def _remove_image(inventory: Inventory, closing: parts.Closing) -> Inventory:
    """Forget untagged names and deleted images.

    A revision with a pin to a deleted image resolves its image again.
    """
    if not closing.is_gone:
        return inventory
    untagged = {closing.object, *closing.result.untagged}
    deleted = {closing.object, *closing.result.deleted}
    ledger = {
        reference: trusted
        for reference, trusted in inventory.ledger.items()
        if reference not in untagged and trusted.id not in deleted
    }
    pins = {
        revision: image for revision, image in inventory.pins.items() if image.id not in deleted
    }
    return replace(inventory, ledger=ledger, pins=pins)


def _start_exec(inventory: Inventory, closing: parts.Closing) -> Inventory:
    """Add an exec session, also if the engine's reply was lost: the exec may be running."""
    summary = closing.summary.part(parts.ExecPart)
    identifier = summary.exec
    unknown = closing.recovered and not closing.applied
    if not identifier or not (closing.applied or unknown):
        return inventory
    session = ExecSession(
        identifier,
        closing.object,
        closing.uid,
        closing.id,
        closing.time,
        summary.hook,
        summary.detach,
    )
    return replace(inventory, sessions={**inventory.sessions, identifier: session})


#: The effect of a closing record by its route. Other routes do not change the inventory.
_EFFECTS: dict[str, RecordEffect] = {
    Mutation.CONTAINER_CREATE: container_effects.create_container,
    Mutation.CONTAINER_ADOPT: container_effects.adopt_container,
    Mutation.CONTAINER_RELEASE: container_effects.release_container,
    Mutation.CONTAINER_START: _start_container,
    Mutation.CONTAINER_RESTART: _start_container,
    Mutation.CONTAINER_KILL: container_effects.record_signal,
    Mutation.CONTAINER_RENAME: container_effects.container_change(container_effects.rename),
    Mutation.CONTAINER_UPDATE: _update_container,
    Mutation.NETWORK_CREATE: _create_network,
    Mutation.NETWORK_REMOVE: _removal(_forget_network),
    Mutation.NETWORK_CONNECT: container_effects.connect,
    Mutation.NETWORK_DISCONNECT: container_effects.disconnect,
    Mutation.VOLUME_CREATE: _create_volume,
    Mutation.VOLUME_REMOVE: _removal(_forget_volume),
    Mutation.IMAGE_PULL: _trust_result,
    Mutation.IMAGE_BUILD: _trust_result,
    Mutation.IMAGE_TAG: _trust_result,
    Mutation.IMAGE_REMOVE: _remove_image,
    Mutation.EXEC_START: _start_exec,
    Mutation.FILES_DELIVER: _deliver_files,
}
_ADOPTIONS: dict[str, RecordEffect] = {
    "container": container_effects.create_container,
    "network": _create_network,
    "volume": _create_volume,
}
#: The effect of the broker's own records about objects that were removed past the gate.
_GONE: dict[str, Callable[[Inventory, str, RecordTime], Inventory]] = {
    mutations.CONTAINER_GONE: container_effects.forget_container,
    mutations.NETWORK_GONE: _forget_network,
    mutations.VOLUME_GONE: _forget_volume,
    mutations.FILES_GONE: _forget_content,
}
