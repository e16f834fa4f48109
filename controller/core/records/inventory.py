"""The broker's inventory, folded from the journal: what is ours, and as what it was admitted.

Pure, and a fold over records alone, so that the journal can rebuild it: an intent is kept while
it is open, and what it asked for takes effect with its closing record, if that says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from controller.core.encoding.json_members import mapping_member, text_member, texts_of
from controller.core.records import endings
from controller.core.records.inventory_json import SETTINGS_FIELDS, settings_from_json
from controller.core.rules.confinement import confinement_from_json
from controller.model import mutations, names
from controller.model.inventory import (
    APPROVALS_MAX,
    PINS_MAX,
    TAKEN_MAX,
    USED,
    VOLUME,
    Approval,
    ContainerItem,
    ExecSession,
    Inventory,
    OpenIntent,
    OwnedObject,
    TakenDown,
    TrustedImage,
)
from controller.model.mutations import Mutation
from controller.model.observed import Ending, Image, Settings
from controller.model.records import Record

_T = TypeVar("_T")

_SWITCHING = 101  # an exec whose connection was handed over
_NOT_MODIFIED = 304  # the engine's answer to a start of what runs and a stop of what doesn't
_NOT_FOUND = 404
#: A container answers to its service, its name and what the policy leaves to all: few names.
ALIASES_MAX = 64


def fold(inventory: Inventory, record: Record) -> Inventory:
    """Return the inventory after one more record.

    A closing record whose intent isn't known (its segment expired before the inventory was
    rebuilt) changes nothing.
    """
    assert record.seq > inventory.seq, f"record {record.seq} after record {inventory.seq}"
    # RFC 3339 in UTC, to the millisecond: it sorts as text. A clock may have been set back.
    inventory = replace(inventory, seq=record.seq, time=max(inventory.time, record.time))
    entry = record.entry
    route = text_member(entry.request, "route")
    match entry.stage:
        case "intent":
            role = text_member(entry.actor, "role")
            uid = entry.actor.get("uid")
            intent = OpenIntent(
                record.seq,
                record.time,
                role,
                dict(entry.request),
                uid=uid if isinstance(uid, int) else -1,
            )
            inventory = replace(inventory, open={**inventory.open, entry.id: intent})
            return _used(_going(inventory, record, intent), record, intent)
        case "outcome" | "recovered":
            return _close(inventory, record)
        case "operator":
            return _operated(inventory, record, route)
        case "violation" if entry.result.get("putBack") is not True:
            return _violated(inventory, record)
        case "read" if route in _GONE and entry.actor.get("role") == "broker":
            return _GONE[route](inventory, text_member(entry.request, "object"))
        case _:
            return inventory


def _operated(inventory: Inventory, record: Record, route: str) -> Inventory:
    """Return the inventory after an operator's act that changes it without the engine."""
    summary = mapping_member(record.entry.request, "summary")
    match route:
        case mutations.TRUST:
            return _trust(inventory, summary)
        case mutations.EXEC_END:
            return replace(
                inventory, sessions=_without(inventory.sessions, text_member(summary, "exec"))
            )
        case mutations.ADOPT:
            return adopted(inventory, record.seq, record.entry.request)
        case mutations.APPROVE:
            return _approved(inventory, record)
        case mutations.SERVICE_RESTART:
            return _restarted(inventory, summary)
        case _ if summary.get("act") == mutations.DOWN:
            return replace(inventory, taken_down=record.entry.id)
        case _:
            return inventory


@dataclass(frozen=True, slots=True)
class Closing:
    """An intent with the record that closes it."""

    id: str
    seq: int
    role: str
    object: str
    summary: Mapping[str, Any]
    result: Mapping[str, Any]
    recovered: bool
    applied: bool
    time: str = ""
    uid: int = -1

    @property
    def labels(self) -> Mapping[str, Any]:
        """The labels of ours that the broker wrote."""
        return mapping_member(self.summary, "labels")

    def label(self, name: str) -> str:
        """Return one of them."""
        return text_member(self.labels, name)


