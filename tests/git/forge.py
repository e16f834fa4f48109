"""A forge on loopback: it records the statuses of commits, and answers as it is told."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

TOKEN = "t0k3n-0123456789"


@dataclass(frozen=True)
class Received:
    """A request that arrived."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class Answers:
    """The answers to come: a status with headers each, 201 once all are given."""

    next: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    body: bytes = b"{}"


class ForgeServer(ThreadingHTTPServer):
    """A forge, on *listener* or a port of its own.

    With *certificate*, a folder with ``ca.pem`` and ``key.pem``, it speaks TLS.
    """

    daemon_threads = True

    def __init__(
        self, certificate: Path | None = None, *, listener: socket.socket | None = None
    ) -> None:
        self.received: list[Received] = []
        self.answers = Answers()
        #: Set once a request has come.
        self.arrived = threading.Event()
        #: While it is cleared, answers are held back.
        self.may_answer = threading.Event()
        self.may_answer.set()
        super().__init__(("127.0.0.1", 0), _Handler, bind_and_activate=listener is None)
        if listener is not None:
            self.socket.close()
            self.socket = listener
            self.server_address = listener.getsockname()
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate / "ca.pem", certificate / "key.pem")
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self._scheme = "http" if certificate is None else "https"

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.server_address[1]}"

    def told(self) -> list[tuple[str, str, str]]:
        """Return the first digit of the commit, the state and the text of each status."""
        return [
            (each.path[-40], each.body["state"], each.body["description"]) for each in self.received
        ]

    def states(self) -> list[str]:
        return [each.body["state"] for each in self.received]

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore a client that goes away."""

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.may_answer.set()
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: ForgeServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.received.append(Received(self.path, headers, json.loads(body)))
        self.server.arrived.set()
        self.server.may_answer.wait()
        answers = self.server.answers
        status, more = answers.next.pop(0) if answers.next else (201, {})
        self.send_response(status)
        for name, value in more.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answers.body)))
        self.end_headers()
        self.wfile.write(answers.body)

    def do_GET(self) -> None:
        self.server.received.append(Received(self.path, dict(self.headers), {}))
        self.send_error(405)

    def log_message(self, *_: object) -> None:
        pass
