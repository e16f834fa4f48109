"""Driving the gate: each command of its generator is carried out, its answer sent back.

Whatever happens to the client, a mutation that was begun is carried to its closing record. What
ends here without one (a lost answer, a broker that stops) is closed by recovery.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeVar, assert_never

from controller.broker.answer import Broken, Stream
from controller.broker.books import Books
from controller.broker.commands import (
    Answer,
    Command,
    Examine,
    Forward,
    Look,
    Lost,
    Recall,
    Relay,
    Write,
)
from controller.broker.relay import Client
from controller.broker.replies import refusal
from controller.broker.upstream import Upstream
from controller.model.entries import Entry, Record, Reply
from controller.model.paths import PathFacts

LOG = logging.getLogger(__name__)
#: How long a mutation waits for the admissions before it.
ADMISSION_S = 30.0
#: How long bind sources are looked at: a filesystem may hang, and others wait for their admission.
EXAMINE_S = 5.0
TAIL_BYTES = 64 * 1024

T = TypeVar("T")
#: What the gate's generators look like: a Relay as their value hands the connection over.
Steps = Generator[Command, Answer, Reply | Relay]
Examination = Callable[[tuple[str, ...]], tuple[PathFacts, ...]]


@dataclass(frozen=True, slots=True)
class Handed:
    """An answer of the engine that is open, to be relayed."""

    stream: Stream


class Driver:
    """Carries out commands. One for all connections of a broker."""

    def __init__(self, *, upstream: Upstream, books: Books, examine: Examination) -> None:
        self._upstream = upstream
        self._books = books
        self._examine = examine
        self._admission = asyncio.Lock()

    async def drive(self, steps: Steps, client: Client, *, admits: bool) -> Reply | Handed:
        """Run a request's steps to their end, and open the answer that they hand over.

        With *admits* they run alone until their first record or mutation: what an admission
        counted is still so when its intent is written.
        """
        self._books.look_up()
        opened: dict[Relay, Stream] = {}
        try:
            async with AsyncExitStack() as alone:
                if admits and not await self._admitted(alone):
                    return refusal(
                        HTTPStatus.SERVICE_UNAVAILABLE,
                        "broker.busy",
                        f"the mutations before this one took longer than {ADMISSION_S:g} s",
                        remedy="look whether the engine hangs, and try again",
                    )
                value = await self._run(steps, alone, opened, client)
            return await self._end(value, opened, client)
        finally:
            for stream in opened.values():
                stream.close()

    async def _admitted(self, alone: AsyncExitStack) -> bool:
        try:
            async with asyncio.timeout(ADMISSION_S):
                await alone.enter_async_context(self._admission)
        except TimeoutError:
            return False
        return True

    async def run(self, steps: Generator[Command, Answer, T]) -> T:
        """Run steps of the broker's own, which hand nothing over."""
        async with AsyncExitStack() as alone:
            return await self._run(steps, alone, {}, None)

    async def _run(
        self,
        steps: Generator[Command, Answer, T],
        alone: AsyncExitStack,
        opened: dict[Relay, Stream],
        client: Client | None,
    ) -> T:
        answer: Answer = None
        try:
            while True:
                try:
                    command = steps.send(answer)
                except StopIteration as stop:
                    value: T = stop.value
                    return value
                answer = await self._carry_out(command, opened, client)
                if not isinstance(command, Look | Examine | Recall):
                    await alone.aclose()
        finally:
            steps.close()

    async def write(self, entry: Entry) -> Record | None:
        """Make an entry of the shell's own durable; None when it isn't."""
        return await self._books.write(entry)

    async def _end(
        self, value: Reply | Relay, opened: dict[Relay, Stream], client: Client
    ) -> Reply | Handed:
        if isinstance(value, Reply):
            return value
        stream = opened.pop(value, None) or await self._open(value, client)
        if isinstance(stream, Lost):
            return refusal(
                HTTPStatus.GATEWAY_TIMEOUT if stream.sent else HTTPStatus.BAD_GATEWAY,
                "engine.unavailable",
                f"the engine doesn't answer: {stream.reason}",
                remedy="try again once it does",
            )
        return Handed(stream)

    async def _carry_out(
        self, command: Command, opened: dict[Relay, Stream], client: Client | None
    ) -> Answer:
        match command:
            case Look(path, method, deadline_s):
                return await self._upstream.look(method, path, deadline_s=deadline_s)
            case Examine(paths):
                return await self._examined(paths)
            case Write(entry):
                return await self._books.write(entry)
            case Forward(method, path, body, stream, deadline_s):
                if stream and client is not None:
                    return await self._stream(command, client)
                return await self._upstream.forward(method, path, body, deadline_s=deadline_s)
            case Recall(after, limit):
                return await self._books.recall(after, limit)
            case Relay():
                return await self._head(command, opened, client)
            case _:
                assert_never(command)

    async def _examined(self, paths: tuple[str, ...]) -> tuple[PathFacts, ...]:
        """Look at paths; none is seen where a filesystem hangs: those are refused as unreadable."""
        try:
            async with asyncio.timeout(EXAMINE_S):
                return await asyncio.to_thread(self._examine, paths)
        except TimeoutError:
            LOG.warning("examine.late paths=%d", len(paths))
            return ()

    async def _open(self, relay: Relay, client: Client | None) -> Stream | Lost:
        hijack = relay.hijack and client is not None and client.upgrade
        return await self._upstream.open(
            relay.method, relay.path, relay.body, mutation=False, hijack=hijack
        )

    async def _head(
        self, relay: Relay, opened: dict[Relay, Stream], client: Client | None
    ) -> Reply | Lost:
        stream = await self._open(relay, client)
        if isinstance(stream, Lost):
            return stream
        if stream.status < HTTPStatus.MULTIPLE_CHOICES:
            opened[relay] = stream
            return Reply(stream.status, b"", stream.headers)
        return await _whole(stream, deadline_s=15.0)

    async def _stream(self, command: Forward, client: Client) -> Reply | Lost:
        """Send a mutation whose good answer the client sees as it comes."""
        stream = await self._upstream.open(
            command.method,
            command.path,
            command.body,
            mutation=True,
            deadline_s=command.deadline_s,
        )
        if isinstance(stream, Lost):
            return stream
        if stream.status >= HTTPStatus.MULTIPLE_CHOICES:
            return await _whole(stream, deadline_s=command.deadline_s)
        await client.begin(stream.status, stream.headers)
        tail = bytearray()
        parts = stream.chunks()
        try:
            while True:
                async with asyncio.timeout(command.deadline_s):
                    part = await anext(parts, b"")
                if not part:
                    return Reply(stream.status, bytes(tail), stream.headers)
                tail += part
                del tail[:-TAIL_BYTES]
                # A client that stops reading must not stop the engine's work: it is left behind.
                try:
                    async with asyncio.timeout(command.deadline_s):
                        await client.send(part)
                except TimeoutError:
                    client.gone = True
        except TimeoutError:
            return Lost(f"nothing came of the engine for {command.deadline_s:g} s")
        except Broken as error:
            return Lost(str(error))
        finally:
            stream.close()


async def _whole(stream: Stream, *, deadline_s: float) -> Reply | Lost:
    try:
        async with asyncio.timeout(deadline_s):
            return await stream.whole()
    except TimeoutError:
        return Lost(f"the engine's answer wasn't whole within {deadline_s:g} s")
    except Broken as error:
        return Lost(str(error))
    finally:
        stream.close()
