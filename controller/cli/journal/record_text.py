"""Records as text: the row of a table, and the full story of an intent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from controller.cli.output.user_names import user_name
from controller.core.encoding.terminal_text import printable
from controller.core.records.parts import (
    ActorPart,
    ClaimsPart,
    RequestPart,
    ResultPart,
    VerdictPart,
)
from controller.core.records.query import QueryResult, RecordSubject
from controller.model.quantities import format_duration_ms
from controller.model.records import Record

if TYPE_CHECKING:
    from controller.core.records.views import RecordStory

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
    took = "" if result.duration_ms is None else f"in {format_duration_ms(result.duration_ms)}"
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
