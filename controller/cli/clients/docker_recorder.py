"""A Unix socket that records Engine API requests and answers without an engine.

Each request gets the reply of an engine that has every image and carries out every call, so that
a docker client goes on to its next request. Nothing is created, pulled or started.
"""

from __future__ import annotations

import json
import re
import socket
import socketserver
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote

from controller.core.encoding.json_members import parse_object

#: The newest version of the Engine API that the broker reads. Docker adapts its requests to it.
API_VERSION = "1.45"
REQUESTS_MAX = 1000
BODY_BYTES_MAX = 4 * 1024 * 1024
ALL_BODIES_BYTES_MAX = 64 * 1024 * 1024
IDLE_S = 20.0
_READ_BYTES = 4096
_VERSION = re.compile(r"^/v[0-9.]+(?=/)")
_LISTS = frozenset({"/images/json", "/images/search"})
_HIJACKED = re.compile(r"/(containers/[^/]+/attach|exec/[^/]+/start)")
#: Compose creates missing networks and volumes. Docker would write archives to files.
_ABSENT = re.compile(r"/((networks|volumes)/[^/]+|.+/(archive|export|logs)|images/get)")
#: One reply for all other calls, with the members that docker and compose read in any of them.
_REPLY: dict[str, Any] = {
    "ApiVersion": API_VERSION,
    "Version": "26.1.5",
    "OSType": "linux",
    "Os": "linux",
    "Swarm": {"LocalNodeState": "inactive"},
    "State": {"Status": "running", "Running": True, "Health": {"Status": "healthy"}},
    "Config": {"Labels": {}},
    "HostConfig": {},
    "NetworkSettings": {"Networks": {}},
    "Mounts": [],
    "Warnings": [],
    "StatusCode": 0,
    "ExitCode": 0,
}


class EngineRequest(NamedTuple):
    """A request to the engine."""

    method: str
    path: str  # without a version
    query: str  # raw
    body: bytes  # empty for no body; cut off above BODY_BYTES_MAX


class DockerRecorder(socketserver.ThreadingUnixStreamServer):
    """Records the requests to a socket: run ``serve_forever`` in a thread."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        self.requests: list[EngineRequest] = []
        #: The created containers, as a list of containers shows them to compose.
        self.containers: list[dict[str, Any]] = []
        #: The networks and volumes that a client has inspected.
        self.inspected: set[str] = set()
        super().__init__(str(path), _Handler)

    @property
    def is_full(self) -> bool:
        """Return True if the recorder takes no more requests."""
        size = sum(len(request.body) for request in self.requests)
        return len(self.requests) >= REQUESTS_MAX or size >= ALL_BODIES_BYTES_MAX

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: docker's own error shows that a connection broke."""


class _Handler(BaseHTTPRequestHandler):
    """Records and answers the requests of one connection."""

    server: DockerRecorder
    protocol_version = "HTTP/1.1"
    timeout = IDLE_S

    def log_message(self, *_: object) -> None:
        """Print nothing: standard error belongs to the command."""

    def _handle(self) -> None:
        path, _, query = _VERSION.sub("", self.path).partition("?")
        request = EngineRequest(self.command, path, query, self._read_body())
        if self.server.is_full:
            self.close_connection = True
            return
        if path != "/_ping":
            self.server.requests.append(request)
        if _HIJACKED.fullmatch(path):
            self._hijack()
        elif request.method in {"GET", "HEAD"} and _ABSENT.fullmatch(path):
            self.server.inspected.add(_object_name(path))
            self._reply(HTTPStatus.NOT_FOUND, {"message": "no engine answers here"})
        else:
            created = path.endswith("/create")
            status = HTTPStatus.CREATED if created else HTTPStatus.OK
            self._reply(status, self._result(request))

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _handle  # noqa: N815 - named by http.server

    def _read_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            length = int(self.headers.get("Content-Length") or 0)
            self.close_connection |= length > BODY_BYTES_MAX
            return self.rfile.read(min(length, BODY_BYTES_MAX))
        body = b""
        while size := int(self.rfile.readline(_READ_BYTES).partition(b";")[0] or b"0", 16):
            body += self.rfile.read(min(size, BODY_BYTES_MAX - len(body)))
            if len(body) >= BODY_BYTES_MAX:
                self.close_connection = True
                return body
            self.rfile.readline(_READ_BYTES)
        self.rfile.readline(_READ_BYTES)
        return body

    def _hijack(self) -> None:
        """Turn the connection into a stream: empty from here, read to the end of the client's."""
        self.close_connection = True
        self.send_response(HTTPStatus.SWITCHING_PROTOCOLS)
        self.send_header("Connection", "Upgrade")
        self.send_header("Upgrade", "tcp")
        self.end_headers()
        self.connection.shutdown(socket.SHUT_WR)
        with suppress(OSError):
            # A close with unread input would reset the connection, and docker would fail.
            while self.connection.recv(_READ_BYTES):
                pass

    def _result(self, request: EngineRequest) -> object:
        path, body = request.path, parse_object(request.body)
        if path == "/containers/json":
            return self.server.containers
        if path == "/networks":
            # Compose inspects its own networks before it lists them, but lists external ones first.
            external = _filtered_names(request.query) - self.server.inspected
            return [{"Id": name, "Name": name} for name in sorted(external)]
        if path in _LISTS or path.endswith("/changes") or request.method == "DELETE":
            return []
        query_names = parse_qs(request.query).get("name")
        name = query_names[0] if query_names else str(body.get("Name") or _object_name(path))
        if path == "/containers/create":
            labels = body.get("Labels") or {}
            self.server.containers.append({"Id": name, "Names": [f"/{name}"], "Labels": labels})
        return _REPLY | {"Id": name, "Name": name}

    def _reply(self, status: HTTPStatus, result: object) -> None:
        data = b"" if self.command == "HEAD" else json.dumps(result).encode()
        self.send_response(status)
        self.send_header("Api-Version", API_VERSION)
        self.send_header("Ostype", "linux")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _filtered_names(query: str) -> set[str]:
    """Return the names in a ``filters`` parameter."""
    filters = parse_object("".join(parse_qs(query).get("filters", ())).encode())
    return set(filters.get("name") or ())


def _object_name(path: str) -> str:
    """Return the name in a path, or a placeholder: ``CONTAINER`` for ``/containers/create``."""
    kind, _, rest = path.strip("/").partition("/")
    if rest in {"", "create"}:
        return kind.removesuffix("s").upper()
    name, _, _ = rest.rpartition("/") if "/" in rest else (rest, "", "")
    return unquote(name)
