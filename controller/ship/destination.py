"""Destinations of shipped records, the interface of sinks, and the formats of a SIEM.

Destinations of shipped records, in the form ``NAME=URL``.

The interface of sinks, each with one destination, and the errors of a delivery.

Records contain text from clients of the gate, so every value is escaped: no value can end a line, a
field or a header early. Formats with room for the record's line include the line unchanged, so that
the receiver can check hash and chain.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Literal, Protocol
from urllib.parse import SplitResult, parse_qsl, urlsplit

from controller.core.records import parts
from controller.model.errors import UsageError
from controller.model.records import Record
from controller.ship.follower import Shipped

Form = Literal["json", "cef"]

#: Log audit (RFC 5424, table 1).
FACILITY = 13
FACILITY_MAX = 23
_NOTICE, _INFO, _WARNING, _ERROR, _CRITICAL = 5, 6, 4, 3, 2
#: CEF counts the other way, from 0 to 10.
_CEF_SEVERITY = {_CRITICAL: 9, _ERROR: 7, _WARNING: 5, _NOTICE: 3, _INFO: 2}
_BAD_REQUEST = 400
_SEQUENCE_MAX = 2**31 - 1
_VENDOR = "trimtab"
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\u0080-\u009f\u2028\u2029]")


def severity(record: Record) -> int:
    """Return the syslog severity of a record."""
    entry = record.entry
    match entry.stage:
        case "violation":
            return _CRITICAL
        case "refusal" | "summary":
            return _WARNING
        case "outcome" | "recovered":
            return _ERROR if _failed(record) else _INFO
        case "policy":
            return _WARNING if parts.ResultPart.read(entry.result).error else _NOTICE
        case "operator":
            return _NOTICE
        case _:
            return _INFO


def syslog(
    record: Record,
    line: bytes,
    *,
    host: str,
    version: str,
    facility: int = FACILITY,
    form: Form = "json",
) -> bytes:
    """Return one message, without framing. Source: RFC 5424, section 6.

    The message is the record's line, or CEF. ``sequenceId`` (section 7.3.1) reveals lost messages.
    """
    priority = facility * 8 + severity(record)
    sequence = (record.seq - 1) % _SEQUENCE_MAX + 1
    data = f'[meta sequenceId="{sequence}"][origin software="trimtab" swVersion="{version}"]'
    head = f"<{priority}>1 {record.time} {_word(host)} trimtab - {record.entry.stage} {data} "
    message = line if form == "json" else cef(record, version=version).encode()
    return head.encode() + message


def counted(message: bytes) -> bytes:
    """Return a message in octet counting. Source: RFC 6587, section 3.4.1; RFC 5425, section 4.3."""
    return b"%d %b" % (len(message), message)


def cef(record: Record, *, version: str) -> str:
    """Return a record in the Common Event Format, version 0: the main facts, not the whole line."""
    entry = record.entry
    route = parts.RequestPart.read(entry.request).route
    kind = f"{entry.stage}:{route}" if route else entry.stage
    name = f"{entry.stage} of {route}" if route else entry.stage
    fields = (_VENDOR, _VENDOR, version, kind, name, str(_CEF_SEVERITY[severity(record)]))
    head = "|".join(_header(each) for each in fields)
    extension = " ".join(f"{key}={_value(text)}" for key, text in _extension(record) if text)
    return f"CEF:0|{head}|{extension}"


def attributes(record: Record) -> dict[str, str | int]:
    """Return the searchable attributes of a record."""
    entry = record.entry
    actor, request, result = _parts(record)
    values: dict[str, str | int | None] = {
        "trimtab.seq": record.seq,
        "trimtab.id": entry.id,
        "trimtab.stage": entry.stage,
        "trimtab.hash": record.hash,
        "trimtab.route": request.route,
        "trimtab.object": request.object,
        "trimtab.decision": parts.VerdictPart.read(entry.verdict).decision,
        "trimtab.rules": _rules(record),
        "trimtab.actor.uid": actor.uid,
        "trimtab.actor.role": actor.role,
        "trimtab.error": result.error,
        "trimtab.container": result.container,
        "trimtab.cause": parts.ClaimsPart.read(entry.claims).cause,
    }
    return {name: value for name, value in values.items() if value is not None and value != ""}


def _parts(record: Record) -> tuple[parts.ActorPart, parts.RequestPart, parts.ResultPart]:
    entry = record.entry
    return (
        parts.ActorPart.read(entry.actor),
        parts.RequestPart.read(entry.request),
        parts.ResultPart.read(entry.result),
    )


def _extension(record: Record) -> Iterator[tuple[str, str]]:
    entry, verdict = record.entry, parts.VerdictPart.read(record.entry.verdict)
    actor, request, result = _parts(record)
    yield "rt", str(int(datetime.fromisoformat(record.time).timestamp() * 1000))
    yield "externalId", entry.id
    yield "cn1", str(record.seq)
    yield "cn1Label", "seq"
    yield "suid", "" if actor.uid is None else str(actor.uid)
    yield "spriv", actor.role
    yield "act", request.route
    yield "requestMethod", request.method
    yield "outcome", _outcome(record)
    yield "reason", result.error or verdict.reason
    for number, (label, text) in enumerate(_customs(record), 1):
        if text:
            yield f"cs{number}", text
            yield f"cs{number}Label", label


def _customs(record: Record) -> Iterator[tuple[str, str]]:
    _, request, result = _parts(record)
    yield "object", request.object
    yield "rules", _rules(record)
    yield "container", result.container
    yield "cause", parts.ClaimsPart.read(record.entry.claims).cause
    yield "policy", parts.VerdictPart.read(record.entry.verdict).policy
    yield "hash", record.hash


def _outcome(record: Record) -> str:
    entry = record.entry
    match entry.stage:
        case "refusal" | "summary":
            return "denied"
        case "outcome":
            return "failure" if _failed(record) else "success"
        case "recovered":
            return parts.ResultPart.read(entry.result).settled
        case _:
            return ""


def _failed(record: Record) -> bool:
    """Return True if a change failed: the engine can refuse a change without an error text."""
    result = parts.ResultPart.read(record.entry.result)
    return bool(result.error) or (result.status is not None and result.status >= _BAD_REQUEST)


def _rules(record: Record) -> str:
    return ", ".join(parts.VerdictPart.read(record.entry.verdict).rules)


def plain(text: str) -> str:
    """Return a text with control characters and line separators escaped."""
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _header(text: str) -> str:
    return plain(text).replace("\\", "\\\\").replace("|", "\\|")


def _value(text: str) -> str:
    return plain(text).replace("\\", "\\\\").replace("=", "\\=")


def _word(host: str) -> str:
    """Return a host name as a header field: printable ASCII without spaces, or "-"."""
    return "".join(each for each in host if "!" <= each <= "~")[:255] or "-"


SyslogTransport = Literal["udp", "tcp", "tls"]

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}", re.ASCII)
_PORTS: Final[dict[SyslogTransport, int]] = {"udp": 514, "tcp": 601, "tls": 6514}
_FORMS: Final = (
    "NAME=file:///PATH, note:///PATH, syslog+tcp://HOST:PORT, syslog+tls://HOST:PORT, "
    "syslog+udp://HOST:PORT, otlp+http://HOST:PORT/v1/logs or otlp+https://…"
)
_TLS = ("ca", "cert", "key")
_OPTIONS = frozenset({*_TLS, "only", "format", "facility"})


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files for TLS."""

    ca: Path | None = None  # trusted certificates; None: the system's
    cert: Path | None = None  # the client certificate; None: no client certificate
    key: Path | None = None  # the client's key

    @property
    def files(self) -> tuple[Path, ...]:
        """The paths that are set."""
        return tuple(path for path in (self.ca, self.cert, self.key) if path is not None)