def _close(inventory: Inventory, record: Record) -> Inventory:
    entry = record.entry
    intent = inventory.open.get(entry.id)
    if intent is None:
        return inventory
    inventory = replace(inventory, open=_without(inventory.open, entry.id))
    closing = Closing(
        id=entry.id,
        seq=intent.seq,
        role=intent.role,
        object=text_member(intent.request, "object"),
        summary=mapping_member(intent.request, "summary"),
        result=entry.result,
        recovered=entry.stage == "recovered",
        applied=applied(record),
        time=intent.time,
        uid=intent.uid,
    )
    route = text_member(intent.request, "route")
    if closing.applied or (route == Mutation.CONTAINER_REMOVE and gone(record)):
        inventory = _ended(inventory, route, closing, record.time)
    effect = _EFFECTS.get(route)
    return inventory if effect is None else effect(inventory, closing)


def _ended(inventory: Inventory, route: str, closing: Closing, time: str) -> Inventory:
    """Note who ended a container, unless it was down already."""
    if closing.result.get("status") == _NOT_MODIFIED:
        return inventory
    ending = Ending(closing.object, route, closing.role, closing.uid, time)
    known = endings.changed(inventory.endings, ending, signal=closing.summary.get("signal"))
    return inventory if known is inventory.endings else replace(inventory, endings=known)


def applied(record: Record) -> bool:
    """Tell whether a closing record says that its intent took effect."""
    result = record.entry.result
    if record.entry.stage == "recovered":
        return result.get("settled") == "applied"
    status = result.get("status")
    return isinstance(status, int) and (
        200 <= status < 300 or status in {_SWITCHING, _NOT_MODIFIED}
    )


def gone(record: Record) -> bool:
    """Tell whether the closing record of a removal says that the object isn't there any more."""
    # That it isn't there is what a removal wanted.
    return applied(record) or record.entry.result.get("status") == _NOT_FOUND


def _container_created(inventory: Inventory, closing: Closing) -> Inventory:
    identifier = text_member(closing.result, "container")
    if not closing.applied or not identifier:
        return inventory
    slot = closing.label(names.SLOT)
    item = ContainerItem(
        id=identifier,
        namespace=closing.label(names.NAMESPACE),
        service=closing.label(names.SERVICE),
        slot=int(slot) if slot.isascii() and slot.isdigit() else 0,
        revision=closing.label(names.REVISION),
        owner=closing.label(names.OWNER),
        origin=closing.label(names.ORIGIN),
        intent=closing.id,
        image=closing.label(names.IMAGE) or text_member(closing.summary, "image"),
        admitted=settings_from_json(mapping_member(closing.summary, "settings")),
        seq=closing.seq,
        recovered=closing.recovered,
        aliases=texts_of(closing.summary.get("answersTo")),
        confined=confinement_from_json(closing.summary.get("confined")),
    )
    inventory = _with_item(inventory, item)
    image = text_member(closing.summary, "imageId")
    if not item.revision or not image:
        return inventory
    first = inventory.pins.get(item.revision, Image(image, text_member(closing.summary, "digest")))
    return _pinned(inventory, item.revision, first)


def _pinned(inventory: Inventory, revision: str, image: Image) -> Inventory:
    """Pin a revision; beyond so many the one that was used longest ago goes.

    Never one that a container has: it is replaced by the same image. One that goes is resolved
    anew if somebody goes back to it.
    """
    pins = {**_without(inventory.pins, revision), revision: image}
    surplus = len(pins) - PINS_MAX
    if surplus > 0:
        used = {item.revision for item in inventory.containers.values()}
        gone = {*[each for each in pins if each not in used][:surplus]}
        pins = {each: pin for each, pin in pins.items() if each not in gone}
    return replace(inventory, pins=pins)


def _restarted(inventory: Inventory, asked: Mapping[str, Any]) -> Inventory:
    """Forget what a revision is pinned to, if its image is to be looked up anew."""
    if asked.get("anew") is not True:
        return inventory
    return replace(inventory, pins=_without(inventory.pins, text_member(asked, "revision")))


def adopted(inventory: Inventory, seq: int, request: Mapping[str, Any]) -> Inventory:
    """Return the inventory with an object that an operator adopted, as if it had been created."""
    summary, identifier = mapping_member(request, "summary"), text_member(request, "object")
    effect = _ADOPTED.get(text_member(summary, "kind"))
    if effect is None:
        return inventory  # the act itself
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
    return _with_item(inventory, replace(item, started=True, effective=effective))


