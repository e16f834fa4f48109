"""``volume`` and ``network``: the groups of commands, and the list of volumes."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import click

from controller.cli.clients.engine_api import EngineApi
from controller.cli.clients.socket_client import BrokerApi
from controller.cli.options import PassingGroup, command, open_state, print_json
from controller.cli.output.tables import table
from controller.cli.output.terminal import echo
from controller.cli.volume.adopt import adopt_network, adopt_volume
from controller.cli.volume.dump import dump
from controller.cli.volume.remove import remove, sizes_of, users_of
from controller.cli.volume.restore import restore
from controller.core.encoding.terminal_text import printable
from controller.model.errors import EngineError
from controller.model.quantities import format_bytes


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
    if as_json:
        print_json({"volumes": volumes, "sizesKnown": sizes is not None})
        return
    if not volumes:
        echo("no volumes")
        return
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
    echo(table(headers, rows))


volume.add_command(list_volumes, "list")
volume.add_command(adopt_volume, "adopt")
volume.add_command(dump, "dump")
volume.add_command(restore, "restore")
volume.add_command(remove, "remove")
network.add_command(adopt_network, "adopt")
