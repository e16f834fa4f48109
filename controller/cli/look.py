"""``status`` and ``describe``: looking, never acting."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from controller.cli.api import BrokerApi, ask_controller
from controller.cli.common import (
    json_option,
    open_state,
    print_json,
    shorten,
    state_option,
    styled,
    table,
)
from controller.model.errors import EngineUnavailable, Problem, TrimtabError

#: Kinds of which there can be more or less than all.
COUNTED = ("Service", "Release")
CONDITIONS_SHOWN = (
    "Stalled",
    "CrashLoop",
    "Paused",
    "PrunePending",
    "Quarantined",
    "PolicyViolation",
    "PolicyWarning",
    "Degraded",
    "Suspended",
    "RolledBack",
    "Contended",
)
#: Reasons of Progressing that are told beside what is grave; all but the first where nothing else is.
_WHY = ("Pulling", "Retrying", "Waiting")


def fetch_status(state: Path | None) -> dict[str, Any]:
    """Return the running controller's status, with what ails its broker among the problems.

    Raises:
        EngineUnavailable: no controller runs.
    """
    found, _ = open_state(state)
    answer = ask_controller(found.controller_socket, {"do": "status"})
    assert isinstance(answer, dict)
    return {**answer, "problems": [*broker_problems(found.broker_socket), *answer["problems"]]}


def broker_problems(path: Path) -> list[dict[str, Any]]:
    """Return what the broker says is wrong with itself; none where it can't be asked."""
    try:
        health = BrokerApi(path).get("health")
    except TrimtabError:
        return []  # the controller misses it too, and says so
    found = []
    if not health["journal"]["writable"]:
        message = (
            f"nothing is changed while the journal can't be written: {health['journal']['error']}"
        )
        remedy = "free space under the state folder, or make it writable; no restart is needed"
        found.append(Problem("journal.unavailable", message, remedy=remedy))
    elif health["journal"].get("reserved"):
        message = "the journal's disk is almost full: clients are refused, refusals not recorded"
        remedy = "free space under the state folder; no restart is needed"
        found.append(Problem("journal.reserved", message, remedy=remedy))
    if health["policy"]["error"]:
        message = f"the last good policy stays in force: {health['policy']['error']}"
        remedy = "mend the policy's file, then send the broker SIGHUP"
        found.append(Problem("policy.invalid", message, remedy=remedy))
    if health["registryAuth"]["error"]:
        message = f"the last good credentials stay in use: {health['registryAuth']['error']}"
        remedy = "mend the file: it is read again by itself at the next pull"
        found.append(Problem("registry-auth.invalid", message, remedy=remedy))
    if some := health.get("rivals", {}).get("some"):
        made = ", ".join(sorted(name or identifier[:12] for identifier, name in some.items()))
        message = f"nothing is changed: another broker of this instance made {made}"
        remedy = "see 'trimtab doctor'"
        found.append(Problem("state.forked", message, remedy=remedy))
    if not found:
        return []
    from controller.core.text import problem_json  # loads much, and all is well most times

    return [problem_json(problem) for problem in found]


def conditions_of(resource: dict[str, Any]) -> list[dict[str, str]]:
    """Return the conditions that hold and that a person should know, the gravest first."""
    true = {c["type"]: c for c in resource["conditions"] if c["status"] == "True"}
    named = [true[name] for name in CONDITIONS_SHOWN if name in true]
    progressing = true.get("Progressing", {})
    # That too little serves says nothing of why: what is waited for does.
    unexplained = [c["type"] for c in named] == ["Degraded"]
    if progressing.get("reason") in (_WHY if unexplained else _WHY[:1]):
        named.append(progressing)
    if named:
        return named
    for name in ("Ready", "Progressing"):
        if name in true:
            return [true[name]]
    ready = [c for c in resource["conditions"] if c["type"] == "Ready"]
    return ready[:1]


