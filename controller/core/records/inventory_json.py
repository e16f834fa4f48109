"""The inventory and its parts as JSON, for the broker's snapshot file and for its answers.

Mappings are lists of pairs, since their order matters and canonical JSON sorts the members of objects.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from controller.core.encoding.json_values import fields_of, list_of, texts_of
from controller.core.encoding.stored_form import StoredForm
from controller.model.delivery import StoredFiles
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
from controller.model.names import Key
from controller.model.observed import Ending, JobMemory, Settings

#: The members of an inventory that grow with the host and are no objects of a service.
TAGGED = ("pins", "endings")
#: A container of the inventory, in answers of the broker.
ITEM = StoredForm(ContainerItem, is_whole=True)
_SETTINGS = StoredForm(Settings)
_ADDRESSES = StoredForm(list[tuple[str, list[tuple[str, str]]]])
#: The mappings of an inventory, as pairs.
_MAPPINGS: dict[str, StoredForm[Any]] = {
    "containers": StoredForm(list[tuple[str, ContainerItem]]),
    "released": StoredForm(list[tuple[str, ContainerItem]]),
    "networks": StoredForm(list[tuple[str, OwnedObject]]),
    "volumes": StoredForm(list[tuple[str, OwnedObject]]),
    "ledger": StoredForm(list[tuple[str, TrustedImage]]),
    "pins": StoredForm(list[tuple[str, PinnedImage]]),
    "sessions": StoredForm(list[tuple[str, ExecSession]]),
    "open": StoredForm(list[tuple[str, OpenIntent]]),
    "replicas": StoredForm(list[tuple[str, Replica]]),
    "taken": StoredForm(list[tuple[str, TakenDown]]),
    "approvals": StoredForm(list[tuple[str, Approval]]),
    "endings": StoredForm(list[tuple[str, Ending]]),
    "files": StoredForm(list[tuple[str, StoredFiles]]),
    "jobs": StoredForm(list[tuple[Key, JobMemory]]),
    "holds": StoredForm(list[tuple[str, VolumeHold]]),
    "accepted": StoredForm(list[tuple[str, AcceptedCommit]]),
    "signed": StoredForm(list[tuple[str, tuple[SignedRevision, ...]]]),
}
#: Left out of a snapshot while they are empty.
_OPTIONAL = frozenset({"released"})


def mapping_to_json(name: str, values: Mapping[Any, Any]) -> Any:
    """Return a mapping of an inventory, such as ``jobs``, as pairs."""
    return _MAPPINGS[name].to_json([*values.items()])


def mapping_from_json(name: str, value: object) -> dict[Any, Any]:
    """Return a mapping written by ``mapping_to_json``.

    Raises:
        ValueError: the value has another form.
    """
    return dict(_MAPPINGS[name].from_json(value))


def shared_to_json(known: Inventory, *, left_out: Collection[str] = ()) -> dict[str, object]:
    """Return the shared members, such as pins, without the members of ``TAGGED`` in *left_out*."""
    shared = {"files", "jobs", *TAGGED} - {*left_out}
    return {
        "takenDown": known.taken_down,
        "holds": [fields_of(hold) for hold in known.holds.values()],
        **{name: mapping_to_json(name, getattr(known, name)) for name in sorted(shared)},
    }


def settings_to_json(settings: Settings) -> dict[str, object]:
    """Return settings as records have them: all members, with the names of the dataclass fields."""
    lists = {"networks": list(settings.networks), "others": list(settings.others)}
    return {**fields_of(settings), **lists}


def settings_from_json(value: Mapping[str, Any]) -> Settings:
    """Return the settings written by ``settings_to_json``; unknown members are ignored."""
    return _SETTINGS.from_json({"name": "", **value})


def to_json(inventory: Inventory) -> dict[str, object]:
    """Return the whole inventory as JSON, for the broker's snapshot file."""
    return {
        "seq": inventory.seq,
        "time": inventory.time,
        "taken_down": inventory.taken_down,
        "restored": inventory.restored,
        "restored_from": inventory.restored_from,
        "taken_over": sorted(inventory.taken_over),
        "addresses": addresses_to_json(inventory),
        **{
            name: mapping_to_json(name, values)
            for name in _MAPPINGS
            if (values := getattr(inventory, name)) or name not in _OPTIONAL
        },
    }


def from_json(value: Mapping[str, Any]) -> Inventory:
    """Return the inventory written by ``to_json``.

    Raises:
        KeyError, TypeError, ValueError: the value is not an inventory.
    """
    return Inventory(
        seq=int(value["seq"]),
        time=str(value["time"]),
        taken_down=str(value["taken_down"]),
        restored=str(value.get("restored", "")),
        restored_from=str(value.get("restored_from", "")),
        taken_over=frozenset(value["taken_over"]),
        addresses=addresses_from_json(value["addresses"]),
        **{
            name: mapping_from_json(name, value[name])
            for name in _MAPPINGS
            if name in value or name not in _OPTIONAL
        },
    )


def addresses_to_json(inventory: Inventory, service: str = "") -> list[object]:
    """Return the addresses of slots as JSON, of all or of one service, NAMESPACE/NAME."""
    of_service = f"{service}/" if service else ""
    return [
        [network, [[*pair] for pair in slots.items() if pair[0].startswith(of_service)]]
        for network, slots in inventory.addresses.items()
    ]


def addresses_from_json(value: object) -> dict[str, dict[str, str]]:
    """Return the addresses of slots in a value written by ``addresses_to_json``."""
    return {network: dict(slots) for network, slots in _ADDRESSES.from_json(value)}


def aliases_from_json(value: Any) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return the names of a container by network, from an object or from pairs; sorted."""
    pairs = value.items() if isinstance(value, Mapping) else list_of(value)
    return tuple(sorted((str(network), texts_of(names)) for network, names in pairs))


def replica_of(item: ContainerItem, *, up: RecordTime | None) -> Replica:
    """Return a container of the controller's as the disruption budget counts it."""
    capacity = Capacity.of(item.admitted)
    service = f"{item.namespace}/{item.service}"
    return Replica(item.id, service, item.admitted.networks, capacity, capacity, up)
