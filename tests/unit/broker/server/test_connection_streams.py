"""Responses in parts: relayed, hijacked, or watched during a mutation."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path

import pytest

from controller.broker.gate.commands import (
    Command,
    CommandResult,
    Forward,
    QueryJournal,
    ReadEngine,
    Relay,
    WriteRecord,
)
from controller.broker.gate.state import GateState
from controller.core.records.query import Filter, Page, Question
from controller.model.records import Record, Reply, Request
from tests.unit.broker.engine_side import Act, chunked, told
from tests.unit.broker.serving import (
    Bench,
    ask,
    body_of,
    entry,
    get,
    post,
    rule_of,
    run,
    status_of,
)

Steps = Generator[Command, CommandResult, Reply | Relay]
ATTACH = "/v1.45/containers/x/attach"
AGREED = (
    b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n"
    b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
)


def relay(_request: Request, _state: GateState) -> Steps:
    """Relay the requested path, for example logs, and attach in both directions."""
    yield from ()
    if _request.path.endswith("/attach"):
        return Relay("POST", "/containers/x/attach", hijack=True)
    return Relay("GET", "/logs?follow=1")


def check(
    root: Path,
    answers: dict[str, bytes | Act],
    conversation: Callable[[Bench], Awaitable[None]],
    *,
    handle: Callable[[Request, GateState], Steps] = relay,
) -> Bench:
    bench = Bench(root, handle)
    bench.engine.answers = answers

    async def test() -> None:
        async with bench.serving():
            await conversation(bench)

    run(test())
    return bench


class Talk:
    """An engine's end of the connection for the test, after the broker's connect."""

    def __init__(self, head: bytes) -> None:
        self._head = head
        self._met: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]]
        self._met = asyncio.Queue()
        self._over = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self._head)
        self._met.put_nowait((reader, writer))
        await self._over.wait()

    async def met(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await self._met.get()

    def end(self) -> None:
        self._over.set()


STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_a_stream_is_relayed_as_it_comes(tmp_path: Path) -> None:
    engine = Talk(STREAM)

    async def talk(bench: Bench) -> None:
        reader, writer = await asyncio.open_unix_connection(bench.socket)
        writer.write(get("/logs"))
        _, up = await engine.met()
        head = await reader.readuntil(b"\r\n\r\n")
        assert head == (
            b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n"
            b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        )
        for part in (b"one", b"two"):
            up.write(b"3\r\n%b\r\n" % part)
            assert await reader.readexactly(8) == b"3\r\n%b\r\n" % part
        up.write(b"0\r\n\r\n")
        assert await reader.read() == b"0\r\n\r\n"
        engine.end()
        writer.close()

    check(tmp_path, {"GET /v1.45/logs": engine}, talk)


def test_of_lines_only_those_are_passed_on_that_are_asked_for(tmp_path: Path) -> None:
    def kept(_request: Request, _state: GateState) -> Steps:
        yield from ()
        return Relay(
            "GET", "/events", edit_line=lambda line: line if line.startswith(b"+") else None
        )

    parts = (b"+one\n-t", b"wo\n", b"+th", b"ree\n+cut off")

    async def talk(bench: Bench) -> None:
        found = await ask(bench.socket, get("/events"))
        _, _, body = found.partition(b"\r\n\r\n")
        pieces = body.split(b"\r\n")
        assert b"".join(pieces[1:-3:2]) == b"+one\n+three\n", "however the lines are batched"
        assert pieces[-3:] == [b"0", b"", b""]

    check(tmp_path, {"GET /v1.45/events": chunked(*parts)}, talk, handle=kept)


def test_a_line_beyond_its_bound_costs_that_line_only(tmp_path: Path) -> None:
    def kept(_request: Request, _state: GateState) -> Steps:
        yield from ()
        return Relay("GET", "/events", edit_line=lambda line: line)

    async def talk(bench: Bench) -> None:
        found = await ask(bench.socket, get("/events"))
        assert found.endswith(b"7\r\nbefore\n\r\n6\r\nafter\n\r\n0\r\n\r\n")

    endless = chunked(b"before\n", *[b"x" * 65536] * 17, b"\nafter\n")
    check(tmp_path, {"GET /v1.45/events": endless}, talk, handle=kept)


def test_after_a_stream_the_connection_can_be_used_again(tmp_path: Path) -> None:
    async def talk(bench: Bench) -> None:
        reader, writer = await asyncio.open_unix_connection(bench.socket)
        for _ in range(2):
            writer.write(get("/logs").replace(b"close", b"keep-alive"))
            assert (await reader.readuntil(b"0\r\n\r\n")).endswith(b"2\r\nab\r\n0\r\n\r\n")
        writer.close()

    check(tmp_path, {"GET /v1.45/logs": chunked(b"ab")}, talk)


def test_a_client_of_http_1_0_gets_the_stream_without_chunks(tmp_path: Path) -> None:
    async def talk(bench: Bench) -> None:
        found = await ask(bench.socket, b"GET /logs HTTP/1.0\r\n\r\n")
        assert found == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nab"

    check(tmp_path, {"GET /v1.45/logs": chunked(b"ab")}, talk)


def test_a_stream_that_breaks_off_at_the_engine_breaks_off_at_the_client(tmp_path: Path) -> None:
    async def talk(bench: Bench) -> None:
        found = await ask(bench.socket, get("/logs"))
        assert found.endswith(b"\r\n\r\n2\r\nab\r\n")

    check(tmp_path, {"GET /v1.45/logs": chunked(b"ab", end=False)}, talk)


def test_a_client_that_leaves_ends_the_stream_at_the_engine(tmp_path: Path) -> None:
    engine = Talk(STREAM)

    async def talk(bench: Bench) -> None:
        _, writer = await asyncio.open_unix_connection(bench.socket)
        writer.write(get("/logs"))
        up, _ = await engine.met()
        writer.close()
        assert await up.read() == b""
        engine.end()

    check(tmp_path, {"GET /v1.45/logs": engine}, talk)


def test_a_stream_that_the_end_of_the_broker_cuts_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Talk(STREAM)

    async def talk(bench: Bench) -> None:
        reader, writer = await asyncio.open_unix_connection(bench.socket)
        writer.write(get("/logs"))
        _, output = await engine.met()
        output.write(b"5\r\nline\n\r\n")
        await reader.readuntil(b"line\n")
        bench.stop.set()
        await reader.read()
        engine.end()
        writer.close()

    check(tmp_path, {"GET /v1.45/logs": engine}, talk)
    assert f"stream.cut uid={os.getuid()} request=GET /logs" in caplog.text


def test_a_client_that_only_ended_its_own_side_gets_the_whole_stream(tmp_path: Path) -> None:
    engine = Talk(STREAM)

    async def talk(bench: Bench) -> None:
        reader, writer = await asyncio.open_unix_connection(bench.socket)
        writer.write(get("/logs"))
        writer.write_eof()
        _, up = await engine.met()
        up.write(b"2\r\nab\r\n0\r\n\r\n")
        assert body_of(await reader.read()) == b"ab"
        engine.end()
        writer.close()

    check(tmp_path, {"GET /v1.45/logs": engine}, talk)


def test_who_reads_slowly_slows_down_who_writes(tmp_path: Path) -> None:
    """Nothing is buffered: the engine's side stalls when the socket buffers are full."""
    engine = Talk(b"HTTP/1.1 200 OK\r\n\r\n")
    size = 4_000_000

    async def talk(bench: Bench) -> None:
        reader, writer = await asyncio.open_unix_connection(bench.socket, limit=1024)
        writer.write(get("/logs"))
        _, up = await engine.met()
        up.write(b" " * size)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(up.drain(), 0.2)
        got = len(await reader.readuntil(b"\r\n\r\n"))
        up.close()
        engine.end()
        rest = await reader.read()
        assert len(body_of(b"HTTP/1.1 200\r\ntransfer-encoding: chunked\r\n\r\n" + rest)) == size
        assert got
        writer.close()

    check(tmp_path, {"GET /v1.45/logs": engine}, talk)