@dataclass(frozen=True, slots=True)
class ToFile:
    """Lines appended to a file."""

    name: str
    path: Path
    checkpoints_only: bool = False


@dataclass(frozen=True, slots=True)
class ToNote:
    """A file with the signed note of the last checkpoint only."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class ToSyslog:
    """Syslog messages (RFC 5424)."""

    name: str
    transport: SyslogTransport
    host: str
    port: int
    form: Form = "json"
    facility: int = FACILITY
    trust: TlsFiles = TlsFiles()
    checkpoints_only: bool = False


@dataclass(frozen=True, slots=True)
class ToOtlp:
    """Logs over OTLP/HTTP."""

    name: str
    url: str
    trust: TlsFiles = TlsFiles()
    checkpoints_only: bool = False

    @property
    def address(self) -> str:
        """Scheme, host and port of the URL, as named in messages: its path can hold a token."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"


Destination = ToFile | ToNote | ToSyslog | ToOtlp


def read_destination(text: str) -> Destination:
    """Parse a destination.

    Raises:
        UsageError: the text is no destination.
    """
    name, equals, url = text.partition("=")
    if not equals or not _NAME.fullmatch(name):
        raise _wrong(text, "it has no name of lower-case letters, digits and '-' before '='")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise _wrong(text, str(error)) from None
    if parts.fragment or url.endswith("#"):
        raise _wrong(text, "the part after # would be lost")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    checkpoints_only = _checkpoints_only(text, options)
    destination: Destination
    match parts.scheme:
        case "file":
            destination = ToFile(name, _path(text, parts), checkpoints_only)
        case "note":
            destination = ToNote(name, _path(text, parts))
        case "syslog+udp" | "syslog+tcp" | "syslog+tls":
            destination = _syslog(name, text, parts, options, checkpoints_only=checkpoints_only)
        case "otlp+http" | "otlp+https":
            trust = _trust(text, options) if parts.scheme.endswith("s") else TlsFiles()
            scheme = parts.scheme.removeprefix("otlp+")
            _host(text, parts)
            target = f"{scheme}://{parts.netloc}{parts.path or '/v1/logs'}"
            destination = ToOtlp(name, target, trust, checkpoints_only)
        case _:
            raise _wrong(text, f"there is no way to ship by {parts.scheme or 'it'!r}")
    if options:
        known = sorted(options.keys() & _OPTIONS)
        what = repr(known[0]) if known else "one of its options"
        raise _wrong(text, f"{what} is no option of {parts.scheme}")
    return destination


