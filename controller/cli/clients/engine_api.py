"""The Engine API through the broker's socket, with the standard library only.

Supports the calls of ``logs`` and ``exec``: JSON, streamed answers and hijacked connections. The
broker judges each request, and journals reads of output.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from controller.cli.clients.socket_client import (
    REPLY_MAX,
    TIMEOUT_S,
    UnixConnection,
    connect,
    error_of,
)
from controller.model.errors import EngineFailed, EngineUnavailable

#: The oldest version that the gate supports.
VERSION = "v1.44"
READ_BYTES = 64 * 1024
HEAD_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class Streamed:
    """An answer with a body that arrives in chunks."""

    content_type: str
    chunks: Iterator[bytes]


@dataclass(frozen=True, slots=True)
class TakenOver:
    """A hijacked connection; the caller closes it."""

    connection: socket.socket
    content_type: str
    early: bytes  # received together with the head of the answer


@dataclass(frozen=True, slots=True)
class EngineApi:
    """Requests to the broker, as the user of the command.

    Each method raises the errors of ``BrokerApi``: EngineUnavailable, StateError, Refused,
    EngineFailed.
    """

    path: Path
    timeout_s: float = TIMEOUT_S

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """Return the JSON of a GET."""
        return json.loads(self._whole("GET", path, query or {}, None))

    def post(
        self, path: str, body: object | None = None, query: Mapping[str, str] | None = None
    ) -> Any:
        """Send a body; return the JSON of the answer, None for an empty answer."""
        data = self._whole("POST", path, query or {}, body)
        return json.loads(data) if data else None

    @contextmanager
    def stream(self, path: str, query: Mapping[str, str]) -> Iterator[Streamed]:
        """Send a GET and yield its body as it arrives, without a timeout."""
        connection = UnixConnection(self.path, self.timeout_s)
        try:
            with self._translated():
                connection.connect()
                peer = connection.sock  # getresponse clears the attribute
                connection.request("GET", _target(path, query))
                reply = connection.getresponse()
                if reply.status >= HTTPStatus.BAD_REQUEST:
                    raise error_of(reply.status, reply.read(REPLY_MAX))
                peer.settimeout(None)
            try:
                yield Streamed(reply.getheader("Content-Type", ""), self._chunks(reply))
            finally:
                with suppress(OSError):
                    # close waits for a reading thread, and a shutdown ends the thread's read.
                    peer.shutdown(socket.SHUT_RDWR)
        finally:
            connection.close()

    def take_over(self, path: str, body: object) -> TakenOver:
        """Send a request that hijacks the connection: a stream in both directions."""
        data = json.dumps(body).encode()
        head = (
            f"POST {_target(path, {})} HTTP/1.1\r\nHost: trimtab\r\nConnection: Upgrade\r\n"
            f"Upgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        peer = connect(self.path, self.timeout_s)
        try:
            with self._translated():
                peer.sendall(head.encode() + data)
                return self._taken_over(peer)
        except BaseException:
            peer.close()
            raise

    def _taken_over(self, peer: socket.socket) -> TakenOver:
        received = b""
        while b"\r\n\r\n" not in received and len(received) < HEAD_MAX:
            data = peer.recv(READ_BYTES)
            if not data:
                raise ConnectionResetError("it hung up")
            received += data
        head, _, early = received.partition(b"\r\n\r\n")
        status_line, *fields = head.decode("latin-1").split("\r\n")
        status = int(status_line.split(" ")[1])
        headers = {
            name.lower(): value.strip() for name, _, value in (f.partition(":") for f in fields)
        }
        if status >= HTTPStatus.BAD_REQUEST:
            length = min(int(headers.get("content-length", "0")), REPLY_MAX)
            while len(early) < length and (data := peer.recv(READ_BYTES)):
                early += data
            raise error_of(status, early)
        if status != HTTPStatus.SWITCHING_PROTOCOLS:
            raise EngineFailed(
                "exec.not-upgraded", f"the connection wasn't taken over: {status_line}"
            )
        peer.settimeout(None)
        return TakenOver(peer, headers.get("content-type", ""), early)

    def _whole(
        self, method: str, path: str, query: Mapping[str, str], body: object | None
    ) -> bytes:
        connection = UnixConnection(self.path, self.timeout_s)
        data = None if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        try:
            with self._translated():
                connection.request(method, _target(path, query), body=data, headers=headers)
                reply = connection.getresponse()
                answer = reply.read(REPLY_MAX)
        finally:
            connection.close()
        if reply.status >= HTTPStatus.BAD_REQUEST:
            raise error_of(reply.status, answer)
        return answer

    def _chunks(self, reply: http.client.HTTPResponse) -> Iterator[bytes]:
        with self._translated():
            while data := reply.read1(READ_BYTES):
                yield data

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn errors of the connection into EngineUnavailable with the socket's path."""
        try:
            yield
        except (OSError, ValueError, AttributeError, http.client.HTTPException) as error:
            # ValueError, AttributeError: another thread closed the connection during a read.
            raise EngineUnavailable(
                "broker.lost", f"the broker at {self.path} doesn't answer: {error}"
            ) from error


def _target(path: str, query: Mapping[str, str]) -> str:
    target = f"/{VERSION}{quote(path)}"
    return f"{target}?{urlencode(query)}" if query else target
