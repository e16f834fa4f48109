"""An open response of the engine: status and headers, then the body in pieces or in rows.

A row of any length costs that row only: beyond ``ROW_MAX`` its short members are read
(``object_cutter``), and the encoder of the rows makes up for the others.

Pure. The engine answers a list as a JSON array, or as an object that begins with the array
(``{"Volumes": [...], ...``). A list in another form is parsed as a whole, within the limit of
other answers.

The lines of the engine's events, each of bounded length: a longer one costs that line only.

Pure. A line beyond ``LINE_MAX`` is replaced by the event without its long members, and dropped if it
is no JSON object.

One JSON object of the engine, however long: its short members are read, the long ones are skipped.

Pure. An image chooses labels, ports, volumes and variables of its containers, and the engine repeats
them in rows of lists and in events. Memory is that of a member; work is linear in the length.
"""

from __future__ import annotations

import asyncio
import codecs
import json
import re
import select
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from typing import Any

import httptools

from controller.broker.gate.commands import REPLY_BYTES_MAX, Lost, Rows, encode_list, encode_row
from controller.broker.wire import end_to_end
from controller.core.encoding.json_values import DECODER
from controller.model.records import Reply

#: Characters of a member of a long object; longer members are left out.
MEMBER_MAX = 64 * 1024
_NAME_MAX = 1024
_BETWEEN = re.compile(r"[ \t\r\n,]*+")
_NAME = re.compile(r'("(?:[^"\\]++|\\.)*+")[ \t\r\n]*+:[ \t\r\n]*+(?=.)', re.DOTALL)
#: Text that opens and closes nothing, with whole strings.
_PLAIN = re.compile(r'(?:[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
_IN_STRING = re.compile(r'(?:[^"\\]++|\\.)*+', re.DOTALL)
_OPENING, _CLOSING = re.compile(r"[{\[]*+"), re.compile(r"[}\]]*+")


class ObjectCutter:
    """Feed the text after the object's first brace. ``members`` are those read so far."""

    def __init__(self) -> None:
        self.members: dict[str, Any] = {}
        self._text = ""
        #: The next length of ``_text`` for which a member may be complete: each is tried at doubled
        #: lengths.
        self._try_at = 0
        #: The value that is being skipped.
        self._skipped: _Skipped | None = None

    def feed(self, text: str, *, final: bool = False) -> str | None:
        """Return the text after the end of the object; None before its end.

        *final*: no more text follows.

        Raises:
            ValueError: the text is no JSON.
        """
        self._text += text
        at = 0
        while True:
            if self._skipped is not None:
                at = self._skipped.find_end(self._text, at)
                if at < 0:
                    self._text = ""
                    return None
                self._skipped = None
            at = _after(_BETWEEN, self._text, at)
            left = len(self._text) - at
            if left and self._text[at] == "}":
                return self._text[at + 1 :]
            if left == 0 or (left < self._try_at and not final):
                break
            end = self._read_member(at, final=final)
            if end == at:
                self._try_at = min(2 * left, MEMBER_MAX + 1)
                break
            at, self._try_at = end, 0
        self._text = self._text[at:]
        return None

    def _read_member(self, at: int, *, final: bool) -> int:
        """Read a member, or begin to skip it. Return the place after what was read."""
        name = _NAME.match(self._text, at)
        if name is None:
            if len(self._text) - at > _NAME_MAX:
                raise ValueError("it has no name of a member")
            return at
        try:
            value, end = DECODER.raw_decode(self._text, name.end())
        except (ValueError, RecursionError):
            end = len(self._text)
        if end < len(self._text):  # a number at the end of the text may go on
            if end - at <= MEMBER_MAX:
                self.members[str(json.loads(name[1]))] = value
            return end
        if not final and end - at <= MEMBER_MAX:
            return at
        if self._text[name.end()] not in '"{[':
            raise ValueError("it has no value of a member")
        self._skipped = _Skipped()
        return name.end()


class _Skipped:
    """A string, object or array that is skipped."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = self._is_escaped = False

    def find_end(self, text: str, at: int) -> int:
        """Return the place after the end, from *at* on; -1 if the text ends before."""
        while at < len(text):
            if self._in_string:
                at = _after(_IN_STRING, text, at + self._is_escaped)
                self._is_escaped = text.startswith("\\", at)  # the last character
                if not text.startswith('"', at):
                    return -1
                self._in_string = False
            else:
                opened = _after(_OPENING, text, at)
                self._depth += opened - at
                closed = _after(_CLOSING, text, opened)
                if 0 < self._depth <= closed - opened:
                    return opened + self._depth
                self._depth -= closed - opened
                at = _after(_PLAIN, text, closed) if self._depth else closed
                if not text.startswith('"', at):
                    continue
                self._in_string = True  # its end isn't there yet
            at += 1
            if self._depth == 0 and not self._in_string:
                return at
        return -1


def _after(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return at if match is None else match.end()


#: Characters of a whole row. A row is parsed in one step, and nobody else is served meanwhile.
ROW_MAX = 512 * 1024
#: Characters of a list that is not in one of the two forms.
WHOLE_MAX = 16 * 1024 * 1024
#: Bytes of the encoded rows together.
LIST_BYTES_MAX = 32 * 1024 * 1024
_SPACE = re.compile(r"[ \t\r\n,]*")
_HEAD_MAX = 256


class ListBroken(Exception):
    """The text is no list."""


class ListTooLong(Exception):
    """The encoded rows together exceed a limit, or a list that isn't read row by row."""


class RowParser:
    """Feed the bytes of one answer; ``finish`` returns the encoded list."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""
        #: The next length of ``_text`` for which a row may be complete: each row is tried at
        #: doubled lengths, so that the work is linear in its length.
        self._try_at = 0
        #: Reads the present row, if that is too long.
        self._cutter: ObjectCutter | None = None
        self._begun = False
        self._ended = False
        self._whole = False
        self._encoded: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes, *, final: bool = False) -> None:
        """Parse what arrived.

        Raises:
            ListBroken, ListTooLong.
        """
        self._text += self._decoder.decode(data, final)
        if not self._begun and not self._whole:
            self._begin(final=final)
        if self._whole:
            if len(self._text) > WHOLE_MAX:
                raise ListTooLong(f"it passes {WHOLE_MAX} bytes")
        elif self._begun and not self._ended:
            self._read_rows(final=final)
        if self._ended:
            self._text = ""  # the members after the list

    def finish(self) -> bytes:
        """Return the encoded list.

        Raises:
            ListBroken, ListTooLong.
        """
        self.feed(b"", final=True)
        if self._whole:
            return encode_list(self._rows, self._text.encode())
        if not self._ended:
            raise ListBroken("it broke off")
        return self._rows.joined(self._encoded)

    def _begin(self, *, final: bool) -> None:
        """Find the beginning of the list."""
        member = self._rows.member
        pattern = r"\s*\[" if not member else rf'\s*\{{\s*"{member}"\s*:\s*(?:\[|(null))'
        match = re.match(pattern, self._text)
        if match is not None:
            self._begun = True
            self._ended = bool(member and match[1])
            self._text = self._text[match.end() :]
        elif final or len(self._text) > _HEAD_MAX:
            self._whole = True

    def _read_rows(self, *, final: bool) -> None:
        at = 0
        while True:
            if self._cutter is not None:
                rest = self._cutter.feed(self._text[at:], final=final)
                self._text, at = rest or "", 0
                if rest is None:
                    break
                self._add(self._cutter.members)
                self._cutter = None
            space = _SPACE.match(self._text, at)
            at = space.end() if space is not None else at
            left = len(self._text) - at
            if left == 0 or (left < self._try_at and not final):
                break
            if self._text[at] == "]":
                self._ended = True
                break
            if self._text[at] != "{":
                raise ListBroken("a row is no object")
            try:
                row, at = DECODER.raw_decode(self._text, at)
            except (ValueError, RecursionError):
                if left <= ROW_MAX and not final:
                    self._try_at = min(2 * left, ROW_MAX + 1)
                    break
                self._cutter, at = ObjectCutter(), at + 1
            else:
                self._add(row)
            self._try_at = 0
        self._text = self._text[at:]

    def _add(self, row: dict[str, Any]) -> None:
        encoded = encode_row(self._rows, row)
        if encoded is None:
            return
        self._size += len(encoded) + 1
        if self._size > LIST_BYTES_MAX:
            raise ListTooLong(f"it passes {LIST_BYTES_MAX} bytes")
        self._encoded.append(encoded)


#: Bytes of a whole line. The engine repeats all labels of a container in each of its events.
LINE_MAX = 256 * 1024


class EventLines:
    """Feed the bytes of one stream."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._long: _LongLine | None = None

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that *data* completes, without their ends."""
        lines: list[bytes] = []
        first, *others = data.split(b"\n")
        self._add(first)
        for each in others:
            line = bytes(self._line) if self._long is None else self._long.finish()
            lines += [] if line is None else [line]
            self._line, self._long = bytearray(), None
            self._add(each)
        return lines

    def _add(self, data: bytes) -> None:
        if self._long is None:
            self._line += data
            if len(self._line) <= LINE_MAX:
                return
            data, self._line = bytes(self._line), bytearray()
            self._long = _LongLine()
        self._long.add(data)


class _LongLine:
    """A line that isn't kept."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._cutter: ObjectCutter | None = None
        self._is_ended = self._is_broken = False

    def add(self, data: bytes, *, final: bool = False) -> None:
        text = self._decoder.decode(data, final)
        if self._cutter is None:
            text = text.lstrip()
            self._is_broken = self._is_broken or not text.startswith("{")
            self._cutter, text = ObjectCutter(), text[1:]
        if self._is_broken or self._is_ended:
            self._is_broken = self._is_broken or bool(text.strip())
            return
        try:
            rest = self._cutter.feed(text, final=final)
        except ValueError:
            self._is_broken = True
        else:
            self._is_ended = rest is not None
            self._is_broken = bool((rest or "").strip())

    def finish(self) -> bytes | None:
        """Return the line without its long members; None for no object."""
        self.add(b"", final=True)
        if self._is_broken or not self._is_ended or self._cutter is None:
            return None
        event = self._cutter.members
        event.setdefault("Actor", {"ID": event.get("id", ""), "Attributes": {}})
        return json.dumps(event, separators=(",", ":")).encode()


HEAD_BYTES_MAX = 64 * 1024
READ_BYTES = 64 * 1024
#: Bytes of a list that are parsed and encoded in one iteration of the event loop.
TURN_BYTES = 32 * 1024


class ResponseBroken(Exception):
    """The connection broke, or the received bytes are no valid response."""


class TooLong(ResponseBroken):
    """The response is valid and exceeds a size limit."""


class NoList(ResponseBroken):
    """The response is valid, and no list of objects."""


class _ParserEvents:
    """The callbacks of llhttp for one response."""

    def __init__(self) -> None:
        self.headers: list[tuple[str, str]] = []
        self.head = False
        self.body: list[bytes] = []
        self.begun = 0
        self.complete = False

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        self.head = True

    def on_body(self, body: bytes) -> None:
        self.body.append(body)

    def on_message_complete(self) -> None:
        self.complete = True


class CountingReader(asyncio.StreamReader):
    """A stream that counts the received bytes: bytes on an idle connection answer nothing."""

    received = 0

    def feed_data(self, data: bytes) -> None:  # type: ignore[override]  # typeshed takes any integers
        """Take received bytes."""
        self.received += len(data)
        super().feed_data(data)


async def connect(path: str) -> ResponseReader:
    """Connect to the engine, as ``asyncio.open_unix_connection`` does. Raises OSError."""
    loop = asyncio.get_running_loop()
    reader = CountingReader(limit=READ_BYTES, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport, _ = await loop.create_unix_connection(lambda: protocol, path)
    return ResponseReader(reader, asyncio.StreamWriter(transport, protocol, reader, loop))


class ResponseReader:
    """The connection of one request. Call ``read_head`` first; ``chunks`` yields the body.

    After a hijack, ``reader`` and ``writer`` are the raw connection. The first received bytes are
    in ``early``, because they arrived together with the head.
    """

    def __init__(self, reader: CountingReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        #: The API version of the paths, for example ``/v1.45``.
        self.prefix = ""
        #: The engine at the other end, as it was identified at the connect.
        self.engine: object = None
        self.status = 0
        self.headers: tuple[tuple[str, str], ...] = ()
        #: The length of the body; None if the engine doesn't send it.
        self.length: int | None = None
        #: True if the engine handed the connection over.
        self.hijacked = False
        #: Bytes received together with the head of a hijacked connection.
        self.early = b""
        #: Called with the reason when a body breaks off: the next engine can be a different one.
        self.on_break: Callable[[str], None] = lambda _why: None
        #: Called at the close.
        self.on_close: Callable[[], None] = lambda: None
        #: Shows whether the socket can be read. Kept with the connection.
        self._readable: select.poll | None = None
        self._received_before = 0
        self._ends_with_connection = False
        self._keeps_alive = False
        self._bodiless = False
        self._parsed = _ParserEvents()
        self._parser = httptools.HttpResponseParser(self._parsed)

    def close(self) -> None:
        """Close the connection. The engine notices at once."""
        self.writer.close()
        self.on_close()

    @property
    def has_begun(self) -> bool:
        """True if a part of the response arrived."""
        return self._parsed.begun > 0

    @property
    def is_reusable(self) -> bool:
        """True if the response is complete and another request can follow."""
        return self._parsed.complete and self._keeps_alive and not self.writer.is_closing()

    def rest(self) -> None:
        """Expect no byte until ``reuse``. Reading goes on: a pause costs two calls of the kernel."""
        self._received_before = self.reader.received

    def reuse(self) -> ResponseReader | None:
        """Return the connection for another request.

        Return None if the engine closed the connection or sent unexpected bytes.
        """
        if self.writer.is_closing() or self.reader.at_eof():
            return None
        if self._readable is None:
            self._readable = select.poll()
            self._readable.register(self.writer.get_extra_info("socket"), select.POLLIN)
        # The event loop has possibly not read yet what arrived.
        if self.reader.received != self._received_before or self._readable.poll(0):
            return None
        other = ResponseReader(self.reader, self.writer)
        other.prefix, other.engine, other.on_break = self.prefix, self.engine, self.on_break
        other._readable = self._readable
        return other

    async def write(self, data: bytes) -> None:
        """Send *data*.

        Raises:
            ResponseBroken: the connection broke. The engine can have received the data.
        """
        try:
            self.writer.write(data)
            await self.writer.drain()
        except OSError as error:
            raise ResponseBroken(f"the connection to the engine broke: {error}") from error

    async def read_head(self, *, to_head: bool, hijack: bool) -> None:
        """Read up to the end of the head.

        Raises:
            ResponseBroken: no valid head arrived.
        """
        size = 0
        while not self._parsed.head:
            data = await self._read()
            size += len(data)
            if not data or size > HEAD_BYTES_MAX:
                raise ResponseBroken("the engine closed the connection without an answer")
            self._feed(data)
        self.status = self._parser.get_status_code()
        if self.hijacked != (self.status == HTTPStatus.SWITCHING_PROTOCOLS) or (
            self.status < HTTPStatus.OK and not hijack
        ):
            raise ResponseBroken(f"the engine answered {self.status}, which wasn't asked for")
        named = dict(self._parsed.headers)
        self.headers = end_to_end(tuple(self._parsed.headers))
        self.length = int(named["content-length"]) if "content-length" in named else None
        self._bodiless = to_head or self.status in (204, 304)
        self._ends_with_connection = self.length is None and "transfer-encoding" not in named
        self._keeps_alive = (
            self._parser.get_http_version() == "1.1"
            and "connection" not in named
            and not self._ends_with_connection
            and not self.hijacked
        )

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives.

        Raises:
            ResponseBroken: the body ended early.
        """
        while True:
            parts, self._parsed.body = self._parsed.body, []
            if parts:
                yield parts[0] if len(parts) == 1 else b"".join(parts)
            if self._parsed.complete or self._bodiless:
                return
            data = await self._read()
            if not data:
                if self._ends_with_connection:
                    return
                why = "the engine's answer broke off"
                self.on_break(why)
                raise ResponseBroken(why)
            self._feed(data)

    async def read_whole(self, bytes_max: int = REPLY_BYTES_MAX) -> Reply:
        """Return the whole response.

        Raises:
            ResponseBroken: the body ended early.
            TooLong: the body is larger than *bytes_max*.
        """
        parts: list[bytes] = []
        size = 0
        async for part in self.chunks():
            size += len(part)
            if size > bytes_max:
                raise TooLong(f"the engine's answer passes {bytes_max} bytes")
            parts.append(part)
        return Reply(self.status, b"".join(parts), self.headers)

    async def read_rows(self, rows: Rows) -> Reply:
        """Return the response to a list, with each row encoded as it arrives.

        Raises:
            ResponseBroken: the body ended early.
            NoList: the body is no list.
            TooLong: a row, or the encoded list, is too large.
        """
        parser = RowParser(rows)
        size = 0
        try:
            async for part in self.chunks():
                parser.feed(part)
                size += len(part)
                if size >= TURN_BYTES:  # the next part may be there already
                    size = 0
                    await asyncio.sleep(0)
            return Reply(self.status, parser.finish(), self.headers)
        except ListTooLong as error:
            raise TooLong(f"the engine's list is too long: {error}") from error
        except (ListBroken, ValueError) as error:
            raise NoList(f"the engine's list can't be read: {error}") from error

    async def _read(self) -> bytes:
        try:
            return await self.reader.read(READ_BYTES)
        except OSError as error:
            raise ResponseBroken(f"the connection to the engine broke: {error}") from error

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.hijacked = True
            self.early = data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            raise ResponseBroken(f"the engine's answer isn't HTTP: {error}") from error
        if self._parsed.begun > 1:
            raise ResponseBroken("the engine answered more than it was asked")


async def read_within(stream: ResponseReader, *, deadline_s: float) -> Reply | Lost:
    """Return a whole response, or why it isn't whole within the deadline. Closes the connection."""
    try:
        async with asyncio.timeout(deadline_s):
            return await stream.read_whole()
    except TimeoutError:
        return Lost(f"the engine's answer wasn't whole within {deadline_s:g} s")
    except ResponseBroken as error:
        return Lost(str(error))
    finally:
        stream.close()
