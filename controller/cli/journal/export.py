"""``journal follow`` and ``export``, and ``ship``: records that leave the journal.

``journal follow`` and ``export``: records as they become durable, and records to hand over.

``ship``: send the journal's records to a SIEM, from a process without privileges.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.cli.clients.socket_client import BrokerApi
from controller.cli.clients.status_report import read_published
from controller.cli.exit_codes import EXIT_ERROR, with_program
from controller.cli.journal import filters
from controller.cli.journal.filters import SEQ_MAX, SPAN_OPTIONS, filter_options, time_range
from controller.cli.journal.table import HEADERS, row
from controller.cli.options import command, open_state, print_result
from controller.cli.output.tables import table
from controller.cli.output.terminal import echo, echo_data
from controller.cli.output.times import current_time, span
from controller.core.encoding.text import printable
from controller.core.records.query import Filter, QueryResult
from controller.model.errors import EngineUnavailable, StateError, TrimtabError
from controller.settings import StateFolder, read_in_force

if TYPE_CHECKING:
    from controller.cli.journal.filters import JournalSource
    from controller.journal.verify.verify import Copied


#: Widths of columns; the rows aren't known when the first row is printed.
WIDTHS = (6, 24, 16, 9, 18, 26, 24, 14, 0)
CHECKPOINTS = frozenset({"checkpoint"})
_SEQ = click.IntRange(min=1, max=SEQ_MAX)


@command(
    """\b
Examples:
  trimtab journal follow
  trimtab journal follow --service web --stage refusal --stage violation
  trimtab journal follow --after 4711 --json     every record after that one
""",
)
@filter_options
@click.option(
    "--limit",
    type=click.IntRange(min=0, max=SEQ_MAX),
    default=10,
    show_default=True,
    help="So many of the last records first.",
)
@click.option(
    "--after",
    type=click.IntRange(min=0, max=SEQ_MAX),
    metavar="SEQ",
    help="Begin after this record.",
)
def follow(
    wanted: Filter,
    limit: int,
    after: int | None,
    state: Path | None,
    as_json: bool,
) -> None:
    """Show records as they become durable, until Ctrl-C. Asks the running broker."""
    broker = filters.broker_of(state)
    if not as_json:
        echo(_in_columns(HEADERS))
    if after is None:
        (last, *_) = (*broker.find(Filter(), limit=1), None)
        after = last.record.seq if last is not None else 0
        for result in broker.find(replace(wanted, upto=after), limit=limit) if limit else ():
            _print_record(result, as_json)
    for result in broker.follow(replace(wanted, after=after)):
        _print_record(result, as_json)
    raise EngineUnavailable(
        "broker.ended",
        "the broker ended the connection",
        remedy="see its log, or 'trimtab journal verify'",
    )


def _print_record(result: QueryResult, as_json: bool) -> None:
    if as_json:
        echo_data(filters.json_line(result.record).decode())
    else:
        echo(_in_columns(row(result)))
    sys.stdout.flush()


def _in_columns(cells: tuple[str, ...]) -> str:
    padded = (f"{cell:<{width}}" for cell, width in zip(cells, WIDTHS, strict=True))
    return "   ".join(padded).rstrip()


@command(
    """\b
Examples:
  trimtab journal export > journal.jsonl
  trimtab journal export --since 1d --until 1h
  trimtab journal export --from 120000 --to 121000 --exact
  trimtab journal export --since 7d --folder /srv/audit/week
""",
    short_help="Print records to hand over, with the checkpoints that sign them.",
)
@click.option("--from", "first", type=_SEQ, metavar="SEQ", help="From this record.")
@click.option("--to", "last", type=_SEQ, metavar="SEQ", help="To this record.")
@SPAN_OPTIONS[0]
@SPAN_OPTIONS[1]
@click.option(
    "--exact", is_flag=True, help="Only these records, without the checkpoints around them."
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write whole segments there, for 'journal verify --journal'.",
)
def export(
    first: int | None,
    last: int | None,
    since: str,
    until: str,
    exact: bool,
    folder: Path | None,
    state: Path | None,
    as_json: bool,
) -> None:
    """Print the journal's lines: all, or the records between two numbers or times.

    The range is widened to the checkpoint before the first record and the checkpoint after the
    last, since these sign the records between them. With --folder, the whole segments of the range
    are written.
    """
    since, until = time_range(since, until)
    with filters.open_source(state) as source:
        wanted = _range(source, Filter(since=since, until=until), first=first, last=last)
        if folder is not None:
            copied = _copy_segments(state, folder, wanted)
            begin = f" --from {copied.begin}" if copied.begin > copied.first else ""
            text = (
                f"records {copied.first} to {copied.last} are in {folder}; verify them with\n"
                f"trimtab journal verify --journal {folder}{begin} --key journal.pub"
            )
            print_result({"folder": str(folder), **asdict(copied)}, text, as_json=as_json)
            return
        if not exact:
            wanted = _provable(source, wanted)
        for record, _ in source.find(wanted):
            sys.stdout.buffer.write(filters.json_line(record) + b"\n")
        sys.stdout.buffer.flush()


def _range(source: JournalSource, wanted: Filter, *, first: int | None, last: int | None) -> Filter:
    """Return a filter by record numbers for the given bounds.

    Raises:
        StateError: no record is between the bounds.
    """
    after, upto = (first or 1) - 1, last or 0
    if wanted.since:
        begins = [*source.find(Filter(since=wanted.since), limit=1, last=False)]
        if not begins:
            raise _no_records(f"no record is from or after {wanted.since}")
        after = max(after, begins[0].record.seq - 1)
    if wanted.until:
        ends = [*source.find(Filter(until=wanted.until), limit=1)]
        if not ends:
            raise _no_records(f"no record is from or before {wanted.until}")
        upto = min(upto or ends[0].record.seq, ends[0].record.seq)
    if upto and upto <= after:
        raise _no_records("there are no records between these")
    return Filter(after=after, upto=upto)


def _no_records(message: str) -> StateError:
    return StateError("records.none", message, remedy="'trimtab journal list' shows the last ones")


def _provable(source: JournalSource, wanted: Filter) -> Filter:
    """Return a range widened to the checkpoints around it, else to the ends of the journal."""
    after, upto = 0, wanted.upto
    if wanted.after:
        before = Filter(stages=CHECKPOINTS, upto=wanted.after + 1)
        for checkpoint in source.find(before, limit=1):
            after = checkpoint.record.seq - 1
    if upto:
        behind = Filter(stages=CHECKPOINTS, after=upto - 1)
        checkpoints = [*source.find(behind, limit=1, last=False)]
        upto = checkpoints[0].record.seq if checkpoints else 0
    return Filter(after=after, upto=upto)


def _copy_segments(state: Path | None, folder: Path, wanted: Filter) -> Copied:
    """Copy the segments of a range to a new folder."""
    from controller.journal.verify.verify import copy_segments

    journal = open_state(state)[0].journal
    return copy_segments(journal, folder, after=wanted.after, upto=wanted.upto)


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
@click.option(
    "--to",
    "targets",
    multiple=True,
    metavar="NAME=URL",
    help="Where to; repeatable (default: ship.to of the settings).",
)
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
    current = read_in_force(folder.root).settings
    if not (targets or current.ship_to):
        raise click.UsageError("name at least one destination: --to NAME=URL, or ship.to")
    written = Path(current.ship_metrics) if current.ship_metrics else None
    return shipper.ship(
        folder,
        instance,
        targets=targets or current.ship_to,
        user_name=user,
        metrics=metrics or written,
    )


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
