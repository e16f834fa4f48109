"""The broker's inventory, folded from the journal: what is ours, and as what it was admitted.

Pure, and a fold over records alone, so that the journal can rebuild it: an intent is kept while
it is open, and what it asked for takes effect with its closing record, if that says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TypeVar, cast

from controller.core.records import endings
from controller.core.rules.confinement import confinement_from, confinement_to
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
    route = _text(entry.request, "route")
    match entry.stage:
        case "intent":
            role = _text(entry.actor, "role")
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
            return _GONE[route](inventory, _text(entry.request, "object"))
        case _:
            return inventory


def _operated(inventory: Inventory, record: Record, route: str) -> Inventory:
    """Return the inventory after an operator's act that changes it without the engine."""
    summary = _mapping(record.entry.request.get("summary"))
    match route:
        case mutations.TRUST:
            return _trust(inventory, summary)
        case mutations.EXEC_END:
            return replace(inventory, sessions=_without(inventory.sessions, _text(summary, "exec")))
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
        return _mapping(self.summary.get("labels"))

    def label(self, name: str) -> str:
        """Return one of them."""
        return _text(self.labels, name)


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
        object=_text(intent.request, "object"),
        summary=_mapping(intent.request.get("summary")),
        result=entry.result,
        recovered=entry.stage == "recovered",
        applied=applied(record),
        time=intent.time,
        uid=intent.uid,
    )
    route = _text(intent.request, "route")
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
    identifier = _text(closing.result, "container")
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
        image=closing.label(names.IMAGE) or _text(closing.summary, "image"),
        admitted=settings_from(_mapping(closing.summary.get("settings"))),
        seq=closing.seq,
        recovered=closing.recovered,
        aliases=_texts(closing.summary.get("answersTo")),
        confined=confinement_from(closing.summary.get("confined")),
    )
    inventory = _with_item(inventory, item)
    image = _text(closing.summary, "imageId")
    if not item.revision or not image:
        return inventory
    first = inventory.pins.get(item.revision, Image(image, _text(closing.summary, "digest")))
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
    return replace(inventory, pins=_without(inventory.pins, _text(asked, "revision")))


