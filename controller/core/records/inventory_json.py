"""The inventory and its parts as JSON, for the broker's snapshot file and for records.

``to_json`` and ``from_json`` are inverse to each other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, fields
from typing import Any

from controller.core.encoding.json_members import (
    fields_of,
    list_of,
    read_plain,
    texts_of,
)
from controller.core.jobs import memory as jobs
from controller.core.rules.confinement import confinement_from_json, confinement_to_json
from controller.model.files.delivery import StoredFiles
from controller.model.inventory import (
    AcceptedCommit,
    Approval,
    Capacity,
    ContainerItem,
    ExecSession,
    Inventory,
    OpenIntent,
    OwnedObject,
    PinnedImage,
    RecordTime,
    Replica,
    SignedRevision,
    TakenDown,
    TrustedImage,
    VolumeHold,
)
from controller.model.observed import Ending, Settings

#: The members of an inventory that grow with the host and are no objects of a service.
TAGGED = ("pins", "endings")
SETTINGS_FIELDS = frozenset(field.name for field in fields(Settings))
_NUMBERS = frozenset(field.name for field in fields(Settings) if isinstance(field.default, int))
#: The members of a snapshot that are lists: the dataclass of an item, and its field that is the key.
_LISTS: dict[str, tuple[type, str]] = {
    "networks": (OwnedObject, "id"),
    "volumes": (OwnedObject, "id"),
    "ledger": (TrustedImage, "reference"),
    "sessions": (ExecSession, "id"),
    "replicas": (Replica, "container"),
    "taken": (TakenDown, "intent"),
    "approvals": (Approval, "id"),
    "endings": (Ending, "container"),
    "holds": (VolumeHold, "volume"),
    "accepted": (AcceptedCommit, "source"),
}


def shared_to_json(known: Inventory, *, left_out: Collection[str] = ()) -> dict[str, object]:
    """Return the shared members, such as pins, without the members of ``TAGGED`` in *left_out*."""
    shown: dict[str, object] = {
        "takenDown": known.taken_down,
        "holds": [asdict(hold) for hold in known.holds.values()],
        "files": [stored_to_json(stored) for stored in known.files.values()],
        "jobs": jobs.to_json(known.jobs),
    }
    if "pins" not in left_out:
        shown["pins"] = {revision: fields_of(image) for revision, image in known.pins.items()}
    if "endings" not in left_out:
        shown["endings"] = [fields_of(ending) for ending in known.endings.values()]
    return shown


def settings_to_json(settings: Settings) -> dict[str, object]:
    """Return settings as JSON, with the names of the dataclass fields."""
    lists = {"networks": list(settings.networks), "others": list(settings.others)}
    return {**fields_of(settings), **lists}


def settings_from_json(value: Mapping[str, Any]) -> Settings:
    """Return the settings written by ``settings_to_json``; unknown members are ignored.

    The journal writes numbers beyond 2^53 as strings, so numbers are read from strings too.
    """
    members = {name: member for name, member in value.items() if name in SETTINGS_FIELDS}
    for name in _NUMBERS & members.keys():
        members[name] = int(members[name])
    lists = {name: tuple(map(str, members.pop(name, ()))) for name in ("networks", "others")}
    return Settings(**{"name": "", **members, **lists})


def item_to_json(item: ContainerItem) -> dict[str, object]:
    """Return a container of the inventory as JSON."""
    confined = None if item.confined is None else confinement_to_json(item.confined)
    return {**fields_of(item), "admitted": settings_to_json(item.admitted), "confined": confined}


def item_from_json(value: Mapping[str, Any]) -> ContainerItem:
    """Return a container written by ``item_to_json``."""
    confined = confinement_from_json(value.get("confined"))
    return read_plain(ContainerItem, {**value, "confined": confined})


def to_json(inventory: Inventory) -> dict[str, object]:
    """Return the whole inventory as JSON, for the broker's snapshot file."""
    return {
        "seq": inventory.seq,
        "time": inventory.time,
        "containers": [item_to_json(item) for item in inventory.containers.values()],
        # A list, since the order of pins matters and canonical JSON sorts the members of objects.
        "pins": [
            {"revision": revision, **fields_of(pin)} for revision, pin in inventory.pins.items()
        ],
        "open": {identifier: asdict(intent) for identifier, intent in inventory.open.items()},
        **{name: [*map(asdict, getattr(inventory, name).values())] for name in _LISTS},
        "takenDown": inventory.taken_down,
        # A list, since the order of names matters.
        "files": [stored_to_json(stored) for stored in inventory.files.values()],
        "jobs": jobs.to_json(inventory.jobs),
        "takenOver": sorted(inventory.taken_over),
        **addresses_to_json(inventory),
        # A list, since the order of services matters.
        "signed": [
            {"key": key, "revisions": [*map(asdict, revisions)]}
            for key, revisions in inventory.signed.items()
        ],
    }


