"""``volume`` and ``network``: list, adopt and remove.

``volume`` and ``network``: the groups of commands, and the list of volumes.

``volume adopt`` and ``network adopt``: take over one foreign object for a document.

``volume remove``: remove a volume that nothing uses, after a dump.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from controller.cli.clients.socket_client import BrokerApi, EngineApi, ask_to_observe
from controller.cli.clients.status_report import resource_of
from controller.cli.commands.volume_data import confirm_loss, dump, restore
from controller.cli.options import (
    PassingGroup,
    command,
    note_option,
    open_state,
    print_result,
)
from controller.cli.output.tables import table
from controller.core.encoding.text import printable
from controller.model.errors import EngineError, EngineUnavailable, StateError, UsageError
from controller.model.names import DEFAULT_NAMESPACE
from controller.model.quantities import format_bytes

_as_option = click.option(
    "--as",
    "place",
    metavar="[NAMESPACE/]NAME",
    required=True,
    help="The document with the engineName, declared already or later.",
)
_owner_option = click.option(
    "--owner",
    metavar="OWNER",
    default="",
    help="The owner of the document (default: as the running controller knows the document).",
)


def _adopt(
    kind: str, name: str, place: str, owner: str, note: str, state: Path | None, *, as_json: bool
) -> None:
    """Let the broker take an object over, and print the result."""
    folder, _ = open_state(state)
    namespace, _, resource = place.rpartition("/")
    namespace = namespace or DEFAULT_NAMESPACE
    key = f"{kind}/{namespace}/{resource}"
    if not owner:
        with suppress(EngineUnavailable):
            owner = str(resource_of(folder, key).get("owner") or "")
    if not owner:
        raise UsageError(
            "adopt.owner",
            f"no controller knows {key}, so its owner is unknown",
            remedy="name the owner with --owner",
        )
    reply = BrokerApi(folder.broker_socket).record(
        "adopt-object", name, note, kind=kind.lower(), namespace=namespace, owner=owner
    )
    # The engine has no event for this: without the question, services would wait for the next look.
    ask_to_observe(folder.controller_socket, key)
    report = {"object": name, "kind": kind, "key": key, "owner": owner, **reply}
    text = f"adopted the {kind.lower()} {name} for {owner} in the namespace {namespace}"
    if users := reply["users"]:
        text += f"; it is used by {', '.join(users)}"
    print_result(report, printable(text), as_json=as_json)


@command("""\b
Examples:
  trimtab volume adopt shop_data --as shop/data
  trimtab volume adopt shop_data --as shop/data --owner shop-team --note "from compose"

\b
Exit codes: 0 adopted, 1 error or nothing runs, 4 it can't be adopted.
""")
@click.argument("name")
@_as_option
@_owner_option
@note_option
def adopt_volume(
    name: str, place: str, owner: str, note: str, state: Path | None, as_json: bool
) -> None:
    """Adopt a volume made without trimtab, for a Volume with 'engineName: NAME'.

    The data stays in place. The controller of this instance can then mount the volume in
    containers of the namespace. No container of others may run with the volume meanwhile.
    """
    _adopt("Volume", name, place, owner, note, state, as_json=as_json)


@command("""\b
Example:
  trimtab network adopt shop_default --as shop/default --owner shop-team

\b
Exit codes: 0 adopted, 1 error or nothing runs, 4 it can't be adopted.
""")
@click.argument("name")
@_as_option
@_owner_option
@note_option
def adopt_network(
    name: str, place: str, owner: str, note: str, state: Path | None, as_json: bool
) -> None:
    """Adopt a network made without trimtab, for a Network with 'engineName: NAME'.

    The network stays unchanged, and outlives its document.
    """
    _adopt("Network", name, place, owner, note, state, as_json=as_json)


@command("""\b
Examples:
  trimtab volume dump old-data -o old-data.tar
  trimtab volume remove old-data