def _container_removed(inventory: Inventory, closing: Closing) -> Inventory:
    # That it isn't there is what a removal wanted.
    gone = closing.applied or closing.result.get("status") == _NOT_FOUND
    return _forget_container(inventory, closing.object) if gone else inventory


def _container_started(inventory: Inventory, closing: Closing) -> Inventory:
    item = inventory.containers.get(closing.object)
    if item is None or not closing.applied:
        return inventory
    if closing.result.get("status") != _NOT_MODIFIED:
        inventory = _runs_again(inventory, closing)
    effective = text_member(closing.result, "effective")
    return _with_item(inventory, replace(item, started=True, effective=effective))


def _violated(inventory: Inventory, record: Record) -> Inventory:
    entry = record.entry
    item = inventory.containers.get(text_member(entry.request, "object"))
    if item is None:
        return inventory
    rules, found = entry.verdict.get("rules"), entry.result.get("found")
    ending = endings.violation(item.id, texts_of(rules), texts_of(found), record.time)
    inventory = replace(inventory, endings=endings.added(inventory.endings, ending))
    return _with_item(inventory, replace(item, effective="violation", violation=entry.id))


def _container_down(inventory: Inventory, closing: Closing) -> Inventory:
    taken = inventory.taken.get(closing.object)
    if taken is None or taken.seq != closing.seq or not closing.applied:
        return inventory
    taken = replace(taken, down=True)
    return replace(inventory, taken={**inventory.taken, taken.container: taken})


def _container_thawed(inventory: Inventory, closing: Closing) -> Inventory:
    taken = inventory.taken.get(closing.object)
    frozen = taken is not None and taken.route == Mutation.CONTAINER_PAUSE
    return _runs_again(inventory, closing) if frozen and closing.applied else inventory


def _runs_again(inventory: Inventory, closing: Closing) -> Inventory:
    """Forget that a container was taken down, unless that was asked for after this start."""
    taken = inventory.taken.get(closing.object)
    if taken is None or taken.seq > closing.seq:
        return inventory
    return replace(inventory, taken=_without(inventory.taken, closing.object))


def _going(inventory: Inventory, record: Record, intent: OpenIntent) -> Inventory:
    """Note what the controller takes down; from its intent on, so that none is between two."""
    summary = mapping_member(intent.request, "summary")
    takes = summary.get("takesDown")
    if intent.role != "controller" or takes not in ("slot", "service"):
        return inventory
    taken = TakenDown(
        container=text_member(intent.request, "object"),
        service=f"{summary.get('namespace', '')}/{summary.get('service', '')}",
        route=text_member(intent.request, "route"),
        last=takes == "service",
        intent=record.entry.id,
        seq=record.seq,
        time=record.time,
    )
    kept = {**_without(inventory.taken, taken.container), taken.container: taken}
    # The oldest are dropped; the decision admits no more than these within its window.
    return replace(inventory, taken=dict([*kept.items()][-TAKEN_MAX:]))


def _used(inventory: Inventory, record: Record, intent: OpenIntent) -> Inventory:
    """Note the approval that an intent used up, for its object."""
    rules = record.entry.verdict.get("rules")
    subject = text_member(intent.request, "object")
    if intent.request.get("route") == Mutation.VOLUME_REMOVE:
        subject = VOLUME + subject
    approvals = inventory.approvals
    for rule in rules if isinstance(rules, list) else ():
        approval = approvals.get(str(rule).removeprefix(USED))
        if str(rule).startswith(USED) and approval is not None:
            spent = replace(approval, used=(*approval.used, subject))
            approvals = {**approvals, approval.id: spent}
    return (
        inventory if approvals is inventory.approvals else replace(inventory, approvals=approvals)
    )


def _approved(inventory: Inventory, record: Record) -> Inventory:
    told = mapping_member(record.entry.request, "summary")
    objects = tuple(str(each) for each in told.get("objects") or ())
    approval = Approval(record.entry.id, text_member(told, "plan"), objects, record.time)
    kept = {**inventory.approvals, approval.id: approval}
    return replace(inventory, approvals=dict([*kept.items()][-APPROVALS_MAX:]))


