"""``journal metrics``: the health of the journal for Prometheus, from the running broker."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from controller.cli.options import command, open_state, print_result
from controller.model.errors import EngineUnavailable

#: Name, help, and member of the broker's health. The broker omits some members for clients.
_METRICS: Final = (
    ("writable", "1 if the last write succeeded; else changes are refused.", "writable"),
    ("reserved", "1 while the rest of the disk isn't for everybody.", "reserved"),
    ("free_bytes", "Free space on the journal's disk.", "freeBytes"),
    ("records", "The last durable record.", "seq"),
    ("signed", "The last record that a checkpoint is of.", "signed"),
    (
        "unrecorded",
        "Refusals since the broker's start that couldn't be recorded.",
        "unrecordedRefusals",
    ),
    ("clock_doubted", "1 while nothing is pruned by age: the clock jumped.", "clockDoubted"),
)


@command(
    """\b
Examples:
  trimtab journal metrics > /tmp/t && mv /tmp/t /var/lib/prometheus/node-exporter/trimtab.prom
""",
)
def metrics(state: Path | None, as_json: bool) -> None:
    """Print metrics of the journal for Prometheus' textfile collector. Asks the running broker.

    If no broker answers, the only metric is trimtab_broker_up, with the value 0.
    """
    from controller.cli.clients.socket_client import BrokerApi

    folder = open_state(state)[0]
    try:
        health = BrokerApi(folder.broker_socket).get("health")
    except EngineUnavailable:
        health = None
    report = {name: value for name, _help, value in gauges_of(health)}
    print_result(report, render(health).rstrip("\n"), as_json=as_json)


def gauges_of(health: Mapping[str, Any] | None) -> list[tuple[str, str, int]]:
    """Return the name, help and value of each metric; *health* is None if no broker answers."""
    journal = health["journal"] if health is not None else {}
    return [
        ("trimtab_broker_up", "1 while the broker answers.", int(health is not None)),
        *_broker_gauges(health or {}),
        *(
            (f"trimtab_journal_{name}", about, int(journal[key]))
            for name, about, key in _METRICS
            if key in journal
        ),
    ]


def _broker_gauges(health: Mapping[str, Any]) -> list[tuple[str, str, int]]:
    if "loop" not in health:
        return []
    stall = "The longest time, in the last one to two minutes, that all connections waited."
    refused = "Connections since the broker's start that got a 503 for want of a place."
    return [
        (
            "trimtab_broker_longest_stall_milliseconds",
            stall,
            int(health["loop"]["longestStallMs"]),
        ),
        ("trimtab_broker_connections_refused", refused, int(health["connections"]["refused"])),
        (
            "trimtab_quota_fullest_percent",
            "How much of the fullest quota is used ('trimtab doctor' names it).",
            max((use["percent"] for use in health["quotas"]["fullest"]), default=0),
        ),
        (
            "trimtab_clients_waiting",
            "Clients that are refused changes because they spent their share.",
            len(health["quotas"]["waiting"]),
        ),
    ]


def render(health: Mapping[str, Any] | None) -> str:
    """Return the metrics in the text format of Prometheus."""
    return "".join(
        f"# HELP {name} {about}\n# TYPE {name} gauge\n{name} {value}\n"
        for name, about, value in gauges_of(health)
    )
