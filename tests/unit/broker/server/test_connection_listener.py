"""Accepted connections: the places of each group, refusals, and a process without descriptors."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from controller.broker.gate.commands import Command, CommandResult, ReadEngine
from controller.broker.gate.state import GateState
from controller.broker.host.sockets import PAUSE_S
from controller.broker.server import connection
from controller.broker.server.server import Broker, ServerLimits
from controller.model.policy.document import Policy, PolicyClient
from controller.model.records import Reply, Request
from controller.system.slots import Share
from tests.unit.broker.engine_side import told
from tests.unit.broker.serving import (
    CONTROLLER,
    Bench,
    ask,
    get,
    post,
    rule_of,
    run,
    status_of,
    until,
)

ALICE, STRANGER, ME = 1234, 1235, os.geteuid()
POLICY = Policy(name="test", clients=(PolicyClient(uid=ALICE, owner="alice"),))

#: Connects as a uid: sends a request and prints the response, or holds so many silent connections.
ASK = """
import os, socket, sys, time
uid, path, raw, count = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
os.setresgid(uid, uid, uid)
os.setresuid(uid, uid, uid)
if count:
    sys.stdin.readline()
    held = [socket.socket(socket.AF_UNIX) for _ in range(count)]
    for connection in held:
        connection.connect(path)
    sys.stdin.readline()
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(path)
    connection.sendall(raw.encode())
    while data := connection.recv(65536):
        os.write(1, data)
"""


def echo(request: Request, _state: GateState) -> Generator[Command, CommandResult, Reply]:
    """Respond with the role and uid of the peer."""
    yield from ()
    return Reply(200, f"{request.actor.role.value} {request.actor.uid}".encode())


@pytest.fixture
def root() -> Iterator[Path]:
    """Return a folder that other users enter. Another test run closes pytest's own folders."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def check(bench: Bench, conversation: Callable[[Broker], Awaitable[None]]) -> None:
    """Serve with a socket that every user reaches, and run *conversation*."""
    bench.socket.parent.mkdir()
    bench.socket.parent.chmod(0o755)

    async def test() -> None:
        async with bench.serving() as broker:
            bench.socket.chmod(0o666)
            await conversation(broker)

    run(test())


async def connect(uid: int, path: Path, raw: bytes, count: int = 0) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", ASK, str(uid), str(path), raw.decode(), str(count)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )


async def asked_by(uid: int, path: Path, raw: bytes = get("/x")) -> bytes:
    return (await (await connect(uid, path, raw)).communicate())[0]


