"""The Docker SDK as a transport: sent and unsent requests, and the ends of streams."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from controller.engine.docker_client import SdkTransport
from controller.engine.requests import (
    ConnectionBroken,
    EngineResponse,
    NotSent,
    OutgoingRequest,
    Silent,
)

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
STREAM = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class Received(list[bytes]):
    """The received requests. ``closed`` counts the closed connections."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = threading.Semaphore(0)


@contextmanager
def broker(path: Path, *scripts: Callable[[socket.socket], object]) -> Iterator[Received]:
    """Serve one connection by each script, and collect the requests' bytes."""
    received = Received()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        for script in scripts:
            peer, _ = listener.accept()
            with peer:
                peer.settimeout(10)
                received.append(read_request(peer))
                script(peer)
            received.closed.release()

    server = threading.Thread(target=serve, daemon=True)
    server.start()
    try:
        yield received
    finally:
        server.join(timeout=10)
        listener.close()
        assert not server.is_alive(), "a connection was expected and never came"


def read_request(peer: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += peer.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")]
    wanted = int(lengths[0].split(b":")[1]) if lengths else 0
    while len(body) < wanted:
        body += peer.recv(65536)
    return head + b"\r\n\r\n" + body


def reply(body: bytes) -> Callable[[socket.socket], None]:
    return lambda peer: peer.sendall(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)


def hang_up(_peer: socket.socket) -> None:
    """Read the request and send nothing."""


def call(
    transport: SdkTransport, *, body: dict[str, object] | None = None, timeout_s: float = 5
) -> EngineResponse:
    query = {"name": "web.1-0"}
    request = OutgoingRequest("POST", "/containers/create", query, body, timeout_s=timeout_s)
    return transport.call(request, "Y29udGV4dA")


def test_a_request_is_versioned_and_carries_the_claims_and_nothing_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    netrc = tmp_path / "netrc"
    netrc.write_text("machine localhost login somebody password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    path = tmp_path / "broker.sock"
    with broker(path, reply(b'{"Id":"c1"}')) as received:
        answer = call(SdkTransport(path), body={"Image": "web:1"})
    assert answer == EngineResponse(200, b'{"Id":"c1"}')
    head, _, body = received[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /v1.45/containers/create?name=web.1-0 HTTP/1.1"
    headers = {line.split(":")[0].lower(): line.split(": ")[1] for line in lines[1:]}
    assert headers["trimtab-context"] == "Y29udGV4dA"
    assert headers["content-type"] == "application/json"
    assert "authorization" not in headers
    assert headers.get("accept-encoding", "identity") == "identity"
    assert json.loads(body) == {"Image": "web:1"}


def test_the_controllers_own_socket_is_used(tmp_path: Path) -> None:
    path = tmp_path / "broker.sock"
    with broker(path), broker(tmp_path / "broker-controller.sock", reply(b"{}")) as received:
        assert call(SdkTransport(path)).status == 200
    assert len(received) == 1


def test_own_routes_have_no_version(tmp_path: Path) -> None:
    path = tmp_path / "broker.sock"
    with broker(path, reply(b"{}")) as received:
        SdkTransport(path).call(OutgoingRequest("GET", "/trimtab/v1/health", timeout_s=5), "x")
    assert received[0].startswith(b"GET /trimtab/v1/health HTTP/1.1\r\n")


def test_without_a_socket_nothing_was_sent(tmp_path: Path) -> None:
    with pytest.raises(NotSent):
        call(SdkTransport(tmp_path / "broker.sock"))


def test_at_a_socket_that_nobody_serves_nothing_was_sent(tmp_path: Path) -> None:
    path = tmp_path / "broker.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))
    with pytest.raises(NotSent):
        call(SdkTransport(path))


def test_a_reply_that_never_comes_is_broken_and_not_unsent(tmp_path: Path) -> None:
    path = tmp_path / "broker.sock"
    with broker(path, hang_up), pytest.raises(ConnectionBroken):
        call(SdkTransport(path))


def test_a_reply_that_breaks_off_is_broken(tmp_path: Path) -> None:
    path = tmp_path / "broker.sock"
    half = OK + b'Content-Length: 100\r\n\r\n{"Id":'
    with broker(path, lambda peer: peer.sendall(half)), pytest.raises(ConnectionBroken):
        call(SdkTransport(path))


def test_a_reply_that_takes_too_long_is_broken(tmp_path: Path) -> None:
    path, over = tmp_path / "broker.sock", threading.Event()
    with broker(path, lambda _peer: over.wait(10)):
        with pytest.raises(ConnectionBroken):
            call(SdkTransport(path), timeout_s=0.05)
        over.set()


def test_a_connection_that_the_broker_closed_between_two_calls_is_replaced(
    tmp_path: Path,
) -> None:
    path = tmp_path / "broker.sock"
    with broker(path, reply(b"{}"), reply(b"{}")) as received:
        transport = SdkTransport(path)
        assert call(transport).status == 200
        assert received.closed.acquire(timeout=10)
        assert call(transport).status == 200


def test_requests_of_different_paths_share_a_connection(tmp_path: Path) -> None:
    def twice(peer: socket.socket) -> None:
        reply(b"1")(peer)
        second = read_request(peer)
        assert second.startswith(b"GET /v1.45/volumes ")
        reply(b"2")(peer)

    with broker(tmp_path / "s", twice):
        transport = SdkTransport(tmp_path / "s")
        bodies = [
            transport.call(OutgoingRequest("GET", path, timeout_s=5), "").body
            for path in ("/networks", "/volumes")
        ]
        transport.close()
    assert bodies == [b"1", b"2"]


def open_stream(transport: SdkTransport, *, idle_timeout_s: float = 5) -> Iterator[bytes]:
    stream = transport.stream(OutgoingRequest("GET", "/events", timeout_s=idle_timeout_s), "x")
    assert stream.status == 200
    return stream.lines()


def test_lines_are_put_together_from_whatever_pieces_come(tmp_path: Path) -> None:
    path = tmp_path / "broker.sock"
    pieces = [b'{"a"', b":1}\n\n{", b'"b":2}\n', b'{"c":3}']
    data = STREAM + b"".join(chunk(piece) for piece in pieces) + b"0\r\n\r\n"
    with broker(path, lambda peer: peer.sendall(data)):
        lines = list(open_stream(SdkTransport(path)))
    assert lines == [b'{"a":1}', b'{"b":2}', b'{"c":3}']


def test_a_stream_that_breaks_off_is_broken_after_what_was_whole(tmp_path: Path) -> None:
    path = tmp_path / "broker.sock"
    with broker(path, lambda peer: peer.sendall(STREAM + chunk(b'{"a":1}\n{"b"'))):
        lines = open_stream(SdkTransport(path))
        assert next(lines) == b'{"a":1}'
        with pytest.raises(ConnectionBroken) as caught:
            next(lines)
    assert not isinstance(caught.value, Silent)


def test_a_stream_that_says_nothing_is_silent(tmp_path: Path) -> None:
    path, over = tmp_path / "broker.sock", threading.Event()

    def say_nothing(peer: socket.socket) -> None:
        peer.sendall(STREAM)
        over.wait(10)

    with broker(path, say_nothing):
        lines = open_stream(SdkTransport(path), idle_timeout_s=0.05)
        with pytest.raises(Silent):
            next(lines)
        over.set()


def test_closing_wakes_a_reader_in_another_thread(tmp_path: Path) -> None:
    path, over = tmp_path / "broker.sock", threading.Event()

    def one_line(peer: socket.socket) -> None:
        peer.sendall(STREAM + chunk(b'{"a":1}\n'))
        over.wait(10)

    with broker(path, one_line):
        stream = SdkTransport(path).stream(OutgoingRequest("GET", "/events", timeout_s=30), "x")
        reading, ended = threading.Event(), threading.Event()

        def read() -> None:
            try:
                for _ in stream.lines():
                    reading.set()
            except ConnectionBroken:
                pass
            ended.set()

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        assert reading.wait(10)
        stream.close()
        stream.close()
        assert ended.wait(10), "the reader still waits"
        over.set()


def test_a_line_without_an_end_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "broker.sock"

    def babble(peer: socket.socket) -> None:
        peer.sendall(STREAM)
        try:
            for _ in range(64):
                peer.sendall(chunk(b"x" * 65536))
        except OSError:
            pass  # it hung up, as it should

    with broker(path, babble):
        lines = open_stream(SdkTransport(path))
        with pytest.raises(ConnectionBroken):
            next(lines)
