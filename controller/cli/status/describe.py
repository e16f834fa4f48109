"""``describe``: a resource in full."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from controller.cli.clients.name_completion import complete_names
from controller.cli.clients.socket_client import BrokerApi, ask_controller
from controller.cli.clients.status_report import fetch, key_text, raise_if_unknown, select
from controller.cli.options import command, open_state, print_json, print_result
from controller.cli.output.terminal import echo
from controller.cli.status.description import MARGIN, describe_resource
from controller.cli.status.status import warn_if_outdated
from controller.cli.status.table import TableView, terminal_view
from controller.core.encoding.terminal_text import printable
from controller.core.records.query import Filter
from controller.model.errors import TrimtabError

#: Changes of the journal in the section Events.
EVENTS = 8


@command("""\b
Examples:
  trimtab describe web
  trimtab describe Volume/shop/data
  trimtab describe web --wide                 with ids of containers and of the records that admitted them
  trimtab describe Service/default/web --json
  trimtab describe web --internal             for a report of a fault, as root
""")
@click.argument("name", shell_complete=complete_names)
@click.option("--wide", is_flag=True, help="Show ids, and containers that are about to go.")
@click.option(
    "--internal", is_flag=True, help="Print the controller's state of the resource, as JSON."
)
def describe(name: str, wide: bool, internal: bool, state: Path | None, as_json: bool) -> int:
    """Show a resource in detail: its replicas, limits, conditions, mounts and last changes.

    --internal prints all that the controller has saved or keeps in memory of the resource: retries,
    failures of slots, waits, its last plan. The members can change with each version.
    """
    folder, _ = open_state(state)
    view = terminal_view(wide=wide)
    fetched = fetch(state, now=view.now)
    report = fetched.report
    selected = select(report, name=name)
    if not selected["resources"] and report.get("sources"):
        from controller.cli.status.sources import describe_source, select_source

        source = select_source(report, name)
        if source is not None:
            print_result(source, describe_source(source), as_json=as_json)
            return warn_if_outdated(fetched)
    raise_if_unknown(report, selected, name)
    if internal:
        known = {
            key: ask_controller(folder.controller_socket, {"do": "state", "key": key})
            for key in map(key_text, selected["resources"])
        }
        print_json(known)
        return 0
    items: list[dict[str, Any]] = []
    try:
        items = BrokerApi(folder.broker_socket).get("inventory")["containers"]
    except TrimtabError as error:
        if fetched.lost is None:
            echo(printable(f"warning: the inventory can't be read: {error.message}"), err=True)
    resources = [
        {**resource, "containers": _containers(resource, items)}
        for resource in selected["resources"]
    ]
    if as_json:
        print_json(resources if len(resources) > 1 else resources[0])
        return warn_if_outdated(fetched)
    echo(
        "\n\n".join(
            describe_resource(resource, report, view, events=_events(resource, state, view))
            for resource in resources
        )
    )
    return warn_if_outdated(fetched)


def _containers(resource: dict[str, Any], items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if resource["kind"] != "Service":
        return []
    wanted = (resource["namespace"], resource["name"])
    return [item for item in items if (item["namespace"], item["service"]) == wanted]


def _events(resource: dict[str, Any], state: Path | None, view: TableView) -> list[str]:
    """Return the last changes of a service that are visible to the user."""
    if resource["kind"] != "Service":
        return []
    from controller.cli.journal.filters import CHANGES
    from controller.cli.journal.journal_source import open_source
    from controller.cli.journal.table import clock_for, render_changes

    wanted = Filter(service=f"{resource['namespace']}/{resource['name']}", stages=CHANGES)
    try:
        with open_source(state) as source:
            records = list(source.find(wanted, limit=2 * EVENTS))
    except TrimtabError as error:
        return [printable(f"the journal can't be read: {error.message}")]
    if not records:
        return []
    clock = clock_for(view.now, utc=False, exact=view.width is None)
    width = None if view.width is None else view.width - len(MARGIN)
    return render_changes(records, clock, limit=EVENTS, width=width).split("\n")
