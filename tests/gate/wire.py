"""Requests as bytes and answers read with an end to every wait: a client that may misbehave."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass, field
from typing import Any

#: For an answer to begin. Creates of a busy engine take seconds.
ANSWER_S = 30.0
#: How long a stream without an end of its own is listened to.
STREAM_S = 0.2
HEAD_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; status 0: nothing that is an answer."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Whether the request was served; 101 is how hijacked streams begin."""
        return 200 <= self.status < 300 or self.status == 101

    @property
    def json(self) -> Any:
        """The body as JSON, None when it isn't."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    @property
    def rule(self) -> str:
        """The rule id with which the gate refused, or ''."""
        told = self.json
        gate = told.get("trimtab") if isinstance(told, dict) else None
        return str(gate.get("rule", "")) if isinstance(gate, dict) else ""


NONE = Answer(0)


def request(
    method: str,
    target: bytes,
    body: bytes | None = None,
    headers: dict[str, str | None] | None = None,
) -> bytes:
    """Return a request as an ordinary client writes it; a header that is None is left out."""
    written: dict[str, str | None] = {"Host": "docker", "User-Agent": "gate-cases"}
    if body is not None:
        written |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    elif method in {"POST", "PUT", "PATCH"}:
        written["Content-Length"] = "0"
    for name, value in (headers or {}).items():
        same = next((known for known in written if known.lower() == name.lower()), name)
        written[same] = value
    lines = [f"{name}: {value}".encode() for name, value in written.items() if value is not None]
    head = b"\r\n".join([method.encode() + b" " + target + b" HTTP/1.1", *lines])
    return head + b"\r\n\r\n" + (body or b"")


def ask(connection: socket.socket, raw: bytes, *, to_head: bool = False) -> Answer:
    """Send a request and read its answer; the connection is closed."""
    with connection:
        send(connection, raw)
        return read(connection, to_head=to_head)


def send(connection: socket.socket, raw: bytes) -> None:
    """Send all; a peer that refuses early may hang up meanwhile."""
    connection.settimeout(ANSWER_S)
    try:
        connection.sendall(raw)
    except OSError:
        return


def read(connection: socket.socket, *, to_head: bool = False, within_s: float = ANSWER_S) -> Answer:
    """Read one answer, of a stream what comes at once."""
    connection.settimeout(within_s)
    head = b""
    try:
        while b"\r\n\r\n" not in head and len(head) < HEAD_MAX:
            part = connection.recv(64 * 1024)
            if not part:
                break
            head += part
    except OSError:
        return NONE
    head, _, rest = head.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if not words[0].startswith("HTTP/1.") or len(words) < 2 or not words[1].isdigit():
        return NONE
    headers = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(":") for line in lines)
    }
    status = int(words[1])
    if to_head or status == 101:
        return Answer(status, b"", headers)
    return Answer(status, _body(connection, rest, headers), headers)


def _body(connection: socket.socket, rest: bytes, headers: dict[str, str]) -> bytes:
    chunked = headers.get("transfer-encoding", "").lower() == "chunked"
    length = None if chunked else int(headers.get("content-length", "-1"))
    if not chunked and length is not None and length >= 0:
        connection.settimeout(ANSWER_S)
    else:
        connection.settimeout(STREAM_S)
        length = None
    try:
        while not (_ended(rest) if chunked else length is not None and len(rest) >= length):
            part = connection.recv(64 * 1024)
            if not part:
                break
            rest += part
    except OSError:
        pass  # a stream goes on; what came of it is enough
    return dechunked(rest) if chunked else rest


def _ended(raw: bytes) -> bool:
    return raw.endswith(b"0\r\n\r\n")


def dechunked(raw: bytes) -> bytes:
    """Return the data of chunks, as far as they came."""
    data = b""
    while True:
        size, found, raw = raw.partition(b"\r\n")
        try:
            length = int(size.split(b";")[0], 16)
        except ValueError:
            return data
        if not found or not length:
            return data
        data, raw = data + raw[:length], raw[length + 2 :]
