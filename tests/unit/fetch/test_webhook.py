"""The listener of webhooks over real connections: only an authentic request wakes a source."""

from __future__ import annotations

import hmac
import http.client
import queue
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from controller.fetch.webhook import (
    BODY_MAX,
    CONNECTIONS,
    LIFE_S,
    WebhookParts,
    WebhookServer,
    read_secret,
    serve_webhooks,
)
from controller.model.errors import UsageError

SECRET = b"a secret of enough bytes"
BODY = b'{"ref": "refs/heads/main"}'
PATIENCE_S = 30.0
NO_HEADERS: Mapping[str, str] = {}


@dataclass
class Listening:
    server: WebhookServer
    woken: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue)

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.server.server_address[:2]
        return str(host), int(port)

    def ask(
        self,
        path: str,
        headers: Mapping[str, str] = NO_HEADERS,
        *,
        method: str = "POST",
        body: bytes = BODY,
    ) -> int:
        connection = http.client.HTTPConnection(*self.address, timeout=PATIENCE_S)
        try:
            connection.request(method, path, body, dict(headers))
            return connection.getresponse().status
        finally:
            connection.close()


@pytest.fixture
def listening(request: pytest.FixtureRequest) -> Iterator[Listening]:
    woken: queue.SimpleQueue[str] = queue.SimpleQueue()
    parts = WebhookParts(lambda name: {"shop": SECRET}.get(name, b""), woken.put)
    server = WebhookServer(("127.0.0.1", 0), parts, life_s=getattr(request, "param", LIFE_S))
    server.start()
    yield Listening(server, woken)
    server.shutdown()
    server.server_close()


def signature(body: bytes = BODY) -> str:
    return "sha256=" + hmac.new(SECRET, body, "sha256").hexdigest()


def test_an_authentic_webhook_wakes_its_source(listening: Listening) -> None:
    assert listening.ask("/hooks/shop", {"X-Hub-Signature-256": signature()}) == 202
    assert listening.woken.get(timeout=PATIENCE_S) == "shop"


def test_other_requests_wake_nothing(listening: Listening) -> None:
    right = {"X-Hub-Signature-256": signature()}
    assert listening.ask("/hooks/shop") == 403
    assert listening.ask("/hooks/shop", right, body=b"other") == 403
    assert listening.ask("/hooks/other", right) == 403
    assert listening.ask("/elsewhere", right) == 403
    assert listening.ask("/hooks/shop", right, method="GET") == 501
    assert listening.woken.empty()


def test_a_body_without_a_length_is_refused(listening: Listening) -> None:
    with socket.create_connection(listening.address, timeout=PATIENCE_S) as client:
        client.sendall(b"POST /hooks/shop HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.0 411")


def test_a_long_body_is_refused_unread(listening: Listening) -> None:
    with socket.create_connection(listening.address, timeout=PATIENCE_S) as client:
        length = f"Content-Length: {BODY_MAX + 1}".encode()
        client.sendall(b"POST /hooks/shop HTTP/1.1\r\n" + length + b"\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.0 413")


@pytest.mark.parametrize("listening", [1.0], indirect=True)
def test_connections_are_bounded_and_slow_ones_end(listening: Listening) -> None:
    slow = [
        socket.create_connection(listening.address, timeout=PATIENCE_S) for _ in range(CONNECTIONS)
    ]
    for each in slow:
        each.sendall(b"POST /hooks/shop HTTP/1.1\r\n")
    for each in slow:
        assert each.recv(1) == b""  # ended by the listener
        each.close()
    assert listening.ask("/hooks/shop", {"X-Hub-Signature-256": signature()}) == 202


def test_a_secret_that_everybody_can_read_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "shop"
    file.write_bytes(SECRET + b"\n")
    file.chmod(0o640)
    assert read_secret("shop", tmp_path) == SECRET
    file.chmod(0o644)
    assert [read_secret("shop", tmp_path) for _ in range(3)] == [b""] * 3
    assert read_secret("other", tmp_path) == b""
    assert len(caplog.records) == 1, "each request would write a line into the log"


#: With the right signature of the body, as far as there is a body.
HOSTILE_REQUESTS = (
    (b"POST /hooks/shop HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 26\r\n", b"403"),
    (b"POST /hooks/shop HTTP/1.1\r\nContent-Length: +26\r\n", b"411"),
    (b"POST /hooks/shop HTTP/1.1\r\nContent-Length: 0x1a\r\n", b"411"),
    (b"POST /hooks/shop HTTP/1.1\r\nContent-Length: 26\r\nTransfer-Encoding: identity\r\n", b"411"),
    (b"POST /hooks/shop HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n", b"413"),
    (b"POST /hooks/shop/ HTTP/1.1\r\nContent-Length: 26\r\n", b"403"),
    (b"POST /hooks/../hooks/shop HTTP/1.1\r\nContent-Length: 26\r\n", b"403"),
    (b"POST /hooks/shop?x HTTP/1.1\r\nContent-Length: 26\r\n", b"403"),
    (b"POST /hooks/sh%6fp HTTP/1.1\r\nContent-Length: 26\r\n", b"403"),
    (b"POST /hooks/shop HTTP/1.1\r\nX-Gitlab-Token: wrong\r\nContent-Length: 26\r\n", b"403"),
    (b"POST /hooks/shop HTTP/1.1\r\nX-Gitea-Signature: \xff\xfe\r\nContent-Length: 26\r\n", b"403"),
    (b"POST /hooks/shop HTTP/9.9\r\nContent-Length: 26\r\n", b"505"),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n", b"505"),
    (b"POST /hooks/shop HTTP/1.1\r\n" + b"A: b\r\n" * 200, b"431"),
    (b"POST /hooks/shop HTTP/1.1\r\nA: " + b"b" * 70_000 + b"\r\n", b"431"),
    (b"POST /" + b"a" * 70_000 + b" HTTP/1.1\r\n", b"414"),
)


def test_no_spelling_of_a_request_wakes_a_source(listening: Listening) -> None:
    right = f"X-Hub-Signature-256: {signature()}\r\n\r\n".encode() + BODY
    for request, status in HOSTILE_REQUESTS:
        with socket.create_connection(listening.address, timeout=PATIENCE_S) as client:
            client.sendall(request + right)
            assert status in client.recv(300), request[:80]
    assert listening.woken.empty()


@pytest.mark.parametrize("address", ["9000", "localhost:9000", "127.0.0.1:x", "192.0.2.1:9000"])
def test_an_address_that_cannot_be_listened_on_is_an_error(address: str) -> None:
    with pytest.raises(UsageError, match="can't listen for webhooks"):
        serve_webhooks(address, str)
