"""A strict OTLP server for logs, built on the official protobufs: it takes what is right, whole."""

from __future__ import annotations

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, SeverityNumber

PATH = "/v1/logs"
TYPE = "application/x-protobuf"


class Collector:
    """Serves on a port of its own. ``taken`` has each log; ``wrong`` why something was refused.

    While ``down`` it answers 503, as a collector that is overloaded does. Of each request it takes
    all but the last ``rejects`` logs, and says so.
    """

    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []
        self.wrong: list[str] = []
        self.down = False
        self.rejects = 0
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                status, answer = collector.answer(self.path, self.headers["Content-Type"], body)
                self.send_response(status)
                self.send_header("Content-Type", TYPE)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}{PATH}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, path: str, kind: str, body: bytes) -> tuple[int, bytes]:
        """Judge a request; nothing of one that is wrong is taken."""
        if self.down:
            return 503, b""
        try:
            assert (path, kind) == (PATH, TYPE), f"{kind} to {path}"
            request = ExportLogsServiceRequest.FromString(body)
            taken = list(_logs(request))
            assert taken, "no log at all"
        except (AssertionError, DecodeError, ValueError, KeyError) as error:
            self.wrong.append(str(error))
            return 400, b""
        self.taken += taken[: len(taken) - self.rejects]
        answer = ExportLogsServiceResponse()
        if self.rejects:
            answer.partial_success.rejected_log_records = self.rejects
            answer.partial_success.error_message = "too old"
        return 200, answer.SerializeToString()


def _logs(request: ExportLogsServiceRequest) -> Any:
    _assert_known(request)
    for resource in request.resource_logs:
        about = _attributes(resource.resource.attributes)
        assert about["service.name"] == "trimtab", about
        assert about["service.instance.id"], about
        for scope in resource.scope_logs:
            assert scope.scope.name == "trimtab.journal", scope.scope
            yield from (_log(record) for record in scope.log_records)


def _log(record: LogRecord) -> dict[str, Any]:
    assert record.time_unix_nano, "no time"
    assert record.severity_number != SeverityNumber.SEVERITY_NUMBER_UNSPECIFIED, "no severity"
    assert record.severity_text, "no severity"
    line = record.body.string_value
    told, attributes = json.loads(line), _attributes(record.attributes)
    assert attributes["trimtab.seq"] == told["seq"], attributes
    assert attributes["trimtab.hash"] == told["hash"], attributes
    assert record.event_name == f"trimtab.{told['stage']}", record.event_name
    return {"line": line, "attributes": attributes, "severity": record.severity_text}


def _attributes(pairs: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for pair in pairs:
        assert pair.key, "an attribute without a name"
        assert pair.key not in found, f"{pair.key} twice"
        kind = pair.value.WhichOneof("value")
        assert kind is not None, f"{pair.key} without a value"
        found[pair.key] = getattr(pair.value, kind)
    return found


def _assert_known(message: Message) -> None:
    """Refuse fields that aren't of the protocol, at any depth."""
    fields: Any = UnknownFieldSet(message)
    unknown = [field.field_number for field in fields]
    assert not unknown, f"{message.DESCRIPTOR.full_name} has unknown fields {unknown}"
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for each in value if field.is_repeated else [value]:
            _assert_known(each)
