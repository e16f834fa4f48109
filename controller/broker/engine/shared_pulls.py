"""Pulls under way: one request to the engine, however many ask for the same at a time.

Each who asks has an intent and an answer of its own, and sees all lines: what was said before it
came first, then the new ones. A pull is no client's: it goes on when who began it leaves, and it
ends with the engine's answer, or once nothing new was said of it for its deadline.

Kept is the last line of each kind that was said of each layer, so that a slow client costs
nobody anything: it misses byte counts that are old by then, and no state of a layer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from controller.broker.engine.client import EngineClient
from controller.broker.engine.relay import ClientStream
from controller.broker.engine.response import ResponseBroken, ResponseReader
from controller.broker.gate.commands import Forward, Lost, SharedPull
from controller.core.engine_api import pull_progress
from controller.core.engine_api.pull_errors import NO_PROGRESS
from controller.core.engine_api.pull_progress import PullProgress
from controller.model.records import Reply

LINE_BYTES_MAX = 64 * 1024
LINES_BYTES_MAX = 256 * 1024

#: Returns what is sent to the engine for a registry; '' for nothing.
Authorise = Callable[[str], Awaitable[str]]


async def nobody(_host: str) -> str:
    """Send nothing to any registry."""
    return ""


class Pulls:
    """The pulls of one broker, by what the engine is asked."""

    def __init__(self, upstream: EngineClient, authorise: Authorise) -> None:
        self._upstream = upstream
        self._authorise = authorise
        self._flights: dict[str, _Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def pull(self, command: Forward, client: ClientStream) -> Reply | Lost | SharedPull:
        """Return the engine's answer, of a request of one's own or of the one under way.

        A client gets the lines of a good answer as they come.
        """
        flight = self._flights.get(command.path)
        if flight is None:
            flight = self._flights[command.path] = _Flight(command.by)
            task = asyncio.create_task(self._fly(command, flight))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        answer = await flight.watch(client, patience_s=command.deadline_s)
        return answer if flight.by == command.by else SharedPull(answer, by=flight.by)

    async def close(self) -> None:
        """End what is under way: the broker ends, and recovery closes what is left open."""
        for task in (*self._tasks,):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _fly(self, command: Forward, flight: _Flight) -> None:
        answer: Reply | Lost = Lost("the broker ended, or failed at it")
        try:
            answer = await self._carry(command, flight)
        finally:
            # Together: whoever asks from now on asks the engine anew.
            del self._flights[command.path]
            flight.end(answer)

    async def _carry(self, command: Forward, flight: _Flight) -> Reply | Lost:
        stream = await self._upstream.open(
            command.method,
            command.path,
            command.body,
            mutation=True,
            auth=await self._authorise(command.registry),
            deadline_s=command.deadline_s,
        )
        if isinstance(stream, Lost):
            return stream
        try:
            if stream.status >= HTTPStatus.MULTIPLE_CHOICES:
                async with asyncio.timeout(command.deadline_s):
                    return await stream.whole()
            flight.begin(stream)
            await _read(stream, flight, command.deadline_s)
            return Reply(stream.status, flight.said, stream.headers)
        except TimeoutError:
            return Lost(f"the pull {NO_PROGRESS} for {command.deadline_s:g} s")
        except ResponseBroken as error:
            return Lost(str(error))
        finally:
            stream.close()


async def _read(stream: ResponseReader, flight: _Flight, deadline_s: float) -> None:
    """Read a pull to its end.

    Raises:
        TimeoutError: nothing new was said for *deadline_s*.
        Broken: it broke off.
    """
    loop = asyncio.get_running_loop()
    progress, rest = PullProgress(), b""
    async with asyncio.timeout(deadline_s) as patience:
        async for part in stream.chunks():
            *lines, rest = (rest + part).split(b"\n")
            if len(rest) > LINE_BYTES_MAX:
                raise ResponseBroken(f"the engine says a line of more than {LINE_BYTES_MAX} bytes")
            for line in lines:
                flight.add(line + b"\n")
                after = pull_progress.advance(progress, line)
                if after is not progress:
                    patience.reschedule(loop.time() + deadline_s)
                progress = after
            flight.publish()
        flight.add(rest)


class _Flight:
    """One request to the engine, and what it said so far. ``by`` is the intent that it is of."""

    def __init__(self, by: str) -> None:
        self.by = by
        self._head: ResponseReader | None = None
        self._lines: dict[tuple[str, str], tuple[int, bytes]] = {}  # in the order they came
        self._count = self._size = 0
        self._answer: Reply | Lost | None = None
        self._news = asyncio.Event()

    @property
    def said(self) -> bytes:
        """What is kept of what it said."""
        return b"".join(line for _, line in self._lines.values())

    def begin(self, stream: ResponseReader) -> None:
        """Take note that the engine agreed."""
        self._head = stream
        self.publish()

    def add(self, line: bytes) -> None:
        """Keep a line; it takes the place of the last one of its kind."""
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
        """Wake who watches."""
        self._news.set()
        self._news = asyncio.Event()

    def end(self, answer: Reply | Lost) -> None:
        """Take note of the answer."""
        self._answer = answer
        self.publish()

    async def watch(self, client: ClientStream, *, patience_s: float) -> Reply | Lost:
        """Give the client what is said until the end, and return the answer."""
        seen = 0
        while True:
            news = self._news
            if self._head is not None and not client.began:
                await client.begin(self._head.status, self._head.headers)
            lines, seen = self._since(seen)
            if lines:
                await _send(client, lines, patience_s)
            elif self._answer is not None:
                return self._answer
            else:
                await news.wait()

    def _since(self, seen: int) -> tuple[bytes, int]:
        found: list[bytes] = []
        for count, line in reversed(self._lines.values()):
            if count <= seen:
                break
            found.append(line)
        return b"".join(reversed(found)), self._count


async def _send(client: ClientStream, lines: bytes, patience_s: float) -> None:
    """Send lines; a client that reads nothing for long is left behind."""
    try:
        async with asyncio.timeout(patience_s):
            await client.send(lines)
    except TimeoutError:
        client.gone = True


def _kind_of(line: bytes) -> tuple[str, str] | None:
    """Return what a line takes the place of: the same said of the same; None: it says nothing."""
    if not line.strip():
        return None
    try:
        told = json.loads(line)
    except ValueError:
        told = None
    if not isinstance(told, dict) or "id" not in told:
        return "", line.decode("utf-8", "replace")
    return str(told["id"]), str(told.get("status"))
