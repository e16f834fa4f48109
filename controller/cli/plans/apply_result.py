"""The result of ``apply`` and ``approve``: exit code, summary line, and the unready resources."""

from __future__ import annotations

from typing import Any

from controller.cli.exit_codes import EXIT_INVALID, EXIT_NOT_CONVERGED, EXIT_REFUSED
from controller.cli.output.tables import terminal_width
from controller.cli.output.terminal import echo
from controller.cli.status.conditions import is_settled
from controller.cli.status.problems import render_problems
from controller.cli.status.table import show_status
from controller.core.encoding.terminal_text import printable


def apply_exit_code(answer: dict[str, Any]) -> int:
    """Return the exit code of ``apply`` and ``approve`` for the controller's answer."""
    status = answer["status"]
    if any(problem["severity"] == "error" for problem in status["problems"]):
        return EXIT_INVALID
    conditions = [c for r in status["resources"] for c in r["conditions"] if c["status"] == "True"]
    if any(c["type"] == "PolicyViolation" for c in conditions):
        return EXIT_REFUSED
    return 0 if answer["converged"] else EXIT_NOT_CONVERGED


def show_done(answer: dict[str, Any], *, verbose: bool = False) -> None:
    """Print the summary of a pass and the unready resources; all resources if *verbose*."""
    echo(printable(done_text(answer)))
    status = answer["status"]
    unsettled = [resource for resource in status["resources"] if not is_settled(resource)]
    resources = status["resources"] if verbose else unsettled
    if resources:
        show_status({**status, "resources": resources})
    else:
        for line in render_problems(status["problems"], width=terminal_width()):
            echo(line)


def done_text(answer: dict[str, Any]) -> str:
    """Return the summary of a pass in one line."""
    duration, summary = _duration(answer["seconds"]), answer["summary"]["text"]
    if not answer["converged"]:
        recently = (
            f"; done within the last minute: {answer['recently']}" if "recently" in answer else ""
        )
        return f"Done in {duration}: {summary}{recently}."
    if answer["acts"]:
        return f"Applied in {duration}: {summary}."
    if "recently" in answer:
        return f"Nothing left to do; done within the last minute: {answer['recently']}."
    return "Nothing to do."


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