\b
Exit codes: 0 removed, 1 error, nothing runs, or the volume is used or was never dumped, 4 refused.
""")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Remove the volume without asking.")
@click.option("--without-dump", is_flag=True, help="Remove a volume that was never dumped.")
def remove(name: str, yes: bool, without_dump: bool, state: Path | None, as_json: bool) -> None:
    """Remove a volume with its data.

    The volume must have been dumped, and no container may have it, stopped ones included. A
    volume of the documents goes by itself only with `retain: false`, after a dump and an approval.
    """
    folder, _ = open_state(state)
    api = BrokerApi(folder.broker_socket)
    inventory = api.get("inventory")
    found = [each for each in inventory["volumes"] if each["name"] == name]
    if not found:
        raise StateError(
            "volume.unknown",
            f"this instance has no volume {name}",
            remedy="'trimtab volume list' lists all",
        )
    _raise_if_needed(found[0], users_of(inventory["containers"]), without_dump=without_dump)
    dumped = str(found[0].get("dumped") or "")
    if not yes:
        since = f"dumped at {dumped}" if dumped else "never dumped"
        confirm_loss(name, "removed", f"Remove the volume {printable(name)} ({since})?")
    engine = EngineApi(folder.broker_socket, 60.0)
    size = sizes_of(engine.get("/volumes")).get(name)
    engine.fetch(f"/volumes/{name}", "DELETE")
    report = {"volume": name, "dumped": dumped}
    print_result(report, printable(removal_text(name, size)), as_json=as_json)


def removal_text(name: str, size: int | None) -> str:
    """Return the line after a removal; with a warning if the volume had a size.

    The engine remembers the quota of the removed folder, and sets none for a new one (moby 43891).
    """
    removed = f"removed the volume {name}"
    if size is None:
        return removed
    return (
        f"{removed}; the engine holds no size of a new volume of this name before it is restarted"
    )


def sizes_of(listed: Any) -> dict[str, int]:
    """Return the sizes of volumes by name, from the engine's list; only of volumes with a size."""
    volumes = listed.get("Volumes") or ()
    rows = {str(each["Name"]): each["Options"] for each in volumes if each.get("Options")}
    if not rows:
        return {}
    # A slow import, and rarely needed.
    from controller.core.engine_api.mount_grammar import size_of_volume

    sizes = {name: size_of_volume(options.items()) for name, options in rows.items()}
    return {name: size for name, size in sizes.items() if size is not None}


def _raise_if_needed(
    volume: dict[str, Any], users: dict[str, list[str]], *, without_dump: bool
) -> None:
    """Raise StateError if a container has the volume, or its data was never dumped."""
    name = volume["name"]
    if having := users.get(name):
        raise StateError(
            "volume.used",
            f"{', '.join(having)} has the volume {name}",
            remedy="remove the service, and wait until its containers are removed",
        )
    if not volume.get("dumped") and not without_dump:
        raise StateError(
            "volume.not-dumped",
            f"the volume {name} was never dumped",
            remedy=f"trimtab volume dump {name} -o FILE, or --without-dump",
        )


def users_of(containers: list[Any]) -> dict[str, list[str]]:
    """Return the names of the containers with each volume, by the inventory."""
    users: dict[str, list[str]] = {}
    for item in containers:
        mounts = (item.get("confined") or {}).get("mounts") or ()
        for name in sorted({str(m["source"]) for m in mounts if m.get("type") == "volume"}):
            users.setdefault(name, []).append(str(item["admitted"]["name"]))
    return users


@click.group(
    cls=PassingGroup,
    epilog="""\b
Examples:
  trimtab volume list
  trimtab volume adopt shop_data --as shop/data
  trimtab volume dump db-data -o db-data.tar
  trimtab volume restore db-data db-data.tar --yes
  trimtab volume remove old-data
""",
)
def volume() -> None:
    """List, dump, restore and remove volumes of this instance, and adopt foreign ones."""


@click.group(
    cls=PassingGroup,
    epilog="""\b
Example:
  trimtab network adopt shop_default --as shop/default
""",
)
def network() -> None:
    """Adopt foreign networks."""


@command("""\b
Example:
  trimtab volume list --json | jq '.volumes[] | select(.users == []) | .name'
""")
def list_volumes(state: Path | None, as_json: bool) -> None:
    """List the volumes of this instance: namespace, owner, origin, size, and the containers with them.

    A volume without a size has `-`. The sizes are `unknown` while the engine doesn't answer.
    """
    folder, _ = open_state(state)
    inventory = BrokerApi(folder.broker_socket).get("inventory")
    # The inventory alone lists the volumes, and operators need the list most when the engine is down.
    sizes: dict[str, int] | None = None
    with suppress(EngineError):
        sizes = sizes_of(EngineApi(folder.broker_socket).get("/volumes"))
    users = users_of(inventory["containers"])
    volumes = [
        {
            "name": each["name"],
            "namespace": each["namespace"],
            "owner": each["owner"],
            "origin": "adopted" if each.get("adopted") else each["origin"],
            "sizeBytes": (sizes or {}).get(each["name"]),
            "users": users.get(each["name"], []),
        }
        for each in sorted(inventory["volumes"], key=lambda each: str(each["name"]))
    ]
    no_size = "-" if sizes is not None else "unknown"
    headers = ("NAME", "NAMESPACE", "OWNER", "ORIGIN", "SIZE", "USED BY")
    rows = (
        (
            *(printable(str(each[name])) for name in ("name", "namespace", "owner", "origin")),
            format_bytes(each["sizeBytes"]) if each["sizeBytes"] else no_size,
            printable(", ".join(each["users"])),
        )
        for each in volumes
    )
    report = {"volumes": volumes, "sizesKnown": sizes is not None}
    print_result(report, table(headers, rows) if volumes else "no volumes", as_json=as_json)


volume.add_command(list_volumes, "list")
volume.add_command(adopt_volume, "adopt")
volume.add_command(dump, "dump")
volume.add_command(restore, "restore")
volume.add_command(remove, "remove")
network.add_command(adopt_network, "adopt")
