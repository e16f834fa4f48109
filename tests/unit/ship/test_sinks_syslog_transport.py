"""Syslog over connections: framed, taken by the other kernel, and doubtful when it broke."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from controller.model.errors import UsageError
from controller.ship import sinks
from controller.ship.destination import Sender, TlsFiles, ToSyslog, Undelivered
from controller.ship.sinks import SyslogSink
from tests.certificates import write_certificate
from tests.instance import eventually
from tests.unit.journal.builders import entry, open_log
from tests.unit.ship.test_follower import wrote
from tests.unit.ship.test_shipper import shipped

SENDER = Sender("host", "0.1", "5109a1b2c3d4e5f6", time.monotonic)


class Receiver:
    """Reads what one connection after the other says; told to, it hangs up at once.

    Given a pace, it reads so much and then does something else for 10 ms.
    """

    def __init__(self, *, pace_bytes: int = 0) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        if pace_bytes:  # little waits for it unread
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2 * pace_bytes)
        self.port = self.listener.getsockname()[1]
        self.said = b""
        self.reads = True
        self._pace_bytes = pace_bytes
        self._ended = threading.Event()
        self.peers: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            self.peers.append(peer)
            while self.reads:
                try:
                    data = peer.recv(self._pace_bytes or 65536)
                except OSError:
                    break
                if not data:
                    break
                self.said += data
                if self._pace_bytes:
                    self._ended.wait(0.01)

    def hang_up(self) -> None:
        for peer in self.peers:
            with suppress(OSError):  # the other one was first
                peer.shutdown(socket.SHUT_RDWR)
            peer.close()
        self.peers.clear()

    def close(self) -> None:
        if self.listener.fileno() < 0:
            return
        self._ended.set()
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.hang_up()
        self._thread.join(20)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    try:
        yield made
    finally:
        made.close()


def frames(said: bytes) -> list[bytes]:
    """Read octet counting."""
    found = []
    while said:
        length, _, said = said.partition(b" ")
        found.append(said[: int(length)])
        said = said[int(length) :]
    return found


def test_each_record_is_a_frame_and_a_broken_connection_makes_what_was_sent_doubtful(
    tmp_path: Path, receiver: Receiver
) -> None:
    wrote(tmp_path / "journal", 5)
    batch = shipped(tmp_path, 6)
    sink = SyslogSink(ToSyslog("s", "tcp", "127.0.0.1", receiver.port), SENDER)
    sink.deliver(batch[:3])
    eventually(lambda: batch[2].line in receiver.said)
    receiver.hang_up()
    with pytest.raises(Undelivered, match=r"127\.0\.0\.1:\d+: ") as raised:
        sink.deliver(batch[3:])
    assert raised.value.doubtful_s == sinks.DOUBTFUL_S
    sink.deliver(batch[3:])  # over a new connection
    sink.close()
    eventually(lambda: batch[-1].line in receiver.said)
    assert [frame.partition(b"] {")[2] for frame in frames(receiver.said)] == [
        each.line[1:] for each in batch
    ]


def test_a_datagram_is_cut_between_two_characters(tmp_path: Path) -> None:
    log = open_log(tmp_path / "journal")
    for number in range(3):
        log.append(entry(number, request={"object": "x" * number + "€" * 30_000}))
    log.append(entry(3, request={"object": "€"}))
    log.close()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(10)
        batch = shipped(tmp_path, 5)
        sink = SyslogSink(ToSyslog("s", "udp", "127.0.0.1", listener.getsockname()[1]), SENDER)
        for each in batch:
            sink.deliver([each])
            said = listener.recv(2**16)
            assert each.line.startswith(said.partition(b"] ")[2])
            assert said.decode(), "a receiver may throw away what isn't UTF-8 (RFC 5424, 6.1)"
            whole = len(each.line) < sinks.DATAGRAM_BYTES
            assert each.line in said if whole else len(said) > sinks.DATAGRAM_BYTES - 4
        sink.close()


def test_who_is_not_there_or_takes_nothing_is_told(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks, "SEND_S", 0.3)
    wrote(tmp_path / "journal", 3)
    batch = shipped(tmp_path, 3)
    sink = SyslogSink(ToSyslog("s", "tcp", "127.0.0.1", 1), SENDER)
    with pytest.raises(Undelivered, match="refused") as raised:
        sink.deliver(batch)
    assert raised.value.doubtful_s == 0
    receiver.reads = False
    full = SyslogSink(ToSyslog("s", "tcp", "127.0.0.1", receiver.port), SENDER)
    with pytest.raises(Undelivered, match=r"takes nothing|timed out"):
        full.deliver(batch * 20_000)
    full.close()


@pytest.fixture
def slow() -> Iterator[Receiver]:
    made = Receiver(pace_bytes=8192)
    try:
        yield made
    finally:
        made.close()


def test_a_receiver_that_is_slow_gets_all_as_long_as_it_takes_something(
    tmp_path: Path, slow: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks, "SEND_S", 1.0)
    wrote(tmp_path / "journal", 3)
    batch = shipped(tmp_path, 3) * 800
    sink = SyslogSink(ToSyslog("s", "tcp", "127.0.0.1", slow.port), SENDER)
    began = time.monotonic()
    sink.deliver(batch)
    assert time.monotonic() - began > sinks.SEND_S, "it was slow enough to prove something"
    sink.close()
    eventually(lambda: len(frames(slow.said)) == len(batch))


def test_not_even_who_takes_something_is_waited_for_without_end(
    tmp_path: Path, slow: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks, "LONGEST_S", 0.3)
    wrote(tmp_path / "journal", 3)
    sink = SyslogSink(ToSyslog("s", "tcp", "127.0.0.1", slow.port), SENDER)
    with pytest.raises(Undelivered, match="less than a batch"):
        sink.deliver(shipped(tmp_path, 3) * 20_000)
    sink.close()


def test_files_for_tls_that_can_not_be_used_are_told_at_the_start(tmp_path: Path) -> None:
    where = ToSyslog("s", "tls", "127.0.0.1", 1, trust=TlsFiles(tmp_path / "none.pem"))
    with pytest.raises(UsageError, match="a file for TLS can't be used"):
        SyslogSink(where, SENDER)


def test_a_receiver_without_tls_is_not_spoken_to(tmp_path: Path, receiver: Receiver) -> None:
    wrote(tmp_path / "journal", 3)
    sink = SyslogSink(ToSyslog("s", "tls", "127.0.0.1", receiver.port), SENDER)
    threading.Timer(0.1, receiver.hang_up).start()
    with pytest.raises(Undelivered):
        sink.deliver(shipped(tmp_path))
    assert b"trimtab" not in receiver.said


@pytest.mark.parametrize(("trusted", "host"), [("other", "127.0.0.1"), ("own", "localhost")])
def test_a_receiver_with_another_certificate_or_name_gets_nothing(
    tmp_path: Path, trusted: str, host: str
) -> None:
    for folder in ("own", "other"):
        (tmp_path / folder).mkdir()
        write_certificate(tmp_path / folder)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "own" / "ca.pem", tmp_path / "own" / "key.pem")
    listener = socket.create_server(("127.0.0.1", 0))
    received: list[bytes] = []

    def serve() -> None:
        peer, _ = listener.accept()
        with suppress(OSError):
            received.append(context.wrap_socket(peer, server_side=True).recv(100))

    serving = threading.Thread(target=serve)
    serving.start()
    wrote(tmp_path / "journal", 1)
    port, trust = listener.getsockname()[1], TlsFiles(tmp_path / trusted / "ca.pem")
    sink = SyslogSink(ToSyslog("s", "tls", host, port, trust=trust), SENDER)
    with pytest.raises(Undelivered, match="certificate verify failed"):
        sink.deliver(shipped(tmp_path))
    serving.join()
    listener.close()
    assert b"".join(received) == b""
