"""``history``: the revisions of a service, and the outcome of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import click

from controller.cli.clients.name_completion import complete_names
from controller.cli.clients.socket_client import ask_controller
from controller.cli.clients.status_report import key_of, matches
from controller.cli.options import command, open_state, print_result
from controller.cli.output.tables import Column, clip, clip_image, terminal_width
from controller.cli.output.tables import render as render_table
from controller.cli.output.terminal import echo
from controller.cli.output.times import current_time, local_time
from controller.cli.output.user_names import with_names
from controller.cli.status.description import occasion_lines, run_lines
from controller.core.encoding.terminal_text import printable, quote_line
from controller.model.errors import EngineUnavailable
from controller.model.names import WORKLOADS, revision_digits
from controller.settings import StateFolder

#: Characters of a failed container's last line.
LINE_MAX = 120
SHORT_COMMIT = 12
COLUMNS = (
    Column("REVISION"),
    Column("GENERATION", rank=3, optional=True),
    Column("SINCE"),
    Column("IMAGE", shrink=clip_image, least=12, rank=1),
    Column("SOURCE", shrink=clip, least=12, rank=2),
    Column("STATE"),
)


@command("""\b
Examples:
  trimtab history web
  trimtab history shop/web --json | jq -r '.revisions[0].digest'
  trimtab history backup                     the last runs of a job
""")
@click.argument("name", shell_complete=complete_names)
def history(name: str, state: Path | None, as_json: bool) -> None:
    """Show the last revisions of a service: start, source, image and outcome; of a job, its runs.

    If nothing runs, the last saved history of a service is shown.
    """
    folder, _ = open_state(state)
    job = _find_job(folder, name)
    if job is not None:
        runs, occasions = job.get("runs", []), job.get("occasions", [])
        width = terminal_width()
        tables = (
            "\n".join(occasion_lines(occasions, width=width)),
            "\n".join(run_lines(runs, now=current_time(), width=width)),
        )
        members = {member: job[member] for member in ("kind", "namespace", "name")}
        members |= {"runs": runs, "occasions": occasions}
        print_result(members, "\n\n".join(filter(None, tables)) or "No runs.", as_json=as_json)
        return
    report = _fetch_history(folder, name)
    print_result(report, render(report, width=terminal_width()), as_json=as_json)


def _find_job(state: StateFolder, name: str) -> dict[str, Any] | None:
    """Return the status of the job NAME; None if nothing runs, or the name is not one job's."""
    try:
        status = ask_controller(state.controller_socket, {"do": "status"})
    except EngineUnavailable:
        return None
    named = [r for r in status["resources"] if r["kind"] in WORKLOADS and matches(r, name)]
    return dict(named[0]) if len(named) == 1 and named[0]["kind"] == "Job" else None


def _fetch_history(state: StateFolder, name: str) -> Any:
    try:
        question = {"do": "history", "key": key_of(state, name), "output": True}
        return ask_controller(state.controller_socket, question)
    except EngineUnavailable as error:
        # The import is slow, and rarely needed.
        from controller.loop.state.saved_state import saved_history

        report = saved_history(state.controller / "state.json", name)
        echo(printable(f"warning: {error.message}; this is what was known last"), err=True)
        return report


def render(report: dict[str, Any], *, width: int | None) -> str:
    """Return the table of revisions, and below the table the operators' overrides."""
    shown = Counter(revision["revision"] for revision in report["revisions"])
    several = {revision for revision, rows in shown.items() if rows > 1}
    rows = [_row(each, several, exact=width is None) for each in report["revisions"]]
    lines = []
    if suspension := report["suspended"]:
        word = "stopped" if suspension.get("stopped") else "suspended"
        lines.append(f"{word} by {suspension['by']} since {suspension['since']}")
    if pin := report["pin"]:
        reason = f": {pin['reason']}" if pin["reason"] else ""
        lines.append(f"rolled back by {pin['by']} since {pin['since']}{reason}")
    if restart := report["restarting"]:
        lines.append(f"restart of {restart['containers']} containers asked by {restart['by']}")
    return with_names("\n".join([render_table(COLUMNS, rows, width=width), *map(printable, lines)]))


def _place(revision: dict[str, Any]) -> str:
    """Return the document's place; of a Git source (``SOURCE:FILE``) with the commit."""
    place = f"{revision['file']}:{revision['line']}"
    if ":" in revision["file"] and revision["commit"]:
        return f"{place} of {revision['commit'][:SHORT_COMMIT]}"
    return place


def _row(revision: dict[str, Any], several: Collection[str], *, exact: bool) -> tuple[str, ...]:
    """Return the row of a revision; *several* are revisions with several sets of limits."""
    states = [state for state in ("current", "pinned") if revision[state]]
    if revision["declared"] and not revision["current"]:
        states.append("declared")
    if revision["revision"] in several and revision.get("limits"):
        states.append(revision["limits"])
    if revision["outcome"]:
        reason = f": {revision['reason']}" if revision["reason"] else ""
        line = revision.get("failure", {}).get("line")
        printed = f"; it printed {quote_line(line, limit=LINE_MAX)}" if line else ""
        states.append(f"{revision['outcome']}{reason}{printed}")
    return (
        revision_digits(str(revision["revision"]))[:8],
        str(revision["generation"]),
        revision["since"] if exact else local_time(revision["since"]),
        revision["image"],
        _place(revision),
        ", ".join(states) or "-",
    )