def test_an_engine_that_is_gone_is_a_502_with_a_remedy(tmp_path: Path) -> None:
    async def talk(bench: Bench) -> None:
        bench.engine.path.unlink()
        assert rule_of(await ask(bench.socket, get("/logs"))) == "502 engine.unavailable"

    check(tmp_path, {}, talk)


# Both ways


async def hijacked(bench: Bench) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_unix_connection(bench.socket)
    writer.write(post(ATTACH, b"", "Upgrade: tcp", connection="Upgrade"))
    assert await reader.readuntil(b"\r\n\r\n") == (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"content-type: application/vnd.docker.raw-stream\r\n"
        b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    )
    return reader, writer


def test_after_a_hijack_both_sides_say_what_they_like(tmp_path: Path) -> None:
    engine = Talk(AGREED + b"early")

    async def talk(bench: Bench) -> None:
        reader, writer = await hijacked(bench)
        up_reader, up_writer = await engine.met()
        assert await reader.readexactly(5) == b"early"
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert await up_reader.readexactly(18) == b"GET / HTTP/1.1\r\n\r\n"
        up_writer.write(b"\x01\x00\x00")
        assert await reader.readexactly(3) == b"\x01\x00\x00"
        engine.end()
        assert await reader.read() == b""
        writer.close()

    check(tmp_path, {"POST /v1.45/containers/x/attach": engine}, talk)


def test_output_never_comes_together_with_the_head(tmp_path: Path) -> None:
    """docker-py reads the head through a buffer, and loses output that arrives with the head."""
    engine = Talk(AGREED + b"early")

    async def talk(bench: Bench) -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX) as client:
            client.setblocking(False)
            await loop.sock_connect(client, str(bench.socket))
            await loop.sock_sendall(client, post(ATTACH, b"", "Upgrade: tcp", connection="Upgrade"))
            await engine.met()
            head = await loop.sock_recv(client, 65536)
            assert head.endswith(b"\r\n\r\n")
            assert await loop.sock_recv(client, 65536) == b"early"
            engine.end()

    check(tmp_path, {"POST /v1.45/containers/x/attach": engine}, talk)


