"""HTTP/1.1 without I/O: bytes to requests, responses to bytes.

From the bytes of a client to requests. No sockets here.

A request is accepted only if two parsers agree on it: the strict checks of this module, and
llhttp. An ambiguous request is refused (rules ``wire.*``), never repaired: request smuggling
relies on two readers that frame a request differently (RFC 9112, section 11.2). Bytes beyond a
request are never a second request.

A body too long for memory, read piece by piece. No sockets here.

As for a request, two parsers must agree: the checks of this module, and llhttp.

Replies as bytes. The broker frames every reply itself, whatever headers the engine sent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus

import httptools

from controller.core.encoding.json_values import parse_object
from controller.model.records import Reply

Headers = tuple[tuple[str, str], ...]

JSON_TYPE = (("content-type", "application/json"),)
#: The header with the rule of a refusal, for clients that read no body: a reply to HEAD has none.
RULE_HEADER = "Trimtab-Rule"

#: The longest phrase of a status.
PHRASE_MAX = 512

#: Headers of one connection, which are never passed on (RFC 9110, section 7.6.1).
_HOP_BY_HOP = """
    connection content-length keep-alive proxy-authenticate proxy-authorization proxy-connection
    te trailer transfer-encoding upgrade
"""
HOP_BY_HOP = frozenset(_HOP_BY_HOP.split())


def json_reply(status: int, value: object) -> Reply:
    """Return a reply with a JSON body."""
    return Reply(status, encode_reply(value), JSON_TYPE)


def encode_reply(value: object) -> bytes:
    """Return the JSON of a value, in UTF-8 without escapes. Half a surrogate pair becomes ``?``."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


def list_of(parts: Iterable[bytes | None]) -> bytes:
    """Return the JSON list of parts that are JSON, without the missing ones."""
    return b"[%b]" % b",".join(part for part in parts if part is not None)


def object_of(parts: Mapping[str, bytes | None]) -> bytes:
    """Return the JSON object of parts that are JSON; null for a missing one."""
    members = (b"%b:%b" % (encode_reply(name), part or b"null") for name, part in parts.items())
    return b"{%b}" % b",".join(members)


def refusal(
    status: int, rule: str, reason: str, *, remedy: str = "", record: str = "", message: str = ""
) -> Reply:
    """Return a refusal: its rule, reason and remedy, and the id of its journal record.

    Errors that aren't refusals (502, 503, 504) have the same form. *message* replaces the
    composed message: some clients expect the engine's own text.
    """
    tail = f" ({remedy})" if remedy else ""
    detail = {"rule": rule, "reason": reason, "remedy": remedy, "id": record}
    reply = json_reply(status, {"message": message or f"{rule}: {reason}{tail}", "trimtab": detail})
    return replace(reply, headers=(*JSON_TYPE, (RULE_HEADER, rule)))


CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """Return one chunk of a chunked body; *data* is never empty: an empty chunk ends the body."""
    assert data, "an empty chunk ends the body"
    return b"%x\r\n%b\r\n" % (len(data), data)


def head_bytes(status: int, headers: Headers, message: str = "") -> bytes:
    """Return the head of a reply, with a *message* after the status for a reply without a body.

    Raises:
        AssertionError: a header could end its line, a bug of the code that built the header.
    """
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Status"
    told = f"{phrase}: {message}" if message.isprintable() and message else phrase
    lines = [f"HTTP/1.1 {status} {told[:PHRASE_MAX]}"]
    for name, value in headers:
        assert (name + value).isprintable(), f"header {name!r} breaks its line"
        lines.append(f"{name}: {value}")
    return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n"


def end_to_end(headers: Headers) -> Headers:
    """Return the headers to pass on: none of ``HOP_BY_HOP``, none that Connection names."""
    named = {
        word.strip().lower()
        for name, value in headers
        if name.lower() == "connection"
        for word in value.split(",")
    }
    return tuple(
        (name, value)
        for name, value in headers
        if name.lower() not in HOP_BY_HOP and name.lower() not in named
    )


