"""Completion of the names of resources in a shell."""

from __future__ import annotations

import click

from controller.model.errors import TrimtabError


def complete_names(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of resources of the running instance; empty if nothing runs."""
    from controller.cli.clients.status_report import fetch_status

    try:
        resources = fetch_status(ctx.params.get("state"))["resources"]
    except (TrimtabError, OSError):
        return []
    return [
        name
        for resource in resources
        for name in (resource["name"], f"{resource['namespace']}/{resource['name']}")
        if name.startswith(incomplete)
    ]
