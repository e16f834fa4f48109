"""One request and its whole answer: framed by length, in chunks, or by nobody."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from controller.cli.clients.socket_client import BrokerApi, WholeAnswer, ask_to_observe, exchange
from controller.loop.control_api import ControlApi
from controller.loop.control_socket import PassRequest
from controller.loop.workqueue import PassLock
from controller.model.errors import EngineUnavailable, Refused, UsageError
from controller.model.names import Key
from controller.settings import read_instance, state_of
from tests.unit.cli.answering import answering
from tests.unit.loop.toy import House

if TYPE_CHECKING:
    from controller.loop.control_socket import PassRequest


def exchange_with(answer: bytes, *, body: bytes | None = None) -> tuple[bytes, WholeAnswer]:
    """Return the request that *answer* answers, byte by byte, and what became of the answer."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        ours.settimeout(10)

        def serve() -> None:
            for at in range(len(answer)):
                theirs.send(answer[at : at + 1])
            theirs.shutdown(socket.SHUT_WR)

        server = threading.Thread(target=serve)
        server.start()
        try:
            found = exchange(ours, "POST", "/trimtab/v1/records", body, longest=20)
            return theirs.recv(65536), found
        finally:
            server.join(timeout=10)


def test_a_request_has_the_length_of_its_body() -> None:
    sent, _ = exchange_with(b"HTTP/1.1 204 No Content\r\n\r\n", body=b"{}")
    assert sent == (
        b"POST /trimtab/v1/records HTTP/1.1\r\nHost: trimtab\r\nConnection: close\r\n"
        b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    )
    sent, _ = exchange_with(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert sent.endswith(b"\r\nConnection: close\r\n\r\n")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTrimtab-Rule: a:b\r\n\r\n{}ignored",
            WholeAnswer(200, {"content-length": "2", "trimtab-rule": "a:b"}, b"{}"),
        ),
        (
            b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n%b"
            % b'A\r\n{"a": true\r\n1\r\n}\r\n0\r\n\r\n',
            WholeAnswer(404, {"transfer-encoding": "chunked"}, b'{"a": true}'),
        ),
        (b"HTTP/1.0 204 \r\n\r\n", WholeAnswer(204, {}, b"")),
    ],
)
def test_an_answer_ends_where_its_frame_ends(answer: bytes, expected: WholeAnswer) -> None:
    assert exchange_with(answer)[1] == expected


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}",
    ],
)
def test_an_answer_that_ends_early_is_a_broken_connection(answer: bytes) -> None:
    with pytest.raises(OSError, match="the other side hung up"):
        exchange_with(answer)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n0123456789abcdef\r\n5\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"x" * (64 * 1024 + 2),
    ],
)
def test_an_answer_of_another_form_is_refused(answer: bytes) -> None:
    with pytest.raises(ValueError, match=r"expected|invalid literal"):
        exchange_with(answer)


@contextmanager
def serving(path: Path, answer: bytes, *, stays: threading.Event | None = None) -> Iterator[None]:
    """Answer one request, and hang up, once *stays* is set."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            peer, _ = listener.accept()
            # A client may go once it has the whole answer, before the last byte is sent.
            with peer, suppress(BrokenPipeError):
                peer.recv(65536)
                for at in range(len(answer)):
                    peer.send(answer[at : at + 1])
                if stays is not None:
                    stays.wait(10)

        server = threading.Thread(target=serve)
        server.start()
        try:
            yield
        finally:
            server.join(timeout=10)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_lines_come_as_they_arrive(tmp_path: Path) -> None:
    more = threading.Event()
    with serving(tmp_path / "s", CHUNKED + b"5\r\n{}\n{}\r\n", stays=more):
        lines = BrokerApi(tmp_path / "s").lines("journal")
        assert next(lines) == b"{}\n"
        more.set()
        assert list(lines) == []
    with serving(tmp_path / "t", CHUNKED + b"3\r\na\nb\r\n1\r\n\n\r\n2\r\nc\n\r\n0\r\n\r\n"):
        assert list(BrokerApi(tmp_path / "t").lines("journal")) == [b"a\n", b"b\n", b"c\n"]


def test_the_end_of_a_stream_wakes_its_reader(tmp_path: Path) -> None:
    over, ended = threading.Event(), threading.Event()
    with serving(tmp_path / "s", CHUNKED, stays=over):
        with BrokerApi(tmp_path / "s").stream("journal") as answer:

            def read() -> None:
                with suppress(EngineUnavailable):
                    list(answer.chunks)
                ended.set()

            reader = threading.Thread(target=read, daemon=True)
            reader.start()
        assert ended.wait(10), "the reader still waits"
        over.set()


def test_a_refused_stream_is_an_error_with_its_rule(tmp_path: Path) -> None:
    body = b'{"trimtab": {"rule": "journal.followers", "reason": "too many"}}'
    answer = b"HTTP/1.1 429 Too Many\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    with (
        serving(tmp_path / "s", answer),
        pytest.raises(Refused, match="too many"),
        BrokerApi(tmp_path / "s").stream("journal"),
    ):
        pass


class Refusing(ControlApi):
    """A controller that obeys nobody."""

    asked: Key | None = None

    def run_pass(self, request: PassRequest, uid: int) -> dict[str, object]:
        self.asked = request.key
        raise UsageError("control.denied", f"only root may ask for a pass, not {uid}")


def test_a_look_that_a_controller_refuses_is_no_error(tmp_path: Path) -> None:
    trusted = frozenset({os.getuid()})
    api = Refusing(House(tmp_path).controller, PassLock(), threading.Event(), trusted=trusted)
    with answering(api) as root:
        instance = read_instance(root)
        assert instance is not None
        state = state_of(root, instance)
        ask_to_observe(state.controller_socket, "Volume/shop/data")
    assert api.asked == Key("Volume", "shop", "data")
    ask_to_observe(state.controller_socket, "Volume/shop/data")  # nobody listens
