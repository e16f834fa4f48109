"""``ship``: send the journal's records to a SIEM, from a process without privileges."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from controller.cli.clients.socket_client import BrokerApi
from controller.cli.clients.status_report import read_published
from controller.cli.exit_codes import EXIT_ERROR
from controller.cli.invocation import with_program
from controller.cli.options import command, open_state, print_result
from controller.cli.output.tables import table
from controller.cli.output.terminal import echo
from controller.cli.output.times import current_time, span
from controller.core.encoding.terminal_text import printable
from controller.model.errors import EngineUnavailable, TrimtabError
from controller.settings import StateFolder

#: A running shipper writes its status every few seconds.
STALE_S = 30.0


@command(
    """\b
Examples:
  trimtab ship --to siem=syslog+tls://siem.example:6514?ca=/etc/trimtab/siem-ca.pem
  trimtab ship --to archive=file:///var/log/trimtab/journal.jsonl \\
      --to arcsight='syslog+tcp://10.0.0.5:601?format=cef' \\
      --to otel=otlp+https://collector.example:4318/v1/logs
  trimtab ship --to witness=note:///mnt/elsewhere/trimtab.checkpoint
  trimtab ship --status

\b
Exit codes of --status: 0 shown, 1 no shipper runs: its last state is shown.
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
        return _show_status(folder, as_json=as_json)
    if not targets:
        raise click.UsageError("name at least one destination: --to NAME=URL")
    return shipper.ship(folder, instance, targets=targets, user_name=user, metrics=metrics)


def _show_status(folder: StateFolder, *, as_json: bool) -> int:
    """Print the shipper's status; without a shipper the last one, with how far it is behind by now."""
    try:
        status, _ = read_published(folder.ship / "status.json")
        age_s = current_time() - float(status["at"])
        if age_s > STALE_S:
            status = _outdated(status, folder)
        rows = [_row(sink) for sink in status["sinks"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EngineUnavailable(
            "ship.unknown",
            "nothing was shipped from this state folder",
            remedy="start it with 'trimtab ship --to NAME=URL'",
        ) from error
    columns = ("NAME", "RECORD", "BEHIND", "OLDEST", "MISSING", "REJECTED", "ERROR")
    print_result(status, table(columns, rows), as_json=as_json)
    if age_s <= STALE_S:
        return 0
    echo(f"warning: no shipper runs: this is its last state, {span(age_s)} old", err=True)
    echo(with_program("remedy: start it with 'trimtab ship --to NAME=URL'"), err=True)
    return EXIT_ERROR


def _outdated(status: dict[str, Any], folder: StateFolder) -> dict[str, Any]:
    """Return the status of a shipper that ended, with ``running`` and the records since then."""
    last = 0
    with suppress(TrimtabError):  # no broker: how far the journal is isn't known
        last = BrokerApi(folder.broker_socket).get("health")["journal"]["seq"]
    sinks = [
        {**sink, "lag_records": max(sink["lag_records"], last - sink["seq"]), "lag_seconds": None}
        for sink in status["sinks"]
    ]
    return {**status, "running": False, "sinks": sinks}


def _row(sink: dict[str, Any]) -> tuple[str, ...]:
    lag_s = sink["lag_seconds"]
    return (
        str(sink["name"]),
        str(sink["seq"]),
        str(sink["lag_records"]),
        "?" if lag_s is None else f"{lag_s:.0f} s",
        str(sink["missing"]),
        str(sink.get("rejected", 0)),
        printable(sink["error"] or "-"),
    )
