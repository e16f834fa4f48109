"""Adds failed runs to a status report, for a reader with permission to see container output.

A report itself has no output, because every user of the controller's socket can read the report.
``lastFailure`` is added to slots, and the last line of output to the condition about the failure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from controller.core.drift.failed_runs import last_line, run_json
from controller.core.encoding.terminal_text import quote_line
from controller.core.service.overrides import display_name
from controller.core.status.details import Report
from controller.model.container_output import FailedRun
from controller.model.names import Key

LINE_MAX = 120
#: The output of a program that lacks a right.
_LACKS_RIGHTS = re.compile(r"operation not permitted|permission denied", re.IGNORECASE)
RIGHTS_REMEDY = "an image that starts as root needs spec.user or spec.security.capAdd"


def with_last_lines(report: Report, runs: Iterable[FailedRun]) -> Report:
    """Return a copy of a report with *runs* added to its resources."""
    by_key: dict[Key, list[FailedRun]] = {}
    for run in runs:
        by_key.setdefault(run.key, []).append(run)
    resources = report["resources"]
    assert isinstance(resources, list), "a report's resources are a list"
    return {**report, "resources": [_explained(each, by_key) for each in resources]}


def _explained(resource: dict[str, Any], by_key: Mapping[Key, list[FailedRun]]) -> dict[str, Any]:
    runs = by_key.get(Key(resource["kind"], resource["namespace"], resource["name"]))
    if not runs:
        return resource
    last = {run.slot: run for run in runs}
    return {
        **resource,
        "conditions": _with_line(resource, runs),
        "slots": [
            {**row, "lastFailure": run_json(last[row["slot"]])} if row["slot"] in last else row
            for row in resource["slots"]
        ],
    }


def _with_line(resource: dict[str, Any], runs: list[FailedRun]) -> list[dict[str, str]]:
    """Return the conditions, with the last line of a failed run at the end of the condition about
    it.
    """
    conditions: list[dict[str, str]] = resource["conditions"]
    true = {c["type"]: c for c in conditions if c["status"] == "True"}
    for name in ("CrashLoop", "Stalled", "RolledBack", "Degraded"):
        condition = true.get(name)
        if condition is None or not _is_about_failures(condition):
            continue
        # After a rollback, the failed revision is not the running one.
        of_it = [
            run
            for run in runs
            if (run.revision == resource["revision"]) is not (name == "RolledBack")
        ]
        if of_it:
            suffixed = {**condition, "message": f"{condition['message']}{_suffix(of_it[-1])}"}
            return [suffixed if c is condition else c for c in conditions]
    return conditions


def _is_about_failures(condition: Mapping[str, str]) -> bool:
    match condition:
        case {"type": "Stalled", "reason": reason}:
            return reason == "rollout.failed"
        case {"type": "Degraded", "message": message}:
            return "; " in message  # after the count of replicas, what failed
        case _:
            return True


def _suffix(run: FailedRun) -> str:
    hints = [RIGHTS_REMEDY] if any(_LACKS_RIGHTS.search(line.text) for line in run.lines) else []
    hint = f"({'; '.join([*hints, f'trimtab logs --previous {display_name(run.key)}'])})"
    if line := last_line(run):
        return f": {quote_line(line, limit=LINE_MAX)} {hint}"
    return f" {hint}"
