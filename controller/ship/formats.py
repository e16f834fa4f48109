"""Records in the formats of a SIEM: syslog (RFC 5424), CEF, and attributes for OTLP.

Records contain text from clients of the gate, so every value is escaped: no value can end a line, a
field or a header early. Formats with room for the record's line include the line unchanged, so that
the receiver can check hash and chain.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Literal

from controller.core.records import parts
from controller.model.records import Record

Form = Literal["json", "cef"]

#: Log audit (RFC 5424, table 1).
FACILITY = 13
FACILITY_MAX = 23
_NOTICE, _INFO, _WARNING, _ERROR, _CRITICAL = 5, 6, 4, 3, 2
#: CEF counts the other way, from 0 to 10.
_CEF_SEVERITY = {_CRITICAL: 9, _ERROR: 7, _WARNING: 5, _NOTICE: 3, _INFO: 2}
_BAD_REQUEST = 400
_SEQUENCE_MAX = 2**31 - 1
_VENDOR = "trimtab"
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\u0080-\u009f\u2028\u2029]")


def severity(record: Record) -> int:
    """Return the syslog severity of a record."""
    entry = record.entry
    match entry.stage:
        case "violation":
            return _CRITICAL
        case "refusal" | "summary":
            return _WARNING
        case "outcome" | "recovered":
            return _ERROR if _failed(record) else _INFO
        case "policy":
            return _WARNING if parts.ResultPart.read(entry.result).error else _NOTICE
        case "operator":
            return _NOTICE
        case _:
            return _INFO


def syslog(
    record: Record,
    line: bytes,
    *,
    host: str,
    version: str,
    facility: int = FACILITY,
    form: Form = "json",
) -> bytes:
    """Return one message, without framing. Source: RFC 5424, section 6.

    The message is the record's line, or CEF. ``sequenceId`` (section 7.3.1) reveals lost messages.
    """
    priority = facility * 8 + severity(record)
    sequence = (record.seq - 1) % _SEQUENCE_MAX + 1
    data = f'[meta sequenceId="{sequence}"][origin software="trimtab" swVersion="{version}"]'
    head = f"<{priority}>1 {record.time} {_word(host)} trimtab - {record.entry.stage} {data} "
    message = line if form == "json" else cef(record, version=version).encode()
    return head.encode() + message


def counted(message: bytes) -> bytes:
    """Return a message in octet counting. Source: RFC 6587, section 3.4.1; RFC 5425, section 4.3."""
    return b"%d %b" % (len(message), message)


def cef(record: Record, *, version: str) -> str:
    """Return a record in the Common Event Format, version 0: the main facts, not the whole line."""
    entry = record.entry
    route = parts.RequestPart.read(entry.request).route
    kind = f"{entry.stage}:{route}" if route else entry.stage
    name = f"{entry.stage} of {route}" if route else entry.stage
    fields = (_VENDOR, _VENDOR, version, kind, name, str(_CEF_SEVERITY[severity(record)]))
    head = "|".join(_header(each) for each in fields)
    extension = " ".join(f"{key}={_value(text)}" for key, text in _extension(record) if text)
    return f"CEF:0|{head}|{extension}"


def attributes(record: Record) -> dict[str, str | int]:
    """Return the searchable attributes of a record."""
    entry = record.entry
    actor, request, result = _parts(record)
    values: dict[str, str | int | None] = {
        "trimtab.seq": record.seq,
        "trimtab.id": entry.id,
        "trimtab.stage": entry.stage,
        "trimtab.hash": record.hash,
        "trimtab.route": request.route,
        "trimtab.object": request.object,
        "trimtab.decision": parts.VerdictPart.read(entry.verdict).decision,
        "trimtab.rules": _rules(record),
        "trimtab.actor.uid": actor.uid,
        "trimtab.actor.role": actor.role,
        "trimtab.error": result.error,
        "trimtab.container": result.container,
        "trimtab.cause": parts.ClaimsPart.read(entry.claims).cause,
    }
    return {name: value for name, value in values.items() if value is not None and value != ""}


def _parts(record: Record) -> tuple[parts.ActorPart, parts.RequestPart, parts.ResultPart]:
    entry = record.entry
    return (
        parts.ActorPart.read(entry.actor),
        parts.RequestPart.read(entry.request),
        parts.ResultPart.read(entry.result),
    )


def _extension(record: Record) -> Iterator[tuple[str, str]]:
    entry, verdict = record.entry, parts.VerdictPart.read(record.entry.verdict)
    actor, request, result = _parts(record)
    yield "rt", str(int(datetime.fromisoformat(record.time).timestamp() * 1000))
    yield "externalId", entry.id
    yield "cn1", str(record.seq)
    yield "cn1Label", "seq"
    yield "suid", "" if actor.uid is None else str(actor.uid)
    yield "spriv", actor.role
    yield "act", request.route
    yield "requestMethod", request.method
    yield "outcome", _outcome(record)
    yield "reason", result.error or verdict.reason
    for number, (label, text) in enumerate(_customs(record), 1):
        if text:
            yield f"cs{number}", text
            yield f"cs{number}Label", label


def _customs(record: Record) -> Iterator[tuple[str, str]]:
    _, request, result = _parts(record)
    yield "object", request.object
    yield "rules", _rules(record)
    yield "container", result.container
    yield "cause", parts.ClaimsPart.read(record.entry.claims).cause
    yield "policy", parts.VerdictPart.read(record.entry.verdict).policy
    yield "hash", record.hash


def _outcome(record: Record) -> str:
    entry = record.entry
    match entry.stage:
        case "refusal" | "summary":
            return "denied"
        case "outcome":
            return "failure" if _failed(record) else "success"
        case "recovered":
            return parts.ResultPart.read(entry.result).settled
        case _:
            return ""


def _failed(record: Record) -> bool:
    """Return True if a change failed: the engine can refuse a change without an error text."""
    result = parts.ResultPart.read(record.entry.result)
    return bool(result.error) or (result.status is not None and result.status >= _BAD_REQUEST)


def _rules(record: Record) -> str:
    return ", ".join(parts.VerdictPart.read(record.entry.verdict).rules)


def plain(text: str) -> str:
    """Return a text with control characters and line separators escaped."""
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _header(text: str) -> str:
    return plain(text).replace("\\", "\\\\").replace("|", "\\|")


def _value(text: str) -> str:
    return plain(text).replace("\\", "\\\\").replace("=", "\\=")


def _word(host: str) -> str:
    """Return a host name as a header field: printable ASCII without spaces, or "-"."""
    return "".join(each for each in host if "!" <= each <= "~")[:255] or "-"
