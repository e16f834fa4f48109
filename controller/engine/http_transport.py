"""The transport to the broker: HTTP/1.1 over the broker's Unix socket.

Connections are kept for later requests, since the broker identifies the peer of each new one. A
request is sent once: an error after the connect says that the request was possibly received.
"""

from __future__ import annotations

import json
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from controller.engine.transport import (
    ConnectionBroken,
    EngineResponse,
    NotSent,
    OutgoingRequest,
    Silent,
)
from controller.system.unix_socket import connect_in_turn

API_VERSION: Final = "1.45"
CONNECT_TIMEOUT_S: Final = 5.0
LINE_MAX: Final = 1024 * 1024
READ_BYTES: Final = 64 * 1024
#: Idle connections that are kept at most: a pass uses one at a time.
IDLE_MAX: Final = 8


class _Connection(HTTPConnection):
    """A connection to the broker. ``request`` connects it."""

    def __init__(self, path: Path) -> None:
        super().__init__("trimtab")
        self._path = path
        #: The socket, also once the last response took it (``sock`` is None then).
        self.peer: socket.socket | None = None

    def connect(self) -> None:
        """Connect, and wait for a turn in a full backlog.

        Raises:
            NotSent: nobody answers at the socket.
        """
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connect_in_turn(peer, self._path, timeout_s=CONNECT_TIMEOUT_S)
        except OSError as error:
            peer.close()
            raise NotSent(f"no broker answers at {self._path}") from error
        self.sock = self.peer = peer

    def is_usable(self) -> bool:
        """Return True if another request can be sent: the broker hasn't closed the connection."""
        if self.sock is None:
            return False
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return not poll.poll(0)


class HttpTransport:
    """A ``Transport`` over connections to one socket. Thread-safe."""

    def __init__(self, socket_path: Path) -> None:
        self._path = socket_path
        #: The connections without a request, the last used at the end.
        self._idle: list[_Connection] = []
        self._lock = threading.Lock()

    def call(self, request: OutgoingRequest, context: str) -> EngineResponse:
        """Send one request and return its response."""
        connection, response = self._send(request, context)
        try:
            reply = EngineResponse(response.status, response.read())
        except (HTTPException, OSError) as error:
            connection.close()
            raise self._broken(error) from error
        self._keep(connection)
        return reply

    def stream(self, request: OutgoingRequest, context: str) -> HttpStream:
        """Send one request. Returns as soon as the head of the response arrives."""
        connection, response = self._send(request, context)
        return HttpStream(connection, response)

    def _send(self, request: OutgoingRequest, context: str) -> tuple[_Connection, HTTPResponse]:
        version = "" if request.path.startswith("/trimtab/") else f"/v{API_VERSION}"
        query = f"?{urlencode(request.query)}" if request.query else ""
        body = None if request.body is None else json.dumps(request.body).encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        if context:
            headers["Trimtab-Context"] = context
        connection = self._take()
        try:
            if connection.sock is None:
                connection.connect()
            connection.sock.settimeout(request.timeout_s)
            connection.request(request.method, f"{version}{request.path}{query}", body, headers)
            return connection, connection.getresponse()
        except (HTTPException, OSError) as error:
            connection.close()
            raise self._broken(error) from error

    def _take(self) -> _Connection:
        """Return a kept connection that the broker didn't close, or a new one."""
        with self._lock:
            while self._idle:
                connection = self._idle.pop()
                if connection.is_usable():
                    return connection
                connection.close()
        return _Connection(self._path)

    def _keep(self, connection: _Connection) -> None:
        with self._lock:
            if connection.sock is not None and len(self._idle) < IDLE_MAX:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Close the kept connections."""
        with self._lock:
            while self._idle:
                self._idle.pop().close()

    def _broken(self, error: Exception) -> ConnectionBroken:
        return ConnectionBroken(f"the connection to the broker at {self._path} broke: {error!r}")


class HttpStream:
    """An ``EngineStream`` over a response with its own connection."""

    def __init__(self, connection: _Connection, response: HTTPResponse) -> None:
        self._connection = connection
        self._response = response

    @property
    def status(self) -> int:
        """The status of the response."""
        return self._response.status

    def lines(self) -> Iterator[bytes]:
        """Yield lines as they arrive."""
        rest = b""
        try:
            while chunk := self._response.read1(READ_BYTES):
                *whole, rest = (rest + chunk).split(b"\n")
                yield from (line for line in whole if line.strip())
                if len(rest) > LINE_MAX:
                    raise ConnectionBroken(f"a line of more than {LINE_MAX} bytes")
        except TimeoutError as error:
            raise Silent(f"the stream broke: {error}") from error
        except (HTTPException, OSError, ValueError, AttributeError) as error:
            # ValueError and AttributeError: another thread closed the response during the read.
            raise ConnectionBroken(f"the stream broke: {error!r}") from error
        finally:
            self._response.close()
            self._connection.close()
        if rest.strip():
            yield rest

    def close(self) -> None:
        """End the stream. Wakes a reader blocked in another thread."""
        if (peer := self._connection.peer) is not None:
            with suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
