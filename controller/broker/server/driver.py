"""Driving the gate: each command of its generator is carried out, its answer sent back.

Whatever happens to the client, a mutation that was begun is carried to its closing record. What
ends here without one (a lost answer, a broker that stops) is closed by recovery. Where a client is
answered early, its steps go on without it (docs/decisions/0025).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import dataclass
from http import HTTPStatus
from typing import Generic, TypeVar, assert_never, cast

from controller.broker.engine.client import EngineClient
from controller.broker.engine.relay import ClientStream
from controller.broker.engine.response import ResponseBroken, ResponseReader
from controller.broker.engine.shared_pulls import Authorise, Pulls, nobody
from controller.broker.gate.call import Flow, unavailable_reason
from controller.broker.gate.commands import (
    Command,
    CommandResult,
    EndProcess,
    Follow,
    Forward,
    InspectPaths,
    Lost,
    QueryJournal,
    ReadEngine,
    ReadProcess,
    Relay,
    WriteRecord,
    engine_remedy,
)
from controller.broker.host import process_killer, process_reader
from controller.broker.server.fair_queue import AdmissionLock
from controller.broker.server.journal_queries import JournalQueries
from controller.broker.server.record_limiter import RecordLimiter
from controller.broker.server.record_store import RecordStore
from controller.broker.server.thread_limit import ThreadLimit, ThreadsBusy
from controller.broker.wire.responses import refusal
from controller.model.confinement import EffectiveState, NotReadable
from controller.model.host_paths import PathFacts
from controller.model.records import Actor, Entry, Record, Reply, Role

LOG = logging.getLogger(__name__)
#: How long a mutation waits for the admissions before it.
ADMISSION_S = 30.0
#: How long bind sources are looked at: a filesystem may hang, and others wait for their admission.
EXAMINE_S = 5.0
#: Looks that may hang at once; beyond, paths are taken for unreadable.
EXAMINING_MAX = 8
#: How long a container's process is looked at.
PROCESS_S = 2.0
#: Processes that are looked at at once, and further looks that may hang.
READING_MAX = 8
HANGING_MAX = 8
#: Looks of one request that are asked for before it comes to them.
AHEAD_MAX = 8
#: How long the end waits for steps whose client is answered.
REST_S = 1.0
#: The name of their tasks.
AFTER_ITS_ANSWER = "after its answer"

T = TypeVar("T")
#: What the gate's generators look like: a Relay as their value hands the connection over, a Follow
#: has it written to as the journal grows.
RequestFlow = Flow[Reply | Relay | Follow]
Examination = Callable[[tuple[str, ...]], tuple[PathFacts, ...]]


class StartedFlow(Generic[T]):
    """Steps that ran to their next command: None once they ended, with their value.

    ``doubts``: how often the books had taken something back before they began; None once what they
    were judged by is durable.
    """

    def __init__(self, steps: Generator[Command, CommandResult, T], doubts: int) -> None:
        self._steps = steps
        self.doubts: int | None = doubts
        self.command: Command | None = None
        self.send(None)

    @property
    def early(self) -> Reply | None:
        """What their client is answered while they go on; None: it waits for their end."""
        return self.command.early if isinstance(self.command, WriteRecord) else None

    @property
    def refused(self) -> bool:
        """Whether they end without a look: with a record of a refusal, or with nothing."""
        return self.command is None or _is_refusal(self.command)

    def send(self, answer: CommandResult) -> None:
        """Go on with the answer to the command."""
        try:
            self.command = self._steps.send(answer)
        except StopIteration as stop:
            self.command, self.value = None, cast("T", stop.value)

    def close(self) -> None:
        """End them where they are."""
        self._steps.close()


def _read_process(asked: tuple[int, str, tuple[str, ...]]) -> EffectiveState | NotReadable:
    return process_reader.read_process(*asked)


def _is_refusal(command: Command) -> bool:
    return isinstance(command, WriteRecord) and command.entry.stage == "refusal"


def _is_intent(command: Command) -> bool:
    return isinstance(command, WriteRecord) and command.entry.stage == "intent"


class _Looks:
    """One request's looks: those that will follow are asked for with the first one."""

    def __init__(self, upstream: EngineClient, authorise: Authorise) -> None:
        self._upstream = upstream
        self._authorise = authorise
        self._ahead: dict[str, asyncio.Task[Reply | Lost]] = {}

    async def answer(self, look: ReadEngine) -> Reply | Lost:
        """Answer a look, by what was asked for ahead where it was."""
        for path in look.ahead[: AHEAD_MAX - len(self._ahead)]:
            if path not in self._ahead:
                following = self._upstream.look(look.method, path, deadline_s=look.deadline_s)
                self._ahead[path] = asyncio.create_task(following)
        asked = self._ahead.pop(look.path, None)
        if asked is None:
            auth = await self._authorise(look.registry)
            return await self._upstream.look(
                look.method, look.path, auth=auth, deadline_s=look.deadline_s
            )
        try:
            return await asked
        finally:
            asked.cancel()

    def forget(self) -> None:
        """Let go what was asked for ahead: something happened since."""
        for asked in self._ahead.values():
            asked.cancel()
        self._ahead.clear()


