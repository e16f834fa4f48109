"""Shared pulls: one request to the engine for all clients that pull the same image at a time.

Each client has its own intent and its own response, and gets all lines: first those sent before
the client joined, then the new ones. A pull belongs to no client. The pull continues after its
first client leaves, and ends with the engine's response or after a deadline without progress.

The buffer holds the last line of each kind for each layer, so a slow client costs the others
nothing. Such a client misses outdated byte counts, and no state of a layer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from controller.broker.engine.client import BROKER, EngineClient
from controller.broker.engine.relay import ClientStream
from controller.broker.engine.response import ResponseBroken, ResponseReader
from controller.broker.gate.commands import Forward, Lost, SharedPull
from controller.core.encoding.json_values import parse_json
from controller.core.engine_api import streams as pull_progress
from controller.core.engine_api.streams import NO_PROGRESS, PullProgress
from controller.model.records import Reply
from controller.system.slots import SlotUser

LINE_BYTES_MAX = 64 * 1024
LINES_BYTES_MAX = 256 * 1024

#: Returns the value of X-Registry-Auth for a registry, '' for none.
Authorise = Callable[[str], Awaitable[str]]


async def send_no_credentials(_host: str) -> str:
    """Return '' for every registry."""
    return ""


class SharedPulls:
    """The pulls of one broker in progress, by the path of their request."""

    def __init__(self, client: EngineClient, authorise: Authorise) -> None:
        self._client = client
        self._authorise = authorise
        self._pulls: dict[str, _Pull] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def pull(
        self, command: Forward, client: ClientStream, user: SlotUser = BROKER
    ) -> Reply | Lost | SharedPull:
        """Join the pull of an image, or start one. Return the engine's response.

        The client gets the lines of a successful response as they arrive. The connection to the
        engine is the first client's, of *user*.
        """
        pull = self._pulls.get(command.path)
        if pull is None:
            pull = self._pulls[command.path] = _Pull(command.by)
            task = asyncio.create_task(self._run(command, pull, user))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        answer = await pull.watch(client, patience_s=command.deadline_s)
        return answer if pull.by == command.by else SharedPull(answer, by=pull.by)

    async def close(self) -> None:
        """Cancel all pulls at the end of the broker. Recovery closes their intents."""
        for task in (*self._tasks,):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, command: Forward, pull: _Pull, user: SlotUser) -> None:
        answer: Reply | Lost = Lost("the broker ended, or failed at it")
        try:
            answer = await self._request(command, pull, user)
        finally:
            # In one step, so that a later client starts a new request.
            del self._pulls[command.path]
            pull.end(answer)

    async def _request(self, command: Forward, pull: _Pull, user: SlotUser) -> Reply | Lost:
        stream = await self._client.open(
            command.method,
            command.path,
            command.body,
            mutation=True,
            user=user,
            auth=await self._authorise(command.registry),
            deadline_s=command.deadline_s,
        )
        if isinstance(stream, Lost):
            return stream
        try:
            if stream.status >= HTTPStatus.MULTIPLE_CHOICES:
                async with asyncio.timeout(command.deadline_s):
                    return await stream.read_whole()
            pull.begin(stream)
            await _read(stream, pull, command.deadline_s)
            return Reply(stream.status, pull.lines, stream.headers)
        except TimeoutError:
            return Lost(f"the pull {NO_PROGRESS} for {command.deadline_s:g} s")
        except ResponseBroken as error:
            return Lost(str(error))
        finally:
            stream.close()


async def _read(stream: ResponseReader, pull: _Pull, deadline_s: float) -> None:
    """Read the lines of a pull to their end.

    Raises:
        TimeoutError: the pull made no progress for *deadline_s* seconds.
        ResponseBroken: the response ended early.
    """
    loop = asyncio.get_running_loop()
    progress, rest = PullProgress(), b""
    async with asyncio.timeout(deadline_s) as patience:
        async for part in stream.chunks():
            *lines, rest = (rest + part).split(b"\n")
            if len(rest) > LINE_BYTES_MAX:
                raise ResponseBroken(f"the engine says a line of more than {LINE_BYTES_MAX} bytes")
            for line in lines:
                pull.add(line + b"\n")
                after = pull_progress.advance_pull(progress, line)
                if after is not progress:
                    patience.reschedule(loop.time() + deadline_s)
                progress = after
            pull.publish()
        pull.add(rest)


class _Pull:
    """One request to the engine, and its lines so far. ``by`` is the id of the first intent."""

    def __init__(self, by: str) -> None:
        self.by = by
        self._head: ResponseReader | None = None
        #: The last line of each kind, with its number, in the order of arrival.
        self._lines: dict[tuple[str, str], tuple[int, bytes]] = {}
        self._count = self._size = 0
        self._answer: Reply | Lost | None = None
        self._news = asyncio.Event()

    @property
    def lines(self) -> bytes:
        """The buffered lines."""
        return b"".join(line for _, line in self._lines.values())

    def begin(self, stream: ResponseReader) -> None:
        """Store the head of a successful response."""
        self._head = stream
        self.publish()

    def add(self, line: bytes) -> None:
        """Buffer a line in place of the previous line of its kind."""
        kind = _kind_of(line)
        if kind is None:
            return
        _, before = self._lines.pop(kind, (0, b""))
        self._count += 1
        self._lines[kind] = (self._count, line)
        self._size += len(line) - len(before)
        while self._size > LINES_BYTES_MAX:
            _, oldest = self._lines.pop(next(iter(self._lines)))
            self._size -= len(oldest)

    def publish(self) -> None:
        """Wake the clients that wait for lines."""
        self._news.set()
        self._news = asyncio.Event()

    def end(self, answer: Reply | Lost) -> None:
        """Store the final response."""
        self._answer = answer
        self.publish()

    async def watch(self, client: ClientStream, *, patience_s: float) -> Reply | Lost:
        """Send the client all lines until the end, and return the final response."""
        sent = 0
        while True:
            news = self._news
            if self._head is not None and not client.began:
                await client.begin(self._head.status, self._head.headers)
            lines, sent = self._lines_after(sent)
            if lines:
                await _send(client, lines, patience_s)
            elif self._answer is not None:
                return self._answer
            else:
                await news.wait()

    def _lines_after(self, number: int) -> tuple[bytes, int]:
        """Return the lines after a line number, and the last line number."""
        lines: list[bytes] = []
        for count, line in reversed(self._lines.values()):
            if count <= number:
                break
            lines.append(line)
        return b"".join(reversed(lines)), self._count


async def _send(client: ClientStream, lines: bytes, patience_s: float) -> None:
    """Send lines. A client that reads nothing for *patience_s* seconds counts as gone."""
    try:
        async with asyncio.timeout(patience_s):
            await client.send(lines)
    except TimeoutError:
        client.gone = True


def _kind_of(line: bytes) -> tuple[str, str] | None:
    """Return the kind of a line: its layer and status. None for a blank line."""
    if not line.strip():
        return None
    try:
        event = parse_json(line)
    except ValueError:
        event = None
    if not isinstance(event, dict) or "id" not in event:
        return "", line.decode("utf-8", "replace")
    return str(event["id"]), str(event.get("status"))
