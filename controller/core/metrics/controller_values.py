"""What the controller exposes: the status report in numbers, its counters, and the use of services."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from controller.core.metrics.families import MetricValues
from controller.core.metrics.samples import Use
from controller.core.status.standing import Word, standing_of, worst_of
from controller.model.names import Key


@dataclass(frozen=True, slots=True)
class ControllerFacts:
    """The facts of a controller at a time."""

    #: The status report, with the members ``worst`` and ``severity`` in each row (``core.view.attention``).
    report: Mapping[str, Any]
    is_engine_reachable: bool
    #: When everything was observed last, in Unix time; None before the first time.
    observed_at: float | None
    #: The duration of all passes, in seconds.
    pass_s: float
    #: Keys that wait for a pass.
    queued: int
    #: Failures of each service's containers since the start.
    restarts: Mapping[Key, int] = field(default_factory=dict)
    use: Mapping[Key, Use] = field(default_factory=dict)


def controller_values(facts: ControllerFacts, counted: Counter[tuple[str, ...]]) -> MetricValues:
    """Return the values of the controller's families."""
    rows: Sequence[Mapping[str, Any]] = facts.report["resources"]
    values: dict[tuple[str, ...], float] = {
        ("trimtab_engine_reachable",): facts.is_engine_reachable,
        ("trimtab_pass_seconds_total",): facts.pass_s,
        ("trimtab_queue_keys",): facts.queued,
        ("trimtab_problems",): len(facts.report["problems"]),
        **{key: counted[key] for key in sorted(counted)},
    }
    if facts.observed_at is not None:
        values["trimtab_observed_timestamp_seconds",] = facts.observed_at
    worst = Counter(worst_of(row)[0] for row in rows)
    values |= {("trimtab_resources", name): worst[name] for name in sorted(worst)}
    for source in facts.report.get("sources", ()):
        state = str(source["state"])
        values["trimtab_source_ready", str(source["name"]), state] = state == "Ready"
    urgent = sorted(rows, key=lambda row: row["severity"] != "page")  # stable
    for row in urgent:
        values |= _condition(row)
    for row in rows:
        values["trimtab_resource_ready", *_labels(row)] = standing_of(row).word is Word.AS_DECLARED
    services = [
        Key(row["kind"], row["namespace"], row["name"]) for row in rows if row["kind"] == "Service"
    ]
    for key in services:
        values["trimtab_service_restarts_total", key.namespace, key.name] = facts.restarts.get(
            key, 0
        )
    for key in services:
        if (use := facts.use.get(key)) is not None:
            values["trimtab_service_cpu_seconds_total", key.namespace, key.name] = use.cpu_s
            values["trimtab_service_memory_bytes", key.namespace, key.name] = use.memory_bytes
    return values


def _labels(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["kind"], row["namespace"], row["name"]


def _condition(row: Mapping[str, Any]) -> MetricValues:
    """Return the worst condition of a resource that isn't as declared."""
    name, worst = worst_of(row)
    if not worst or row["severity"] == "ok":
        return {}
    labels = (*_labels(row), name)
    since = datetime.fromisoformat(worst["since"]).timestamp()
    return {
        ("trimtab_resource_condition", *labels, worst["reason"]): 1,
        ("trimtab_resource_condition_since_seconds", *labels): since,
    }
