"""``describe``: a resource in full, in sections.

The sections of ``describe``; empty sections are omitted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from controller.cli.clients.socket_client import BrokerApi, ask_controller
from controller.cli.clients.status_report import (
    complete_names,
    fetch,
    key_text,
    raise_if_unknown,
    select,
)
from controller.cli.options import command, open_state, print_json, print_result
from controller.cli.output.tables import Cell, Column, clip, render, wrap
from controller.cli.output.terminal import echo
from controller.cli.output.times import age, until, with_names
from controller.cli.status.status import warn_if_outdated
from controller.cli.status.table import (
    StatusJson,
    TableView,
    addresses_of,
    ready_of,
    styled,
    terminal_view,
    urls_in_network,
    word_of,
)
from controller.core.encoding.text import printable, printable_output
from controller.core.records.query import Filter
from controller.model.delivery import short_content
from controller.model.errors import TrimtabError
from controller.model.names import revision_digits
from controller.model.quantities import format_bytes

MARGIN = "  "
SHORT_ID = 12
#: The kinds that services mount.
MOUNTED = frozenset({"Volume", "Config", "Secret"})
_DASH = frozenset({"-", ""})
REPLICAS = (
    Column("SLOT"),
    Column("CONTAINER", shrink=clip, least=16, rank=9),
    Column("STATE", style=styled),
    Column("HEALTH", dull=_DASH, rank=4, optional=True),
    Column("RESTARTS", rank=3, optional=True),
    Column("AGE", rank=5, optional=True),
    Column("ADDRESS", dull=_DASH, rank=2, optional=True),
    Column("URL", dull=_DASH, rank=1, optional=True),
    Column("LAST FAILURE"),
)
RUNS = (
    Column("RUN"),
    Column("REVISION", rank=3, optional=True),
    Column("OCCASION", rank=5, optional=True),
    Column("AGE"),
    Column("OUTCOME"),
    Column("END"),
)
OCCASIONS = (
    Column("OCCASION"),
    Column("REVISION", rank=3, optional=True),
    Column("COMPLETED"),
    Column("FAILED"),
)
ADMITTED = (
    Column("CONTAINER", shrink=clip, least=16, rank=9),
    Column("MEMORY"),
    Column("CPUS"),
    Column("PIDS"),
    Column("NETWORKS"),
)
WIDE_ADMITTED = (Column("ID"), Column("INTENT"))
CONDITIONS = (
    Column("CONDITION"),
    Column("STATUS"),
    Column("SINCE"),
    Column("REASON", rank=1, optional=True),
    Column("MESSAGE"),
)


def describe_resource(
    resource: StatusJson, report: StatusJson, view: TableView, *, events: Sequence[str] = ()
) -> str:
    """Return the sections of a resource. *events* are the lines of its last changes."""
    inner = view.width - len(MARGIN) if view.width is not None else None
    sections: list[tuple[str, Iterable[str]]] = [
        ("", _facts(resource, view)),
        (
            "Containers of runs" if resource["kind"] == "Job" else "Replicas",
            _replicas(resource, view, inner),
        ),
        ("Runs", run_lines(resource.get("runs", []), now=view.now, width=inner)),
        ("Occasions", occasion_lines(resource.get("occasions", []), width=inner)),
        ("Last output", _last_output(resource)),
        ("Admitted", _admitted(resource, view, inner)),
        ("Conditions", _conditions(resource, view, inner)),
        ("Mounts", _mounts(resource)),
        ("From the image, or from the document", _origins(resource)),
        ("Files", _files(resource)),
        ("Environment (names; values aren't shown)", _environment(resource, inner)),
        ("Used by", _users(resource, report)),
        ("Members", _members(resource, report)),
        ("Events", events),
    ]
    lines = [printable(f"{resource['kind']} {resource['namespace']}/{resource['name']}")]
    for title, body in sections:
        body_lines = list(body)
        if body_lines:
            lines += ["", title] if title else []
            lines += [f"{MARGIN}{line}".rstrip() for line in body_lines]
    return "\n".join(lines)


def _facts(resource: StatusJson, view: TableView) -> Iterator[str]:
    rollout = resource.get("rollout")
    unpublished = [
        f"{port['container']}/{port['protocol']} (not published)"
        for port in resource.get("ports", [])
        if "host" not in port
    ]
    facts = [
        ("Condition", styled(word_of(resource))),
        ("Ready", ready_of(resource) if ready_of(resource) != "-" else ""),
        ("Owner", resource.get("owner", "")),
        ("Image", resource.get("image", "")),
        ("Digest", resource.get("digest", "")),
        ("Revision", _revision(resource)),
        ("Source", _source(resource)),
        ("On the engine", resource.get("engineName", "")),
        ("Size", format_bytes(resource["sizeBytes"]) if "sizeBytes" in resource else ""),
        ("Content", short_content(resource.get("content", ""))),
        ("Ports", ", ".join([*addresses_of(resource), *unpublished])),
        ("Rollout", f"{rollout['order']} ({rollout['why']})" if rollout else ""),
        ("Next", resource.get("next", "")),
        ("Next try", _next_try(resource, view)),
    ]
    present = [(name, value) for name, value in facts if value]
    width = max(len(name) for name, _ in present) + 1
    for name, value in present:
        text = value if name == "Condition" else printable(value)
        yield f"{name + ':':<{width}} {text}"


def _origins(resource: StatusJson) -> Iterator[str]:
    """Yield where each setting comes from; of the VOLUMEs of the image, which are covered."""
    origins = dict(resource.get("origins", {}))
    volumes = origins.pop("volumes", {})
    rows = [*origins.items(), *((f"volume {path}", origin) for path, origin in volumes.items())]
    width = max((len(name) for name, _ in rows), default=0) + 1
    for name, origin in rows:
        yield printable(f"{name + ':':<{width}} {origin}")


def _source(resource: StatusJson) -> str:
    """Return the place of a resource that a Git source, or a Compose file, declares."""
    place = resource.get("source")
    if not place:
        return str(resource.get("declared", ""))
    return f"{place['file']}:{place['line']} of {place['commit'][:SHORT_ID]}"


def _revision(resource: StatusJson) -> str:
    if not resource.get("revision"):
        return ""
    short = revision_digits(resource["revision"])[:8]
    generation, observed = resource.get("generation", 0), resource.get("observedGeneration", 0)
    behind = f", of which {observed} is acted on" if observed != generation else ""
    return f"{short}, generation {generation}{behind}"


def _next_try(resource: StatusJson, view: TableView) -> str:
    following = resource.get("nextTry", {})
    when = until(following.get("at", ""), view.now)
    return (
        f"{when}: {following.get('reason', '').partition(chr(10))[0]}".rstrip(": ") if when else ""
    )


def _table(
    columns: Sequence[Column], rows: Sequence[tuple[Cell, ...]], width: int | None
) -> list[str]:
    """Return the lines of a table; none without rows."""
    return render(columns, rows, width=width).split("\n") if rows else []


def _replicas(resource: StatusJson, view: TableView, width: int | None) -> list[str]:
    rows = []
    for slot in resource.get("slots", []):
        again = until(slot.get("nextTry", {}).get("at", ""), view.now)
        ended_well = word_of(resource) == "Completed"
        cause = f"it {slot['cause']}" if slot.get("cause") and not ended_well else ""
        rows.append(
            (
                str(slot["slot"]),
                slot["container"] or "-",
                slot["state"],
                slot.get("health") or "-",
                str(slot["restarts"]),
                age(slot.get("started", ""), view.now),
                ", ".join(each["address"] for each in slot.get("addresses", [])) or "-",
                ", ".join(urls_in_network(resource, slot)) or "-",
                "; ".join(filter(None, (cause, again))),
            )
        )
    return _table(REPLICAS, rows, width)


def run_lines(runs: Sequence[StatusJson], *, now: float, width: int | None) -> list[str]:
    """Return the table of a job's runs that the broker remembers, the latest first; [] without any."""
    rows = [
        (
            str(run["run"]),
            revision_digits(run["revision"])[:8],
            run["occasion"],
            age(run["created"], now),
            run.get("outcome") or "in progress",
            printable(run.get("why", "")),
        )
        for run in reversed(runs)
    ]
    return _table(RUNS, rows, width)


