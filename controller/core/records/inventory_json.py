"""The inventory, and its parts, as JSON: the broker's own file, and the settings in records.

``to_json`` and ``from_json`` are each other's inverse. Files of older brokers lack members that
were added since; ``from_json`` reads those too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from controller.core.encoding.json_members import text_member, texts_of
from controller.core.rules.confinement import confinement_from_json, confinement_to_json
from controller.model.inventory import (
    Approval,
    ContainerItem,
    ExecSession,
    Inventory,
    OpenIntent,
    OwnedObject,
    TakenDown,
    TrustedImage,
)
from controller.model.observed import Ending, Image, Settings

SETTINGS_FIELDS = frozenset(field.name for field in fields(Settings))


def settings_to_json(settings: Settings) -> dict[str, object]:
    """Return settings as JSON, with the names of the dataclass."""
    lists = {"networks": list(settings.networks), "others": list(settings.others)}
    return {**asdict(settings), **lists}


def settings_from_json(told: Mapping[str, Any]) -> Settings:
    """Return the settings that ``settings_to_json`` wrote; large numbers may have become strings."""
    known = {key: value for key, value in told.items() if key in SETTINGS_FIELDS}
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
        "containers": [item_to_json(item) for item in inventory.containers.values()],
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
                "admitted": settings_from_json(told["admitted"]),
                "aliases": texts_of(told.get("aliases")),
                "confined": confinement_from_json(told.get("confined")),
            }
        )
        for told in value["containers"]
    ]
    return Inventory(
        seq=int(value["seq"]),
        time=text_member(value, "time"),
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
        taken_down=text_member(value, "takenDown"),
    )


def _pins(value: Any) -> dict[str, Image]:
    if isinstance(value, Mapping):  # of brokers before there was a limit
        return {revision: Image(**told) for revision, told in value.items()}
    return {told["revision"]: Image(told["id"], told["digest"]) for told in value}


def _approval(told: Mapping[str, Any]) -> Approval:
    lists = {"objects": tuple(told["objects"]), "used": tuple(told["used"])}
    return Approval(**{**told, **lists})


def item_to_json(item: ContainerItem) -> dict[str, object]:
    """Return one container of the inventory as JSON."""
    confined = None if item.confined is None else confinement_to_json(item.confined)
    return {**asdict(item), "admitted": settings_to_json(item.admitted), "confined": confined}
