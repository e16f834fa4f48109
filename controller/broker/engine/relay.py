"""Relaying an engine's response to a client as it arrives: one way, or both ways after a hijack.

The relay buffers only the data in flight, so a slow reader slows down the writer. Only exec
sessions have a time limit, because events and logs can be silent for days. A relay ends with
either side, or with the broker.
"""

from __future__ import annotations

import asyncio
import fcntl
import select
import socket
import termios
from array import array
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus

from controller.broker.engine.response import READ_BYTES, EventLines, ResponseBroken, ResponseReader
from controller.broker.wire import LAST_CHUNK, Headers, StreamedBody, chunk, head_bytes

#: How long a client has to read the head of a response before the first output follows.
HEAD_READ_S, POLL_S = 1.0, 0.001

#: Returns the line to send to the client for a line of the engine, or None for no line.
EditLine = Callable[[bytes], bytes | None]


class ClientStream:
    """The client's side of one response: the connection, and the form of the response."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        chunked: bool,
        keep_alive: bool,
        upgrade: bool = False,
        early: bytes = b"",
        ahead: asyncio.Task[bytes] | None = None,
        body: StreamedBody | None = None,
    ) -> None:
        self.reader = reader
        self.writer = writer
        #: The body of the request, if the route reads the body itself.
        self.body = body
        #: The context of a build, once it is received.
        self.context: object = None
        #: True while another request can follow this response.
        self.keep_alive = keep_alive
        #: True if the request asks for a hijack.
        self.upgrade = upgrade
        #: Bytes received after the head of a hijack request.
        self.early = early
        #: The read of input before the response, unless the request asks for a hijack.
        self._ahead = ahead
        #: True as soon as the head of a response was sent.
        self.began = False
        #: True as soon as a write to the client failed or timed out.
        self.gone = False
        self._supports_chunked = chunked
        self._chunked = False

    def end_if_interrupted(self) -> None:
        """End the connection after a response that the client didn't wait for.

        Call this before the end of the response is sent. Early input is never parsed as a request:
        the input can be the rest of a request that a proxy framed differently.
        """
        if self._ahead is not None and self._ahead.done():
            self.keep_alive = False

    async def begin(self, status: int, headers: Headers, *, length: int | None = None) -> None:
        """Send the head of a response. ``send`` sends the body."""
        if length is not None:
            headers = (*headers, ("Content-Length", str(length)))
        elif self._supports_chunked:
            self._chunked = True
            headers = (*headers, ("Transfer-Encoding", "chunked"))
        else:
            self.keep_alive = False
        if not self.keep_alive:
            headers = (*headers, ("Connection", "close"))
        self.began = True
        await self.write(head_bytes(status, headers))

    async def send(self, data: bytes) -> None:
        """Send a part of the body. Wait for a slow client."""
        if data:
            await self.write(chunk(data) if self._chunked else data)

    async def finish(self) -> None:
        """End the body. Without this call the client detects an incomplete response."""
        if self._chunked:
            await self.write(LAST_CHUNK)

    async def write(self, data: bytes) -> None:
        """Write raw bytes. Does nothing after a failed write."""
        if self.gone:
            return
        try:
            self.writer.write(data)
            await self.writer.drain()
        except OSError:
            self.gone = True


@asynccontextmanager
async def hang_up_of(client: ClientStream) -> AsyncIterator[asyncio.Event]:
    """Provide an event that is set when the client has closed both directions.

    A client that only ended its own direction still reads; the docker CLI does so at once. epoll
    distinguishes the two, also for a socket that asyncio reads.
    """
    hang_up = asyncio.Event()
    loop = asyncio.get_running_loop()
    connection: socket.socket = client.writer.get_extra_info("socket")
    with select.epoll() as watch:
        watch.register(connection.fileno(), 0)  # epoll always reports a hang-up

        def on_hang_up() -> None:
            loop.remove_reader(watch.fileno())
            hang_up.set()

        loop.add_reader(watch.fileno(), on_hang_up)
        try:
            yield hang_up
        finally:
            loop.remove_reader(watch.fileno())


async def relay(
    stream: ResponseReader,
    client: ClientStream,
    *,
    within_s: float | None = None,
    edit_line: EditLine | None = None,
) -> None:
    """Relay an open response until its end, a hang-up of the client, or *within_s* seconds.

    With *edit_line*, the lines that it returns are relayed instead. Closes *stream*.
    """
    try:
        async with hang_up_of(client) as hang_up:
            transfer = (
                _both_ways(stream, client)
                if stream.hijacked
                else _one_way(stream, client, edit_line)
            )
            await _run_until(transfer, hang_up, within_s)
    finally:
        stream.close()


async def _run_until(
    transfer: Coroutine[object, object, None], hang_up: asyncio.Event, within_s: float | None
) -> None:
    """Run *transfer* until its end, until *hang_up* is set, or for *within_s* seconds."""
    tasks = (asyncio.ensure_future(transfer), asyncio.ensure_future(hang_up.wait()))
    try:
        await asyncio.wait(tasks, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    if isinstance(results[0], Exception):
        raise results[0]


async def _one_way(
    stream: ResponseReader, client: ClientStream, edit_line: EditLine | None
) -> None:
    length = stream.length if edit_line is None else None
    await client.begin(stream.status, stream.headers, length=length)
    parts = stream.chunks() if edit_line is None else _edit_lines(stream.chunks(), edit_line)
    try:
        async for part in parts:
            await client.send(part)
            if client.gone:
                return
    except ResponseBroken:
        client.keep_alive = False  # the close without an end of the body tells the client
        return
    client.end_if_interrupted()
    await client.finish()


async def _edit_lines(parts: AsyncIterator[bytes], edit_line: EditLine) -> AsyncIterator[bytes]:
    """Yield what *edit_line* returns for whole lines, together for lines that arrived together."""
    lines = EventLines()
    async for part in parts:
        edited = [each for line in lines.feed(part) if (each := edit_line(line)) is not None]
        if edited:
            yield b"\n".join((*edited, b""))


async def _both_ways(stream: ResponseReader, client: ClientStream) -> None:
    client.keep_alive = False
    headers = (*stream.headers, ("Connection", "Upgrade"), ("Upgrade", "tcp"))
    client.began = True
    await client.write(head_bytes(HTTPStatus.SWITCHING_PROTOCOLS, headers))
    upload = asyncio.ensure_future(_upload(stream, client))
    try:
        await _wait_until_read(client)
        await client.write(stream.early)
        # The end of the engine's side is the end of the session.
        while not client.gone and (data := await _read(stream.reader)):
            await client.write(data)
    finally:
        upload.cancel()
        await asyncio.gather(upload, return_exceptions=True)


async def _wait_until_read(client: ClientStream) -> None:
    """Wait until the client has read the head of the response, for a bounded time.

    docker-py reads the head through a buffer, and the output from the socket below the buffer:
    output that arrives together with the head is lost. An engine sends the head long before a
    program prints anything. Here the head has waited for a record of the journal.
    """
    connection: socket.socket = client.writer.get_extra_info("socket")
    loop = asyncio.get_running_loop()
    deadline = loop.time() + HEAD_READ_S
    while not client.gone and _unread_bytes(connection) and loop.time() < deadline:  # noqa: ASYNC110 - the kernel reports no event for it
        await asyncio.sleep(POLL_S)


def _unread_bytes(connection: socket.socket) -> int:
    """Return the memory used by unread data of a Unix socket's peer (tcp(7), SIOCOUTQ)."""
    size = array("i", [0])
    fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, size)
    return size[0]


async def _upload(stream: ResponseReader, client: ClientStream) -> None:
    """Send the client's bytes to the engine, and the client's end as a half-close."""
    with suppress(OSError, ResponseBroken):
        await stream.write(client.early)
        while data := await _read(client.reader):
            await stream.write(data)
        stream.writer.write_eof()


async def _read(reader: asyncio.StreamReader) -> bytes:
    """Read available bytes. A broken connection counts as an end."""
    try:
        return await reader.read(READ_BYTES)
    except OSError:
        return b""