def adopted(inventory: Inventory, seq: int, request: Mapping[str, Any]) -> Inventory:
    """Return the inventory with an object that an operator adopted, as if it had been created."""
    summary, identifier = _mapping(request.get("summary")), _text(request, "object")
    effect = _ADOPTED.get(_text(summary, "kind"))
    if effect is None:
        return inventory  # the act itself
    closing = Closing(
        id=_text(_mapping(summary.get("labels")), names.INTENT),
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
    effective = _text(summary, "effective")
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
    effective = _text(closing.result, "effective")
    return _with_item(inventory, replace(item, started=True, effective=effective))


def _violated(inventory: Inventory, record: Record) -> Inventory:
    entry = record.entry
    item = inventory.containers.get(_text(entry.request, "object"))
    if item is None:
        return inventory
    rules, found = entry.verdict.get("rules"), entry.result.get("found")
    ending = endings.violation(item.id, _texts(rules), _texts(found), record.time)
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
    summary = _mapping(intent.request.get("summary"))
    takes = summary.get("takesDown")
    if intent.role != "controller" or takes not in ("slot", "service"):
        return inventory
    taken = TakenDown(
        container=_text(intent.request, "object"),
        service=f"{summary.get('namespace', '')}/{summary.get('service', '')}",
        route=_text(intent.request, "route"),
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
    subject = _text(intent.request, "object")
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
    told = _mapping(record.entry.request.get("summary"))
    objects = tuple(str(each) for each in told.get("objects") or ())
    approval = Approval(record.entry.id, _text(told, "plan"), objects, record.time)
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
    now = asdict(settings_from(_mapping(closing.summary.get("settings"))))
    return replace(admitted, **{name: now[name] for name in updated(closing.summary)})


def updated(summary: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the settings that an update asked for, by its intent's summary; else all of them."""
    asked = _texts(summary.get("fields"))
    if not asked:
        return tuple(name for name in _SETTINGS_FIELDS if name not in {"name", "networks"})
    return tuple(name for key in asked for name in _UPDATED.get(key, ()))


def _renamed(admitted: Settings, closing: Closing) -> Settings:
    return replace(admitted, name=str(closing.summary.get("name", admitted.name)))


def _joined(inventory: Inventory, closing: Closing) -> Inventory:
    """Take note of a network that was joined; also of the names there, whoever asked."""
    inventory = _networks_changed(_connected)(inventory, closing)
    item = inventory.containers.get(closing.object)
    told = _texts(closing.summary.get("answersTo"))
    if item is None or not closing.applied or not told:
        return inventory
    aliases = tuple(sorted({*item.aliases, *told}))[:ALIASES_MAX]
    return _with_item(inventory, replace(item, aliases=aliases))


def _connected(admitted: Settings, closing: Closing) -> Settings:
    joined = {*admitted.networks, _text(closing.summary, "network")}
    return replace(admitted, networks=tuple(sorted(joined)))


def _disconnected(admitted: Settings, closing: Closing) -> Settings:
    left = _text(closing.summary, "network")
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
    identifier = _text(closing.result, "object")
    if not closing.applied or not identifier:
        return None
    return OwnedObject(
        id=identifier,
        name=_text(closing.summary, "name"),
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
    names_gone = {closing.object, *_texts(closing.result.get("untagged"))}
    gone = {closing.object, *_texts(closing.result.get("deleted"))}
    ledger = {
        reference: trusted
        for reference, trusted in inventory.ledger.items()
        if reference not in names_gone and trusted.id not in gone
    }
    pins = {revision: image for revision, image in inventory.pins.items() if image.id not in gone}
    return replace(inventory, ledger=ledger, pins=pins)


def _text(told: Mapping[str, Any], name: str) -> str:
    return str(told.get(name, ""))


def _texts(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list | tuple) else ()


def _exec_started(inventory: Inventory, closing: Closing) -> Inventory:
    """Take up a session. One whose start nobody saw the answer of may run as well."""
    identifier = _text(closing.summary, "exec")
    unknown = closing.recovered and not closing.applied
    if not identifier or not (closing.applied or unknown):
        return inventory
    session = ExecSession(identifier, closing.object, closing.uid, closing.id, closing.time)
    return replace(inventory, sessions={**inventory.sessions, identifier: session})


def _trust(inventory: Inventory, told: Mapping[str, Any]) -> Inventory:
    reference, image = _text(told, "reference"), _text(told, "id")
    if not reference or not image:
        return inventory
    trusted = TrustedImage(reference, image, _text(told, "digest"))
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
_SETTINGS_FIELDS = frozenset(field.name for field in fields(Settings))


def settings_to(settings: Settings) -> dict[str, object]:
    """Return settings as JSON, with the names of the dataclass."""
    lists = {"networks": list(settings.networks), "others": list(settings.others)}
    return {**asdict(settings), **lists}


def settings_from(told: Mapping[str, Any]) -> Settings:
    """Return the settings that ``settings_to`` wrote; large numbers may have become strings."""
    known = {key: value for key, value in told.items() if key in _SETTINGS_FIELDS}
    for name in _SETTINGS_NUMBERS & known.keys():
        known[name] = int(known[name])
    lists = {name: tuple(map(str, known.pop(name, ()))) for name in ("networks", "others")}
    return Settings(**{"name": "", **known, **lists})


_SETTINGS_NUMBERS = frozenset(
    {
        "memory",
        "memory_swap",
        "memory_reservation",
        "nano_cpus",
        "cpu_quota",
        "cpu_period",
        "cpu_shares",
        "pids",
        "restart_max",
    }
)


def to_json(inventory: Inventory) -> dict[str, object]:
    """Return the whole inventory as JSON, for the broker's own file."""
    return {
        "seq": inventory.seq,
        "time": inventory.time,
        "containers": [item_to(item) for item in inventory.containers.values()],
        "networks": [asdict(made) for made in inventory.networks.values()],
        "volumes": [asdict(made) for made in inventory.volumes.values()],
        "ledger": [asdict(trusted) for trusted in inventory.ledger.values()],
        # A list: what is written keeps no order of members.
        "pins": [{"revision": r, **asdict(image)} for r, image in inventory.pins.items()],
        "sessions": [asdict(session) for session in inventory.sessions.values()],
        "open": {identifier: asdict(intent) for identifier, intent in inventory.open.items()},
        "taken": [asdict(taken) for taken in inventory.taken.values()],
        "approvals": [asdict(approval) for approval in inventory.approvals.values()],
        "endings": [asdict(ending) for ending in inventory.endings.values()],
        "takenDown": inventory.taken_down,
    }


def from_json(value: Mapping[str, Any]) -> Inventory:
    """Return the inventory that ``to_json`` wrote.

    Raises:
        KeyError, TypeError, ValueError: it isn't one.
    """
    items = [
        ContainerItem(
            **{
                **told,
                "admitted": settings_from(told["admitted"]),
                "aliases": _texts(told.get("aliases")),
                "confined": confinement_from(told.get("confined")),
            }
        )
        for told in value["containers"]
    ]
    return Inventory(
        seq=int(value["seq"]),
        time=_text(value, "time"),
        containers={item.id: item for item in items},
        networks={told["id"]: OwnedObject(**told) for told in value["networks"]},
        volumes={told["id"]: OwnedObject(**told) for told in value["volumes"]},
        ledger={told["reference"]: TrustedImage(**told) for told in value["ledger"]},
        pins=_pins(value["pins"]),
        # Snapshots of brokers before sessions were known have none.
        sessions={told["id"]: ExecSession(**told) for told in value.get("sessions", ())},
        open={identifier: OpenIntent(**told) for identifier, told in value["open"].items()},
        taken={told["container"]: TakenDown(**told) for told in value.get("taken", ())},
        approvals={told["id"]: _approval(told) for told in value.get("approvals", ())},
        # Snapshots of earlier brokers have none.
        endings={told["container"]: Ending(**told) for told in value.get("endings", ())},
        taken_down=_text(value, "takenDown"),
    )


def _pins(value: Any) -> dict[str, Image]:
    if isinstance(value, Mapping):  # of brokers before there was a limit
        return {revision: Image(**told) for revision, told in value.items()}
    return {told["revision"]: Image(told["id"], told["digest"]) for told in value}


def _approval(told: Mapping[str, Any]) -> Approval:
    lists = {"objects": tuple(told["objects"]), "used": tuple(told["used"])}
    return Approval(**{**told, **lists})


def item_to(item: ContainerItem) -> dict[str, object]:
    """Return one container of the inventory as JSON."""
    confined = None if item.confined is None else confinement_to(item.confined)
    return {**asdict(item), "admitted": settings_to(item.admitted), "confined": confined}


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _without(mapping: dict[str, _T], key: str) -> dict[str, _T]:
    return {name: value for name, value in mapping.items() if name != key}
