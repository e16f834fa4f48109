"""OTLP by the official exporter, against a server that takes only what the protocol says."""

from __future__ import annotations

import gzip
import json
import threading
import time
import tracemalloc
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

from controller.ship import otlp
from controller.ship.destination import Rejected, Sender, ToOtlp, Undelivered
from controller.ship.otlp import OtlpSink
from tests.otlp import Collector
from tests.unit.ship.test_follower import wrote
from tests.unit.ship.test_shipper import shipped

SENDER = Sender("host", "0.1", "5109a1b2c3d4e5f6", time.monotonic)


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    try:
        yield made
    finally:
        made.close()


def test_a_batch_is_taken_whole_or_sent_again(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otlp, "TIMEOUT_S", 0.5)
    wrote(tmp_path / "journal", 5)
    batch = shipped(tmp_path, 6)
    sink = OtlpSink(ToOtlp("o", collector.url), SENDER)
    collector.down = True
    with pytest.raises(
        Undelivered, match=r"^http://127\.0\.0\.1:\d+: the server answers 503 Service Unavailable$"
    ):
        sink.deliver(batch)
    assert collector.taken == []
    collector.down = False
    sink.deliver(batch)
    sink.close()
    assert collector.wrong == []
    assert [log["line"].encode() for log in collector.taken] == [each.line for each in batch]
    first = collector.taken[0]
    assert first["severity"] == "INFO"
    assert first["attributes"]["trimtab.id"] == json.loads(first["line"])["id"]


def test_records_that_a_server_takes_and_refuses_are_told(
    tmp_path: Path, collector: Collector
) -> None:
    wrote(tmp_path / "journal", 5)
    batch = shipped(tmp_path, 6)
    sink = OtlpSink(ToOtlp("o", collector.url), SENDER)
    collector.rejects = 3
    with pytest.raises(Rejected, match=r"http://127\.0\.0\.1:\d+: too old") as raised:
        sink.deliver(batch)
    assert raised.value.count == 3
    assert len(collector.taken) == 3
    collector.rejects = 0
    sink.deliver(batch)
    sink.close()


def test_who_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "TIMEOUT_S", 0.5)
    wrote(tmp_path / "journal", 1)
    sink = OtlpSink(ToOtlp("o", "http://127.0.0.1:1/v1/logs"), SENDER)
    with pytest.raises(Undelivered, match=r"^http://127\.0\.0\.1:1: Connection refused$"):
        sink.deliver(shipped(tmp_path))
    sink.close()


def test_what_the_server_refuses_is_not_taken_for_delivered(
    tmp_path: Path, collector: Collector
) -> None:
    wrote(tmp_path / "journal", 1)
    sink = OtlpSink(ToOtlp("o", collector.url.replace("/v1/logs", "/v1/traces")), SENDER)
    with pytest.raises(Undelivered, match=r": the server answers 400 Bad Request$"):
        sink.deliver(shipped(tmp_path))
    sink.close()
    assert len(collector.wrong) == 1


class Echo(BaseHTTPRequestHandler):
    """A collector that repeats what it was sent, in all that it answers."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        held = f"{self.path} {self.headers['authorization']}"
        answer = ExportLogsServiceResponse()
        answer.partial_success.rejected_log_records = 1
        answer.partial_success.error_message = f"too old for {held}"
        body = answer.SerializeToString()
        if self.path.startswith("/refuse"):
            self.send_response(401, held)
            body = held.encode()
        elif self.path.startswith("/end"):
            return
        else:
            self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/refuse/hunter2-path", "the server answers 401 Unauthorized"),
        ("/end/hunter2-path", "RemoteDisconnected"),
        ("/take/hunter2-path", "too old for /take/… … …"),
    ],
)
def test_no_error_repeats_a_credential(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    path: str,
    why: str,
) -> None:
    monkeypatch.setattr(otlp, "TIMEOUT_S", 0.5)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20hunter2-head")
    wrote(tmp_path / "journal", 1)
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        address = f"http://127.0.0.1:{server.server_port}"
        sink = OtlpSink(ToOtlp("o", address + path), SENDER)
        try:
            with pytest.raises((Undelivered, Rejected)) as raised:
                sink.deliver(shipped(tmp_path))
        finally:
            sink.close()
            server.shutdown()
            serving.join(10)
    assert str(raised.value) == f"{address}: {why}"
    assert "hunter2" not in caplog.text + "".join(capfd.readouterr())


class Portal(BaseHTTPRequestHandler):
    """What is in the way to a collector: it leads to a page, and says that all is well."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/v1/logs":
            self.send_response(302)
            self.send_header("location", "/login")
            self.send_header("content-length", "0")
            self.end_headers()
        else:
            self.do_GET()

    def do_GET(self) -> None:
        kind = "application/x-protobuf" if self.path == "/login" else "text/html; charset=utf-8"
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("path", "why"),
    [("/v1/logs", "the server redirects"), ("/page", "the server answers with a page")],
)
def test_who_is_no_collector_takes_nothing_by_saying_so(
    tmp_path: Path, path: str, why: str
) -> None:
    wrote(tmp_path / "journal", 1)
    with ThreadingHTTPServer(("127.0.0.1", 0), Portal) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        sink = OtlpSink(ToOtlp("o", f"http://127.0.0.1:{server.server_port}{path}"), SENDER)
        try:
            with pytest.raises(Undelivered, match=why):
                sink.deliver(shipped(tmp_path))
        finally:
            sink.close()
            server.shutdown()
            serving.join(10)


MIB = 1024 * 1024


class Endless(BaseHTTPRequestHandler):
    """A collector that accepts everything, and answers with far more than anybody needs."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        packed = self.path == "/packed"
        if packed:
            self.send_header("content-encoding", "gzip")
        self.end_headers()
        try:
            for _ in range(1 if packed else 64):
                self.wfile.write(PACKED if packed else bytes(MIB))
        except OSError:
            pass  # nobody reads on

    def log_message(self, *_: object) -> None:
        pass


PACKED = gzip.compress(bytes(64 * MIB), 9)


@pytest.mark.parametrize("path", ["/endless", "/packed"])
def test_an_endless_or_packed_answer_takes_no_memory(tmp_path: Path, path: str) -> None:
    wrote(tmp_path / "journal", 1)
    batch = shipped(tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        sink = OtlpSink(ToOtlp("o", f"http://127.0.0.1:{server.server_port}{path}"), SENDER)
        tracemalloc.start()
        try:
            sink.deliver(batch)
            assert tracemalloc.get_traced_memory()[1] < 16 * MIB
        finally:
            tracemalloc.stop()
            sink.close()
            server.shutdown()
            serving.join(10)
