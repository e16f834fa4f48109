"""Adds failed runs to a report, for a reader who is allowed to see their output.

A report itself has no output in it: it is published, and anybody who reaches the controller's socket
may ask for it. This adds ``lastFailure`` to slots, and the last line to the condition that it explains.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from controller.core.drift.failed_runs import last_line, shown
from controller.core.encoding.terminal_text import quote_line
from controller.core.service.overrides import display_name
from controller.core.status.details import Report
from controller.model.container_output import FailedRun
from controller.model.names import Key

LINE_MAX = 120


def with_last_lines(report: Report, runs: Iterable[FailedRun]) -> Report:
    """Return a report with what *runs* say of its resources; the given one stays as it is."""
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
            {**row, "lastFailure": shown(last[row["slot"]])} if row["slot"] in last else row
            for row in resource["slots"]
        ],
    }


def _with_line(resource: dict[str, Any], runs: list[FailedRun]) -> list[dict[str, str]]:
    """Return the conditions; the one that a failed run explains ends with its last line."""
    conditions: list[dict[str, str]] = resource["conditions"]
    true = {c["type"]: c for c in conditions if c["status"] == "True"}
    for name in ("CrashLoop", "Stalled", "RolledBack", "Degraded"):
        condition = true.get(name)
        if condition is None or not _is_about_failures(condition):
            continue
        # After a rollback it is another revision than the one that runs which failed.
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
    hint = f"(trimtab logs --previous {display_name(run.key)})"
    if line := last_line(run):
        return f": {quote_line(line, limit=LINE_MAX)} {hint}"
    return f" {hint}"
