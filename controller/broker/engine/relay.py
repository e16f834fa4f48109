"""Relaying an engine's answer to a client as it comes, one way or, after a hijack, both ways.

Nothing is kept but what is in flight: who reads slowly slows down who writes. There is no limit
of time but an exec's, since events and logs may be silent for days; a relay ends with either
side, or with the broker.
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

from controller.broker.engine.response import READ_BYTES, ResponseBroken, ResponseReader
from controller.broker.wire.responses import LAST_CHUNK, Headers, chunk, head_bytes

LINE_BYTES_MAX = 1024 * 1024
#: How long a client has to read the head of an answer before the first output follows.
HEAD_READ_S, LOOK_AGAIN_S = 1.0, 0.001

#: Tells of a line whether it is passed on.
KeepLine = Callable[[bytes], bool]


class ClientStream:
    """The client's side of one answer: its connection, and how it may be answered."""

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
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.keep_alive = keep_alive  # whether another request may follow this answer
        self.upgrade = upgrade  # whether the request asks for a hijack
        self.early = early  # what followed such a request
        self._ahead = ahead  # reads what comes before the answer, where there is no hijack
        self.began = False  # whether the head of an answer was sent
        self.gone = False
        self._may_chunk = chunked
        self._chunked = False

    def end_if_interrupted(self) -> None:
        """Let no request follow an answer that the client didn't wait for.

        To be asked before the answer's end is sent. What came too early is never read as a
        request: it may be the rest of one that somebody else framed differently.
        """
        if self._ahead is not None and self._ahead.done():
            self.keep_alive = False

    async def begin(self, status: int, headers: Headers, *, length: int | None = None) -> None:
        """Send the head of an answer whose body comes with ``send``."""
        if length is not None:
            headers = (*headers, ("Content-Length", str(length)))
        elif self._may_chunk:
            self._chunked = True
            headers = (*headers, ("Transfer-Encoding", "chunked"))
        else:
            self.keep_alive = False
        if not self.keep_alive:
            headers = (*headers, ("Connection", "close"))
        self.began = True
        await self.write(head_bytes(status, headers))

    async def send(self, data: bytes) -> None:
        """Send a part of the body, waiting while the client is slow."""
        if data:
            await self.write(chunk(data) if self._chunked else data)

    async def finish(self) -> None:
        """End the body; without this the client sees that it broke off."""
        if self._chunked:
            await self.write(LAST_CHUNK)

    async def write(self, data: bytes) -> None:
        """Write raw bytes; to a client that is gone, nothing."""
        if self.gone:
            return
        try:
            self.writer.write(data)
            await self.writer.drain()
        except OSError:
            self.gone = True


@asynccontextmanager
async def hang_up_of(client: ClientStream) -> AsyncIterator[asyncio.Event]:
    """Give an event that is set when the client has closed both ways.

    A client that only ended its own side (the docker CLI does, at once) isn't gone. epoll tells
    the two apart, for sockets that asyncio reads at the same time.
    """
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()
    connection: socket.socket = client.writer.get_extra_info("socket")
    with select.epoll() as watch:
        watch.register(connection.fileno(), 0)  # hang-up is always told

        def hung_up() -> None:
            loop.remove_reader(watch.fileno())
            gone.set()

        loop.add_reader(watch.fileno(), hung_up)
        try:
            yield gone
        finally:
            loop.remove_reader(watch.fileno())


async def relay(
    stream: ResponseReader,
    client: ClientStream,
    *,
    within_s: float | None = None,
    keep: KeepLine | None = None,
) -> None:
    """Relay an opened answer to its end, or until the client is gone or the time over.

    With *keep* it consists of lines, of which only some are passed on. *stream* is closed then.
    """
    try:
        async with hang_up_of(client) as gone:
            carrying = (
                _both_ways(stream, client) if stream.hijacked else _one_way(stream, client, keep)
            )
            await _until(carrying, gone, within_s)
    finally:
        stream.close()


async def _until(
    carrying: Coroutine[object, object, None], gone: asyncio.Event, within_s: float | None
) -> None:
    """Run *carrying* until it ends, *gone* is set, or that many seconds are over."""
    tasks = (asyncio.ensure_future(carrying), asyncio.ensure_future(gone.wait()))
    try:
        await asyncio.wait(tasks, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    if isinstance(results[0], Exception):
        raise results[0]


async def _one_way(stream: ResponseReader, client: ClientStream, keep: KeepLine | None) -> None:
    await client.begin(stream.status, stream.headers, length=stream.length)
    parts = stream.chunks() if keep is None else _kept(stream.chunks(), keep)
    try:
        async for part in parts:
            await client.send(part)
            if client.gone:
                return
    except ResponseBroken:
        client.keep_alive = False  # closing without the body's end tells the client
        return
    client.end_if_interrupted()
    await client.finish()


async def _kept(parts: AsyncIterator[bytes], keep: KeepLine) -> AsyncIterator[bytes]:
    """Give the whole lines that are to be passed on.

    Raises:
        Broken: a line is longer than any that an engine has.
    """
    rest = b""
    async for part in parts:
        *lines, rest = (rest + part).split(b"\n")
        if len(rest) > LINE_BYTES_MAX:
            raise ResponseBroken(f"a line is longer than {LINE_BYTES_MAX} bytes")
        for line in lines:
            if keep(line):
                yield line + b"\n"


async def _both_ways(stream: ResponseReader, client: ClientStream) -> None:
    client.keep_alive = False
    headers = (*stream.headers, ("Connection", "Upgrade"), ("Upgrade", "tcp"))
    client.began = True
    await client.write(head_bytes(HTTPStatus.SWITCHING_PROTOCOLS, headers))
    upwards = asyncio.ensure_future(_upwards(stream, client))
    try:
        await _until_read(client)
        await client.write(stream.early)
        # The engine's side decides: when it ends there is nothing more to say.
        while not client.gone and (data := await _read(stream.reader)):
            await client.write(data)
    finally:
        upwards.cancel()
        await asyncio.gather(upwards, return_exceptions=True)


async def _until_read(client: ClientStream) -> None:
    """Wait until the client has read what was sent to it, for a bounded time.

    docker-py reads the head of an answer through a buffer, and what follows from the socket below
    it: output that arrives together with the head is lost to it. An engine sends the head long
    before a program prints anything; here the head has waited for a record of the journal.
    """
    connection: socket.socket = client.writer.get_extra_info("socket")
    loop = asyncio.get_running_loop()
    deadline = loop.time() + HEAD_READ_S
    while not client.gone and _unread_bytes(connection) and loop.time() < deadline:  # noqa: ASYNC110 - the kernel tells nobody of it
        await asyncio.sleep(LOOK_AGAIN_S)


def _unread_bytes(connection: socket.socket) -> int:
    """Return the memory that holds what the other side of a Unix socket hasn't read (tcp(7), SIOCOUTQ)."""
    size = array("i", [0])
    fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, size)
    return size[0]


async def _upwards(stream: ResponseReader, client: ClientStream) -> None:
    """Carry the client's bytes to the engine; the client's end is passed on as a half-close."""
    with suppress(OSError, ResponseBroken):
        await stream.write(client.early)
        while data := await _read(client.reader):
            await stream.write(data)
        stream.writer.write_eof()


async def _read(reader: asyncio.StreamReader) -> bytes:
    """Read what is there; a connection that broke has ended."""
    try:
        return await reader.read(READ_BYTES)
    except OSError:
        return b""
