"""``describe``: one resource in full."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from controller.cli.clients.name_completion import complete_names
from controller.cli.clients.socket_client import BrokerApi
from controller.cli.clients.status_report import fetch, raise_if_unknown, select
from controller.cli.options import json_option, open_state, print_json, state_option
from controller.cli.status.description import MARGIN, describe_resource
from controller.cli.status.status import end_of
from controller.cli.status.table import TableView, terminal_view
from controller.core.records.query import Filter
from controller.model.errors import TrimtabError

#: Changes of the journal that are shown.
EVENTS = 8


@click.command(
    epilog="""\b
Examples:
  trimtab describe web
  trimtab describe Volume/shop/data
  trimtab describe web --wide                 with ids of containers and of the records that admitted them
  trimtab describe Service/default/web --json
"""
)
@click.argument("name", shell_complete=complete_names)
@click.option("--wide", is_flag=True, help="Show ids, and containers that are about to go.")
@state_option
@json_option
@click.pass_context
def describe(ctx: click.Context, name: str, wide: bool, state: Path | None, as_json: bool) -> int:
    """Show one resource in detail: its replicas, limits, conditions, mounts and last changes."""
    found, _ = open_state(state)
    view = terminal_view(wide=wide)
    fetched = fetch(state, now=view.now)
    report = fetched.report
    chosen = select(report, name=name)
    raise_if_unknown(report, chosen, name)
    items: list[dict[str, Any]] = []
    try:
        items = BrokerApi(found.broker_socket).get("inventory")["containers"]
    except TrimtabError as error:
        if fetched.lost is None:
            click.echo(f"warning: the inventory can't be read: {error.message}", err=True)
    described = [
        {**resource, "containers": _containers(resource, items)} for resource in chosen["resources"]
    ]
    if as_json:
        print_json(described if len(described) > 1 else described[0])
        return end_of(fetched)
    click.echo(
        "\n\n".join(
            describe_resource(resource, report, view, events=_events(ctx, resource, state, view))
            for resource in described
        )
    )
    return end_of(fetched)


def _containers(resource: dict[str, Any], items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if resource["kind"] != "Service":
        return []
    wanted = (resource["namespace"], resource["name"])
    return [item for item in items if (item["namespace"], item["service"]) == wanted]


def _events(
    ctx: click.Context, resource: dict[str, Any], state: Path | None, view: TableView
) -> list[str]:
    """Return the last changes of a service, as far as this user may know of them."""
    if resource["kind"] != "Service":
        return []
    from controller.cli.journal.filters import CHANGES
    from controller.cli.journal.source import open_source
    from controller.cli.journal.table import clock_for, render_changes

    wanted = Filter(service=f"{resource['namespace']}/{resource['name']}", stages=CHANGES)
    try:
        with open_source(ctx, state) as source:
            found = list(source.find(wanted, limit=2 * EVENTS))
    except TrimtabError as error:
        return [f"the journal can't be read: {error.message}"]
    if not found:
        return []
    clock = clock_for(view.now, utc=False, exact=view.width is None)
    width = None if view.width is None else view.width - len(MARGIN)
    return render_changes(found, clock, limit=EVENTS, width=width).split("\n")
