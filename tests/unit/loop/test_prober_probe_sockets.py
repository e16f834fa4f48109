"""Probes over real sockets, on loopback: what is answered, and that nothing waits for ever."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from controller.core.drift.probe_verdict import READ_MAX, Probe, ProbeOutcome, ProbeResult
from controller.loop.prober import ProbeSockets

PATIENCE_S = 20.0
LOOPBACK = "127.0.0.1"
Serve = Callable[[socket.socket], None]


@pytest.fixture
def sockets() -> Iterator[ProbeSockets]:
    made = ProbeSockets(time.monotonic)
    yield made
    made.close()


class Server:
    """Listens on loopback; each connection is served by ``serve``, in a thread."""

    def __init__(self, serve: Serve) -> None:
        self._listener = socket.create_server((LOOPBACK, 0))
        self._serve = serve
        self.port = int(self._listener.getsockname()[1])
        self.received = b""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            peer, _ = self._listener.accept()
        except OSError:
            return
        with peer:
            self.received = peer.recv(65536)
            try:
                self._serve(peer)
            except OSError:
                return

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()


@pytest.fixture
def serve() -> Iterator[Callable[[Serve], Server]]:
    made: list[Server] = []

    def start(how: Serve) -> Server:
        made.append(Server(how))
        return made[-1]

    yield start
    for server in made:
        server.close()


def answer_of(
    sockets: ProbeSockets, port: int, *, path: str | None = "/", timeout_s: float = PATIENCE_S
) -> ProbeResult:
    """Ask once and return the answer."""
    sockets.ask(Probe("c", LOOPBACK, port, path, timeout_s))
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        answers = sockets.answers(wait_s=PATIENCE_S)
        if answers:
            (answer,) = answers
            return answer
    raise AssertionError("no answer")


def sending(*parts: bytes) -> Serve:
    def serve(peer: socket.socket) -> None:
        for part in parts:
            peer.sendall(part)

    return serve


def hold(peer: socket.socket) -> None:
    """Say nothing until the other side is gone."""
    peer.recv(1)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([b"HTTP/1.1 200 OK\r\n\r\n"], ""),
        ([b"HT", b"TP/1.0 302 F", b"ound\r\nLocation: http://203.0.113.9/\r\n\r\n"], ""),
        ([b"HTTP/1.1 500 Internal\r\n"], "answered with status 500"),
        ([b"220 mail ready\r\n"], "doesn't speak HTTP"),
        ([], "closed the connection without an answer"),
        ([b"HTTP/1.1 200"], "closed the connection without an answer"),
        ([b"x" * (READ_MAX * 2)], "doesn't speak HTTP"),
    ],
)
def test_the_first_line_of_what_a_server_sends_decides(
    sockets: ProbeSockets, serve: Callable[[Serve], Server], parts: list[bytes], said: str
) -> None:
    server = serve(sending(*parts))
    answer = answer_of(sockets, server.port, path="/healthz")
    expected = ProbeResult(
        "c", ProbeOutcome.BAD if said else ProbeOutcome.GOOD, said and f"port {server.port} {said}"
    )
    assert answer == expected
    assert server.received.startswith(b"GET /healthz HTTP/1.1\r\n")


def test_a_connection_is_all_that_tcp_asks_for(sockets: ProbeSockets) -> None:
    with socket.create_server((LOOPBACK, 0)) as listener:
        answer = answer_of(sockets, listener.getsockname()[1], path=None)
        assert answer == ProbeResult("c", ProbeOutcome.GOOD)
        listener.settimeout(PATIENCE_S)
        peer, _ = listener.accept()
        with peer:
            assert peer.recv(1) == b"", "it is closed at once, and nothing was sent"


def test_a_port_on_which_nothing_listens_refuses(sockets: ProbeSockets) -> None:
    with socket.socket() as bound:
        bound.bind((LOOPBACK, 0))
        port = bound.getsockname()[1]
        for path in (None, "/"):
            answer = answer_of(sockets, port, path=path)
            assert answer == ProbeResult("c", ProbeOutcome.BAD, f"nothing listens on port {port}")


def test_who_says_nothing_is_waited_for_until_the_time_out_and_no_longer(
    sockets: ProbeSockets, serve: Callable[[Serve], Server]
) -> None:
    server = serve(hold)
    began = time.monotonic()
    answer = answer_of(sockets, server.port, timeout_s=0.05)
    assert answer == ProbeResult(
        "c", ProbeOutcome.BAD, f"port {server.port} gave no answer within 0.05 s"
    )
    assert time.monotonic() - began < PATIENCE_S / 2


def test_a_slow_sender_gets_no_more_time(
    sockets: ProbeSockets, serve: Callable[[Serve], Server]
) -> None:
    def trickle(peer: socket.socket) -> None:
        peer.settimeout(0.01)
        while True:
            peer.sendall(b"x")
            try:
                if peer.recv(1) == b"":
                    return
            except TimeoutError:
                pass

    answer = answer_of(sockets, serve(trickle).port, timeout_s=0.1)
    assert "gave no answer within 0.1 s" in answer.said


def test_a_connection_that_breaks_is_bad(
    sockets: ProbeSockets, serve: Callable[[Serve], Server]
) -> None:
    def reset(peer: socket.socket) -> None:
        # Closed with an empty linger, a connection is reset (socket(7)).
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")

    server = serve(reset)
    answer = answer_of(sockets, server.port)
    assert answer == ProbeResult(
        "c", ProbeOutcome.BAD, f"port {server.port} broke the connection off"
    )


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("localhost", "nobody answers at localhost"),
        ("", "it has no address"),
        ("127.1", "nobody answers at 127.1"),
        ("255.255.255.255", "nobody answers at 255.255.255.255"),
    ],
)
def test_names_and_invalid_addresses_are_never_probed(
    sockets: ProbeSockets, address: str, said: str
) -> None:
    sockets.ask(Probe("c", address, 80, "/", 1.0))
    assert sockets.answers(wait_s=0.0) == [ProbeResult("c", ProbeOutcome.UNREACHED, said)]


def test_many_are_asked_at_a_time_and_who_is_slow_delays_nobody(
    sockets: ProbeSockets, serve: Callable[[Serve], Server]
) -> None:
    slow = [serve(hold) for _ in range(5)]
    for number, server in enumerate(slow):
        sockets.ask(Probe(f"slow{number}", LOOPBACK, server.port, "/", PATIENCE_S))
    quick = serve(sending(b"HTTP/1.1 200 OK\r\n"))
    sockets.ask(Probe("quick", LOOPBACK, quick.port, "/", PATIENCE_S))
    seen: list[ProbeResult] = []
    while not seen:
        seen += sockets.answers(wait_s=PATIENCE_S)
    assert seen == [ProbeResult("quick", ProbeOutcome.GOOD)]
    sockets.close()  # lets the slow ones go


def test_a_wait_ends_when_it_is_woken(sockets: ProbeSockets) -> None:
    for _ in range(100_000):
        sockets.wake()  # more than any buffer takes
    assert sockets.answers(wait_s=PATIENCE_S) == []