@dataclass(frozen=True, slots=True)
class OpenResponse:
    """An answer of the engine that is open, to be relayed."""

    stream: ResponseReader
    relay: Relay


class Driver:
    """Carries out commands. One for all connections of a broker."""

    def __init__(
        self,
        *,
        upstream: EngineClient,
        books: RecordStore,
        meter: RecordLimiter,
        examine: Examination,
        asking: JournalQueries,
        authorise: Authorise = nobody,
        left_open: Callable[[], None] = lambda: None,
    ) -> None:
        self._upstream = upstream
        self._authorise = authorise
        self._pulls = Pulls(upstream, authorise)
        self._books = books
        self._meter = meter
        self._asking = asking
        self._examine = ThreadLimit(examine, threads=EXAMINING_MAX)
        self._reads = ThreadLimit(_read_process, threads=READING_MAX + HANGING_MAX)
        self._reading = asyncio.Semaphore(READING_MAX)
        self._admission = AdmissionLock()
        self._left_open = left_open
        self._rests: set[asyncio.Task[None]] = set()
        self._beginning = 0  # of these, those that nothing of was done yet

    async def drive(
        self, begin: Callable[[], RequestFlow], client: ClientStream, *, admits: Actor | None
    ) -> Reply | OpenResponse | Follow:
        """Run a request's steps to their answer, and open the one that they hand over.

        With *admits* (who asks for a change) they run alone until their first record or mutation:
        what an admission counted is still so when its intent is written. What is refused without
        a look waits for nobody.
        """
        if self._beginning:
            await asyncio.sleep(0)  # what was answered is believed before anything else is asked
        self._books.look_up()
        opened: dict[Relay, ResponseReader] = {}
        steps = StartedFlow(begin(), self._books.doubts)
        goes_on = False
        try:
            with ExitStack() as alone:
                waits = not self._admission.free
                if admits is None or steps.refused:
                    waits = False
                elif not await self._admitted(admits, alone):
                    return refusal(
                        HTTPStatus.SERVICE_UNAVAILABLE,
                        "broker.busy",
                        f"the mutations before this one took longer than {ADMISSION_S:g} s",
                        remedy="look whether the engine hangs, and try again",
                    )
                if waits:  # what they saw before may be otherwise by now
                    steps.close()
                    steps = StartedFlow(begin(), self._books.doubts)
                value = await self._run(steps, alone, opened, client)
            goes_on = steps.command is not None
            if goes_on:
                self._go_on(steps)
            return await self._end(value, opened, client)
        finally:
            if not goes_on:
                steps.close()
            for stream in opened.values():
                stream.close()

    def _go_on(self, steps: StartedFlow[Reply | Relay | Follow]) -> None:
        """Carry steps to their end whose client is answered."""
        self._beginning += 1
        task = asyncio.create_task(self._to_the_end(steps), name=AFTER_ITS_ANSWER)
        self._rests.add(task)
        task.add_done_callback(self._rests.discard)

    async def _to_the_end(self, steps: StartedFlow[Reply | Relay | Follow]) -> None:
        self._beginning -= 1
        doubts = self._books.doubts
        try:
            await self._run(steps, ExitStack(), {}, None)
        except Exception:
            LOG.exception("request.failed after its answer")
        finally:
            steps.close()
            if self._books.doubts != doubts:
                self._left_open()

    async def _admitted(self, actor: Actor, alone: ExitStack) -> bool:
        trusted = actor.role in {Role.CONTROLLER, Role.OPERATOR}
        try:
            async with asyncio.timeout(ADMISSION_S):
                await self._admission.acquire(actor.uid, trusted=trusted)
        except TimeoutError:
            return False
        alone.callback(self._admission.release)
        return True

    async def run(self, steps: Generator[Command, CommandResult, T]) -> T:
        """Run steps of the broker's own, which hand nothing over."""
        begun = StartedFlow(steps, self._books.doubts)
        try:
            return await self._run(begun, ExitStack(), {}, None)
        finally:
            begun.close()

    async def _run(
        self,
        steps: StartedFlow[T],
        alone: ExitStack,
        opened: dict[Relay, ResponseReader],
        client: ClientStream | None,
    ) -> T:
        """Run steps to their end; with a client, to what it is answered early."""
        looks = _Looks(self._upstream, self._authorise)
        try:
            while (command := steps.command) is not None:
                if client is not None and steps.early is not None:
                    return cast("T", steps.early)
                if isinstance(command, ReadEngine):
                    steps.send(await looks.answer(command))
                    continue
                looks.forget()
                if _is_refusal(command):
                    alone.close()  # nothing that was counted matters any more
                answer: CommandResult = None
                if not _is_intent(command) or await self._is_sure(steps):
                    answer = await self._carry_out(command, opened, client)
                if not isinstance(command, InspectPaths | ReadProcess | QueryJournal):
                    alone.close()
                steps.send(answer)
        finally:
            looks.forget()
        return steps.value

    async def _is_sure(self, steps: StartedFlow[T]) -> bool:
        """Tell, once that is known, whether what steps were judged by is durable."""
        doubts, steps.doubts = steps.doubts, None
        return doubts is None or await self._books.sure(doubts)

    async def close(self) -> None:
        """End what goes on without a connection."""
        await self._pulls.close()
        if self._rests:
            await asyncio.wait(tuple(self._rests), timeout=REST_S)
        for rest in self._rests:
            rest.cancel()

    async def write(self, entry: Entry) -> Record | None:
        """Make an entry of the shell's own durable, or counted; None when it isn't."""
        return await self._meter.write(entry)

    async def _end(
        self,
        value: Reply | Relay | Follow,
        opened: dict[Relay, ResponseReader],
        client: ClientStream,
    ) -> Reply | OpenResponse | Follow:
        if isinstance(value, Reply | Follow):
            return value
        stream = opened.pop(value, None) or await self._open(value, client)
        if isinstance(stream, Lost):
            return refusal(
                HTTPStatus.GATEWAY_TIMEOUT if stream.sent else HTTPStatus.BAD_GATEWAY,
                "engine.unavailable",
                unavailable_reason(stream),
                remedy=engine_remedy(stream.reason),
            )
        return OpenResponse(stream, value)

    async def _carry_out(
        self,
        command: InspectPaths
        | ReadProcess
        | WriteRecord
        | Forward
        | Relay
        | QueryJournal
        | EndProcess,
        opened: dict[Relay, ResponseReader],
        client: ClientStream | None,
    ) -> CommandResult:
        match command:
            case InspectPaths(paths):
                return await self._examined(paths)
            case WriteRecord(entry, early) if early is not None:
                return await self._books.write(entry, believed=True)
            case WriteRecord(entry):
                return await self._meter.write(entry)
            case Forward(method, path, body, stream=stream, deadline_s=deadline_s):
                if stream and client is not None:
                    return await self._pulls.pull(command, client)
                return await self._upstream.forward(method, path, body, deadline_s=deadline_s)
            case QueryJournal(question):
                return await self._asking.ask(question)
            case Relay():
                return await self._head(command, opened, client)
            case ReadProcess(pid, container, targets, after_s):
                return await self._process(pid, container, targets, after_s)
            case EndProcess(pid, container):
                return await asyncio.to_thread(process_killer.end, pid, container)
            case _:
                assert_never(command)

    async def _examined(self, paths: tuple[str, ...]) -> tuple[PathFacts, ...]:
        """Look at paths; none is seen where a filesystem hangs: those are refused as unreadable."""
        try:
            async with asyncio.timeout(EXAMINE_S):
                return await self._examine(paths)
        except (TimeoutError, ThreadsBusy):
            LOG.warning("examine.late paths=%d", len(paths))
            return ()

    async def _process(
        self, pid: int, container: str, targets: tuple[str, ...], after_s: float
    ) -> EffectiveState | NotReadable:
        """Look at a process; where that hangs (a filesystem in it), it isn't seen."""
        await asyncio.sleep(after_s)
        try:
            async with asyncio.timeout(PROCESS_S):
                async with self._reading:
                    return await self._reads((pid, container, targets))
        except (TimeoutError, ThreadsBusy):
            LOG.warning("process.late container=%s", container)
            return NotReadable("looking at its process takes too long")

    async def _open(self, relay: Relay, client: ClientStream | None) -> ResponseReader | Lost:
        hijack = relay.hijack and client is not None and client.upgrade
        return await self._upstream.open(
            relay.method, relay.path, relay.body, mutation=relay.mutates, hijack=hijack
        )

    async def _head(
        self, relay: Relay, opened: dict[Relay, ResponseReader], client: ClientStream | None
    ) -> Reply | Lost:
        stream = await self._open(relay, client)
        if isinstance(stream, Lost):
            return stream
        if stream.status < HTTPStatus.MULTIPLE_CHOICES:
            opened[relay] = stream
            return Reply(stream.status, b"", stream.headers)
        return await _whole(stream, deadline_s=15.0)


async def _whole(stream: ResponseReader, *, deadline_s: float) -> Reply | Lost:
    try:
        async with asyncio.timeout(deadline_s):
            return await stream.whole()
    except TimeoutError:
        return Lost(f"the engine's answer wasn't whole within {deadline_s:g} s")
    except ResponseBroken as error:
        return Lost(str(error))
    finally:
        stream.close()