def from_json(value: Mapping[str, Any]) -> Inventory:
    """Return the inventory written by ``to_json``.

    Raises:
        KeyError, TypeError, ValueError: the value is not an inventory.
    """
    items = map(item_from_json, value["containers"])
    lists = {
        name: {getattr(item, key): item for item in read_plain(tuple[kind, ...], value[name])}  # type: ignore[valid-type]
        for name, (kind, key) in _LISTS.items()
    }
    return Inventory(
        seq=int(value["seq"]),
        time=value["time"],
        containers={item.id: item for item in items},
        pins={each["revision"]: read_plain(PinnedImage, each) for each in value["pins"]},
        open={each: read_plain(OpenIntent, intent) for each, intent in value["open"].items()},
        taken_down=value["takenDown"],
        taken_over=frozenset(value["takenOver"]),
        files=stored_from_json(value["files"]),
        jobs=jobs.from_json(value["jobs"]),
        addresses=addresses_from_json(value),
        signed={
            member["key"]: read_plain(tuple[SignedRevision, ...], member["revisions"])
            for member in value["signed"]
        },
        **lists,
    )


def addresses_to_json(inventory: Inventory, service: str = "") -> dict[str, object]:
    """Return the addresses of slots as JSON, of all or of one service, NAMESPACE/NAME."""
    of_service = f"{service}/" if service else ""
    # Lists, since the order of slots matters.
    return {
        "addresses": [
            {
                "network": network,
                "slots": [[*pair] for pair in slots.items() if pair[0].startswith(of_service)],
            }
            for network, slots in inventory.addresses.items()
        ]
    }


def addresses_from_json(value: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return the addresses of slots in a value written by ``addresses_to_json``."""
    return {
        str(each["network"]): {str(slot): str(address) for slot, address in each["slots"]}
        for each in list_of(value.get("addresses"))
    }


def aliases_from_json(value: Any) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return the names of a container by network, from an object or from pairs; sorted."""
    pairs = value.items() if isinstance(value, Mapping) else list_of(value)
    return tuple(sorted((str(network), texts_of(names)) for network, names in pairs))


def stored_to_json(stored: StoredFiles) -> dict[str, object]:
    """Return the stored contents of one name as JSON."""
    contents = [asdict(content) for content in stored.contents]
    return {**asdict(stored.files), "contents": contents}


def stored_from_json(value: Iterable[Mapping[str, Any]]) -> dict[str, StoredFiles]:
    """Return the stored contents written by ``stored_to_json``, by ``str(FileSet)``."""
    found = [
        read_plain(StoredFiles, {"files": each, "contents": each["contents"]}) for each in value
    ]
    return {str(stored.files): stored for stored in found}


def replica_of(item: ContainerItem, *, up: RecordTime | None) -> Replica:
    """Return a container of the controller's as the disruption budget counts it."""
    capacity = Capacity.of(item.admitted)
    service = f"{item.namespace}/{item.service}"
    return Replica(item.id, service, item.admitted.networks, capacity, capacity, up)
