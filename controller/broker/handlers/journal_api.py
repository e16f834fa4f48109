"""The journal through the broker, for callers without access to its files.

Each caller gets the records, and the parts of a record, that the caller can see.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from typing import Any

from controller.broker.gate.call import Flow, GateRequest, query_journal
from controller.broker.gate.commands import Follow, GiveWay
from controller.broker.gate.state import GateState
from controller.broker.guards.lists import scrub_text
from controller.core.records.query import (
    Filter,
    QueryResult,
    Question,
    Reader,
    redact_record,
    redact_subject,
    subject_to_json,
)
from controller.core.records.record import line_of
from controller.model.records import RESTRICTED, Actor, Reply, Role

#: Records in one answer; of clients and viewers.
PAGE_MAX = 500
PAGE_MAX_OF_CLIENTS = 200
#: Bytes of lines that are made at a time. A short line costs as much as one of so many bytes.
TURN_BYTES, LINE_BYTES = 64 * 1024, 2 * 1024
NDJSON = ("content-type", "application/x-ndjson")
#: The header with the next ``after``, if there may be more records.
FOLLOWING = "trimtab-following"
_MANY = frozenset({"stages", "routes", "ids"})
_NUMBERS = frozenset({"after", "upto"})


def journal(call: GateRequest, state: GateState) -> Flow[Reply]:
    """Handle ``GET journal``: the last matching records, or the first ones ``after`` a number."""
    query, actor = call.query, call.actor
    most = PAGE_MAX_OF_CLIENTS if actor.role in RESTRICTED else PAGE_MAX
    question = Question(
        filter_of(query),
        reader_of(actor),
        limit=min(int(query.get("limit", most)), most),
        last="after" not in query,
        there=query.get("there", ""),
    )
    page = yield from query_journal(question)
    line = _line_for(call, state)
    lines: list[bytes] = []
    size = 0
    for found in page.found:
        lines.append(line(found))
        size += LINE_BYTES + len(lines[-1])
        if size > TURN_BYTES:
            size = 0
            yield GiveWay()
    following = ((FOLLOWING, str(page.following)),) if page.following else ()
    return Reply(200, b"".join(lines), (NDJSON, *following))


def follow(call: GateRequest, state: GateState) -> Flow[Follow]:
    """Handle ``GET journal/follow``: matching records as they become durable, ``after`` one or from
    now.
    """
    yield from ()
    wanted = filter_of({"after": str(state.inventory.seq), **call.query})
    return Follow(Question(wanted, reader_of(call.actor)), _line_for(call, state))


def filter_of(query: Mapping[str, str]) -> Filter:
    """Return the filter of checked parameters."""
    members: dict[str, Any] = {}
    for each in fields(Filter):
        value = query.get(each.name, "")
        if each.name in _MANY:
            members[each.name] = frozenset(value.split(",")) if value else frozenset()
        elif each.name in _NUMBERS:
            members[each.name] = int(value or 0)
        elif each.name == "actor":
            members[each.name] = value.removeprefix("uid:")
        else:
            members[each.name] = value
    return Filter(**members)


def reader_of(actor: Actor) -> Reader:
    """Return the actor as a reader of records."""
    return Reader(actor.role, actor.uid, actor.owner, actor.scope)


def _line_for(call: GateRequest, state: GateState) -> partial[bytes]:
    return partial(
        line_for, actor=call.actor, state=state, with_about=call.query.get("about") == "1"
    )


def line_for(found: QueryResult, *, actor: Actor, state: GateState, with_about: bool) -> bytes:
    """Return the line of a record for this caller; an operator gets the line of the segment."""
    reader = reader_of(actor)
    if actor.role is Role.OPERATOR:
        line = line_of(found.record)
    else:
        shown = redact_record(found.record, reader)
        result = shown.get("result")
        if actor.role in RESTRICTED and result and result.get("error"):
            said = str(shown.get("request", ""))
            result = {**result, "error": scrub_text(str(result["error"]), said, actor, state)}
            shown = {**shown, "result": result}
        line = json.dumps(shown, ensure_ascii=False).encode()
    if with_about:
        about = json.dumps(
            subject_to_json(redact_subject(found, reader)), ensure_ascii=False
        ).encode()
        line = b'{"about":' + about + b',"record":' + line + b"}"
    return line + b"\n"
