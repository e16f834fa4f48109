"""``volume remove``: remove a volume that nothing uses, after a dump."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from controller.cli.clients.engine_api import EngineApi
from controller.cli.clients.socket_client import BrokerApi
from controller.cli.options import command, open_state, print_result
from controller.cli.volume.hold import confirm
from controller.core.encoding.terminal_text import printable
from controller.model.errors import StateError


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

    The volume must have been dumped, and no container may have it, stopped ones included. trimtab
    removes no volume by itself, whatever becomes of the documents.
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
        confirm(name, "removed", f"Remove the volume {printable(name)} ({since})?")
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