def error_line(reply: Reply) -> bytes:
    """Return a reply with an error as the last line of a stream, in the form of the engine's lines."""
    try:
        value = json.loads(reply.body)
    except ValueError:
        value = {}
    message = str(value.get("message", "")) if isinstance(value, dict) else ""
    line = {"error": message, "errorDetail": {"message": message}}
    return json.dumps({**line, **value} if message else line).encode()


def reply_bytes(reply: Reply, *, to_head: bool, keep_alive: bool) -> bytes:
    """Return a whole reply; with *to_head*, a reply to HEAD, without a body."""
    headers = [*end_to_end(reply.headers)]
    bodiless = reply.status in (204, 304) or reply.status < 200
    if not bodiless:
        headers.append(("Content-Length", str(len(reply.body))))
    if not keep_alive:
        headers.append(("Connection", "close"))
    if bodiless or not to_head:
        return head_bytes(reply.status, tuple(headers)) + (b"" if bodiless else reply.body)
    # Many clients show the status with its phrase alone.
    message = parse_object(reply.body).get("message") if reply.status >= 400 else None
    return head_bytes(reply.status, tuple(headers), str(message or ""))


HEAD_BYTES_MAX = 32 * 1024
HEADERS_MAX = 100
#: The most bytes of a body that are checked in one go.
STEP_BYTES = 64 * 1024
#: Longest body that is checked as a whole: in chunks, or with an upgrade.
WHOLE_BODY_MAX = 4 << 20
#: Chunks of one body. Clients that send chunks at all send some of 4 to 64 KiB.
CHUNKS_MAX = 1024

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})
BODILESS = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})
#: The only routes where bytes may follow a request, and only after the engine agreed (101).
_HIJACK = re.compile(r"(/v[0-9.]+)?/(containers/[^/]+/attach|exec/[^/]+/start)", re.ASCII)

#: The routes of BuildKit, which are refused, and the remedy.
BUILDKIT = r"/(?:session|grpc)(?:/.*)?"
CLASSIC_BUILDER = "BuildKit can't hold the policy's limits: set DOCKER_BUILDKIT=0"
_BUILDKIT = re.compile(rf"(/v[0-9.]+)?{BUILDKIT}", re.ASCII)

TARGET_MAX = 16 * 1024
_REQUEST_LINE = re.compile(rb"([A-Z]{1,16}) (\S{1,%d}) HTTP/(1\.[01])" % TARGET_MAX)
_TARGET = re.compile(rb"/[\x21\x22\x24-\x7e]*")  # visible ASCII without '#'
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([\x20-\x7e\t]*)")
#: The characters of a host name (RFC 3986). Older clients send an escaped path.
_HOST = re.compile(r"[A-Za-z0-9._~%!$&'()*+,;=:\[\]-]{0,255}", re.ASCII)
_UPGRADE_LINE = re.compile(rb"\r\nupgrade:[^\r\n]*", re.IGNORECASE)
_LENGTH = re.compile(r"[0-9]{1,12}", re.ASCII)
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,8}")
_CHUNK_SIZE_SO_FAR = re.compile(rb"[0-9A-Fa-f]{0,8}\r?")
#: Headers that control framing or admission: another reader could prefer a second one.
_SINGLE_HEADERS = """
    connection content-encoding content-length content-type expect host transfer-encoding
    trimtab-context upgrade x-registry-auth
"""
_SINGLE = frozenset(_SINGLE_HEADERS.split())
_CONNECTION_WORDS = frozenset({"keep-alive", "close", "upgrade"})


@dataclass(frozen=True, slots=True)
class Malformed:
    """The error for malformed bytes: rule ``wire.*`` and reason. The connection ends."""

    rule: str
    reason: str
    status: int = 400
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """One whole request."""

    method: str
    #: Path and query as sent.
    path: str
    query: str
    #: Names in lower case.
    headers: Headers
    body: bytes
    #: "1.1" or "1.0".
    version: str
    keep_alive: bool
    #: The client requested a hijack, on a route that supports hijacking.
    upgrade: bool
    #: A body that isn't read yet; ``body`` is empty then.
    streamed: BodyStream | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """A checked head."""

    method: str
    target: str
    version: str
    headers: Headers
    #: None for a chunked body.
    length: int | None
    keep_alive: bool
    upgrade: bool
    expects_continue: bool

    @property
    def path(self) -> str:
        """The target before the first question mark."""
        return self.target.partition("?")[0]