def _container_changed(
    change: Callable[[Settings, Closing], Settings],
) -> Callable[[Inventory, Closing], Inventory]:
    """Return the effect that changes what a container is admitted as.

    Only who gave a container its shape can: what an operator or a client changes on one of the
    controller's is drift, and healed. What the broker changes only ends it.
    """

    def effect(inventory: Inventory, closing: Closing) -> Inventory:
        item = inventory.containers.get(closing.object)
        if item is None or not closing.applied:
            return inventory
        if closing.role == "broker" or (
            item.origin == "controller" and closing.role != "controller"
        ):
            return inventory
        return _with_item(inventory, replace(item, admitted=change(item.admitted, closing)))

    return effect


def _networks_changed(
    change: Callable[[Settings, Closing], Settings],
) -> Callable[[Inventory, Closing], Inventory]:
    """Return the effect that changes the networks of what a client made.

    Those of the controller's containers are final, like their names. It takes one off a network
    only to join it again under other names: what dies in between leaves a network missing, which
    is drift.
    """

    def effect(inventory: Inventory, closing: Closing) -> Inventory:
        item = inventory.containers.get(closing.object)
        if item is None or item.origin == "controller":
            return inventory
        return _container_changed(change)(inventory, closing)

    return effect


def _updated(admitted: Settings, closing: Closing) -> Settings:
    """Take over what was asked for; what else differs by then is drift, and stays it."""
    now = asdict(settings_from_json(mapping_member(closing.summary, "settings")))
    return replace(admitted, **{name: now[name] for name in updated(closing.summary)})


