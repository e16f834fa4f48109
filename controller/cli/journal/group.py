"""``journal``: list, show, explain, follow, export and verify the record of every change.

Root and the broker's user read the files. Other users ask the running broker, and get the part of
the journal that is visible to them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from controller.cli.journal import explain, export, verify
from controller.cli.journal.filters import (
    CHANGES,
    SEQ_MAX,
    filter_options,
    json_line,
    open_source,
    scan_option,
)
from controller.cli.journal.table import (
    clock_for,
    outcomes_of,
    render_changes,
    render_records,
    render_story,
)
from controller.cli.options import DefaultGroup, command
from controller.cli.output.tables import terminal_width
from controller.cli.output.terminal import echo, echo_data
from controller.cli.output.times import current_time
from controller.core.records.query import Filter
from controller.model.errors import StateError


@click.group(
    cls=DefaultGroup,
    default="list",
    epilog="""\b
Examples:
  trimtab journal --since 1h                    what happened lately
  trimtab journal list --service web --verdict deny
  trimtab journal show 41                       one change: who, why, what came of it
  trimtab journal blame web                     which line, commit and actor made web what it is
  trimtab journal state --at 03:10              what was running then
  trimtab journal verify                        nobody changed a record
""",
)
def journal() -> None:
    """Read the record of every change. Without a command: list.

    A user who can't read the broker's files gets the visible records from the broker.
    """


@command(
    """\b
Examples:
  trimtab journal list --since 24h --actor operator
  trimtab journal list --service web --since 03:00 --until 03:20
  trimtab journal list --container web.1-1f0c22aa --json | jq .claims.cause
""",
    name="list",
    short_help="List changes with actor and outcome.",
)
@filter_options
@click.option(
    "--limit",
    type=click.IntRange(min=0, max=SEQ_MAX),
    default=50,
    show_default=True,
    help="0 lists all.",
)
@click.option(
    "--all", "every", is_flag=True, help="Show every record, reads and checkpoints too, one a line."
)
@click.option("--utc", is_flag=True, help="Show times in UTC, as in a pipe and with --json.")
@scan_option
def list_records(
    wanted: Filter,
    limit: int,
    every: bool,
    utc: bool,
    scan: bool,
    state: Path | None,
    as_json: bool,
) -> None:
    """List changes, the newest last, with actor, outcome and reason.

    A change is an intent and its closing record; SEQ is the number of the intent. Reads (such as
    logs) are listed with --actor, --all or --stage, checkpoints with the last two. On a terminal,
    TIME is the local time of day, with the date of any day but today.
    """
    every = every or bool(wanted.stages)  # stages are a property of records, not of changes
    if not every and not as_json:
        # The acts of an actor include reads.
        wanted = replace(wanted, stages=CHANGES | {"read"} if wanted.actor else CHANGES)
    with open_source(state, scan=scan) as source:
        # A change has two records at most.
        records = source.find(wanted, limit=limit if as_json or every else 2 * limit)
        if as_json:
            for record, _ in records:
                echo_data(json_line(record).decode())
            return
        results = list(records)
        if not every and (wanted.verdict or wanted.until):
            results += outcomes_of(source, results)
    width = terminal_width()
    clock = clock_for(current_time(), utc=utc, exact=width is None)
    if not results:
        echo("No records.")
    elif every:
        echo(render_records(results, clock, width=width))
    else:
        echo(render_changes(results, clock, limit=limit, width=width))


@command(
    """\b
Examples:
  trimtab journal show 42
  trimtab journal show 42 --json
""",
    short_help="Show one change in full.",
)
@click.argument("record", metavar="ID|SEQ")
@scan_option
def show(record: str, scan: bool, state: Path | None, as_json: bool) -> None:
    """Show a record, and for a change the request, the verdict and the result."""
    from controller.core.records.query import story as story_of

    with open_source(state, scan=scan) as source:
        story = story_of(source.find, record)
    if story is None:
        raise StateError(
            "record.unknown",
            f"there is no record {record}",
            remedy="'trimtab journal list' shows the last ones",
        )
    if as_json:
        for result in story.found:
            echo_data(json_line(result.record).decode())
    else:
        echo(render_story(story))


for each in (
    *(list_records, show),
    *(explain.explain, explain.blame, explain.state_at),
    *(export.follow, export.export),
    *(verify.verify, verify.keys, verify.rotate_key),
):
    journal.add_command(each)