@dataclass(frozen=True, slots=True)
class BodyStream:
    """The beginning of a request with a body that the route reads itself (``streamed_body``)."""

    raw_head: bytes
    head: Head
    #: Bytes that came with the head.
    first: bytes


@dataclass(frozen=True, slots=True)
class BodyLimit:
    """The longest body of a request."""

    most: int
    #: The error for a longer body, if not ``wire.body-size``.
    beyond: Malformed | None = None
    #: The route reads the body itself, and limits it.
    streamed: bool = False

    @property
    def refusal(self) -> Malformed:
        """The error for a longer body."""
        return self.beyond or Malformed("wire.body-size", f"the body passes {self.most} bytes", 413)


class RequestReader:
    """Reads the requests of one connection, one at a time.

    Call ``feed`` with bytes, then ``poll``: None needs more bytes, a Malformed ends the connection,
    and after a ParsedRequest the reader is ready for the next request. ``poll_head`` reads the head
    alone. The buffer never exceeds the limits, and each byte is examined a fixed number of times,
    however many pieces the bytes arrive in.
    """

    def __init__(self, bound: Callable[[str, str], BodyLimit]) -> None:
        self._bound = bound  # of a method and a raw target
        self._buffer = bytearray()
        self._head: Head | None = None
        self._head_end = 0
        #: Bytes of an incomplete head that have been examined.
        self._examined = 0
        self._limit = BodyLimit(0)
        self._chunks = _Chunks(self._limit)
        #: The second parser's reading of a long body, step by step.
        self._second: _SteppedReading | None = None

    @property
    def head(self) -> Head | None:
        """The accepted head of the current request; None before its end."""
        return self._head

    @property
    def idle(self) -> bool:
        """Whether the buffer is empty."""
        return not self._buffer

    @property
    def wants_continue(self) -> bool:
        """Whether the client waits for ``100 Continue`` before sending the body."""
        return (
            self._head is not None
            and not self._limit.streamed
            and self._head.expects_continue
            and len(self._buffer) == self._head_end
        )

    @property
    def asks_for_a_head(self) -> bool:
        """Whether the buffer begins like a HEAD request: its reply has no body."""
        return self._buffer.startswith(b"HEAD ")

    def feed(self, data: bytes) -> None:
        """Add bytes from the client."""
        self._buffer += data

    def rest(self) -> bytes:
        """Take the bytes after the last request: the first bytes of a hijacked connection."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def poll_head(self) -> Head | Malformed | None:
        """Return the head of the next request, an error, or None if more bytes are needed."""
        if self._head is None and self._buffer and (malformed := self._take_head()):
            return malformed
        return self._head

    def poll(self) -> ParsedRequest | Malformed | None:
        """Return the next request, an error, or None if more bytes are needed."""
        head = self.poll_head()
        return self._take_body(head) if isinstance(head, Head) else head

    def _take_head(self) -> Malformed | None:
        if not 0x41 <= self._buffer[0] <= 0x5A:
            return Malformed("wire.method", "a request starts with a method in capital letters")
        end = self._buffer.find(b"\r\n\r\n", max(0, self._examined - 3), HEAD_BYTES_MAX)
        examined = end + 4 if end >= 0 else min(len(self._buffer), HEAD_BYTES_MAX)
        if _lone_line_break(bytes(self._buffer[self._examined : examined])):
            return Malformed("wire.line", "lines end with CR LF; a CR or LF alone is refused")
        # A CR at the end is examined again, together with the byte after it.
        self._examined = examined - (self._buffer[examined - 1] == 0x0D)
        if end < 0:
            if len(self._buffer) < HEAD_BYTES_MAX:
                return None
            return Malformed("wire.head-size", f"the head passes {HEAD_BYTES_MAX} bytes", 431)
        head = parse_head(bytes(self._buffer[:examined]))
        if isinstance(head, Malformed):
            return head
        self._limit = self._bound(head.method, head.target)
        is_whole = (head.length is None or head.upgrade) and not self._limit.streamed
        if is_whole and self._limit.most > WHOLE_BODY_MAX:
            reason = f"in chunks, or with an upgrade, a body has at most {WHOLE_BODY_MAX} bytes"
            remedy = "send the body with a Content-Length"
            refused = Malformed("wire.body-size", reason, 413, remedy)
            self._limit = BodyLimit(WHOLE_BODY_MAX, self._limit.beyond or refused)
        self._head, self._head_end, self._chunks = head, end + 4, _Chunks(self._limit)
        return None

    def _copy(self, start: int, end: int) -> bytes:
        """Return a part of the buffer. A slice alone would be a second copy."""
        with memoryview(self._buffer) as view:
            return bytes(view[start:end])

    def _take_streamed(self, head: Head) -> ParsedRequest:
        raw, first = self._copy(0, self._head_end), self._copy(self._head_end, len(self._buffer))
        self._buffer.clear()
        self._head, self._examined = None, 0
        return _parsed(head, b"", BodyStream(raw, head, first))

    def _take_body(self, head: Head) -> ParsedRequest | Malformed | None:
        if self._limit.streamed:
            return self._take_streamed(head)
        if head.length is not None and head.length > self._limit.most:
            return self._limit.refusal
        if head.length is None:
            outcome = self._chunks.advance(self._buffer, self._head_end)
            if not isinstance(outcome, int):
                return outcome
            end, body = outcome, bytes(self._chunks.body)
        else:
            end = self._head_end + head.length
            if head.length > STEP_BYTES and not head.upgrade:
                self._second = self._second or _SteppedReading(self._buffer, self._head_end)
                self._second.advance(end)
            if len(self._buffer) < end:
                return None
            body = self._copy(self._head_end, end)
        if len(self._buffer) > end and not head.upgrade:
            return Malformed("wire.pipelined", "bytes follow the request before it was answered")
        if self._second is not None:
            agrees = self._second.agrees(head, end)
        else:
            agrees = _second_parser_agrees(self._copy(0, end), head, body)
        del self._buffer[:end]
        self._head, self._examined, self._second = None, 0, None
        if not agrees:
            return Malformed("wire.ambiguous", "two parsers read the request differently")
        return _parsed(head, body)


def _parsed(head: Head, body: bytes, streamed: BodyStream | None = None) -> ParsedRequest:
    path, _, query = head.target.partition("?")
    return ParsedRequest(
        method=head.method,
        path=path,
        query=query,
        headers=head.headers,
        body=body,
        version=head.version,
        # Nothing is told apart from the rest of a body that may not be read to its end.
        keep_alive=head.keep_alive and streamed is None,
        upgrade=head.upgrade,
        streamed=streamed,
    )


def parse_head(raw: bytes) -> Head | Malformed:
    """Check a head, from the first byte to the empty line at its end."""
    first, *lines = raw[:-4].split(b"\r\n")
    match = _REQUEST_LINE.fullmatch(first)
    if match is None and len(first) > TARGET_MAX:
        reason = f"the path and the query pass {TARGET_MAX} characters"
        remedy = (
            "write less into the query; dockerode leaves the body out of it with _query and _body"
        )
        return Malformed("wire.request-line", reason, 414, remedy)
    if match is None:
        return Malformed("wire.request-line", "the first line isn't METHOD TARGET HTTP/1.1")
    method, target, version = (part.decode("latin-1") for part in match.groups())
    if method not in METHODS:
        return Malformed("wire.method", f"the method {method} isn't known")
    if _TARGET.fullmatch(match[2]) is None:
        return Malformed("wire.target", "the target must be a path, in visible ASCII")
    if len(lines) > HEADERS_MAX:
        return Malformed("wire.head-size", f"more than {HEADERS_MAX} headers", 431)
    headers: list[tuple[str, str]] = []
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            return Malformed("wire.header", "a header isn't NAME: VALUE in ASCII on one line")
        headers.append((field[1].decode().lower(), field[2].decode().strip(" \t")))
    return _frame(method, target, version, tuple(headers))


def _frame(method: str, target: str, version: str, headers: Headers) -> Head | Malformed:
    names = [name for name, _ in headers]
    if twice := sorted({name for name in names if names.count(name) > 1} & _SINGLE):
        return Malformed("wire.header-twice", f"{', '.join(twice)} is there more than once")
    value = dict(headers)
    if "host" not in value and version == "1.1":
        return Malformed("wire.host", "HTTP/1.1 requires a Host header")
    if _HOST.fullmatch(value.get("host", "")) is None:
        return Malformed("wire.host", "Host isn't the name of a host")
    length = _body_length(method, version, value)
    if isinstance(length, Malformed):
        return length
    words = {word.strip().lower() for word in value.get("connection", "").split(",")} - {""}
    if not words <= _CONNECTION_WORDS:
        return Malformed("wire.connection", "Connection may say keep-alive, close or upgrade")
    upgrade = "upgrade" in value or "upgrade" in words
    if upgrade and not _may_upgrade(method, target, version, words, value.get("upgrade", "")):
        refused = Malformed("wire.upgrade", "only attach and exec start upgrade, and only to tcp")
        is_buildkit = _BUILDKIT.fullmatch(target.partition("?")[0]) is not None
        return replace(refused, remedy=CLASSIC_BUILDER) if is_buildkit else refused
    expect = value.get("expect", "").lower()
    if expect not in ("", "100-continue"):
        return Malformed("wire.expect", "Expect may only say 100-continue", 417)
    return Head(
        method=method,
        target=target,
        version=version,
        headers=headers,
        length=length,
        keep_alive=version == "1.1" and "close" not in words,
        upgrade=upgrade,
        expects_continue=expect != "" and version == "1.1" and length != 0,
    )


def _may_upgrade(method: str, target: str, version: str, words: set[str], protocol: str) -> bool:
    path = target.partition("?")[0]
    agreed = version == "1.1" and "upgrade" in words and protocol.lower() == "tcp"
    return agreed and method == "POST" and _HIJACK.fullmatch(path) is not None


def _body_length(method: str, version: str, value: dict[str, str]) -> int | Malformed | None:
    """Return the length of the body, None for a chunked body."""
    if "trailer" in value or "te" in value:
        return Malformed("wire.trailer", "trailers aren't taken")
    length, encoding = value.get("content-length"), value.get("transfer-encoding")
    if encoding is not None:
        if length is not None:
            return Malformed("wire.length", "Content-Length and Transfer-Encoding exclude another")
        if version != "1.1" or encoding.lower() != "chunked":
            return Malformed("wire.encoding", "Transfer-Encoding may only be chunked, in HTTP/1.1")
        if method in BODILESS:
            return Malformed("wire.body", f"{method} has no body")
        return None
    if length is None:
        return 0
    if _LENGTH.fullmatch(length) is None:
        return Malformed("wire.length", "Content-Length isn't a plain decimal number")
    if int(length) and method in BODILESS:
        return Malformed("wire.body", f"{method} has no body")
    return int(length)


class _Chunks:
    """Decodes a chunked body step by step, without extensions and trailers."""

    def __init__(self, bound: BodyLimit) -> None:
        self.body = bytearray()
        self._bound = bound
        self._at = -1
        self._count = 0

    def advance(self, buffer: bytearray, start: int) -> int | Malformed | None:
        """Continue in *buffer*, with the body from *start*; return the end of the body."""
        at = max(self._at, start)
        while (line_end := buffer.find(b"\r\n", at, at + 16)) >= 0:
            size = _CHUNK_SIZE.fullmatch(buffer, at, line_end)
            if size is None:
                break
            length = int(size[0], 16)
            if len(self.body) + length > self._bound.most:
                return self._bound.refusal
            after = line_end + 2 + length
            if len(buffer) < after + 2:
                self._at = at
                return None
            if buffer[after : after + 2] != b"\r\n":
                what = "the chunk is longer than it says" if length else "trailers aren't taken"
                return Malformed("wire.chunk", what)
            if length == 0:
                return after + 2
            self.body += buffer[line_end + 2 : after]
            at = after + 2
            self._count += 1
            if self._count > CHUNKS_MAX:
                return Malformed("wire.body-size", f"the body has over {CHUNKS_MAX} chunks", 413)
        self._at = at
        if line_end >= 0 or _CHUNK_SIZE_SO_FAR.fullmatch(buffer, at, at + 16) is None:
            return Malformed("wire.chunk", "a chunk's size isn't a plain hexadecimal number")
        return None


def _lone_line_break(raw: bytes) -> bool:
    """Return True if CR or LF stands alone; a CR at the very end may still get its LF."""
    bare = raw.removesuffix(b"\r").replace(b"\r\n", b"")
    return b"\r" in bare or b"\n" in bare


class _LlhttpEvents:
    """Callbacks of llhttp that collect the parsed request."""

    def __init__(self) -> None:
        self.url: list[bytes] = []
        self.headers: list[tuple[bytes, bytes]] = []
        self.body: list[bytes] = []
        self.complete = 0

    def on_url(self, url: bytes) -> None:
        self.url.append(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        self.body.append(body)

    def on_message_complete(self) -> None:
        self.complete += 1

    def is_head(self, parser: httptools.HttpRequestParser, head: Head, headers: Headers) -> bool:
        """Return True if *parser*, with the callbacks of this object, read the same head."""
        found = tuple((name.decode().lower(), value.decode()) for name, value in self.headers)
        read = (parser.get_method(), b"".join(self.url), parser.get_http_version(), found)
        return read == (head.method.encode(), head.target.encode(), head.version, headers)


class _SteppedReading:
    """llhttp's reading of a request with a long body, while the bytes arrive.

    At once, the reading of 16 MiB would stop the broker's loop for 20 ms and more.
    """

    def __init__(self, buffer: bytearray, head_end: int) -> None:
        self._buffer = buffer
        self._events = _LlhttpEvents()
        self._events.on_body = self._compare  # type: ignore[method-assign]
        self._parser = httptools.HttpRequestParser(self._events)
        #: The bytes until here are read, and those of the body are compared.
        self.read = 0
        self._compared = head_end
        self._agrees = True

    def advance(self, end: int) -> None:
        """Read the arrived bytes of the request. The request ends at *end*."""
        end = min(end, len(self._buffer))
        while self._agrees and self.read < end:
            # The first step has the whole head.
            step = max(STEP_BYTES, self._compared - self.read)
            piece = bytes(self._buffer[self.read : min(end, self.read + step)])
            self.read += len(piece)
            try:
                self._parser.feed_data(piece)
            except (httptools.HttpParserUpgrade, httptools.HttpParserError):
                self._agrees = False

    def _compare(self, body: bytes) -> None:
        start, self._compared = self._compared, self._compared + len(body)
        self._agrees = self._agrees and self._buffer[start : self._compared] == body

    def agrees(self, head: Head, end: int) -> bool:
        """Return True if llhttp read the same request, to its end."""
        is_whole = self._events.complete == 1 and self.read == self._compared == end
        return self._agrees and is_whole and self._events.is_head(self._parser, head, head.headers)


def _second_parser_agrees(raw: bytes, head: Head, body: bytes) -> bool:
    headers = head.headers
    if head.upgrade:
        # llhttp doesn't read the body of an upgrade: llhttp must report the upgrade at the end of
        # the head, and parses the body again without the upgrade header.
        end = raw.index(b"\r\n\r\n") + 4
        if _upgrade_at(raw) != end:
            return False
        raw = _UPGRADE_LINE.sub(b"", raw[:end]) + raw[end:]
        headers = tuple(field for field in headers if field[0] != "upgrade")
    seen = _LlhttpEvents()
    parser = httptools.HttpRequestParser(seen)
    try:
        parser.feed_data(raw)
    except (httptools.HttpParserUpgrade, httptools.HttpParserError):
        return False
    is_body = seen.complete == 1 and b"".join(seen.body) == body
    return is_body and seen.is_head(parser, head, headers)


def _upgrade_at(raw: bytes) -> int:
    """Return the position where llhttp reports an upgrade, -1 for none."""
    try:
        httptools.HttpRequestParser(_LlhttpEvents()).feed_data(raw)
    except httptools.HttpParserUpgrade as upgrade:
        return int(upgrade.args[0])
    except httptools.HttpParserError:
        return -1
    return -1


#: Chunks that may be small: clients send a header of an archive as a chunk of its own.
SMALL_CHUNKS_MAX, CHUNK_BYTES = 4096, 128
_LINE_MAX = 10


class StreamedBody:
    """The body of one request. Call ``first``, then ``feed`` with the bytes after those."""

    def __init__(self, request: BodyStream) -> None:
        head = request.head
        #: The longest body in bytes. The route sets it before it reads.
        self.most = 0
        #: True at the end of the body.
        self.complete = head.length == 0
        #: Whether the client waits for ``100 Continue``.
        self.wants_continue = head.expects_continue and not request.first
        self._first = request.first
        self._head = head
        self._left = head.length
        self._size = self._chunks = 0
        #: Of a chunked body: an unfinished line, and the bytes left of a chunk with its end.
        self._line = b""
        self._in_chunk = 0
        self._second: list[bytes] = []
        self._ended = False
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(request.raw_head)

    def on_body(self, body: bytes) -> None:
        """Take a part of the body from llhttp."""
        self._second.append(body)

    def on_message_complete(self) -> None:
        """Take the end of the body from llhttp."""
        self._ended = True

    def first(self) -> bytes | Malformed:
        """Return the part of the body that came with the head."""
        first, self._first = self._first, b""
        return self.feed(first) if first else b""

    def feed(self, data: bytes) -> bytes | Malformed:
        """Return the part of the body in *data*, or why the body is refused."""
        if self.complete:
            return Malformed("wire.pipelined", "bytes follow the request before it was answered")
        part = self._chunked(data) if self._left is None else self._plain(data)
        if isinstance(part, Malformed):
            return part
        self._size += len(part)
        if self._size > self.most:
            return Malformed("wire.body-size", f"the body passes {self.most} bytes", 413)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserUpgrade, httptools.HttpParserError):
            return _DISAGREE
        second, self._second = b"".join(self._second), []
        return part if second == part and self._ended == self.complete else _DISAGREE

    def _plain(self, data: bytes) -> bytes | Malformed:
        assert self._left is not None
        if self._head.length is not None and self._head.length > self.most:
            return Malformed("wire.body-size", f"the body passes {self.most} bytes", 413)
        if len(data) > self._left:
            return Malformed("wire.pipelined", "bytes follow the request before it was answered")
        self._left -= len(data)
        self.complete = self._left == 0
        return data

    def _chunked(self, data: bytes) -> bytes | Malformed:
        parts: list[bytes] = []
        at = 0
        while at < len(data):
            if self.complete:
                return Malformed(
                    "wire.pipelined", "bytes follow the request before it was answered"
                )
            if self._in_chunk > 2:
                part = data[at : at + self._in_chunk - 2]
                parts.append(part)
                at += len(part)
                self._in_chunk -= len(part)
                continue
            end = data.find(b"\n", at, at + _LINE_MAX + 1)
            stop = end + 1 if end >= 0 else len(data)
            self._line += data[at:stop]
            at = stop
            if not self._line.endswith(b"\n"):
                if len(self._line) > _LINE_MAX:
                    return _BAD_CHUNK
                continue
            refused = self._end_line()
            if refused is not None:
                return refused
        return b"".join(parts)

    def _end_line(self) -> Malformed | None:
        line, self._line = self._line, b""
        if self._in_chunk == 2:  # the end of a chunk
            self._in_chunk = 0
            if line != b"\r\n":
                return Malformed("wire.chunk", "the chunk is longer than it says")
            return None
        if self._in_chunk < 0:  # the end of the last chunk
            self.complete = True
            return None if line == b"\r\n" else Malformed("wire.chunk", "trailers aren't taken")
        if not line.endswith(b"\r\n") or not (size := _CHUNK_SIZE.fullmatch(line[:-2])):
            return _BAD_CHUNK
        length = int(size[0], 16)
        self._chunks += 1
        if self._chunks > SMALL_CHUNKS_MAX + self._size // CHUNK_BYTES:
            return Malformed("wire.body-size", "the body has too many small chunks", 413)
        self._in_chunk = length + 2 if length else -1
        return None


_DISAGREE = Malformed("wire.ambiguous", "two parsers read the request differently")
_BAD_CHUNK = Malformed("wire.chunk", "a chunk's size isn't a plain hexadecimal number")
