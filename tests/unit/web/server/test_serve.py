from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from controller.web.server import serve
from controller.web.server.serve import CONNECTIONS_MAX, HEAD_BYTES_MAX
from tests.instance import eventually
from tests.unit.web.server.site import RunningSite, running_site


@pytest.fixture
def site() -> Iterator[RunningSite]:
    with running_site() as running:
        yield running


def is_cut(connection: socket.socket) -> bool:
    """Return True if the server reset or closed a connection without an answer."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_a_connection_that_isn_t_admitted_is_closed_without_an_answer(site: RunningSite) -> None:
    site.admitted = False
    with site.connect() as connection:
        assert is_cut(connection)
    site.admitted = True
    assert site.ask("/").status == 403


def test_connections_are_bounded(site: RunningSite) -> None:
    with ExitStack() as kept:
        for _ in range(CONNECTIONS_MAX):
            kept.enter_context(site.connect())
        with site.connect() as further:
            assert is_cut(further)
    eventually(lambda: answers(site), what="a place after the others left")


def answers(site: RunningSite) -> bool:
    try:
        return site.ask("/").status == 403
    except ConnectionError:
        return False


def test_a_head_without_end_is_refused(site: RunningSite) -> None:
    with site.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * (HEAD_BYTES_MAX + 1))
        assert connection.recv(65536).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHo"])
def test_a_client_that_sends_no_whole_head_is_cut(
    site: RunningSite, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(serve, "HEAD_S", 0.05)
    with site.connect() as connection:
        connection.sendall(sent)
        assert is_cut(connection)


def test_a_kept_connection_has_the_time_of_a_head_after_each_answer(
    site: RunningSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "HEAD_S", 0.05)
    with site.connect() as connection:
        connection.sendall(f"GET / HTTP/1.1\r\nHost: {site.name}\r\n\r\n".encode())
        answer = b""
        while part := _received(connection):
            answer += part
        assert answer.startswith(b"HTTP/1.1 403"), "it was answered, and then cut"


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except ConnectionResetError:
        return b""


def test_a_reader_that_takes_nothing_is_cut_and_loses_its_stream(
    site: RunningSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "STALLED_S", 0.05)
    mine = site.cookie()
    head = f"GET / HTTP/1.1\r\nHost: {site.name}\r\nCookie: {mine}\r\n\r\n".encode()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        connection.connect(site.address)
        # Without the clear, the client's end would hold gigabytes of pages for it.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        def is_over() -> bool:
            try:
                connection.sendall(head * 50)
            except (BrokenPipeError, ConnectionResetError):
                return True
            return False

        eventually(is_over, what="the cut")
    assert site.ask("/", Cookie=mine).status == 200, "others are served"