def test_a_half_close_of_the_client_is_passed_on_and_output_goes_on(tmp_path: Path) -> None:
    """The docker CLI ends its direction at once without input."""
    engine = Talk(AGREED)

    async def talk(bench: Bench) -> None:
        reader, writer = await hijacked(bench)
        up_reader, up_writer = await engine.met()
        writer.write(b"last")
        writer.write_eof()
        assert await up_reader.read() == b"last"
        up_writer.write(b"output")
        assert await reader.readexactly(6) == b"output"
        engine.end()
        assert await reader.read() == b""
        writer.close()

    check(tmp_path, {"POST /v1.45/containers/x/attach": engine}, talk)


def test_a_client_that_leaves_a_hijack_ends_it_also_after_a_half_close(tmp_path: Path) -> None:
    engine = Talk(AGREED)

    async def talk(bench: Bench) -> None:
        _, writer = await hijacked(bench)
        up_reader, up_writer = await engine.met()
        writer.write_eof()
        assert await up_reader.read() == b""
        writer.close()
        await up_writer.wait_closed() if up_writer.is_closing() else None
        with pytest.raises(ConnectionError):
            while True:
                up_writer.write(b" " * 65536)
                await up_writer.drain()
        engine.end()

    check(tmp_path, {"POST /v1.45/containers/x/attach": engine}, talk)


def test_an_engine_that_doesn_t_agree_to_a_hijack_gets_no_more_bytes(tmp_path: Path) -> None:
    async def talk(bench: Bench) -> None:
        raw = post(ATTACH, b"", "Upgrade: tcp", connection="Upgrade")
        found = await ask(bench.socket, raw + post("/v1.45/containers/create", b"{}"))
        assert (status_of(found), body_of(found)) == (409, b'{"message": "no"}')

    bench = check(tmp_path, {"POST /v1.45/containers/x/attach": told(409, {"message": "no"})}, talk)
    assert bench.engine.sent == [("POST /v1.45/containers/x/attach", b"")]


def test_without_the_client_s_wish_nothing_is_hijacked(tmp_path: Path) -> None:
    async def talk(bench: Bench) -> None:
        found = await ask(bench.socket, post(ATTACH))
        assert body_of(found) == b"output"

    raw = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\noutput"
    bench = check(tmp_path, {"POST /v1.45/containers/x/attach": raw}, talk)
    assert b"upgrade" not in bench.engine.heads[0].lower()


# Recorded before it runs


def test_what_opens_a_stream_is_recorded_before_the_stream_runs(tmp_path: Path) -> None:
    heads: list[CommandResult] = []
    relayed = Relay("GET", "/logs")

    def handle(request: Request, _state: GateState) -> Steps:
        yield WriteRecord(entry(1))
        head = yield relayed
        heads.append(head)
        yield WriteRecord(entry(1, "outcome"))
        if request.path == "/refused":
            return Reply(418)
        return relayed

    async def talk(bench: Bench) -> None:
        assert body_of(await ask(bench.socket, post("/good"))) == b"ab"
        assert status_of(await ask(bench.socket, post("/refused"))) == 418
        bench.engine.answers["GET /v1.45/logs"] = told(404, "no")
        assert status_of(await ask(bench.socket, post("/refused"))) == 418

    bench = check(tmp_path, {"GET /v1.45/logs": chunked(b"ab")}, talk, handle=handle)
    json_type = (("content-type", "application/json"),)
    assert heads == [Reply(200), Reply(200), Reply(404, b'"no"', json_type)]
    assert len(bench.engine.sent) == 3
    assert [r.entry.stage for r in bench.recorded("intent", "outcome")] == ["intent", "outcome"] * 3


# The other commands

COMMANDS = (
    ReadEngine("/x"),
    ReadEngine("/x", method="HEAD"),
    Forward("DELETE", "/x"),
    WriteRecord(entry(1)),
    QueryJournal(Question(limit=1, last=False)),
    QueryJournal(Question(Filter(after=99), limit=1)),
)


def test_every_other_command_gets_its_answer(tmp_path: Path) -> None:
    found: list[CommandResult] = []

    def handle(_request: Request, _state: GateState) -> Steps:
        for command in COMMANDS:
            answer = yield command
            found.append(answer)
        return Reply(200)

    async def talk(bench: Bench) -> None:
        assert status_of(await ask(bench.socket, post("/x"))) == 200

    answers: dict[str, bytes | Act] = {
        "GET /v1.45/x": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na",
        "HEAD /v1.45/x": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n",
        "DELETE /v1.45/x": b"HTTP/1.1 204 No Content\r\n\r\n",
    }
    bench = check(tmp_path, answers, talk, handle=handle)
    assert found[:3] == [Reply(200, b"a"), Reply(200), Reply(204)]
    (first, *_), (mine,) = bench.recorded("segment", "policy"), bench.recorded("intent")
    assert isinstance(found[3], Record)
    asked, none = found[4:]
    assert found[3] == mine
    assert isinstance(asked, Page)
    assert [each.record for each in asked.found] == [first]
    assert none == Page()
