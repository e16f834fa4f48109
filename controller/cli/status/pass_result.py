"""The result of a pass that a command waited for: one line, the resources that aren't Ready, an exit code."""

from __future__ import annotations

from typing import Any

import click

from controller.cli.exit_codes import EXIT_INVALID, EXIT_NOT_CONVERGED, EXIT_REFUSED
from controller.cli.output.tables import terminal_width
from controller.cli.status.conditions import is_settled
from controller.cli.status.problems import render_problems
from controller.cli.status.table import show_status


def show_done(answer: dict[str, Any], *, verbose: bool = False) -> None:
    """Print what a pass came to: its summary, and the resources that aren't Ready, or all."""
    click.echo(done_text(answer))
    status = answer["status"]
    unsettled = [resource for resource in status["resources"] if not is_settled(resource)]
    shown = status["resources"] if verbose else unsettled
    if shown:
        show_status({**status, "resources": shown})
    else:
        for line in render_problems(status["problems"], width=terminal_width()):
            click.echo(line)


def done_text(answer: dict[str, Any]) -> str:
    """Return one line on what a pass came to."""
    took, summary = _duration(answer["seconds"]), answer["summary"]["text"]
    if not answer["converged"]:
        before = (
            f"; done within the last minute: {answer['recently']}" if "recently" in answer else ""
        )
        return f"Done in {took}: {summary}{before}."
    if answer["acts"]:
        return f"Applied in {took}: {summary}."
    if "recently" in answer:
        return f"Nothing left to do; done within the last minute: {answer['recently']}."
    return "Nothing to do."


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


def exit_code_of(answer: dict[str, Any]) -> int:
    """Return apply's exit code for the controller's answer: the first that holds."""
    status = answer["status"]
    if any(problem["severity"] == "error" for problem in status["problems"]):
        return EXIT_INVALID
    conditions = [c for r in status["resources"] for c in r["conditions"] if c["status"] == "True"]
    if any(c["type"] == "PolicyViolation" for c in conditions):
        return EXIT_REFUSED
    return 0 if answer["converged"] else EXIT_NOT_CONVERGED
