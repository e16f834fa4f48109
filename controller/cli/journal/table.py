"""Records as text: a row of ``journal list``, and the full story of a change.

The table of ``journal list``: a line for each change, with its outcome.

Records as text: the row of a table, and the full story of an intent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Any, Final

from controller.cli.output.tables import Column, clip, clip_image, render
from controller.cli.output.times import user_name
from controller.core.encoding.text import printable
from controller.core.records.parts import (
    NOT_MODIFIED,
    ActorPart,
    ClaimsPart,
    RequestPart,
    ResultPart,
    VerdictPart,
)
from controller.core.records.query import Filter, QueryResult, RecordSubject
from controller.core.records.record import CLOSING
from controller.model.quantities import format_elapsed_ms
from controller.model.records import Record

if TYPE_CHECKING:
    from controller.cli.journal.filters import JournalSource
    from controller.core.records.query import RecordStory


HEADERS = ("SEQ", "TIME", "ACTOR", "STAGE", "ACTION", "OBJECT", "VERDICT", "RESULT", "WHY")
SHORT_ID = 12


def row(result: QueryResult) -> tuple[str, ...]:
    """Return the cells of a record in the table."""
    record, about = result
    entry, verdict = record.entry, VerdictPart.read(record.entry.verdict)
    cells = (
        record.seq,
        record.time,
        actor_of(ActorPart.read(entry.actor)),
        entry.stage,
        about.action or "-",
        object_of(about),
        " ".join((verdict.decision, *verdict.rules[:2])) or "-",
        result_of(ResultPart.read(entry.result)) or "-",
        reason_of(record),
    )
    return tuple(printable(cell) for cell in cells)


def actor_of(actor: ActorPart) -> str:
    """Return the role and the user of an actor; ``?`` if the uid doesn't prove the role."""
    name = f":{user_name(actor.uid)}" if actor.uid is not None and actor.uid >= 0 else ""
    return f"{actor.role or '-'}{name}{'' if actor.separated else '?'}"


def short_actor(record: Record) -> str:
    """Return an actor as a value for ``--actor``: ``root``, ``client:ann``, ``controller``."""
    actor = ActorPart.read(record.entry.actor)
    role, uid, mark = actor.role, actor.uid, "" if actor.separated else "?"
    if role not in {"operator", "client"} or uid is None or uid < 0:
        return f"{role or '-'}{mark}"
    return f"{'client:' if role == 'client' else ''}{user_name(uid)}{mark}"


def object_of(about: RecordSubject) -> str:
    """Return the shortest name of a record's object."""
    name = about.name or about.id
    is_id = len(name) == 64 and set(name) <= set("0123456789abcdef")
    return (name[:SHORT_ID] if is_id else name) or "-"


def result_of(result: ResultPart) -> str:
    """Return a result as its status or settlement, and its duration."""
    status = "" if result.status is None else str(result.status)
    took = "" if result.duration_ms is None else f"in {format_elapsed_ms(result.duration_ms)}"
    return " ".join(part for part in (status, result.settled, took) if part)


def reason_of(record: Record) -> str:
    """Return a record's error, else its claimed cause, or the message of a segment."""
    entry, result = record.entry, ResultPart.read(record.entry.result)
    if result.repair.reason:
        return f"a torn end was moved aside: {result.repair.reason}"
    if result.outage.since:
        return f"not writable since {result.outage.since}: {result.outage.error}"
    if entry.stage == "violation" and result.differences:
        return "; ".join(result.differences)
    if entry.stage == "summary" and result.total is not None:
        return f"{result.total} more of {_counts_of(result)}"
    return result.error or ClaimsPart.read(entry.claims).cause


def _counts_of(result: ResultPart) -> str:
    """Return the counts of a summary, the largest first."""
    counts = {**result.counts, **result.reads}
    by_count = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {count}" for name, count in by_count)


def render_story(story: RecordStory) -> str:
    """Return an intent with its closing record, or a single record, one fact on each line."""
    lines: list[tuple[str, str]] = []
    for record, _ in story.found:
        entry = record.entry
        lines.append((entry.stage, f"record {record.seq} at {record.time}, id {entry.id}"))
        lines += _facts(record)
    lines += (("before", _line_of(result)) for result in story.before)
    lines += (("after", _line_of(result)) for result in story.after)
    width = max(len(name) for name, _ in lines)
    return "\n".join(
        f"{printable(name):<{width}}  {printable(value)}".rstrip() for name, value in lines
    )


def _line_of(result: QueryResult) -> str:
    """Return another record of the object in a line."""
    record, about = result
    reason = reason_of(record)
    parts = (
        f"record {record.seq} at {record.time}:",
        about.action,
        record.entry.stage,
        f"by {actor_of(ActorPart.read(record.entry.actor))}",
        result_of(ResultPart.read(record.entry.result))
        or VerdictPart.read(record.entry.verdict).decision,
        f"({reason})" if reason else "",
    )
    return " ".join(part for part in parts if part)


def _facts(record: Record) -> Iterable[tuple[str, str]]:
    entry = record.entry
    yield from _request_facts(ActorPart.read(entry.actor), RequestPart.read(entry.request))
    yield from _verdict_facts(VerdictPart.read(entry.verdict))
    yield from _claim_facts(ClaimsPart.read(entry.claims))
    if entry.result:
        yield "  result", result_of(ResultPart.read(entry.result))
        in_result = {"status", "settled", "durationMs"}
        yield from _members({n: v for n, v in entry.result.items() if n not in in_result})


def _request_facts(actor: ActorPart, request: RequestPart) -> Iterable[tuple[str, str]]:
    if actor:
        ids = (("uid", actor.uid), ("gid", actor.gid), ("pid", actor.pid))
        numbers = ", ".join(f"{name} {number}" for name, number in ids if number is not None)
        yield "  actor", actor_of(actor) + (f" ({numbers})" if numbers else "")
    if request:
        parts = (request.method, request.route, request.object)
        yield "  asked", " ".join(part for part in parts if part)
    yield from _members(request.summary.members)


def _verdict_facts(verdict: VerdictPart) -> Iterable[tuple[str, str]]:
    if verdict:
        rules = ", ".join(verdict.rules)
        yield "  verdict", verdict.decision + (f" by {rules}" if rules else "")
        yield from (("    injected", change) for change in verdict.mutations)
        yield from _members({"policy": verdict.policy})


def _claim_facts(claims: ClaimsPart) -> Iterable[tuple[str, str]]:
    source = claims.source
    if claims:
        yield "  claimed", claims.cause
    if source.file:
        commit = f" of {source.commit}" if source.commit else ""
        yield "    source", f"{source.file}:{source.line()}{commit}"
    elif source.commit:
        yield "    source", f"not declared in {source.commit}"
    yield from _members({"plan": claims.plan, "onBehalfOf": claims.on_behalf_of})


def _members(members: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Yield a line for each member with a value."""
    for name, value in members.items():
        if text := _compact(value):
            yield f"    {name}", text


def _compact(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={_compact(item)}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(_compact(item) for item in value)
    return str(value)


#: Narrower than in other tables: the reason of a change is short.
TEXT_LEAST: Final = 28
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
    "release": "released",
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
    pairs = pairs_of(results)
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


def pairs_of(results: Iterable[QueryResult]) -> list[tuple[QueryResult, QueryResult | None]]:
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
    took = "" if part.duration_ms is None else f" in {format_elapsed_ms(part.duration_ms)}"
    return f"{past}{took}"
