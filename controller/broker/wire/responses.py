"""Replies as bytes. The broker frames every reply itself, whatever headers the engine sent."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from http import HTTPStatus

from controller.core.encoding.json_members import parse_object
from controller.model.records import Reply

Headers = tuple[tuple[str, str], ...]

JSON_TYPE = (("content-type", "application/json"),)
#: The header with the rule of a refusal, for clients that read no body: a reply to HEAD has none.
RULE_HEADER = "Trimtab-Rule"

#: The longest phrase of a status.
PHRASE_MAX = 512

#: Headers of one connection, which are never passed on (RFC 9110, section 7.6.1).
_HOP_BY_HOP = """
    connection content-length keep-alive proxy-authenticate proxy-authorization proxy-connection
    te trailer transfer-encoding upgrade
"""
HOP_BY_HOP = frozenset(_HOP_BY_HOP.split())


def json_reply(status: int, value: object) -> Reply:
    """Return a reply with a JSON body."""
    return Reply(status, encode(value), JSON_TYPE)


def encode(value: object) -> bytes:
    """Return the JSON of a value, in UTF-8 without escapes. Half a surrogate pair becomes ``?``."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


def list_of(parts: Iterable[bytes | None]) -> bytes:
    """Return the JSON list of parts that are JSON, without the missing ones."""
    return b"[%b]" % b",".join(part for part in parts if part is not None)


def object_of(parts: Mapping[str, bytes | None]) -> bytes:
    """Return the JSON object of parts that are JSON; null for a missing one."""
    members = (b"%b:%b" % (encode(name), part or b"null") for name, part in parts.items())
    return b"{%b}" % b",".join(members)


def refusal(
    status: int, rule: str, reason: str, *, remedy: str = "", record: str = "", message: str = ""
) -> Reply:
    """Return a refusal: its rule, reason and remedy, and the id of its journal record.

    Errors that aren't refusals (502, 503, 504) have the same form. *message* replaces the
    composed message: some clients expect the engine's own text.
    """
    tail = f" ({remedy})" if remedy else ""
    detail = {"rule": rule, "reason": reason, "remedy": remedy, "id": record}
    reply = json_reply(status, {"message": message or f"{rule}: {reason}{tail}", "trimtab": detail})
    return replace(reply, headers=(*JSON_TYPE, (RULE_HEADER, rule)))


CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """Return one chunk of a chunked body; *data* is never empty: an empty chunk ends the body."""
    assert data, "an empty chunk ends the body"
    return b"%x\r\n%b\r\n" % (len(data), data)


def head_bytes(status: int, headers: Headers, message: str = "") -> bytes:
    """Return the head of a reply, with a *message* after the status for a reply without a body.

    Raises:
        AssertionError: a header could end its line, a bug of the code that built the header.
    """
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Status"
    told = f"{phrase}: {message}" if message.isprintable() and message else phrase
    lines = [f"HTTP/1.1 {status} {told[:PHRASE_MAX]}"]
    for name, value in headers:
        assert (name + value).isprintable(), f"header {name!r} breaks its line"
        lines.append(f"{name}: {value}")
    return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n"


def end_to_end(headers: Headers) -> Headers:
    """Return the headers to pass on: none of ``HOP_BY_HOP``, none that Connection names."""
    named = {
        word.strip().lower()
        for name, value in headers
        if name.lower() == "connection"
        for word in value.split(",")
    }
    return tuple(
        (name, value)
        for name, value in headers
        if name.lower() not in HOP_BY_HOP and name.lower() not in named
    )


def error_line(reply: Reply) -> bytes:
    """Return a reply with an error as the last line of a stream, in the form of the engine's lines."""
    try:
        value = json.loads(reply.body)
    except ValueError:
        value = {}
    message = str(value.get("message", "")) if isinstance(value, dict) else ""
    line = {"error": message, "errorDetail": {"message": message}}
    return json.dumps({**line, **value} if message else line).encode()


def reply_bytes(reply: Reply, *, to_head: bool, keep_alive: bool) -> bytes:
    """Return a whole reply; with *to_head*, a reply to HEAD, without a body."""
    headers = [*end_to_end(reply.headers)]
    bodiless = reply.status in (204, 304) or reply.status < 200
    if not bodiless:
        headers.append(("Content-Length", str(len(reply.body))))
    if not keep_alive:
        headers.append(("Connection", "close"))
    if bodiless or not to_head:
        return head_bytes(reply.status, tuple(headers)) + (b"" if bodiless else reply.body)
    # Many clients show the status with its phrase alone.
    message = parse_object(reply.body).get("message") if reply.status >= 400 else None
    return head_bytes(reply.status, tuple(headers), str(message or ""))
