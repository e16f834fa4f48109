"""``status``: the table of resources with their conditions, and the problems of files.

Signed sources for ``doctor``: namespaces with signed admission.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import click

from controller.cli.clients.status_report import (
    FetchedReport,
    complete_names,
    fetch,
    fetch_status,
    project_option,
    raise_if_unknown,
    select,
)
from controller.cli.exit_codes import EXIT_INTERRUPTED, EXIT_NOT_CONVERGED, with_program
from controller.cli.options import command, print_result
from controller.cli.output.terminal import SignalWaiter, echo
from controller.cli.output.times import current_time
from controller.cli.status.live_view import ChangeLines, Screen
from controller.cli.status.table import (
    TableView,
    fit_status,
    render_projects,
    render_status,
    terminal_view,
)
from controller.core.encoding.text import printable
from controller.model.errors import EngineUnavailable
from controller.model.names import short_commit

REFRESH_S = 1.0


def watch_status(
    state: Path | None,
    choose: Callable[[dict[str, Any]], dict[str, Any]],
    *,
    wide: bool,
    as_json: bool,
) -> int:
    """Show the status until Ctrl-C, also while nothing runs; return the exit code of an interrupt.

    *choose* returns a report with the rows to show.

    Raises:
        StateError: there is no instance, or the user isn't allowed to connect.
    """
    signals = SignalWaiter(stop=(signal.SIGINT, signal.SIGTERM), wake=(signal.SIGWINCH,))
    if as_json or not sys.stdout.isatty():
        changes = ChangeLines(as_json=as_json, timestamps=True)
        while not signals.stopped:
            try:
                changes.show(choose(fetch_status(state)))
            except EngineUnavailable as error:
                changes.wait(error)
            signals.wait(REFRESH_S)
        return EXIT_INTERRUPTED
    with Screen(alternate=True) as screen:
        while not signals.stopped:
            report, head = _fetch_report(state)
            view = TableView(screen.width, current_time(), wide)
            screen.draw(f"{head}\n{fit_status(choose(report), view, screen.height - 1)}")
            signals.wait(REFRESH_S)
    return EXIT_INTERRUPTED


def _fetch_report(state: Path | None) -> tuple[dict[str, Any], str]:
    """Return the current or the last known report, and a line with its age."""
    try:
        fetched = fetch(state, now=current_time())
    except EngineUnavailable as error:
        return {"resources": [], "problems": []}, f"waiting: {error.message}"
    if fetched.lost is not None:
        return fetched.report, click.style(fetched.warning, fg="yellow")
    return fetched.report, click.style("every second; Ctrl-C ends", dim=True)


EXIT_NOTHING_RUNS = 1


@command("""\b
Examples:
  trimtab status
  trimtab status web --watch
  trimtab status --projects
  trimtab status -n shop -o wide              with owner, revision and the last output of what failed
  trimtab status --exit-code > /dev/null || alert     for a monitor, or a deployment
  trimtab status --json | jq -r '.problems[] | "\\(.file):\\(.line) \\(.message)"'

\b
Exit codes: 0 shown (whatever it shows), 1 nothing runs: the last known state is shown; or not read yet.
With --exit-code: 0 all is as declared, 5 something isn't, 1 unknown (nothing runs, not read yet, no engine).
--watch ends with Ctrl-C, which exits with 130.
""")
@click.argument("name", metavar="[NAME]", required=False, shell_complete=complete_names)
@project_option
@click.option("--projects", is_flag=True, help="A row for each project, which is a namespace.")
@click.option(
    "-w",
    "--watch",
    is_flag=True,
    help="Redraw it as it changes, until Ctrl-C. In a pipe: a line with the time for each change.",
)
@click.option("--wide", is_flag=True, help="Show owner, revision and the last output, too.")
@click.option("--exit-code", is_flag=True, help="Exit with 5 unless all of it is as declared.")
@click.option("-o", "--output", type=click.Choice(["wide", "json"]), help="As --wide or --json.")
def status(
    name: str | None,
    namespace: str | None,
    projects: bool,
    watch: bool,
    wide: bool,
    exit_code: bool,
    output: str | None,
    state: Path | None,
    as_json: bool,
) -> int:
    """Show every resource with its replicas and conditions, and the problems of files.

    If nothing runs, the last known state is shown.
    """
    as_json = as_json or output == "json"
    view = terminal_view(wide=wide or output == "wide")
    choose = partial(select, name=name, namespace=namespace)
    if watch and exit_code:
        raise click.UsageError("--exit-code asks once, and --watch has no end")
    if watch:
        return watch_status(state, choose, wide=view.wide, as_json=as_json)
    fetched = fetch(state, now=view.now)
    selected = choose(fetched.report)
    raise_if_unknown(fetched.report, selected, name)
    text = render_projects(selected, view) if projects else render_status(selected, view)
    print_result(selected, text, as_json=as_json)
    outdated = warn_if_outdated(fetched)
    if not exit_code:
        return outdated
    return outdated or _exit_code_of(selected, rows_only=bool(name or namespace))


def _exit_code_of(selected: dict[str, Any], *, rows_only: bool) -> int:
    from controller.core.status.standing import Word, everything

    match everything(selected, rows_only=rows_only):
        case Word.AS_DECLARED:
            return 0
        case Word.UNKNOWN:
            return EXIT_NOTHING_RUNS
        case _:
            return EXIT_NOT_CONVERGED


def warn_if_outdated(fetched: FetchedReport) -> int:
    """Print a warning if a report isn't current, and return the exit code of the command."""
    if fetched.lost is None:
        return EXIT_NOTHING_RUNS if "unread" in fetched.report else 0
    echo(printable(f"warning: {fetched.warning}; it may have changed"), err=True)
    if fetched.lost.remedy:
        echo(printable(f"remedy: {with_program(fetched.lost.remedy)}"), err=True)
    return EXIT_NOTHING_RUNS


Level = Literal["ok", "warning"]


def signed_rows(proofs: Mapping[str, Any]) -> Iterator[tuple[Level, str, str]]:
    """Yield level, message and remedy for each signed source in the answer of ``GET proofs``."""
    for each in proofs.get("sources") or ():
        where = f"{', '.join(each['namespaces'])} (Source {each['source']})"
        commit, rendered = str(each["commit"]), str(each["rendered"])
        if not commit:
            message = f"{where}: no commit was accepted, so the controller can change nothing"
            yield "warning", message, "'trimtab status' says why the source has no proof"
        elif rendered != commit:
            message = f"{where}: the broker has no proof of {short_commit(commit)}"
            yield "warning", message, "nothing, if the broker started just now; else see the status"
        else:
            message = (
                f"{where}: only what {short_commit(commit)} declares, signed by {each['signer']}"
            )
            yield "ok", message, ""
        if line := each.get("line"):
            other = f"{short_commit(str(line['commit']))}, signed by {line['signer']}"
            message = f"{where}: {other}, isn't a descendant of it"
            remedy = f"after a rewritten history: trimtab source accept {each['source']} COMMIT"
            yield "warning", message, remedy
        for key, why in sorted((each.get("unsupported") or {}).items()):
            yield "warning", f"{key} can't be proven: {why}", "see docs/policy.md, signed admission"
