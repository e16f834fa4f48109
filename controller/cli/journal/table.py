"""The table of ``journal list``: one line for each change, with what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Any, Final

from controller.cli.journal.record_text import HEADERS, object_of, row, short_actor, why
from controller.cli.output.tables import Column, clip, clip_image, render
from controller.core.encoding.json_members import (
    text_member,
    texts_of,
)
from controller.core.records.query import Filter, QueryResult
from controller.core.records.record import CLOSING

if TYPE_CHECKING:
    from controller.cli.journal.source import JournalSource

#: Fewer cells than elsewhere: a row of the journal has one short reason.
TEXT_LEAST: Final = 28
MILLISECONDS_SHOWN: Final = 1000
#: What came of an action that succeeded, where its name with "ed" isn't English.
_DONE: Final = {
    "stop": "stopped",
    "rename": "renamed",
    "create": "created",
    "remove": "removed",
    "update": "updated",
    "pause": "paused",
    "unpause": "resumed",
    "kill": "killed",
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
_NOT_MODIFIED: Final = 304
#: Verdicts that say no more than the row does.
_PLAIN: Final = frozenset({"", "allow", "mutate", "deny"})


@dataclass(frozen=True, slots=True)
class TimeFormat:
    """How instants are shown: in which zone, or exactly as records have them."""

    zone: tzinfo | None  # None: the zone of this computer
    today: str  # YYYY-MM-DD, there
    exact: bool = False

    def cells(self, times: Iterable[str]) -> list[str]:
        """Return the time of day of each instant, with the date where it changes from row to row."""
        if self.exact:
            return list(times)
        shown, before = [], self.today
        for time in times:
            local = datetime.fromisoformat(time).astimezone(self.zone)
            day = local.date().isoformat()
            shown.append(f"{local:%H:%M:%S}" if day == before else f"{day} {local:%H:%M:%S}")
            before = day
        width = max(map(len, shown), default=0)
        return [f"{cell:>{width}}" for cell in shown]


def clock_for(now: float, *, utc: bool, exact: bool) -> TimeFormat:
    """Return the clock for a table that is made at an instant."""
    zone = UTC if utc else None
    return TimeFormat(
        zone, datetime.fromtimestamp(now, UTC).astimezone(zone).date().isoformat(), exact
    )


def _clip_object(name: str, room: int) -> str:
    """Return the end of an image's reference, and the start of any other name."""
    return clip_image(name, room) if "/" in name else clip(name, room)


def columns() -> Sequence[Column]:
    """Return the columns of the table of changes."""
    return (
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
    found: Iterable[QueryResult], clock: TimeFormat, *, limit: int, width: int | None
) -> str:
    """Return a line for each change: its intent with what closed it. *limit* 0 shows all."""
    pairs = _pairs(found)
    pairs = pairs[-limit:] if limit else pairs
    times = clock.cells(first.record.time for first, _ in pairs)
    rows = [_change(*pair, time=time) for pair, time in zip(pairs, times, strict=True)]
    return render(columns(), rows, width=width, text_least=TEXT_LEAST)


def render_records(found: Iterable[QueryResult], clock: TimeFormat, *, width: int | None) -> str:
    """Return a line for each record."""
    records = list(found)
    times = clock.cells(one.record.time for one in records)
    rows = [
        (cells[0], time, *cells[2:]) for cells, time in zip(map(row, records), times, strict=True)
    ]
    wide = [Column(header) for header in HEADERS]
    return render(wide, rows, width=width, text_least=TEXT_LEAST)


def outcomes_of(source: JournalSource, found: Iterable[QueryResult]) -> list[QueryResult]:
    """Return the outcomes that a filter left out of its answer: they have no verdict, and come later."""
    records = list(found)
    closed = {one.record.entry.id for one in records if one.record.entry.stage in CLOSING}
    intents = (one.record.entry for one in records if one.record.entry.stage == "intent")
    return [
        closing
        for entry in intents
        if entry.id not in closed
        for closing in source.find(Filter(record=entry.id, stages=CLOSING))
    ]


def _pairs(found: Iterable[QueryResult]) -> list[tuple[QueryResult, QueryResult | None]]:
    """Return each intent or single record, paired with its closing record or None."""
    pairs: list[tuple[QueryResult, QueryResult | None]] = []
    intents: dict[str, int] = {}  # id -> its place in the list
    for one in found:
        entry = one.record.entry
        if entry.stage in CLOSING and entry.id in intents:
            place = intents.pop(entry.id)
            pairs[place] = (pairs[place][0], one)
            continue
        if entry.stage == "intent":
            intents[entry.id] = len(pairs)
        pairs.append((one, None))
    return pairs


def _change(first: QueryResult, closing: QueryResult | None, *, time: str) -> tuple[str, ...]:
    record, about = first
    last = closing or first
    entry = record.entry
    action = about.action.removeprefix("container.") or entry.stage
    return (
        str(record.seq),
        time,
        short_actor(entry.actor),
        action,
        object_of(about),
        verdict_of(entry.verdict),
        outcome_of(last),
        why(last.record) or why(record),
    )


def verdict_of(verdict: Any) -> str:
    """Return a verdict that RESULT doesn't say: neither plain permission, with defaults, nor refusal."""
    decision = text_member(verdict, "decision")
    if decision in _PLAIN:
        return "-"
    return " ".join((decision, *texts_of(verdict.get("rules"))[:2]))


def outcome_of(found: QueryResult) -> str:
    """Return what came of a change, as ``created in 11 ms``, ``failed (409)`` or ``open``."""
    entry = found.record.entry
    match entry.stage:
        case "intent":
            return "open"
        case "refusal":
            rules = texts_of(entry.verdict.get("rules"))
            return f"refused: {rules[0]}" if rules else "refused"
        case "recovered" if "settled" in entry.result:
            settled = str(entry.result["settled"])
            return _SETTLED.get(settled, settled)
        case stage:
            status = entry.result.get("status")
            if not isinstance(status, int):
                return "-" if stage not in CLOSING else "unknown"
    if status == _NOT_MODIFIED:
        return "unchanged"
    if status >= 400:
        return f"failed ({status})"
    return f"{_done(found.about.action)}{_taken(entry.result.get('durationMs'))}"


def _done(action: str) -> str:
    word = action.rpartition(".")[2]
    return _DONE.get(word, f"{word}ed" if word else "done")


def _taken(milliseconds: object) -> str:
    if not isinstance(milliseconds, int):
        return ""
    if milliseconds < MILLISECONDS_SHOWN:
        return f" in {milliseconds} ms"
    return f" in {milliseconds / 1000:.1f} s"
