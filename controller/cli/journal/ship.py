"""``ship``: send the journal's records to a SIEM, from a process without privileges."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from controller.cli.options import command, open_state, print_result
from controller.cli.output.tables import table
from controller.core.encoding.terminal_text import printable
from controller.model.errors import EngineUnavailable


@command(
    """\b
Examples:
  trimtab ship --to siem=syslog+tls://siem.example:6514?ca=/etc/trimtab/siem-ca.pem
  trimtab ship --to archive=file:///var/log/trimtab/journal.jsonl \\
      --to arcsight='syslog+tcp://10.0.0.5:601?format=cef' \\
      --to otel=otlp+https://collector.example:4318/v1/logs
  trimtab ship --to witness=note:///mnt/elsewhere/trimtab.checkpoint
  trimtab ship --status
"""
)
@click.option("--to", "targets", multiple=True, metavar="NAME=URL", help="Where to; repeatable.")
@click.option(
    "--status", "show", is_flag=True, help="Show the position of each destination, and exit."
)
@click.option(
    "--metrics",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write metrics for Prometheus' textfile collector here.",
)
@click.option(
    "--user", metavar="NAME", help="As root: the user of the shipper (default: trimtab-ship)."
)
@click.option("--handed", hidden=True)
def ship(
    targets: tuple[str, ...],
    show: bool,
    metrics: Path | None,
    user: str | None,
    state: Path | None,
    handed: str | None,
    as_json: bool,
) -> int:
    """Ship every record of the journal to other places, at least once and in order.

    Each destination has its own position in the journal, saved across crashes, and its own pace: a
    slow or unreachable destination doesn't delay the others. URLs: file:///PATH (JSON lines),
    note:///PATH (the last signed checkpoint), syslog+tcp://, syslog+tls://, syslog+udp://
    (?format=cef, ?facility=N), otlp+http://, otlp+https://; for TLS ?ca=, ?cert=, ?key=; and
    ?only=checkpoints. As root, a small process opens the files, and a separate user does everything
    else.
    """
    from controller.app import shipper
    from controller.ship.destination import read_destination

    if handed is not None:
        destinations = [read_destination(target) for target in targets]
        return shipper.run_shipper(json.loads(handed), destinations, metrics=metrics)
    folder, instance = open_state(state)
    if show:
        return _show_status(folder.ship / "status.json", as_json=as_json)
    if not targets:
        raise click.UsageError("name at least one destination: --to NAME=URL")
    return shipper.ship(folder, instance, targets=targets, user_name=user, metrics=metrics)


def _show_status(path: Path, *, as_json: bool) -> int:
    try:
        status: dict[str, Any] = json.loads(path.read_text())
        rows = [_row(sink) for sink in status["sinks"]]
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise EngineUnavailable(
            "ship.unknown",
            "nothing was shipped from this state folder",
            remedy="start it with 'trimtab ship --to NAME=URL'",
        ) from error
    columns = ("NAME", "RECORD", "BEHIND", "OLDEST", "MISSING", "REJECTED", "ERROR")
    print_result(status, table(columns, rows), as_json=as_json)
    return 0


def _row(sink: dict[str, Any]) -> tuple[str, ...]:
    return (
        str(sink["name"]),
        str(sink["seq"]),
        str(sink["lag_records"]),
        f"{sink['lag_seconds']:.0f} s",
        str(sink["missing"]),
        str(sink.get("rejected", 0)),
        printable(sink["error"] or "-"),
    )
