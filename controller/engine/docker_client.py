"""The Docker SDK's pool of connections to a Unix socket, to the broker. Only this module imports ``docker``.

The SDK's session over the pool isn't used: mutations need the header Trimtab-Context, ``translate`` builds the
bodies, and the session takes as much processor time for cookies, proxies and hooks as the pool takes
for the request.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlencode

import urllib3
from docker.transport.unixconn import UnixHTTPConnection, UnixHTTPConnectionPool

from controller.engine.requests import (
    ConnectionBroken,
    EngineResponse,
    NotSent,
    OutgoingRequest,
    Silent,
)
from controller.system.sockets import connect_to_broker

API_VERSION = "1.45"
CONNECT_TIMEOUT_S = 5.0
LINE_MAX = 1024 * 1024
_POOL = 16  # workers, event stream, control socket
#: Errors of connect(2): nothing was sent. EAGAIN is a full backlog (unix(7)).
_UNSENT = frozenset(
    {errno.ENOENT, errno.ECONNREFUSED, errno.EACCES, errno.EPERM, errno.EAGAIN, errno.ENOTDIR}
)


class BrokerConnection(UnixHTTPConnection):
    """A connection to the broker's reserved socket for the user of the process."""

    def connect(self) -> None:
        """Connect, and wait in turn if the backlog is full."""
        self.sock = connect_to_broker(Path(self.unix_socket), timeout_s=CONNECT_TIMEOUT_S)


class BrokerPool(UnixHTTPConnectionPool):
    """The SDK's pool, of connections to the broker."""

    def _new_conn(self) -> BrokerConnection:  # type: ignore[override]  # as in the SDK
        return BrokerConnection(self.base_url, self.socket_path, int(CONNECT_TIMEOUT_S))


class SdkTransport:
    """A ``Transport`` over the SDK's pool."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pool = BrokerPool("", str(path), int(CONNECT_TIMEOUT_S), maxsize=_POOL)

    def call(self, request: OutgoingRequest, context: str) -> EngineResponse:
        """Send one request and return its response."""
        reply = self._send(request, context, is_stream=False)
        return EngineResponse(reply.status, reply.data)

    def stream(self, request: OutgoingRequest, context: str) -> SdkStream:
        """Send one request. Returns as soon as the head of the response arrives."""
        return SdkStream(self._send(request, context, is_stream=True))

    def _send(
        self, request: OutgoingRequest, context: str, *, is_stream: bool
    ) -> urllib3.BaseHTTPResponse:
        body = request.data or request.pieces
        if request.body is not None:
            body = json.dumps(request.body).encode()
        query = f"?{urlencode(request.query)}" if request.query else ""
        try:
            return self._pool.urlopen(
                request.method,
                f"{_versioned(request.path)}{query}",
                body=body or None,
                headers=_headers(request, context),
                retries=False,
                redirect=False,
                timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=request.timeout_s),
                preload_content=not is_stream,
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            numbers = {cause.errno for cause in _causes(error) if isinstance(cause, OSError)}
            if numbers & _UNSENT:
                raise NotSent(f"no broker answers at {self._path}") from error
            what = f"the connection to the broker at {self._path} broke: {error}"
            raise ConnectionBroken(what) from error

    def close(self) -> None:
        """Close all idle connections."""
        self._pool.close()


class SdkStream:
    """An ``EngineStream`` over a response of the pool."""

    def __init__(self, reply: urllib3.BaseHTTPResponse) -> None:
        self._reply = reply

    @property
    def status(self) -> int:
        """The status of the response."""
        return self._reply.status

    def lines(self) -> Iterator[bytes]:
        """Yield lines as they arrive."""
        rest = b""
        try:
            for chunk in self._reply.stream():
                *whole, rest = (rest + chunk).split(b"\n")
                yield from (line for line in whole if line.strip())
                if len(rest) > LINE_MAX:
                    raise ConnectionBroken(f"a line of more than {LINE_MAX} bytes")
        except (urllib3.exceptions.HTTPError, OSError, ValueError, AttributeError) as error:
            # ValueError and AttributeError: another thread closed the response during the read.
            is_silent = any(isinstance(each, TimeoutError) for each in _causes(error))
            kind = Silent if is_silent else ConnectionBroken
            raise kind(f"the stream broke: {error}") from error
        finally:
            self._reply.close()
        if rest.strip():
            yield rest

    def close(self) -> None:
        """Close the response. Wakes a reader blocked in another thread."""
        with suppress(OSError, RuntimeError, ValueError):  # it ended
            self._reply.shutdown()
        self._reply.close()


def _versioned(path: str) -> str:
    return path if path.startswith("/trimtab/") else f"/v{API_VERSION}{path}"


def _headers(request: OutgoingRequest, context: str) -> dict[str, str]:
    kind = {"Content-Type": "application/octet-stream"} if request.data else {}
    if request.body is not None:
        kind = {"Content-Type": "application/json"}
    if request.pieces is not None:
        kind = {"Content-Type": "application/x-tar"}
    return kind | ({"Trimtab-Context": context} if context else {})


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all nested errors, in ``args`` (urllib3) and in ``__cause__``."""
    todo: list[BaseException] = [error]
    seen: set[int] = set()
    while todo:
        current = todo.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        nested = (current.__cause__, current.__context__, *current.args)
        todo.extend(item for item in nested if isinstance(item, BaseException))
