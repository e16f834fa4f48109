"""``volume adopt`` and ``network adopt``: take over one foreign object for a document."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import click

from controller.cli.clients.socket_client import BrokerApi, ask_for_look
from controller.cli.clients.status_report import resource_of
from controller.cli.options import command, note_option, open_state, print_result
from controller.core.encoding.terminal_text import printable
from controller.model.errors import EngineUnavailable, UsageError
from controller.model.names import DEFAULT_NAMESPACE

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
    ask_for_look(folder.controller_socket, key)
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
