"""The table of ``journal list``: a line for each change, with its outcome."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Final

from controller.cli.journal.record_text import HEADERS, object_of, reason_of, row, short_actor
from controller.cli.output.tables import Column, clip, clip_image, render
from controller.core.records.parts import NOT_MODIFIED, ResultPart, VerdictPart
from controller.core.records.query import Filter, QueryResult
from controller.core.records.record import CLOSING

if TYPE_CHECKING:
    from controller.cli.journal.journal_source import JournalSource

#: Narrower than in other tables: the reason of a change is short.
TEXT_LEAST: Final = 28
MILLISECONDS_SHOWN: Final = 1000
#: The past forms of actions, if they aren't the name with "ed".
_PAST_FORMS: Final = {
    "stop": "stopped",
    "rename": "renamed",
    "create": "created",
    "remove": "removed",
    "update": "updated",
    "pause": "paused",
    "unpause": "resumed",
    "kill": "killed",
    "build": "built",
    "pull": "pulled",
    "adopt": "adopted",
    "approve": "approved",
    "gone": "gone",
}
_SETTLED: Final = {
    "applied": "done (found later)",
    "not-applied": "not done",
    "unknown": "unknown",
}
#: Verdicts that the other columns imply.
_PLAIN: Final = frozenset({"", "allow", "mutate", "deny"})


@dataclass(frozen=True, slots=True)
class TimeFormat:
    """The form of times in a table."""

    zone: tzinfo | None  # None: the zone of this computer
    today: str  # YYYY-MM-DD in the zone
    exact: bool = False  # print the timestamps of records

    def cells(self, times: Iterable[str]) -> list[str]:
        """Return the time of day of each row, with the date if it differs from the row above."""
        if self.exact:
            return list(times)
        cells, previous = [], self.today
        for time in times:
            local = datetime.fromisoformat(time).astimezone(self.zone)
            day = local.date().isoformat()
            cells.append(f"{local:%H:%M:%S}" if day == previous else f"{day} {local:%H:%M:%S}")
            previous = day
        width = max(map(len, cells), default=0)
        return [f"{cell:>{width}}" for cell in cells]


def clock_for(now: float, *, utc: bool, exact: bool) -> TimeFormat:
    """Return the form of times for a table printed at *now*."""
    zone = UTC if utc else None
    return TimeFormat(
        zone, datetime.fromtimestamp(now, UTC).astimezone(zone).date().isoformat(), exact
    )


def _clip_object(name: str, room: int) -> str:
    """Return the end of an image's reference, and the start of any other name."""
    return clip_image(name, room) if "/" in name else clip(name, room)


COLUMNS: Final = (
    Column("SEQ"),
    Column("TIME"),
    Column("ACTOR", shrink=clip, least=8, rank=3),
    Column("ACTION"),
    Column("OBJECT", shrink=_clip_object, least=14, rank=2),
    Column("VERDICT", dull=frozenset({"-"})),
    Column("RESULT"),
    Column("WHY"),
)


def render_changes(
    results: Iterable[QueryResult], clock: TimeFormat, *, limit: int, width: int | None
) -> str:
    """Return a line for each change: an intent and its closing record. *limit* 0 is no limit."""
    pairs = _pairs(results)
    pairs = pairs[-limit:] if limit else pairs
    times = clock.cells(first.record.time for first, _ in pairs)
    rows = [_change_row(*pair, time=time) for pair, time in zip(pairs, times, strict=True)]
    return render(COLUMNS, rows, width=width, text_least=TEXT_LEAST)


def render_records(results: Iterable[QueryResult], clock: TimeFormat, *, width: int | None) -> str:
    """Return a line for each record."""
    results = list(results)
    times = clock.cells(result.record.time for result in results)
    rows = [
        (cells[0], time, *cells[2:]) for cells, time in zip(map(row, results), times, strict=True)
    ]
    wide = [Column(header) for header in HEADERS]
    return render(wide, rows, width=width, text_least=TEXT_LEAST)


def outcomes_of(source: JournalSource, results: Iterable[QueryResult]) -> list[QueryResult]:
    """Return the closing records that a filter left out: they have no verdict and a later time."""
    entries = [result.record.entry for result in results]
    closed = {entry.id for entry in entries if entry.stage in CLOSING}
    intents = (entry for entry in entries if entry.stage == "intent")
    return [
        closing
        for entry in intents
        if entry.id not in closed
        for closing in source.find(Filter(record=entry.id, stages=CLOSING))
    ]


def _pairs(results: Iterable[QueryResult]) -> list[tuple[QueryResult, QueryResult | None]]:
    """Return each intent or single record, paired with its closing record or None."""
    pairs: list[tuple[QueryResult, QueryResult | None]] = []
    intents: dict[str, int] = {}  # index in pairs, by id
    for result in results:
        entry = result.record.entry
        if entry.stage in CLOSING and entry.id in intents:
            index = intents.pop(entry.id)
            pairs[index] = (pairs[index][0], result)
            continue
        if entry.stage == "intent":
            intents[entry.id] = len(pairs)
        pairs.append((result, None))
    return pairs


def _change_row(first: QueryResult, closing: QueryResult | None, *, time: str) -> tuple[str, ...]:
    record, about = first
    last = closing or first
    entry = record.entry
    action = about.action.removeprefix("container.") or entry.stage
    return (
        str(record.seq),
        time,
        short_actor(record),
        action,
        object_of(about),
        verdict_of(VerdictPart.read(entry.verdict)),
        outcome_of(last),
        reason_of(last.record) or reason_of(record),
    )


def verdict_of(verdict: VerdictPart) -> str:
    """Return a verdict with its first rules, or ``-`` if the RESULT column implies the verdict."""
    if verdict.decision in _PLAIN:
        return "-"
    return " ".join((verdict.decision, *verdict.rules[:2]))


def outcome_of(result: QueryResult) -> str:
    """Return the outcome of a change, such as ``created in 11 ms``, ``failed (409)`` or ``open``."""
    entry, part = result.record.entry, ResultPart.read(result.record.entry.result)
    match entry.stage:
        case "intent":
            return "open"
        case "refusal":
            rules = VerdictPart.read(entry.verdict).rules
            return f"refused: {rules[0]}" if rules else "refused"
        case "recovered" if part.settled:
            return _SETTLED.get(part.settled, part.settled)
        case _:
            pass
    if part.status is None:
        return "unknown" if entry.stage in CLOSING else "-"
    if part.status == NOT_MODIFIED:
        return "unchanged"
    if part.status >= 400:
        return f"failed ({part.status})"
    verb = result.about.action.rpartition(".")[2]
    past = _PAST_FORMS.get(verb, f"{verb}ed" if verb else "done")
    return f"{past}{_duration(part.duration_ms)}"


def _duration(milliseconds: int | None) -> str:
    if milliseconds is None:
        return ""
    if milliseconds < MILLISECONDS_SHOWN:
        return f" in {milliseconds} ms"
    return f" in {milliseconds / 1000:.1f} s"
