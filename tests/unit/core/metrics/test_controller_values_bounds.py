"""The bounds of a scrape, met by hosts of a thousand services and by hostile desired states."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from controller.core.metrics.controller_values import ControllerFacts, controller_values
from controller.core.metrics.families import (
    BOUNDS,
    MetricsOwner,
    ProcessFacts,
    series_of,
    text_of,
)
from controller.core.metrics.samples import Use
from controller.model.names import Key

SINCE = "2026-03-01T00:00:00Z"
MEBIBYTE = 1 << 20
HOSTILE = '"}\n# TYPE x counter\nx 1\\' + "é" * 300


def scrape(rows: list[dict[str, Any]]) -> str:
    """Return the controller's text about services with all that a service can have."""
    keys = [Key(row["kind"], row["namespace"], row["name"]) for row in rows]
    facts = ControllerFacts(
        {"resources": rows, "problems": []},
        is_engine_reachable=True,
        observed_at=1.0,
        pass_s=1.0,
        queued=0,
        restarts=dict.fromkeys(keys, 1),
        use={key: Use(cpu_s=1.5, memory_bytes=1 << 30) for key in keys},
    )
    process = ProcessFacts("1", 0.0, 0, 0.0)
    return text_of(MetricsOwner.CONTROLLER, controller_values(facts, Counter()), process)


def row(namespace: str, name: str, reason: str = "image.registry", worst: str = "Stalled") -> Any:
    conditions = [{"type": worst, "status": "True", "reason": reason, "since": SINCE}]
    return {
        "kind": "Service",
        "namespace": namespace,
        "name": name,
        "severity": "warning",
        "worst": worst,
        "conditions": conditions,
    }


ROWS = {
    "a thousand services, each tenth failing": [
        {**row(f"team-{n % 12}", f"s{n}"), "severity": "warning" if n % 10 == 0 else "ok"}
        for n in range(1_000)
    ],
    "ten thousand services in as many namespaces, with the longest names": [
        row(f"{n}-".ljust(63, "n"), f"{n}-".ljust(63, "s")) for n in range(10_000)
    ],
    "texts that would end a label, a line and a family": [
        row(f"n{n}{HOSTILE}", f"{n}{HOSTILE}", HOSTILE, f"C{n}{HOSTILE}") for n in range(5_000)
    ],
}


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_a_scrape_keeps_its_bounds_and_says_what_it_leaves_out(rows: list[Any]) -> None:
    text = scrape(rows)
    series = series_of(text)
    assert len(text.encode()) <= MEBIBYTE
    assert len(series) <= BOUNDS[MetricsOwner.CONTROLLER].series + 1, "one tells of the rest"
    names = Counter((each["name"], *sorted(each["labels"].items())) for each in series)
    assert [name for name, count in names.items() if count > 1] == []
    dropped = next(each for each in series if each["name"] == "trimtab_series_dropped")["value"]
    assert (dropped > 0) is (len(rows) > 1_000)
