"""Shared pulls: joined by clients, ended without progress, and independent of any client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path

import pytest

from controller.broker.engine.shared_pulls import LINES_BYTES_MAX
from controller.broker.gate.commands import (
    Command,
    CommandResult,
    Forward,
    Lost,
    SharedPull,
    WriteRecord,
)
from controller.broker.gate.state import GateState
from controller.broker.server.server import ServerLimits
from controller.model.records import Reply, Request
from tests.unit.broker.engine_side import Act, chunked, told
from tests.unit.broker.serving import Bench, ask, body_of, entry, post, run, status_of, until

Steps = Generator[Command, CommandResult, Reply]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
JSON = (("content-type", "application/json"),)


def said(status: str, layer: str = "", **detail: int) -> bytes:
    """Return a line of the engine."""
    value = {"status": status, "id": layer, "progressDetail": detail}
    return json.dumps({name: each for name, each in value.items() if each}).encode() + b"\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Engine:
    """An engine in the middle of a pull. The test sends its lines."""

    def __init__(self) -> None:
        self._writers: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
        self._over = asyncio.Event()
        self.asked = 0

    async def __call__(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked += 1
        writer.write(HEAD)
        self._writers.put_nowait(writer)
        await self._over.wait()

    async def met(self) -> asyncio.StreamWriter:
        return await self._writers.get()

    def end(self) -> None:
        self._over.set()


class Pulling:
    """A gate that pulls at every request, and stores the responses by intent."""

    def __init__(self, *, deadline_s: float = 5) -> None:
        self.answers: dict[str, CommandResult] = {}
        self.forwarding = 0  # how many ask for their pull
        self._deadline_s = deadline_s
        self._count = 0

    def __call__(self, request: Request, _state: GateState) -> Steps:
        self._count += 1
        number = self._count
        yield WriteRecord(entry(number))
        self.forwarding += 1
        answer = yield Forward(
            "POST", request.path, stream=True, deadline_s=self._deadline_s, by=str(number)
        )
        self.answers[str(number)] = answer
        yield WriteRecord(entry(number, "outcome"))
        answer = answer.answer if isinstance(answer, SharedPull) else answer
        if isinstance(answer, Lost):
            return Reply(504, b'{"message":"lost"}')
        assert isinstance(answer, Reply)
        return answer


def check(
    root: Path,
    answer: bytes | Act,
    conversation: Callable[[Bench], Awaitable[None]],
    handle: Pulling,
) -> Bench:
    bench = Bench(root, handle)
    bench.engine.answers = {"POST /v1.45/pull": answer}

    async def test() -> None:
        async with bench.serving():
            await conversation(bench)

    run(test())
    return bench


class Watcher:
    """A client that pulls and reads line by line."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    @classmethod
    async def of(cls, bench: Bench) -> Watcher:
        reader, writer = await asyncio.open_unix_connection(bench.socket)
        writer.write(post("/pull"))
        return cls(reader, writer)

    async def head(self) -> bytes:
        return await self._reader.readuntil(b"\r\n\r\n")

    async def lines(self, count: int) -> list[bytes]:
        """Read a number of lines."""
        found: list[bytes] = []
        while len(found) < count:
            size = int(await self._reader.readuntil(b"\r\n"), 16)
            part = (await self._reader.readexactly(size + 2))[:-2]
            found += part.splitlines(keepends=True)
        return found

    async def rest(self) -> bytes:
        try:
            return await self._reader.read()
        finally:
            self.writer.close()


def test_progress_is_relayed_and_its_end_waits_for_the_outcome(tmp_path: Path) -> None:
    handle, engine = Pulling(), Engine()

    async def talk(bench: Bench) -> None:
        client = await Watcher.of(bench)
        up = await engine.met()
        assert b"content-type: application/json" in await client.head()
        for line in (said("Pulling fs layer", "a"), said("Downloading", "a", current=1)):
            up.write(chunk(line))
            assert await client.lines(1) == [line]
        assert bench.recorded("outcome") == []
        up.write(chunk(b'{"status":"Digest: d"}') + b"0\r\n\r\n")
        assert await client.lines(1) == [b'{"status":"Digest: d"}']
        assert await client.rest() == b"0\r\n\r\n"
        assert len(bench.recorded("outcome")) == 1
        engine.end()

    check(tmp_path, engine, talk, handle)
    lines = [
        said("Pulling fs layer", "a"),
        said("Downloading", "a", current=1),
        b'{"status":"Digest: d"}',
    ]
    assert handle.answers == {"1": Reply(200, b"".join(lines), JSON)}


def test_pulls_of_one_image_are_one_request_and_who_comes_late_sees_all_states(
    tmp_path: Path,
) -> None:
    handle, engine = Pulling(), Engine()
    early = [
        said("Pulling fs layer", "a"),
        said("Downloading", "a", current=1),
        said("Downloading", "a", current=2),
    ]

    async def talk(bench: Bench) -> None:
        leader = await Watcher.of(bench)
        up = await engine.met()
        await leader.head()
        for line in early:
            up.write(chunk(line))
            assert await leader.lines(1) == [line]
        follower = await Watcher.of(bench)
        await follower.head()
        # Of bytes that were counted, the last count.
        assert await follower.lines(2) == [early[0], early[2]]
        # Who began it leaves, and the other's goes on.
        leader.writer.close()
        up.write(chunk(said("Pull complete", "a")) + b"0\r\n\r\n")
        assert await follower.lines(1) == [said("Pull complete", "a")]
        assert await follower.rest() == b"0\r\n\r\n"
        engine.end()

    bench = check(tmp_path, engine, talk, handle)
    whole = Reply(200, b"".join((early[0], early[2], said("Pull complete", "a"))), JSON)
    assert handle.answers == {"1": whole, "2": SharedPull(whole, by="1")}
    assert engine.asked == 1
    stages = sorted(record.entry.stage for record in bench.recorded("intent", "outcome"))
    assert stages == ["intent", "intent", "outcome", "outcome"]


