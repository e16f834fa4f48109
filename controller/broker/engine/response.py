"""One open answer of the engine: its head, and its body as it comes."""

from __future__ import annotations

import asyncio
import select
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus

import httptools

from controller.broker.wire.responses import end_to_end
from controller.model.records import Reply

REPLY_BYTES_MAX = 16 * 1024 * 1024
HEAD_BYTES_MAX = 64 * 1024
READ_BYTES = 64 * 1024


class ResponseBroken(Exception):
    """The connection broke, or what came isn't an answer."""


class TooLong(ResponseBroken):
    """The engine answers, with more than is read."""


class _Parsed:
    """Callbacks of llhttp for one answer."""

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


class ResponseReader:
    """One request's connection. Once its head has been read, the body comes with ``chunks``.

    ``length`` is the body's length where the engine told it. ``hijacked``: the engine handed the
    connection over; then ``reader`` and ``writer`` carry whatever the two sides say, after
    ``early``, which came with the head.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.prefix = ""
        self.engine: object = None  # who was known at its other end
        self.status = 0
        self.headers: tuple[tuple[str, str], ...] = ()
        self.length: int | None = None
        self.hijacked = False
        self.early = b""
        #: Told why an answer broke off: whoever answers next may be another engine.
        self.on_break: Callable[[str], None] = lambda _why: None
        self._ends_with_connection = False
        self._goes_on = False
        self._bodiless = False
        self._parsed = _Parsed()
        self._parser = httptools.HttpResponseParser(self._parsed)

    def close(self) -> None:
        """End the connection; the engine sees it at once."""
        self.writer.close()

    @property
    def heard(self) -> bool:
        """Whether anything of the answer came."""
        return self._parsed.begun > 0

    @property
    def reusable(self) -> bool:
        """Whether the answer is whole, and the engine takes another request."""
        return self._parsed.complete and self._goes_on and not self.writer.is_closing()

    def rest(self) -> None:
        """Read nothing until there is another request."""
        self.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's has it

    def again(self) -> ResponseReader | None:
        """Return the connection for another request; None where it ended, or said more than asked."""
        transport = self.writer.transport
        if self.writer.is_closing() or self.reader.at_eof():
            return None
        waiting = select.poll()
        waiting.register(self.writer.get_extra_info("socket"), select.POLLIN)
        if waiting.poll(0):
            return None
        transport.resume_reading()  # type: ignore[attr-defined]
        other = ResponseReader(self.reader, self.writer)
        other.prefix, other.engine, other.on_break = self.prefix, self.engine, self.on_break
        return other

    async def write(self, data: bytes) -> None:
        """Send *data*.

        Raises:
            Broken: the connection broke; the engine may have got it.
        """
        try:
            self.writer.write(data)
            await self.writer.drain()
        except OSError as error:
            raise ResponseBroken(f"the connection to the engine broke: {error}") from error

    async def read_head(self, *, to_head: bool, hijack: bool) -> None:
        """Read up to the end of the head.

        Raises:
            Broken: no answer came.
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
        self._goes_on = (
            self._parser.get_http_version() == "1.1"
            and "connection" not in named
            and not self._ends_with_connection
            and not self.hijacked
        )

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes.

        Raises:
            Broken: it ended before it was whole.
        """
        while True:
            parts, self._parsed.body = self._parsed.body, []
            for part in parts:
                yield part
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

    async def whole(self) -> Reply:
        """Return the whole answer.

        Raises:
            Broken: it broke off.
            TooLong: it is larger than 16 MiB.
        """
        parts: list[bytes] = []
        size = 0
        async for part in self.chunks():
            size += len(part)
            if size > REPLY_BYTES_MAX:
                raise TooLong(f"the engine's answer passes {REPLY_BYTES_MAX} bytes")
            parts.append(part)
        return Reply(self.status, b"".join(parts), self.headers)

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
