"""Replies into bytes: framed by us alone, whatever the headers of an answer said."""

from __future__ import annotations

import json
from http import HTTPStatus

from controller.model.records import Reply

Headers = tuple[tuple[str, str], ...]

#: Says which rule refused, also to those that read no body: answers to HEAD have none.
RULE_HEADER = "Trimtab-Rule"

#: Belong to one connection and are never passed on (RFC 9110, section 7.6.1).
HOP_BY_HOP = frozenset(
    {
        "connection",
        "content-length",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


def refusal_body(rule: str, reason: str, *, remedy: str = "", record: str = "") -> bytes:
    """Return the JSON body of a refusal, in the gate's one shape."""
    tail = f" ({remedy})" if remedy else ""
    detail = {"rule": rule, "reason": reason, "remedy": remedy, "id": record}
    return json.dumps({"message": f"{rule}: {reason}{tail}", "trimtab": detail}).encode()


def refusal(status: int, rule: str, reason: str, *, remedy: str = "", record: str = "") -> Reply:
    """Return a refusal of the shell itself, as a reply."""
    body = refusal_body(rule, reason, remedy=remedy, record=record)
    headers = (("Content-Type", "application/json"), (RULE_HEADER, rule))
    return Reply(status=status, body=body, headers=headers)


CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """Return one chunk of a chunked body; *data* is never empty, that would end the body."""
    assert data, "an empty chunk ends the body"
    return b"%x\r\n%b\r\n" % (len(data), data)


def head_bytes(status: int, headers: Headers) -> bytes:
    """Return a reply's head.

    A header that could end its line is a bug of whoever built it, never a reply.
    """
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Status"
    lines = [f"HTTP/1.1 {status} {phrase}"]
    for name, value in headers:
        assert (name + value).isprintable(), f"header {name!r} breaks its line"
        lines.append(f"{name}: {value}")
    return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n"


def end_to_end(headers: Headers) -> Headers:
    """Return the headers that may be passed on: not those that Connection names, either."""
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


def reply_bytes(reply: Reply, *, to_head: bool, keep_alive: bool) -> bytes:
    """Return a whole reply; *to_head*: it answers a HEAD, which has no body."""
    headers = [*end_to_end(reply.headers)]
    bodiless = reply.status in (204, 304) or reply.status < 200
    if not bodiless:
        headers.append(("Content-Length", str(len(reply.body))))
    if not keep_alive:
        headers.append(("Connection", "close"))
    body = b"" if bodiless or to_head else reply.body
    return head_bytes(reply.status, tuple(headers)) + body
