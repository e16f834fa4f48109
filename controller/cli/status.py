"""``status``: every resource on one line, what is wrong with it, and the problems of the files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from controller.cli.common import json_option, print_json, state_option
from controller.cli.conditions import message_of, styled, word_of
from controller.cli.fetch import fetch_status, matches, place_of
from controller.cli.tables import Column, clip, clip_image, render, terminal_width

#: Kinds of which there can be more or less than all.
COUNTED = ("Service", "Release")
COLUMNS = (
    Column("KIND"),
    Column("NAMESPACE", dull=frozenset({"default"}), shrink=clip, least=9, rank=2),
    Column("NAME", shrink=clip, least=12, rank=9),
    Column("READY"),
    Column("CONDITION", style=styled),
    Column("IMAGE", shrink=clip_image, least=12, rank=1, optional=True, dull=frozenset({"-"})),
    Column("MESSAGE"),
)


def render_status(status: dict[str, Any], *, width: int | None) -> str:
    """Return the table of resources and, below it, the problems, for a terminal of *width* cells."""
    rows = [_row(resource) for resource in status["resources"]]
    parts = [render(COLUMNS, rows, width=width) if rows else "No resources."]
    for problem in status["problems"]:
        place = place_of(problem)
        parts.append(
            f"{click.style('problem', fg='red')} {place + ': ' if place else ''}"
            f"{problem['message']} [{problem['code']}]"
            + (f"\n        expected: {problem['expected']}" if problem.get("expected") else "")
            + (f"\n        remedy: {problem['remedy']}" if problem.get("remedy") else "")
        )
    return "\n".join(parts)


def show_status(status: dict[str, Any]) -> None:
    """Print a status for standard output as it is."""
    click.echo(render_status(status, width=terminal_width()))


def _row(resource: dict[str, Any]) -> tuple[str, ...]:
    return (
        resource["kind"],
        resource["namespace"],
        resource["name"],
        ready_of(resource),
        word_of(resource),
        resource.get("image") or "-",
        message_of(resource),
    )


def ready_of(resource: dict[str, Any]) -> str:
    """Return how many replicas are ready, of whichever revision, and how many are declared.

    ``2/?`` where the document can't be read, ``2/-`` where no document declares the service.
    """
    if resource["kind"] not in COUNTED:
        return "-"
    ready = resource["ready"] + resource.get("earlier", 0)
    if any(c["type"] == "Ready" and c["reason"] == "Blind" for c in resource["conditions"]):
        return f"{ready}/?"
    return f"{ready}/{resource['desired'] or '-'}" if ready else f"0/{resource['desired']}"


@click.command(
    epilog="""\b
Examples:
  trimtab status
  trimtab status web --watch
  trimtab status --json | jq -r '.problems[] | "\\(.file):\\(.line) \\(.message)"'
"""
)
@click.argument("name", metavar="[NAME]", required=False)
@click.option("--watch", is_flag=True, help="Show it again every second until Ctrl-C.")
@state_option
@json_option
def status(name: str | None, watch: bool, state: Path | None, as_json: bool) -> int:
    """Show every resource, its replicas and conditions, and the problems of the files."""
    while True:
        shown = fetch_status(state)
        if name is not None:
            shown = {**shown, "resources": [r for r in shown["resources"] if matches(r, name)]}
            if not shown["resources"] and not watch:
                raise click.ClickException(f"there is no resource {name!r}; see 'trimtab status'")
        if watch and not as_json:
            click.clear()
        if as_json:
            print_json(shown)
        else:
            show_status(shown)
        if not watch:
            return 0
        time.sleep(1.0)