def test_after_its_end_the_engine_is_asked_anew(tmp_path: Path) -> None:
    handle = Pulling()

    async def talk(bench: Bench) -> None:
        for _ in range(2):
            assert body_of(await ask(bench.socket, post("/pull"))) == said("Digest: d")
        assert len(bench.engine.sent) == 2

    check(tmp_path, chunked(said("Digest: d")), talk, handle)
    assert not any(isinstance(answer, SharedPull) for answer in handle.answers.values())


def test_a_refusal_of_the_engine_is_everybodys_answer(tmp_path: Path) -> None:
    handle = Pulling()
    asked = asyncio.Event()

    async def talk(bench: Bench) -> None:
        both = [asyncio.ensure_future(ask(bench.socket, post("/pull"))) for _ in range(2)]
        await until(lambda: handle.forwarding == 2)
        asked.set()
        found = [await each for each in both]
        assert [status_of(each) for each in found] == [404, 404]
        assert json.loads(body_of(found[0])) == {"message": "no"}
        assert len(bench.engine.sent) == 1

    async def refuse(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked.wait()
        writer.write(told(404, {"message": "no"}))

    check(tmp_path, refuse, talk, handle)


def test_a_client_that_leaves_doesn_t_end_a_pull_and_little_is_kept(tmp_path: Path) -> None:
    handle, engine = Pulling(), Engine()

    async def talk(bench: Bench) -> None:
        client = await Watcher.of(bench)
        up = await engine.met()
        client.writer.close()
        await client.writer.wait_closed()
        for number in range(1000):
            up.write(chunk(said(f"{number} " + "x" * 1000)))
            await up.drain()
        up.write(b"0\r\n\r\n")
        engine.end()

    bench = check(tmp_path, engine, talk, handle)
    answer = handle.answers["1"]
    assert isinstance(answer, Reply)
    assert LINES_BYTES_MAX - 1100 < len(answer.body) <= LINES_BYTES_MAX
    assert b'"999 x' in answer.body
    assert len(bench.recorded("outcome")) == 1


def test_a_pull_that_breaks_off_ends_with_an_error_that_the_client_reads(tmp_path: Path) -> None:
    handle = Pulling()

    async def talk(bench: Bench) -> None:
        found = body_of(await ask(bench.socket, post("/pull")))
        line = {"error": "lost", "errorDetail": {"message": "lost"}, "message": "lost"}
        assert found == said("Pulling") + json.dumps(line).encode() + b"\r\n"

    check(tmp_path, chunked(said("Pulling"), end=False), talk, handle)
    assert handle.answers == {"1": Lost("the engine's answer broke off")}


@pytest.mark.parametrize(
    "again",
    [
        b"",  # no byte
        said("Downloading", "a", current=1),  # the same again
        said("Retrying in 4 seconds", "b"),  # counting down
    ],
)
def test_a_pull_that_says_nothing_new_is_given_up(tmp_path: Path, again: bytes) -> None:
    handle, engine = Pulling(deadline_s=0.3), Engine()

    async def talk(bench: Bench) -> None:
        client = await Watcher.of(bench)
        up = await engine.met()
        begun = (said("Downloading", "a", current=1), said("Retrying in 5 seconds", "b"))
        up.write(chunk(b"".join(begun)))
        await client.head()
        rest = asyncio.ensure_future(client.rest())
        while not rest.done():
            if again:
                up.write(chunk(again))
            await asyncio.sleep(0.05)
        assert b'"error": "lost"' in await rest
        engine.end()

    check(tmp_path, engine, talk, handle)
    assert handle.answers == {"1": Lost("the pull made no progress for 0.3 s")}


def test_a_slow_pull_that_makes_progress_is_waited_for(tmp_path: Path) -> None:
    handle, engine = Pulling(deadline_s=0.4), Engine()

    async def talk(bench: Bench) -> None:
        client = await Watcher.of(bench)
        up = await engine.met()
        await client.head()
        for number in range(10):
            up.write(chunk(said("Downloading", "a", current=number)))
            await asyncio.sleep(0.1)
        up.write(b"0\r\n\r\n")
        assert (await client.rest()).endswith(b"0\r\n\r\n")
        engine.end()

    check(tmp_path, engine, talk, handle)
    assert isinstance(handle.answers["1"], Reply)


def test_a_line_without_an_end_is_not_read_for_ever(tmp_path: Path) -> None:
    handle = Pulling()

    async def talk(bench: Bench) -> None:
        await ask(bench.socket, post("/pull"))

    check(tmp_path, chunked(*[b"x" * 10_000] * 10), talk, handle)
    assert handle.answers == {"1": Lost("the engine says a line of more than 65536 bytes")}


def test_a_broker_that_ends_leaves_a_pull_to_recovery(tmp_path: Path) -> None:
    handle, engine = Pulling(), Engine()
    bench = Bench(tmp_path, handle, limits=ServerLimits(grace_s=0.1))
    bench.engine.answers = {"POST /v1.45/pull": engine}

    async def test() -> None:
        async with bench.serving():
            client = await Watcher.of(bench)
            await engine.met()
            await client.head()
        engine.end()
        client.writer.close()

    run(test())
    assert handle.answers == {}
    assert [record.entry.stage for record in bench.recorded("intent", "outcome")] == ["intent"]