def _syslog(
    name: str, text: str, parts: SplitResult, options: dict[str, str], *, checkpoints_only: bool
) -> ToSyslog:
    transports: dict[str, SyslogTransport] = {
        "syslog+udp": "udp",
        "syslog+tcp": "tcp",
        "syslog+tls": "tls",
    }
    transport = transports[parts.scheme]
    if parts.path not in {"", "/"}:
        raise _wrong(text, "syslog knows no path")
    form = options.pop("format", "json")
    if form not in {"json", "cef"}:
        raise _wrong(text, "format is json or cef")
    facility = options.pop("facility", str(FACILITY))
    if not facility.isascii() or not facility.isdigit() or int(facility) > FACILITY_MAX:
        raise _wrong(text, f"facility is a number from 0 to {FACILITY_MAX}")
    return ToSyslog(
        name,
        transport,
        _host(text, parts),
        _port(text, parts) or _PORTS[transport],
        "cef" if form == "cef" else "json",
        int(facility),
        _trust(text, options) if transport == "tls" else TlsFiles(),
        checkpoints_only,
    )


def _checkpoints_only(text: str, options: dict[str, str]) -> bool:
    only = options.pop("only", "")
    if only not in {"", "checkpoints"}:
        raise _wrong(text, "only=checkpoints is all that can be chosen")
    return bool(only)


def _trust(text: str, options: dict[str, str]) -> TlsFiles:
    files = {key: Path(options.pop(key)) for key in _TLS if key in options}
    for key, path in files.items():
        if not path.is_absolute():
            raise _wrong(text, f"{key} isn't an absolute path")
    if ("cert" in files) != ("key" in files):
        raise _wrong(text, "cert and key belong together")
    return TlsFiles(**files)


def _path(text: str, parts: SplitResult) -> Path:
    if parts.netloc or not parts.path.startswith("/") or parts.path.endswith("/"):
        raise _wrong(text, "a file is named by its absolute path, after three slashes")
    return Path(parts.path)


def _host(text: str, parts: SplitResult) -> str:
    if not parts.hostname or parts.username is not None:
        raise _wrong(text, "it names no host, or a user")
    _port(text, parts)
    return parts.hostname


def _port(text: str, parts: SplitResult) -> int:
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise _wrong(text, "the port is a number up to 65535")
    return port or 0


def _wrong(text: str, why: str) -> UsageError:
    return UsageError(
        "ship.destination", f"{_shown(text)!r} is no destination: {why}", remedy=f"write {_FORMS}"
    )


def _shown(text: str) -> str:
    """Return what an error message repeats of a destination: nothing that can be a credential.

    The path of a file stays. Of other URLs, scheme, host and port stay, or the scheme alone if the
    text holds an "@": a user or a password can hold any character before it.
    """
    name, equals, url = text.partition("=")
    if not equals or not _NAME.fullmatch(name):
        name, url = "", text
    scheme, slashes, rest = url.partition("://")
    if not slashes:
        return f"{name}{'=' if name else ''}…"
    ends = "?#" if scheme in {"file", "note"} else "/?#"
    kept = "" if "@" in rest else re.split(f"[{ends}]", rest, maxsplit=1)[0]
    return f"{name}{'=' if name else ''}{scheme}://{kept}{'…' if kept != rest else ''}"


@dataclass(frozen=True, slots=True)
class Sender:
    """The sender of records, as named in messages."""

    host: str
    version: str  # of trimtab
    instance: str
    monotonic: Callable[[], float]  # a clock that never jumps, in seconds


class Undelivered(Exception):
    """A batch wasn't delivered, and will be sent again.

    Records delivered in the last *doubtful_s* seconds are sent again too.
    """

    def __init__(self, why: str, *, doubtful_s: float = 0.0) -> None:
        super().__init__(why)
        self.doubtful_s = doubtful_s


class Rejected(Exception):
    """A batch was delivered, except *count* records that the receiver rejects permanently.

    The batch must not be sent again.
    """

    def __init__(self, why: str, *, count: int) -> None:
        super().__init__(why)
        self.count = count


class Sink(Protocol):
    """Delivers records to a destination. Not safe for several threads."""

    def deliver(self, batch: Sequence[Shipped]) -> None:
        """Deliver a batch; return once every record is delivered.

        Raises:
            Undelivered: some records are possibly not delivered.
            Rejected: every record is delivered or permanently rejected.
        """
        ...

    def close(self) -> None:
        """Release files and connections."""
        ...
