"""An open response of the engine: status and headers, then the body in pieces."""

from __future__ import annotations

import asyncio
import select
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus

import httptools

from controller.broker.engine.rows import ListBroken, ListTooLong, RowParser
from controller.broker.gate.commands import REPLY_BYTES_MAX, Lost, Rows
from controller.broker.wire import end_to_end
from controller.model.records import Reply

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
