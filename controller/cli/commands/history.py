"""``history``: the revisions of a service, and what became of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from controller.cli.clients.name_completion import complete_names
from controller.cli.clients.socket_client import ask_controller
from controller.cli.clients.status_report import key_of
from controller.cli.options import json_option, open_state, print_json, state_option
from controller.cli.output.tables import Column, clip, clip_image, terminal_width
from controller.cli.output.tables import render as render_table
from controller.cli.output.times import local_time
from controller.cli.output.user_names import with_names
from controller.core.encoding.terminal_text import printable, quote_line
from controller.model.errors import EngineUnavailable
from controller.settings import StateFolder

#: Of the last line of a failed container.
LINE_MAX = 120
COLUMNS = (
    Column("REVISION"),
    Column("GENERATION", rank=3, optional=True),
    Column("SINCE"),
    Column("IMAGE", shrink=clip_image, least=12, rank=1),
    Column("SOURCE", shrink=clip, least=12, rank=2),
    Column("STATE"),
)


@click.command(
    epilog="""\b
Examples:
  trimtab history web
  trimtab history shop/web --json | jq -r '.revisions[0].digest'
"""
)
@click.argument("name", shell_complete=complete_names)
@state_option
@json_option
def history(name: str, state: Path | None, as_json: bool) -> int:
    """Show the last revisions of a service: since when, from where, and how they did.

    Where nothing runs, it is told from what was known last.
    """
    found, _ = open_state(state)
    told = _fetched(found, name)
    if as_json:
        print_json(told)
    else:
        click.echo(render(told, width=terminal_width()))
    return 0


def _fetched(state: StateFolder, name: str) -> Any:
    try:
        question: dict[str, object] = {
            "do": "history",
            "key": key_of(state, name),
            "output": True,
        }
        return ask_controller(state.controller_socket, question)
    except EngineUnavailable as error:
        # Slow to load, and rarely needed.
        from controller.loop.state.saved_state import saved_history

        told = saved_history(state.controller / "state.json", name)
        click.echo(f"warning: {error.message}; this is what was known last", err=True)
        return told


def render(told: dict[str, Any], *, width: int | None) -> str:
    """Return the table of revisions, and below it what people want of the service."""
    rows = [_row(each, exact=width is None) for each in told["revisions"]]
    lines = []
    if told["suspended"]:
        lines.append(f"suspended by {told['suspended']['by']} since {told['suspended']['since']}")
    if told["pin"]:
        why = f": {told['pin']['reason']}" if told["pin"]["reason"] else ""
        lines.append(f"rolled back by {told['pin']['by']} since {told['pin']['since']}{why}")
    if told["restarting"]:
        count = told["restarting"]["containers"]
        lines.append(f"restart of {count} containers asked by {told['restarting']['by']}")
    return with_names("\n".join([render_table(COLUMNS, rows, width=width), *map(printable, lines)]))


def _row(each: dict[str, Any], *, exact: bool) -> tuple[str, ...]:
    digits = str(each["revision"]).removeprefix("v1:")[:8]
    source = f"{each['file']}:{each['line']}"
    words = [word for word in ("current", "pinned") if each[word]]
    if each["declared"] and not each["current"]:
        words.append("declared")
    if each["outcome"]:
        why = f": {each['reason']}" if each["reason"] else ""
        line = each.get("failure", {}).get("line")
        printed = f"; it printed {quote_line(line, limit=LINE_MAX)}" if line else ""
        words.append(f"{each['outcome']}{why}{printed}")
    return (
        digits,
        str(each["generation"]),
        each["since"] if exact else local_time(each["since"]),
        each["image"],
        source,
        ", ".join(words) or "-",
    )
