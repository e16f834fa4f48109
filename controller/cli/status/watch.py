"""``status --watch``: redraw the table on a terminal, print a line for each change in a pipe."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import click

from controller.cli.clients.status_report import fetch, fetch_status, select
from controller.cli.exit_codes import EXIT_INTERRUPTED
from controller.cli.output.signals import SignalWaiter
from controller.cli.output.times import current_time
from controller.cli.status.screen import ChangeLines, Screen
from controller.cli.status.table import TableView, fit_status
from controller.model.errors import EngineUnavailable

REFRESH_S = 1.0


def watch_status(
    state: Path | None, name: str | None, namespace: str | None, *, wide: bool, as_json: bool
) -> int:
    """Show the status until Ctrl-C, also while nothing runs; return the exit code of an interrupt.

    Raises:
        StateError: there is no instance, or the user isn't allowed to connect.
    """
    signals = SignalWaiter(stop=(signal.SIGINT, signal.SIGTERM), wake=(signal.SIGWINCH,))
    if as_json or not sys.stdout.isatty():
        changes = ChangeLines(as_json=as_json, timestamps=True)
        while not signals.stopped:
            try:
                changes.show(select(fetch_status(state), name=name, namespace=namespace))
            except EngineUnavailable as error:
                changes.wait(error)
            signals.wait(REFRESH_S)
        return EXIT_INTERRUPTED
    with Screen(alternate=True) as screen:
        while not signals.stopped:
            report, head = _fetch_report(state)
            selected = select(report, name=name, namespace=namespace)
            view = TableView(screen.width, current_time(), wide)
            screen.draw(f"{head}\n{fit_status(selected, view, screen.height - 1)}")
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
