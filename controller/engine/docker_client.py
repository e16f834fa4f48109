"""The Docker SDK as a transport to the broker's socket. The only module that imports ``docker``.

The SDK's low-level client is a ``requests.Session`` over a pool of connections to a Unix socket.
Streams use the session, because mutations need the header Trimtab-Context, and ``translate`` builds
the bodies. Whole responses come from the pool itself: the session takes as much processor time for
cookies, proxies and hooks as the pool takes for the request.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlencode

import docker
import requests
import urllib3
from docker.transport import UnixHTTPAdapter
from docker.transport.unixconn import UnixHTTPConnection, UnixHTTPConnectionPool
from docker.types import CancellableStream

from controller.engine.transport import (
    ConnectionBroken,
    EngineResponse,
    NotSent,
    OutgoingRequest,
    Silent,
)
from controller.system.unix_socket import connect_to_broker

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


class OnePoolAdapter(UnixHTTPAdapter):
    """The SDK's adapter with one pool of connections for all URLs.

    The SDK's own adapter keeps a pool for each URL. So nearly each request opened a connection, and
    the broker judged a new peer.
    """

    def get_connection(  # as UnixHTTPAdapter
        self, url: str | bytes, proxies: object = None
    ) -> UnixHTTPConnectionPool:
        """Return the one pool."""
        del url, proxies  # every URL is of the one socket
        with self.pools.lock:
            pool = self.pools.get("")
            if pool is None:
                size = self.max_pool_size
                pool = BrokerPool("", self.socket_path, self.timeout, maxsize=size)
                self.pools[""] = pool
        return pool


class SdkTransport:
    """A ``Transport`` over the Docker SDK's ``APIClient``."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._client = docker.APIClient(
            base_url=f"unix://{socket}",
            version=API_VERSION,
            timeout=int(CONNECT_TIMEOUT_S),
            max_pool_size=_POOL,
        )
        adapter = OnePoolAdapter(
            f"http+unix://{socket}", int(CONNECT_TIMEOUT_S), max_pool_size=_POOL
        )
        self._pool = adapter.get_connection("")
        self._client.mount("http+docker://", adapter)
        self._client.trust_env = False  # no proxies, no .netrc
        self._client.headers.pop("Accept-Encoding", None)  # no compressed responses

    def call(self, request: OutgoingRequest, context: str) -> EngineResponse:
        """Send one request and return its response."""
        body = request.data or None
        headers = {"User-Agent": str(self._client.headers["User-Agent"])}
        if request.body is not None:
            body = json.dumps(request.body).encode()
            headers["Content-Type"] = "application/json"
        query = f"?{urlencode(request.query)}" if request.query else ""
        try:
            reply = self._pool.urlopen(
                request.method,
                f"{_versioned(request.path)}{query}",
                body=body,
                headers=headers | _headers(request, context),
                retries=False,
                redirect=False,
                timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=request.timeout_s),
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise self._failure(error) from error
        return EngineResponse(reply.status, reply.data)

    def stream(self, request: OutgoingRequest, context: str) -> SdkStream:
        """Send one request. Returns as soon as the head of the response arrives."""
        try:
            reply = self._client.request(
                request.method,
                f"{self._client.base_url}{_versioned(request.path)}",
                params=request.query,
                json=request.body,
                data=request.data or request.pieces,
                headers=_headers(request, context),
                timeout=(CONNECT_TIMEOUT_S, request.timeout_s),
                allow_redirects=False,
                stream=True,
            )
        except (requests.RequestException, OSError) as error:
            raise self._failure(error) from error
        return SdkStream(reply)

    def close(self) -> None:
        """Close all idle connections."""
        self._client.close()

    def _failure(self, error: Exception) -> NotSent | ConnectionBroken:
        numbers = {cause.errno for cause in _causes(error) if isinstance(cause, OSError)}
        if numbers & _UNSENT:
            return NotSent(f"no broker answers at {self._socket}")
        return ConnectionBroken(f"the connection to the broker at {self._socket} broke: {error}")


class SdkStream:
    """An ``EngineStream`` over a response of the SDK."""

    def __init__(self, reply: requests.Response) -> None:
        self._reply = reply
        self._ended = False

    @property
    def status(self) -> int:
        """The status of the response."""
        return self._reply.status_code

    def lines(self) -> Iterator[bytes]:
        """Yield lines as they arrive."""
        rest = b""
        try:
            for chunk in self._reply.iter_content(chunk_size=None):
                *whole, rest = (rest + chunk).split(b"\n")
                yield from (line for line in whole if line.strip())
                if len(rest) > LINE_MAX:
                    raise ConnectionBroken(f"a line of more than {LINE_MAX} bytes")
        except (requests.RequestException, OSError, ValueError, AttributeError) as error:
            # ValueError and AttributeError: another thread closed the response during the read.
            kind = (
                Silent
                if any(isinstance(e, TimeoutError) for e in _causes(error))
                else ConnectionBroken
            )
            raise kind(f"the stream broke: {error}") from error
        finally:
            self._reply.close()
        if rest.strip():
            yield rest

    def close(self) -> None:
        """Close the response. Wakes a reader blocked in another thread."""
        if self._ended:
            return
        self._ended = True
        # The SDK's way to wake a blocked reader. It raises after the end of the response.
        with suppress(OSError, AttributeError):
            CancellableStream(iter(()), self._reply).close()


def _versioned(path: str) -> str:
    return path if path.startswith("/trimtab/") else f"/v{API_VERSION}{path}"


def _headers(request: OutgoingRequest, context: str) -> dict[str, str]:
    kind = {"Content-Type": "application/octet-stream"} if request.data else {}
    if request.pieces is not None:
        kind = {"Content-Type": "application/x-tar"}
    return kind | ({"Trimtab-Context": context} if context else {})


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all nested errors, in ``args`` (requests) and in ``__cause__``."""
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
