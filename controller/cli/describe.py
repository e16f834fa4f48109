"""``describe``: one resource in full."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from controller.cli.api import BrokerApi
from controller.cli.common import json_option, open_state, print_json, state_option
from controller.cli.completion import complete_names
from controller.cli.fetch import fetch_status, raise_if_unknown, select
from controller.model.errors import EngineUnavailable, TrimtabError


@click.command(
    epilog="""\b
Examples:
  trimtab describe web
  trimtab describe Service/default/web --json
"""
)
@click.argument("name", shell_complete=complete_names)
@state_option
@json_option
def describe(name: str, state: Path | None, as_json: bool) -> int:
    """Show one resource in full: conditions, replicas, and what its containers were admitted with."""
    found, _ = open_state(state)
    shown = fetch_status(state)
    chosen = select(shown, name=name)
    raise_if_unknown(shown, chosen, name)
    items: list[dict[str, Any]] = []
    try:
        items = BrokerApi(found.broker_socket).get("inventory")["containers"]
    except (EngineUnavailable, TrimtabError) as error:
        click.echo(f"warning: the inventory can't be read: {error}", err=True)
    described = [
        {**resource, "containers": _containers(resource, items)} for resource in chosen["resources"]
    ]
    if as_json:
        print_json(described if len(described) > 1 else described[0])
        return 0
    for resource in described:
        click.echo(render_resource(resource))
    return 0


def _containers(resource: dict[str, Any], items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if resource["kind"] != "Service":
        return []
    wanted = (resource["namespace"], resource["name"])
    return [item for item in items if (item["namespace"], item["service"]) == wanted]


def render_resource(resource: dict[str, Any]) -> str:
    """Return what ``describe`` shows of one resource, its containers' entries among it."""
    lines = [f"{resource['kind']}/{resource['namespace']}/{resource['name']}"]
    fields = ("owner", "image", "digest", "revision", "generation", "observedGeneration")
    lines += [f"  {field}: {resource[field]}" for field in fields if resource.get(field)]
    if resource["kind"] == "Service":
        earlier = resource.get("earlier", 0)
        beside = f"; another revision serves {earlier}" if earlier else ""
        lines.append(f"  ready: {resource['ready']} of {resource['desired']}{beside}")
    if rollout := resource.get("rollout"):
        lines.append(f"  rollout: {rollout['order']} ({rollout['why']})")
    for each in resource.get("volumes", ()):
        what = f"volume {each['volume']}" if each["volume"] else "tmpfs"
        lines.append(f"  slot {each['slot']}: {each['path']}: {what} ({each['keeping']})")
    lines.append("  conditions:")
    lines += [
        f"    {c['type']}={c['status']} since {c['since'] or '-'}  {c['reason']} {c['message']}".rstrip()
        for c in resource["conditions"]
    ]
    for slot in resource.get("slots", []):
        health = f", {slot['health']}" if slot.get("health") else ""
        lines.append(
            f"  slot {slot['slot']}: {slot['container'] or '-'} {slot['state']}{health}, "
            f"{slot['restarts']} restarts"
            + (f"; why it was down: it {slot['cause']}" if slot.get("cause") else "")
        )
    for item in resource["containers"]:
        admitted = item["admitted"]
        lines.append(
            f"  admitted {admitted['name']} ({item['id'][:12]}): memory {admitted['memory']}, "
            f"cpus {admitted['nano_cpus'] / 1e9:g}, pids {admitted['pids']}, "
            f"networks {', '.join(admitted['networks']) or 'none'}; intent {item['intent']}"
        )
    return "\n".join(lines)