def occasion_lines(occasions: Sequence[StatusJson], *, width: int | None) -> list[str]:
    """Return the table of the occasions of a job with several completions, the latest first.

    [] if one run completes each occasion: the table of runs says as much.
    """
    if all(each["completions"] == 1 for each in occasions):
        return []
    rows = [
        (
            each["occasion"],
            revision_digits(each["revision"])[:8],
            f"{each['succeeded']}/{each['completions']}",
            str(each["failed"]),
        )
        for each in reversed(occasions)
    ]
    return _table(OCCASIONS, rows, width)


def _last_output(resource: StatusJson) -> Iterator[str]:
    for slot in resource.get("slots", []):
        failure = slot.get("lastFailure")
        if not failure:
            continue
        head = f"{failure['container']} {failure['cause']} at {failure['at']}"
        if failure.get("unread"):
            yield printable(f"{head}; {failure['unread']}")
        elif not failure["lines"]:
            yield printable(f"{head}; it printed nothing")
        else:
            yield printable(head)
            output = (printable_output(line["line"], colours=False) for line in failure["lines"])
            yield from (f"| {line}" for line in output)
        for line in failure.get("check", "").splitlines():
            yield f"check: {printable_output(line, colours=False)}"


def _admitted(resource: StatusJson, view: TableView, width: int | None) -> list[str]:
    ids = {slot["id"] for slot in resource.get("slots", []) if slot.get("id")}
    rows = []
    for item in resource.get("containers", []):
        if ids and item["id"] not in ids and not view.wide:
            continue  # the container is removed, or about to be removed
        admitted = item["admitted"]
        wide = (item["id"][:SHORT_ID], item["intent"]) if view.wide else ()
        rows.append(
            (
                *wide,
                admitted["name"],
                format_bytes(admitted["memory"]) if admitted["memory"] else "unlimited",
                f"{admitted['nano_cpus'] / 1e9:g}" if admitted["nano_cpus"] else "unlimited",
                str(admitted["pids"]) if admitted["pids"] else "unlimited",
                ", ".join(admitted["networks"]) or "none",
            )
        )
    return _table((*WIDE_ADMITTED, *ADMITTED) if view.wide else ADMITTED, rows, width)