def updated(summary: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the settings that an update asked for, by its intent's summary; else all of them."""
    asked = texts_of(summary.get("fields"))
    if not asked:
        return tuple(name for name in SETTINGS_FIELDS if name not in {"name", "networks"})
    return tuple(name for key in asked for name in _UPDATED.get(key, ()))


def _renamed(admitted: Settings, closing: Closing) -> Settings:
    return replace(admitted, name=str(closing.summary.get("name", admitted.name)))


def _joined(inventory: Inventory, closing: Closing) -> Inventory:
    """Take note of a network that was joined; also of the names there, whoever asked."""
    inventory = _networks_changed(_connected)(inventory, closing)
    item = inventory.containers.get(closing.object)
    told = texts_of(closing.summary.get("answersTo"))
    if item is None or not closing.applied or not told:
        return inventory
    aliases = tuple(sorted({*item.aliases, *told}))[:ALIASES_MAX]
    return _with_item(inventory, replace(item, aliases=aliases))


def _connected(admitted: Settings, closing: Closing) -> Settings:
    joined = {*admitted.networks, text_member(closing.summary, "network")}
    return replace(admitted, networks=tuple(sorted(joined)))


def _disconnected(admitted: Settings, closing: Closing) -> Settings:
    left = text_member(closing.summary, "network")
    return replace(admitted, networks=tuple(n for n in admitted.networks if n != left))


def _network_created(inventory: Inventory, closing: Closing) -> Inventory:
    made = _belonging(closing)
    if made is None:
        return inventory
    return replace(inventory, networks={**inventory.networks, made.id: made})


def _volume_created(inventory: Inventory, closing: Closing) -> Inventory:
    made = _belonging(closing)
    if made is None:
        return inventory
    return replace(inventory, volumes={**inventory.volumes, made.id: made})


def _belonging(closing: Closing) -> OwnedObject | None:
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


def _network_removed(inventory: Inventory, closing: Closing) -> Inventory:
    gone = closing.applied or closing.result.get("status") == _NOT_FOUND
    return _forget_network(inventory, closing.object) if gone else inventory


def _volume_removed(inventory: Inventory, closing: Closing) -> Inventory:
    gone = closing.applied or closing.result.get("status") == _NOT_FOUND
    return _forget_volume(inventory, closing.object) if gone else inventory


def _pulled(inventory: Inventory, closing: Closing) -> Inventory:
    return _trust(inventory, closing.result) if closing.applied else inventory


def _image_removed(inventory: Inventory, closing: Closing) -> Inventory:
    """Forget what a removal took: names that were untagged, and images that are gone.

    A revision that was pinned to such an image is resolved anew.
    """
    if not closing.applied and closing.result.get("status") != _NOT_FOUND:
        return inventory
    names_gone = {closing.object, *texts_of(closing.result.get("untagged"))}
    gone = {closing.object, *texts_of(closing.result.get("deleted"))}
    ledger = {
        reference: trusted
        for reference, trusted in inventory.ledger.items()
        if reference not in names_gone and trusted.id not in gone
    }
    pins = {revision: image for revision, image in inventory.pins.items() if image.id not in gone}
    return replace(inventory, ledger=ledger, pins=pins)


def _exec_started(inventory: Inventory, closing: Closing) -> Inventory:
    """Take up a session. One whose start nobody saw the answer of may run as well."""
    identifier = text_member(closing.summary, "exec")
    unknown = closing.recovered and not closing.applied
    if not identifier or not (closing.applied or unknown):
        return inventory
    session = ExecSession(identifier, closing.object, closing.uid, closing.id, closing.time)
    return replace(inventory, sessions={**inventory.sessions, identifier: session})


def _trust(inventory: Inventory, told: Mapping[str, Any]) -> Inventory:
    reference, image = text_member(told, "reference"), text_member(told, "id")
    if not reference or not image:
        return inventory
    trusted = TrustedImage(reference, image, text_member(told, "digest"))
    return replace(inventory, ledger={**inventory.ledger, reference: trusted})


def _with_item(inventory: Inventory, item: ContainerItem) -> Inventory:
    return replace(inventory, containers={**inventory.containers, item.id: item})


def _forget_container(inventory: Inventory, identifier: str) -> Inventory:
    taken = inventory.taken.get(identifier)
    if taken is not None and not taken.last:  # it says nothing beyond that the container goes
        inventory = replace(inventory, taken=_without(inventory.taken, identifier))
    return replace(inventory, containers=_without(inventory.containers, identifier))


def _forget_network(inventory: Inventory, identifier: str) -> Inventory:
    return replace(inventory, networks=_without(inventory.networks, identifier))


def _forget_volume(inventory: Inventory, identifier: str) -> Inventory:
    return replace(inventory, volumes=_without(inventory.volumes, identifier))


#: What a closing record does, by the mutation; those that aren't here change nothing of ours.
_EFFECTS: dict[str, Callable[[Inventory, Closing], Inventory]] = {
    Mutation.CONTAINER_CREATE: _container_created,
    Mutation.CONTAINER_START: _container_started,
    Mutation.CONTAINER_STOP: _container_down,
    Mutation.CONTAINER_PAUSE: _container_down,
    Mutation.CONTAINER_RESTART: _container_started,
    Mutation.CONTAINER_UNPAUSE: _container_thawed,
    Mutation.CONTAINER_RENAME: _container_changed(_renamed),
    Mutation.CONTAINER_UPDATE: _container_changed(_updated),
    Mutation.CONTAINER_REMOVE: _container_removed,
    Mutation.NETWORK_CREATE: _network_created,
    Mutation.NETWORK_REMOVE: _network_removed,
    Mutation.NETWORK_CONNECT: _joined,
    Mutation.NETWORK_DISCONNECT: _networks_changed(_disconnected),
    Mutation.VOLUME_CREATE: _volume_created,
    Mutation.VOLUME_REMOVE: _volume_removed,
    Mutation.IMAGE_PULL: _pulled,
    Mutation.IMAGE_REMOVE: _image_removed,
    Mutation.EXEC_START: _exec_started,
}
_ADOPTED: dict[str, Callable[[Inventory, Closing], Inventory]] = {
    "container": _container_created,
    "network": _network_created,
    "volume": _volume_created,
}
_GONE: dict[str, Callable[[Inventory, str], Inventory]] = {
    mutations.CONTAINER_GONE: _forget_container,
    mutations.NETWORK_GONE: _forget_network,
    mutations.VOLUME_GONE: _forget_volume,
}
#: Which settings each member of an update's body changes.
_UPDATED: dict[str, tuple[str, ...]] = {
    "Memory": ("memory",),
    "MemorySwap": ("memory_swap",),
    "MemoryReservation": ("memory_reservation",),
    "NanoCpus": ("nano_cpus",),
    "CpuQuota": ("cpu_quota",),
    "CpuPeriod": ("cpu_period",),
    "CpuShares": ("cpu_shares",),
    "PidsLimit": ("pids",),
    "RestartPolicy": ("restart", "restart_max"),
}


def _without(mapping: dict[str, _T], key: str) -> dict[str, _T]:
    return {name: value for name, value in mapping.items() if name != key}
