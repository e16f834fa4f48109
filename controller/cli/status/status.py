"""``status``: the table of resources with their conditions, and the problems of files."""

from __future__ import annotations

from pathlib import Path

import click

from controller.cli.clients.name_completion import complete_names
from controller.cli.clients.status_report import FetchedReport, fetch, raise_if_unknown, select
from controller.cli.invocation import with_program
from controller.cli.options import command, print_result
from controller.cli.output.terminal import echo
from controller.cli.status.table import render_status, terminal_view
from controller.core.encoding.terminal_text import printable

EXIT_NOTHING_RUNS = 1


@command("""\b
Examples:
  trimtab status
  trimtab status web --watch
  trimtab status -n shop -o wide              with owner, revision and the last output of what failed
  trimtab status --json | jq -r '.problems[] | "\\(.file):\\(.line) \\(.message)"'

\b
Exit codes: 0 shown (whatever it shows), 1 nothing runs: the last known state is shown.
--watch ends with Ctrl-C, which exits with 130.
""")
@click.argument("name", metavar="[NAME]", required=False, shell_complete=complete_names)
@click.option("-n", "--namespace", metavar="NAMESPACE", help="Only this namespace.")
@click.option(
    "-w",
    "--watch",
    is_flag=True,
    help="Redraw it as it changes, until Ctrl-C. In a pipe: a line with the time for each change.",
)
@click.option("--wide", is_flag=True, help="Show owner, revision and the last output, too.")
@click.option("-o", "--output", type=click.Choice(["wide", "json"]), help="As --wide or --json.")
def status(
    name: str | None,
    namespace: str | None,
    watch: bool,
    wide: bool,
    output: str | None,
    state: Path | None,
    as_json: bool,
) -> int:
    """Show every resource with its replicas and conditions, and the problems of files.

    If nothing runs, the last known state is shown.
    """
    as_json = as_json or output == "json"
    view = terminal_view(wide=wide or output == "wide")
    if watch:
        from controller.cli.status.watch import watch_status

        return watch_status(state, name, namespace, wide=view.wide, as_json=as_json)
    fetched = fetch(state, now=view.now)
    selected = select(fetched.report, name=name, namespace=namespace)
    raise_if_unknown(fetched.report, selected, name)
    print_result(selected, render_status(selected, view), as_json=as_json)
    return warn_if_outdated(fetched)


def warn_if_outdated(fetched: FetchedReport) -> int:
    """Print a warning if a report isn't current, and return the exit code of the command."""
    if fetched.lost is None:
        return 0
    echo(printable(f"warning: {fetched.warning}; it may have changed"), err=True)
    if fetched.lost.remedy:
        echo(printable(f"remedy: {with_program(fetched.lost.remedy)}"), err=True)
    return EXIT_NOTHING_RUNS