def _conditions(resource: StatusJson, view: TableView, width: int | None) -> Iterator[str]:
    rows = [
        (
            c["type"],
            c["status"],
            f"{age(c['since'], view.now)} ago" if c["since"] else "-",
            c["reason"] or "-",
            with_names(c["message"].partition("\n")[0]),
        )
        for c in resource["conditions"]
    ]
    yield from _table(CONDITIONS, rows, width)
    logs = dict.fromkeys(c["message"].partition("\n")[2] for c in resource["conditions"])
    for log in filter(None, logs):
        yield from map(printable, log.split("\n"))


def _mounts(resource: StatusJson) -> Iterator[str]:
    for mount in resource.get("mounts", []):
        source = f"{mount['type']} {mount['source']}" if mount.get("source") else mount["type"]
        read_only = " (read-only)" if mount.get("readOnly") else ""
        yield printable(f"{mount['target']}: {source}{read_only}{_content(mount)}")
    for mount in resource.get("volumes", ()):
        source = f"volume {mount['volume']}" if mount["volume"] else "tmpfs"
        yield printable(f"slot {mount['slot']}: {mount['path']}: {source} ({mount['keeping']})")


def _content(mount: StatusJson) -> str:
    """Return the content of a mount of files, and how a change comes into the container."""
    if "content" not in mount:
        return ""
    one = f" (file {mount['key']})" if "key" in mount else ""
    return f"{one}, content {short_content(mount['content'])}, on change: {mount['onChange']}"


def _files(resource: StatusJson) -> Iterator[str]:
    """Yield the files of a Config, or the contents in a service's containers."""
    names = resource.get("files", [])
    if names:
        more = resource.get("fileCount", 0) - len(names)
        yield printable(", ".join(names) + (f" and {more} more" if more > 0 else ""))
    for slot in resource.get("slots", []):
        for each in slot.get("files", []):
            behind = ", no signal for it yet" if "before" in each else ""
            content = short_content(each["content"])
            yield printable(f"{slot['container']}: {each['target']} has {content}{behind}")


def _environment(resource: StatusJson, width: int | None) -> Iterator[str]:
    names = printable(", ".join(resource.get("env", [])))
    yield from wrap(names, width) if width else filter(None, [names])


def _users(resource: StatusJson, report: StatusJson) -> Iterator[str]:
    """Yield the mounts of a Volume, Config or Secret, or the containers in a network."""
    kind = resource["kind"].lower() if resource["kind"] in MOUNTED else ""
    for other in report["resources"]:
        if kind and other["namespace"] == resource["namespace"]:
            for mount in other.get("mounts", []):
                if mount["type"] == kind and mount.get("source") == resource["name"]:
                    yield printable(f"{other['kind']} {other['name']} at {mount['target']}")
        if resource["kind"] == "Network":
            for slot in other.get("slots", []):
                for endpoint in slot.get("addresses", []):
                    if endpoint["network"] == resource.get("engineName"):
                        yield printable(f"{slot['container']} at {endpoint['address']}")


def _members(resource: StatusJson, report: StatusJson) -> Iterator[str]:
    words = {key_text(other): word_of(other) for other in report["resources"]}
    for key in resource.get("members", []):
        yield f"{printable(key)}  {styled(words.get(key, '-'))}"


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
    from controller.cli.journal.filters import CHANGES, open_source
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
