"""``logs``: the output of containers, and the last output of failed containers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from controller.cli.clients.engine_api import EngineApi
from controller.cli.clients.name_completion import complete_names
from controller.cli.clients.socket_client import ask_controller
from controller.cli.containers.follow import LogFollower
from controller.cli.containers.log_reader import print_logs
from controller.cli.containers.printing import LineOrigin, LinePrinter
from controller.cli.containers.replicas import ContainerTarget, find_replicas, label_of
from controller.cli.journal.filters import current_timestamp, time_option
from controller.cli.options import command, open_state
from controller.cli.output.terminal import echo
from controller.core.encoding.terminal_text import printable
from controller.core.engine_api.streams.log_stream import engine_time
from controller.model.container_output import FailedRun
from controller.model.errors import EngineUnavailable, StateError, UsageError
from controller.settings import StateFolder


def print_previous(
    state: StateFolder,
    targets: Sequence[ContainerTarget],
    printer: LinePrinter,
    *,
    tail: str,
    since: str,
) -> None:
    """Print the last failed run of each slot, with a heading on standard error.

    Raises:
        StateError: a target has no saved run, or the caller isn't allowed to read it.
    """
    saved = fetch_runs(state)
    for target in targets:
        runs = select(saved, target)
        if not runs:
            raise StateError(
                "failure.none",
                f"no failed container of {target.text} is kept, or this user is not allowed to read it",
                remedy=f"see what its containers print now: 'trimtab logs {target.text}'",
            )
        printer.expect([_origin(run).label for run in runs])
        for run in runs:
            print_run(run, printer, tail=tail, since=since)


def select(runs: Sequence[FailedRun], target: ContainerTarget) -> list[FailedRun]:
    """Return the last failed run of each slot of a target."""
    # Only --previous reads saved runs, whose types take most of the start.
    from controller.core.drift import failed_runs

    return failed_runs.latest_by_slot(
        run
        for run in runs
        if target.matches(
            namespace=run.key.namespace, service=run.key.name, slot=run.slot, name=run.container
        )
    )


def print_run(run: FailedRun, printer: LinePrinter, *, tail: str, since: str) -> None:
    """Print a run."""
    if not printer.as_json:
        printer.flush()
        note = "" if run.lines else f"; {run.unread or 'it printed nothing'}"
        note = f"{note}; its check printed: {run.check}" if run.check else note
        heading = f"{run.container} {run.cause} at {run.at}{note}"
        echo(click.style(printable(heading), bold=True), err=True)
        sys.stderr.flush()
    lines = [line for line in run.lines if line.time >= since]
    for line in lines if tail == "all" else lines[len(lines) - min(int(tail), len(lines)) :]:
        printer.print(_origin(run), line)


def fetch_runs(state: StateFolder) -> list[FailedRun]:
    """Return the saved runs that the caller is allowed to read.

    The runs come from the running controller, else from the controller's file.
    """
    # Only --previous reads saved runs, whose types take most of the start.
    from controller.core.drift import failed_runs

    try:
        answer = ask_controller(state.controller_socket, {"do": "failures"})
    except EngineUnavailable:
        # The import is slow, and rarely needed.
        from controller.loop.state.saved_state import saved_failures

        return list(saved_failures(state.controller / "failures.json"))
    return [failed_runs.FORM.from_json(run) for run in answer["runs"]]


def _origin(run: FailedRun) -> LineOrigin:
    label = label_of(run.key.namespace, run.key.name, run.slot, run.container)
    return LineOrigin(label, run.slot, run.container)


def tail_option(_ctx: click.Context, _parameter: click.Parameter, value: str) -> str:
    """Return a number of lines, or ``all``."""
    if value != "all" and not (value.isascii() and value.isdigit() and len(value) < 10):
        raise click.BadParameter(f"{value!r} is neither a number of lines nor 'all'")
    return value


@command("""\b
Examples:
  trimtab logs web                       all replicas, interleaved by time
  trimtab logs -f web gateway            and new lines, also of replacement containers
  trimtab logs --tail 100 --since 10m shop/web.2
  trimtab logs --previous web            the last lines of containers that failed
  trimtab logs --json web | jq -r 'select(.stream == "stderr").line'

\b
NAME is a service, NAMESPACE/NAME, one replica as NAME.SLOT, or a container's name. With
more than one replica, NAME.SLOT stands before each line. Lines of stderr go to stderr.
Control characters are shown as \\uNNNN; colours stay on a terminal, unless NO_COLOR is set.

\b
-f also follows the containers that replace the present ones. It ends with Ctrl-C (exit
code 130), or once the service is removed. --previous needs no running instance. The
journal records who read which log.

\b
Exit codes: 0 done, 1 error (no such container, nothing runs), 4 refused, 64 wrong usage.
""")
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete_names)
@click.option("-f", "--follow", is_flag=True, help="Keep printing new lines as they come.")
@click.option(
    "-p", "--previous", is_flag=True, help="Show the last lines of containers that failed."
)
@click.option(
    "-n",
    "--tail",
    metavar="N",
    default="all",
    callback=tail_option,
    help="Only the last N lines of each container.",
)
@click.option(
    "--since",
    metavar="TIME",
    callback=time_option,
    help="Only lines since then: 10m (ago), 7d, 03:12 (UTC, the last), or RFC 3339.",
)
@click.option("-t", "--timestamps", is_flag=True, help="Show the time of each line.")
def logs(
    names: tuple[str, ...],
    follow: bool,
    previous: bool,
    tail: str,
    since: str,
    timestamps: bool,
    state: Path | None,
    as_json: bool,
) -> None:
    """Show the output of the containers of services."""
    if previous and follow:
        raise UsageError(
            "logs.previous",
            "--previous shows ended containers, and can't be combined with --follow",
            remedy="leave out -f",
        )
    targets = [ContainerTarget.parse(name) for name in names]
    printer = LinePrinter(timestamps=timestamps, as_json=as_json)
    folder, _ = open_state(state)
    query = {"stdout": "1", "stderr": "1", "timestamps": "1", "tail": tail}
    if since:
        query["since"] = engine_time(since)
    api = EngineApi(folder.broker_socket)
    if previous:
        print_previous(folder, targets, printer, tail=tail, since=since)
    elif follow:
        LogFollower(
            api, targets, query, printer, folder.controller_socket, began=current_timestamp()
        ).run()
    else:
        print_logs(api, find_replicas(api, targets), query, printer)
    printer.flush()
