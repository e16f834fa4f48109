"""Names of resources and projects as arguments, with their completion in a shell."""

from __future__ import annotations

from typing import Any

import click

from controller.model.errors import TrimtabError


def _known_resources(ctx: click.Context) -> list[dict[str, Any]]:
    """Return the resources of the running instance; empty if nothing runs."""
    from controller.cli.clients.status_report import fetch_status

    try:
        return list(fetch_status(ctx.params.get("state"))["resources"])
    except (TrimtabError, OSError):
        return []


def complete_names(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of resources of the running instance; empty if nothing runs."""
    return [
        name
        for resource in _known_resources(ctx)
        for name in (resource["name"], f"{resource['namespace']}/{resource['name']}")
        if name.startswith(incomplete)
    ]


def complete_namespaces(
    ctx: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[str]:
    """Return the namespaces of the running instance; empty if nothing runs."""
    names = sorted({resource["namespace"] for resource in _known_resources(ctx)})
    return [name for name in names if name.startswith(incomplete)]


#: The names of services; none for all services of a project.
names_argument = click.argument(
    "names", metavar="[NAME]...", nargs=-1, shell_complete=complete_names
)
#: A project is a namespace.
project_option = click.option(
    "-n",
    "--namespace",
    "--project",
    "namespace",
    metavar="NAMESPACE",
    shell_complete=complete_namespaces,
    help="Only this namespace: a project's name. Without NAME, all of it.",
)