def message_of(resource: dict[str, Any], shown: list[dict[str, str]]) -> str:
    """Return what a line says of a resource: that another revision serves, and its conditions."""
    earlier = resource.get("earlier", 0)
    count = f"another revision serves {earlier} of {resource['desired']}" if earlier else ""
    return "; ".join(filter(None, (count, told_of(shown))))


def told_of(shown: list[dict[str, str]]) -> str:
    """Return what conditions say, each thing once."""
    words = {c["type"] for c in shown}
    # A stall that has a condition of its own says what that does, as of the last pass.
    own = [c for c in shown if not (c["type"] == "Stalled" and c["reason"] in words)]
    told = dict.fromkeys(c["message"] for c in own if c["message"])
    return "; ".join(m for m in told if not any(m != other and m in other for other in told))


def word_of(condition: dict[str, str]) -> str:
    """Return the one word that stands for a condition in a table."""
    if condition["status"] == "True":
        return condition["type"]
    return "NotReady" if condition["type"] == "Ready" else f"Not{condition['type']}"


def render_status(status: dict[str, Any], *, name: str | None = None) -> str:
    """Return the table of resources and, below it, the problems."""
    rows = []
    for resource in status["resources"]:
        if name is not None and not matches(resource, name):
            continue
        shown = conditions_of(resource)
        replicas = (
            f"{resource['ready']}/{resource['desired']}" if resource["kind"] in COUNTED else "-"
        )
        rows.append(
            (
                resource["kind"],
                resource["namespace"],
                resource["name"],
                replicas,
                resource.get("image") or "-",
                ",".join(styled(word_of(c)) for c in shown) or "-",
                shorten(message_of(resource, shown)),
            )
        )
    headers = ("KIND", "NAMESPACE", "NAME", "READY", "IMAGE", "CONDITION", "MESSAGE")
    parts = [table(headers, rows) if rows else "No resources."]
    for problem in status["problems"]:
        place = place_of(problem)
        parts.append(
            f"{click.style('problem', fg='red')} {place + ': ' if place else ''}"
            f"{problem['message']} [{problem['code']}]"
            + (f"\n        expected: {problem['expected']}" if problem.get("expected") else "")
            + (f"\n        remedy: {problem['remedy']}" if problem.get("remedy") else "")
        )
    return "\n".join(parts)


def place_of(problem: dict[str, Any]) -> str:
    """Return ``FILE:LINE:COLUMN``, or as much of it as a problem has."""
    return ":".join(str(problem[part]) for part in ("file", "line", "column") if problem.get(part))


def matches(resource: dict[str, Any], name: str) -> bool:
    """Tell whether ``NAME``, ``NAMESPACE/NAME`` or ``KIND/NAMESPACE/NAME`` means a resource."""
    full = (resource["kind"], resource["namespace"], resource["name"])
    wanted = tuple(name.split("/"))
    return full[-len(wanted) :] == wanted if len(wanted) <= len(full) else False


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
            click.echo(render_status(shown))
        if not watch:
            return 0
        time.sleep(1.0)


@click.command(
    epilog="""\b
Examples:
  trimtab describe web
  trimtab describe Service/default/web --json
"""
)
@click.argument("name")
@state_option
@json_option
def describe(name: str, state: Path | None, as_json: bool) -> int:
    """Show one resource in full: conditions, replicas, and what its containers were admitted with."""
    found, _ = open_state(state)
    shown = fetch_status(state)
    resources = [r for r in shown["resources"] if matches(r, name)]
    if not resources:
        raise click.ClickException(f"there is no resource {name!r}; see 'trimtab status'")
    items: list[dict[str, Any]] = []
    try:
        items = BrokerApi(found.broker_socket).get("inventory")["containers"]
    except (EngineUnavailable, TrimtabError) as error:
        click.echo(f"warning: the inventory can't be read: {error}", err=True)
    described = [{**resource, "containers": _containers(resource, items)} for resource in resources]
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
