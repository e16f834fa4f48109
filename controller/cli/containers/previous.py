"""``logs --previous``: the saved last lines of failed containers."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from controller.cli.clients.socket_client import ask_controller
from controller.cli.containers.printing import LineOrigin, LinePrinter
from controller.cli.containers.replicas import ContainerTarget, label_of
from controller.cli.output.terminal import echo
from controller.core.drift import failed_runs
from controller.core.encoding.terminal_text import printable
from controller.model.container_output import FailedRun
from controller.model.errors import EngineUnavailable, StateError
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
        heading = f"{run.container} {run.cause} at {run.at}{note}"
        echo(click.style(printable(heading), bold=True), err=True)
        sys.stderr.flush()
    lines = [line for line in run.lines if line.time >= since]
    for line in lines if tail == "all" else lines[len(lines) - min(int(tail), len(lines)) :]:
        printer.print(_origin(run), line)


def fetch_runs(state: StateFolder) -> list[FailedRun]:
    """Return the saved runs that the caller is allowed to read.

    They come from the running controller, else from its file.
    """
    try:
        answer = ask_controller(state.controller_socket, {"do": "failures"})
    except EngineUnavailable:
        # The import is slow, and rarely needed.
        from controller.loop.state.saved_state import saved_failures

        return list(saved_failures(state.controller / "failures.json"))
    return [failed_runs.from_json(run) for run in answer["runs"]]


def _origin(run: FailedRun) -> LineOrigin:
    label = label_of(run.key.namespace, run.key.name, run.slot, run.container)
    return LineOrigin(label, run.slot, run.container)
