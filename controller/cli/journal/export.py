"""``journal follow`` and ``export``: records as they become durable, and records to hand over."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from controller.cli.journal import journal_source
from controller.cli.journal.filters import SEQ_MAX, SPAN_OPTIONS, filter_options, time_range
from controller.cli.journal.record_text import HEADERS, row
from controller.cli.options import command, open_state, print_result
from controller.cli.output.terminal import echo, echo_data
from controller.core.records.query import Filter, QueryResult
from controller.model.errors import EngineUnavailable, StateError

if TYPE_CHECKING:
    from controller.cli.journal.journal_source import JournalSource
    from controller.journal.verify.export import Copied

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
    broker = journal_source.broker_of(state)
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
        echo_data(journal_source.json_line(result.record).decode())
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
    with journal_source.open_source(state) as source:
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
            sys.stdout.buffer.write(journal_source.json_line(record) + b"\n")
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
    from controller.journal.verify.export import copy_segments

    journal = open_state(state)[0].journal
    return copy_segments(journal, folder, after=wanted.after, upto=wanted.upto)