@asynccontextmanager
async def held_by(uid: int, path: Path, count: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """Hold silent connections of a uid from the first line of input on."""
    process = await connect(uid, path, get("/x"), count)
    assert process.stdin is not None
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def few(*, accepted: int = 2, wait_s: float = 0.0) -> ServerLimits:
    """Return limits with one connection served of each group."""
    groups = ("operator", "controller", "client", "no-role")
    return ServerLimits(
        connections=dict.fromkeys(groups, Share(1, 1)),
        accepted=dict.fromkeys(groups, Share(accepted, accepted)),
        wait_s=wait_s,
    )


@pytest.mark.needs_root
def test_a_client_s_uid_decides_and_a_stranger_is_refused(root: Path) -> None:
    bench = Bench(root, echo, policy=POLICY, limits=few())

    async def talk(_broker: Broker) -> None:
        assert b"client 1234" in await asked_by(ALICE, bench.socket)
        assert rule_of(await asked_by(STRANGER, bench.socket)) == "403 role.denied"
        assert b"operator 0" in await asked_by(0, bench.socket)

    check(bench, talk)
    (refused,) = bench.recorded("refusal")
    assert (refused.entry.actor["uid"], refused.entry.actor["role"]) == (STRANGER, "none")


@pytest.mark.needs_root
def test_a_stranger_is_refused_before_a_byte_of_its_body(root: Path) -> None:
    bench = Bench(root, echo)

    async def talk(_broker: Broker) -> None:
        head = post("/containers/create", b"", "Transfer-Encoding: chunked")
        head = head.replace(b"Content-Length: 0\r\n", b"")
        assert rule_of(await asked_by(STRANGER, bench.socket, head)) == "403 role.denied"
        large = post("/containers/create").replace(b"Length: 0", b"Length: 999999999999")
        assert rule_of(await asked_by(STRANGER, bench.socket, large)) == "403 role.denied"

    check(bench, talk)
    requests = [record.entry.request for record in bench.recorded("refusal")]
    assert [each["object"] for each in requests] == ["/containers/create"] * 2


def test_beyond_the_limit_of_connections_a_client_gets_a_503(root: Path) -> None:
    bench = Bench(root, echo, limits=few())

    async def talk(broker: Broker) -> None:
        reader, writer = await asyncio.open_unix_connection(bench.socket)
        writer.write(get("/x").replace(b"close", b"keep-alive"))  # served, not only in the backlog
        await reader.readuntil(b"operator %d" % ME)
        assert rule_of(await ask(bench.socket, get("/x"))) == "503 broker.busy"
        assert broker.state.health.refused_connections == 1
        writer.write_eof()
        assert await reader.read() == b""
        assert status_of(await ask(bench.socket, get("/x"))) == 200
        writer.close()

    check(bench, talk)


def test_beyond_the_accepted_connections_a_503_doesn_t_wait_for_a_slot(root: Path) -> None:
    bench = Bench(root, echo, limits=few(accepted=2, wait_s=60.0))

    async def talk(broker: Broker) -> None:
        held = [await asyncio.open_unix_connection(bench.socket) for _ in range(2)]
        assert rule_of(await ask(bench.socket, get("/x"))) == "503 broker.busy"
        silent = await asyncio.open_unix_connection(bench.socket)
        assert rule_of(await silent[0].read()) == "503 broker.busy"
        assert broker.state.health.refused_connections == 2
        for _, writer in (*held, silent):
            writer.close()

    check(bench, talk)


@pytest.mark.needs_root
def test_no_group_of_peers_takes_the_connections_of_another(root: Path) -> None:
    bench = Bench(root, echo, policy=POLICY, limits=few(accepted=2, wait_s=60.0))
    others = (CONTROLLER, ALICE, STRANGER)

    async def talk(broker: Broker) -> None:
        for uid in others:
            async with held_by(uid, bench.socket, 8) as process:
                assert process.stdin is not None
                process.stdin.write(b"connect\n")
                # One is served, one waits, six are refused.
                await until(lambda: broker.state.health.refused_connections == 6)
                for other in {0, *others} - {uid}:
                    found = await asked_by(other, bench.socket)
                    assert status_of(found) == (200 if other in {0, ALICE} else 403), (uid, other)
                process.stdin.write(b"ask\n")
                assert process.stdout is not None
                assert rule_of(await process.stdout.read()) == "503 broker.busy"
            broker.state.health.refused_connections = 0
            await until(lambda: not any(broker.state.health.connections().values()))

    check(bench, talk)


def test_a_process_without_descriptors_accepts_again_when_it_has_some(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(root, echo)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    caplog.set_level(logging.WARNING)

    def failures() -> int:
        return sum("accept.failed" in record.getMessage() for record in caplog.records)

    async def talk(_broker: Broker) -> None:
        async with held_by(ME, bench.socket, 60) as process:
            assert process.stdin is not None
            gc.collect()  # garbage of earlier tests can hold descriptors, and free them at any time
            unused = os.open("/dev/null", os.O_RDONLY)
            os.close(unused)  # the lowest free descriptor
            resource.setrlimit(resource.RLIMIT_NOFILE, (unused + 4, before[1]))
            try:
                process.stdin.write(b"connect\n")
                began = asyncio.get_running_loop().time()
                await until(lambda: failures() >= 3)
                took = asyncio.get_running_loop().time() - began
                assert failures() <= took / PAUSE_S + 2, "one attempt in each pause, no busy loop"
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
            assert status_of(await ask(bench.socket, get("/x"))) == 200

    check(bench, talk)
    # The engine's side of the bench lacks descriptors too: asyncio logs its failures.
    own = [record for record in caplog.records if record.name.startswith("controller")]
    assert own
    assert not any(record.exc_info for record in own)


async def answer_late(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(0.1)
    writer.write(told(200))


def ask_engine(_request: Request, _state: GateState) -> Generator[Command, CommandResult, Reply]:
    answer = yield ReadEngine("/x")
    assert isinstance(answer, Reply), answer
    return answer


@pytest.mark.parametrize("turns", range(1, 8))
def test_whoever_was_accepted_before_the_end_is_answered(tmp_path: Path, turns: int) -> None:
    """The end comes so many turns of the event loop after the connect."""
    bench = Bench(tmp_path, ask_engine)
    bench.engine.answers = {"GET /v1.45/x": answer_late}
    with socket.socket(socket.AF_UNIX) as client:

        async def test() -> None:
            async with bench.serving():
                client.connect(str(bench.socket))
                client.sendall(get("/x"))
                for _ in range(turns):
                    await asyncio.sleep(0)

        run(test())
        assert status_of(client.recv(65536)) == 200


def test_a_first_request_isn_t_late_because_the_broker_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy host stops the broker for longer than a client has for its request, which has come."""
    monkeypatch.setattr(connection, "FIRST_S", 0.01)
    bench = Bench(tmp_path, ask_engine)
    bench.engine.answers = {"GET /v1.45/x": answer_late}
    with socket.socket(socket.AF_UNIX) as client:

        async def test() -> None:
            async with bench.serving():
                client.connect(str(bench.socket))
                for _ in range(8):
                    await asyncio.sleep(0)
                bench.stop.set()
                for _ in range(4):
                    await asyncio.sleep(0)
                client.sendall(get("/x"))
                until_late = bench.clock.monotonic() + 0.05
                while bench.clock.monotonic() < until_late:
                    pass

        run(test())
        assert status_of(client.recv(65536)) == 200
