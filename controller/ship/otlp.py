"""OTLP logs over HTTP, by OpenTelemetry's exporter; no other module imports OpenTelemetry.

The exporter sends each batch and returns whether the server accepted the batch. The SDK's
processors aren't used, since they drop records that can't be sent. The exporter ignores the body of
a successful response, where the server reports rejected records; ``OtlpSink`` reads the body, within
a bound: a collector chooses how much it answers.

Errors are stored, logged, and sent in support bundles. They name the collector's scheme, host and
port, a status code or the operating system's reason, and nothing that a URL's path, a header or the
server's own words can hold. The one exception is the reason of rejected records, where what the
request held of credentials is left out.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from datetime import datetime
from http import HTTPStatus
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from controller.model.errors import UsageError
from controller.ship import destination
from controller.ship.destination import Rejected, Sender, ToOtlp, Undelivered
from controller.ship.follower import Shipped

if TYPE_CHECKING:
    import requests
    from opentelemetry.sdk._logs import ReadableLogRecord

TIMEOUT_S: Final = 15.0
#: How much of an answer is read, and how much of a collector's words is repeated.
ANSWER_BYTES_MAX: Final = 64 * 1024
WORDS_MAX: Final = 500
#: Headers that hold no credentials, and the shortest text that is taken for one elsewhere.
_OPEN_HEADERS: Final = frozenset(
    {"accept", "accept-encoding", "connection", "content-encoding", "content-length"}
    | {"content-type", "user-agent"}
)
_CREDENTIAL_MIN: Final = 6
_SCOPE: Final = "trimtab.journal"
#: syslog's severities as OpenTelemetry's.
_SEVERITIES: Final = {6: 9, 5: 10, 4: 13, 3: 17, 2: 21}


class OtlpSink:
    """Delivers records to one OTLP collector."""

    def __init__(self, destination: ToOtlp, sender: Sender) -> None:
        """Set up the exporter; raises UsageError if the exporter isn't installed."""
        try:
            import netrc  # noqa: F401 - requests loads it with its first request

            import requests
            from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.util.instrumentation import InstrumentationScope
        except ImportError as error:
            raise UsageError(
                "ship.otlp-missing",
                f"OpenTelemetry's exporter isn't installed: {error}",
                remedy="install trimtab with its extra: pip install 'trimtab[otlp]'",
            ) from error
        trust = destination.trust
        self._response: requests.Response | None = None
        self._error: Exception | None = None
        keep_error = self._keep_error

        class Session(requests.Session):
            """Keeps the error of a request, of which the exporter only logs the text."""

            def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
                try:
                    return super().send(request, **options)
                except Exception as error:
                    keep_error(error)
                    raise

        session = Session()
        session.headers["Accept-Encoding"] = "identity"
        session.hooks["response"].append(self._keep_response)
        self._exporter = OTLPLogExporter(
            endpoint=destination.url,
            certificate_file=_text(trust.ca),
            client_certificate_file=_text(trust.cert),
            client_key_file=_text(trust.key),
            timeout=TIMEOUT_S,
            session=session,
        )
        self._address = destination.address
        self._resource = Resource(
            {
                "service.name": "trimtab",
                "service.version": sender.version,
                "service.instance.id": sender.instance,
                "host.name": sender.host,
            }
        )
        self._scope = InstrumentationScope(_SCOPE, sender.version)
        log = logging.getLogger("opentelemetry.exporter.otlp")  # its messages name the whole URL
        log.addHandler(logging.NullHandler())
        log.propagate = False

    def deliver(self, batch: Sequence[Shipped]) -> None:
        """Send the records, and check the collector's response."""
        from opentelemetry.sdk._logs.export import LogRecordExportResult

        self._forget()
        result = self._exporter.export([self._log_of(shipped) for shipped in batch])
        if result is not LogRecordExportResult.SUCCESS:
            raise Undelivered(f"{self._address}: {self._why()}")
        if self._response is not None:
            self._check_response(self._response, len(batch))

    def close(self) -> None:
        """End the exporter."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]  # it has none

    def _why(self) -> str:
        """Return why the last batch wasn't accepted, in no words of the server."""
        if self._error is not None:
            return _reason(self._error)
        if self._response is None:
            return "the exporter could not send the records"
        status = self._response.status_code
        known = status in HTTPStatus.__members__.values()
        return f"the server answers {status}{f' {HTTPStatus(status).phrase}' if known else ''}"

    def _keep_response(self, response: requests.Response, **_: object) -> None:
        """Read the begin of an answer as it is. Otherwise requests reads and unpacks all of it."""
        raw = response.raw
        data = raw.read(ANSWER_BYTES_MAX, decode_content=False)
        if len(data) == ANSWER_BYTES_MAX:
            raw.close()
        response.raw = BytesIO(data)
        response.headers.pop("content-encoding", None)
        self._response, self._error = response, None

    def _forget(self) -> None:
        self._response = self._error = None

    def _keep_error(self, error: Exception) -> None:
        self._error = error

    def _check_response(self, response: requests.Response, sent: int) -> None:
        """Check that a collector accepted the records, and count the rejected ones.

        The exporter treats a redirection as success; and an HTML page comes from no collector.
        Rejected records must not be sent again.
        Source: https://opentelemetry.io/docs/specs/otlp/#partial-success-1.

        Raises:
            Undelivered: the response isn't a collector's.
            Rejected: the collector rejected some records.
        """
        if response.status_code >= HTTPStatus.MULTIPLE_CHOICES or response.request.method != "POST":
            raise Undelivered(
                f"{self._address}: the server redirects, and redirected records get lost"
            )
        if response.headers.get("content-type", "").lower().startswith("text/html"):
            raise Undelivered(
                f"{self._address}: the server answers with a page, so it isn't a collector"
            )
        from google.protobuf.message import DecodeError
        from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
            ExportLogsServiceResponse,
        )

        try:
            partial = ExportLogsServiceResponse.FromString(response.content).partial_success
        except DecodeError:
            return  # an unknown body of a successful response
        if partial.rejected_log_records > 0:
            count = min(partial.rejected_log_records, sent)
            why = _without_credentials(partial.error_message, response.request)[:WORDS_MAX]
            raise Rejected(f"{self._address}: {why or 'no reason told'}", count=count)

    def _log_of(self, shipped: Shipped) -> ReadableLogRecord:
        from opentelemetry._logs import LogRecord, SeverityNumber
        from opentelemetry.sdk._logs import ReadableLogRecord

        record = shipped.record
        at = datetime.fromisoformat(record.time)
        time_ns = round(at.timestamp() * 1000) * 1_000_000
        number = _SEVERITIES[destination.severity(record)]
        log = LogRecord(
            timestamp=time_ns,
            observed_timestamp=time_ns,
            severity_number=SeverityNumber(number),
            severity_text=SeverityNumber(number).name,
            body=shipped.line.decode(),
            attributes=dict(destination.attributes(record)),
            event_name=f"trimtab.{record.entry.stage}",
        )
        return ReadableLogRecord(log, self._resource, self._scope)


def _reason(error: BaseException) -> str:
    """Return the operating system's reason at the root of an exception, or the root's class."""
    root = error
    while (under := root.__cause__ or root.__context__) is not None:
        root = under
    return (root.strerror if isinstance(root, OSError) else None) or type(root).__name__


def _without_credentials(words: str, request: requests.PreparedRequest) -> str:
    """Return a server's words without what a request held of credentials.

    Those are the parts of its path and of the headers that users set.
    """
    texts = [value for name, value in request.headers.items() if name.lower() not in _OPEN_HEADERS]
    held = {
        word
        for text in (*texts, request.path_url)
        for word in re.split(r"[\s/,;]+", text if isinstance(text, str) else text.decode("latin-1"))
        if len(word) >= _CREDENTIAL_MIN
    }
    for word in sorted(held, key=len, reverse=True):
        words = words.replace(word, "…")
    return words


def _text(path: object) -> str | None:
    return None if path is None else str(path)
