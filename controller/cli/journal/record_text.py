"""Records as text: the row of a table, and the full story of an intent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from controller.cli.output.user_names import user_name
from controller.core.encoding.json_members import (
    text_member,
    texts_of,
)
from controller.core.encoding.terminal_text import printable
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
    entry = record.entry
    cells = (
        record.seq,
        record.time,
        actor_of(entry.actor),
        entry.stage,
        about.action or "-",
        object_of(about),
        " ".join(
            (text_member(entry.verdict, "decision"), *texts_of(entry.verdict.get("rules"))[:2])
        )
        or "-",
        result_of(entry.result) or "-",
        reason_of(record),
    )
    return tuple(printable(cell) for cell in cells)


def actor_of(actor: Mapping[str, Any]) -> str:
    """Return the role and the user of an actor; ``?`` if the uid doesn't prove the role."""
    uid = actor.get("uid")
    name = f":{user_name(uid)}" if isinstance(uid, int) and uid >= 0 else ""
    mark = "?" if actor.get("separated") is False else ""
    return f"{text_member(actor, 'role') or '-'}{name}{mark}"


def short_actor(actor: Mapping[str, Any]) -> str:
    """Return an actor as a value for ``--actor``: ``root``, ``client:ann``, ``controller``."""
    role, uid = text_member(actor, "role"), actor.get("uid")
    mark = "?" if actor.get("separated") is False else ""
    if role not in {"operator", "client"} or not isinstance(uid, int) or uid < 0:
        return f"{role or '-'}{mark}"
    return f"{'client:' if role == 'client' else ''}{user_name(uid)}{mark}"


def object_of(about: RecordSubject) -> str:
    """Return the shortest name of a record's object."""
    name = about.name or about.id
    is_id = len(name) == 64 and set(name) <= set("0123456789abcdef")
    return (name[:SHORT_ID] if is_id else name) or "-"


def result_of(result: Mapping[str, Any]) -> str:
    """Return a result as its status or settlement, and its duration."""
    parts = [str(result[name]) for name in ("status", "settled") if name in result]
    duration_ms = result.get("durationMs")
    parts += [f"in {format_duration_ms(duration_ms)}"] if isinstance(duration_ms, int) else []
    return " ".join(parts)


def reason_of(record: Record) -> str:
    """Return a record's error, else its claimed cause, or the message of a segment."""
    entry = record.entry
    match entry.result:
        case {"repair": {"reason": reason}}:
            return f"a torn end was moved aside: {reason}"
        case {"outage": {"since": since, "error": error}}:
            return f"not writable since {since}: {error}"
        case {"found": found} if entry.stage == "violation":
            return "; ".join(texts_of(found))
        case {"total": total} if entry.stage == "summary":
            return f"{total} more of {_counts_of(entry.result)}"
        case _:
            return text_member(entry.result, "error") or text_member(entry.claims, "cause")


def _counts_of(result: Mapping[str, Any]) -> str:
    """Return the counts of a summary, the largest first."""
    counts = {**(result.get("counts") or {}), **(result.get("reads") or {})}
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
        f"by {actor_of(record.entry.actor)}",
        result_of(record.entry.result) or text_member(record.entry.verdict, "decision"),
        f"({reason})" if reason else "",
    )
    return " ".join(part for part in parts if part)


def _facts(record: Record) -> Iterable[tuple[str, str]]:
    entry = record.entry
    yield from _request_facts(entry.actor, entry.request)
    yield from _verdict_facts(entry.verdict)
    yield from _claim_facts(entry.claims)
    if entry.result:
        yield "  result", result_of(entry.result)
        in_result = {"status", "settled", "durationMs"}
        yield from _members({n: v for n, v in entry.result.items() if n not in in_result})


def _request_facts(
    actor: Mapping[str, Any], request: Mapping[str, Any]
) -> Iterable[tuple[str, str]]:
    if actor:
        numbers = [f"{name} {actor[name]}" for name in ("uid", "gid", "pid") if name in actor]
        yield "  actor", actor_of(actor) + (f" ({', '.join(numbers)})" if numbers else "")
    if request:
        parts = (text_member(request, name) for name in ("method", "route", "object"))
        yield "  asked", " ".join(part for part in parts if part)
    summary = request.get("summary")
    if isinstance(summary, Mapping):
        yield from _members(summary)


def _verdict_facts(verdict: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    if verdict:
        rules = ", ".join(texts_of(verdict.get("rules")))
        yield "  verdict", text_member(verdict, "decision") + (f" by {rules}" if rules else "")
        yield from (("    injected", change) for change in texts_of(verdict.get("mutations")))
        yield from _members({"policy": verdict.get("policy")})


def _claim_facts(claims: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    if claims:
        yield "  claimed", text_member(claims, "cause")
        source = claims.get("source")
        if isinstance(source, Mapping):
            yield from _source(
                text_member(source, "file"), source.get("line", 0), text_member(source, "commit")
            )
        yield from _members({name: claims.get(name) for name in ("plan", "onBehalfOf")})


def _source(file: str, line: object, commit: str) -> Iterable[tuple[str, str]]:
    if file:
        yield "    source", f"{file}:{line}" + (f" of {commit}" if commit else "")
    elif commit:
        yield "    source", f"not declared in {commit}"


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
