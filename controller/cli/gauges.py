"""``journal metrics``: how the journal is, by the word of the broker that writes it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from controller.cli.common import open_state, state_option
from controller.model.errors import EngineUnavailable

#: Name, what is told of it, and where health tells it. Who is no operator isn't told all.
_METRICS: Final = (
    ("writable", "1 where the last write succeeded; else nothing is changed.", "writable"),
    ("reserved", "1 while the rest of the disk isn't for everybody.", "reserved"),
    ("free_bytes", "What the journal's disk has left.", "freeBytes"),
    ("records", "The last durable record.", "seq"),
    ("signed", "The last record that a checkpoint is of.", "signed"),
    (
        "unrecorded",
        "Refusals since the broker's start that couldn't be recorded.",
        "unrecordedRefusals",
    ),
    ("clock_doubted", "1 while nothing goes by age: the clock jumped.", "clockDoubted"),
)


@click.command(
    epilog="""\b
Examples:
  trimtab journal metrics > /tmp/t && mv /tmp/t /var/lib/prometheus/node-exporter/trimtab.prom
"""
)
@state_option
@click.pass_context
def metrics(ctx: click.Context, state: Path | None) -> None:
    """Print how the journal is, for Prometheus' textfile collector. Asks the running broker.

    Where none answers, that is all that is told: trimtab_broker_up is 0.
    """
    from controller.cli.api import BrokerApi

    given = ctx.parent.params.get("state") if ctx.parent else None
    try:
        told = BrokerApi(open_state(state or given)[0].broker_socket).get("health")
    except EngineUnavailable:
        told = None
    click.echo(render(told), nl=False)


def render(health: Mapping[str, Any] | None) -> str:
    """Return what the broker tells of itself in Prometheus' text format; None: it doesn't answer."""
    journal = health["journal"] if health is not None else {}
    values = [("broker_up", "1 while the broker answers.", health is not None)]
    values += [
        (f"journal_{name}", about, journal[key]) for name, about, key in _METRICS if key in journal
    ]
    return "".join(
        f"# HELP trimtab_{name} {about}\n# TYPE trimtab_{name} gauge\ntrimtab_{name} {int(value)}\n"
        for name, about, value in values
    )
