"""The exit code of ``apply`` and ``approve``."""

from __future__ import annotations

from typing import Any

from controller.cli.exit_codes import EXIT_INVALID, EXIT_NOT_CONVERGED, EXIT_REFUSED


def apply_exit_code(answer: dict[str, Any]) -> int:
    """Return the exit code of ``apply`` and ``approve`` for the controller's answer."""
    status = answer["status"]
    if any(problem["severity"] == "error" for problem in status["problems"]):
        return EXIT_INVALID
    conditions = [c for r in status["resources"] for c in r["conditions"] if c["status"] == "True"]
    if any(c["type"] == "PolicyViolation" for c in conditions):
        return EXIT_REFUSED
    return 0 if answer["converged"] else EXIT_NOT_CONVERGED
