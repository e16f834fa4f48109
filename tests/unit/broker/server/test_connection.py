"""One client's connection: responses, refusals, and its end."""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from pathlib import Path

import pytest

from controller.broker.dispatch import handle
from controller.broker.gate.commands import (
    Command,
    CommandResult,
    Follow,
    ReadEngine,
    Relay,
    WriteRecord,
)
from controller.broker.gate.state import GateState
from controller.broker.server.connection import ConnectionTimeouts
from controller.broker.server.server import ServerLimits
from controller.core.enforcement.limits import Limit
from controller.model.records import Record, Reply, Request
from controller.system.slots import Share
from tests.unit.broker.engine_side import told
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
    until,
)

Steps = Generator[Command, CommandResult, Reply | Relay | Follow]
ME = os.geteuid()
IMPATIENT = ServerLimits(
    timeouts=ConnectionTimeouts(head_s=0.1, body_s=0.1, idle_s=0.1, linger_s=1)
)


def echo(request: Request, _state: GateState) -> Steps:
    """Respond with the request."""
    yield from ()
    actor = request.actor
    told = f"{request.method} {request.path}?{request.query} {request.body.decode()} "
    return Reply(200, f"{told}{actor.role.value} {actor.uid}".encode())


def check(
    root: Path, conversation: Callable[[Bench], Awaitable[None]], *, bench: Bench | None = None
) -> Bench:
    bench = bench or Bench(root, echo)

    async def test() -> None:
        async with bench.serving():
            await conversation(bench)

    run(test())
    return bench


def test_the_gate_gets_the_request_and_its_answer_goes_back(tmp_path: Path) -> None:
    async def talk(bench: Bench) -> None:
        found = await ask(bench.socket, post("/v1.45/x?a=%20", b"{}", "X-Y: z"))
        body = f"POST /v1.45/x?a=%20 {{}} operator {ME}"
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        assert found.decode() == head + body

    check(tmp_path, talk)


def test_a_connection_carries_many_requests(tmp_path: Path) -> None:
    async def talk(bench: Bench) -> None:
        reader, writer = await asyncio.open_unix_connection(bench.socket)
        for number in range(3):
            writer.write(post(f"/{number}", b"x", connection="keep-alive"))
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
            assert (await reader.readexactly(length)).startswith(b"POST /%d? x" % number)
        writer.close()

    check(tmp_path, talk)


def test_a_head_has_the_length_and_no_body(tmp_path: Path) -> None:
    async def talk(bench: Bench) -> None:
        found = await ask(bench.socket, get("/x", method="HEAD"))
        assert b"\r\nContent-Length: " in found
        assert body_of(found) == b""

    check(tmp_path, talk)


def test_a_refused_head_says_its_rule_in_a_header(tmp_path: Path) -> None:
    """A response to HEAD has no body for the reason."""

    async def talk(bench: Bench) -> None:
        for raw, rule in (
            (get("/v1.45/containers/json", method="HEAD"), "route.unknown"),
            (b"HEAD /_ping HTTP/1.1\r\n\r\n", "wire.host"),
        ):
            found = await ask(bench.socket, raw)
            assert f"\r\nTrimtab-Rule: {rule}\r\n".encode() in found
            assert body_of(found) == b""

    check(tmp_path, talk, bench=Bench(tmp_path, handle))


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"GET /_ping\r\n\r\n", "400 wire.request-line"),
        (get("/") + get("/"), "400 wire.pipelined"),
        (post("/v1.45/x", b"", "Transfer-Encoding: chunked"), "400 wire.length"),
        (post("/v1.45/containers/create", b" " * 2_000_000), "413 wire.body-size"),
        (b"GET /" + b"a" * 100_000, "431 wire.head-size"),
    ],
)
def test_what_isn_t_a_request_is_refused_recorded_and_ends_the_connection(
    tmp_path: Path, raw: bytes, expected: str
) -> None:
    """Also while the client is still sending: the client gets the response."""

    async def talk(bench: Bench) -> None:
        assert rule_of(await ask(bench.socket, raw)) == expected
        assert status_of(await ask(bench.socket, get("/x"))) == 200

    bench = check(tmp_path, talk)
    (refused,) = bench.recorded("refusal")
    assert refused.entry.verdict["rules"] == [expected.split()[1]]
    assert (refused.entry.actor["uid"], refused.entry.actor["role"]) == (ME, "operator")
    assert bench.engine.sent == []


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"GET /x HTTP/1.1\r\nHo", "408 wire.slow"),
        (post("/x", b"{}")[:-1], "408 wire.slow"),
        (b"", ""),
    ],
)
def test_a_slow_client_is_bounded(tmp_path: Path, raw: bytes, expected: str) -> None:
    async def talk(bench: Bench) -> None:
        found = await ask(bench.socket, raw)
        assert (rule_of(found) if found else "") == expected

    check(tmp_path, talk, bench=Bench(tmp_path, echo, limits=IMPATIENT))


def test_a_client_that_never_reads_is_let_go_with_what_was_for_it(tmp_path: Path) -> None:
    size = 8 * 1024 * 1024

    def much(_request: Request, _state: GateState) -> Steps:
        yield from ()
        return Reply(200, bytes(size))

    async def test() -> None:
        bench = Bench(tmp_path, much, limits=ServerLimits(timeouts=ConnectionTimeouts(write_s=0.1)))
        async with bench.serving() as broker:
            reader, writer = await asyncio.open_unix_connection(bench.socket, limit=1)
            writer.write(get("/x"))
            assert await reader.readexactly(1) == b"H"
            await until(lambda: not broker.state.health.connections()["operator"])
            rest = b""
            with suppress(ConnectionError):
                rest = await reader.read()
            assert len(rest) < size
            writer.close()

    run(test())


@pytest.mark.parametrize("raw", [b"GET /x HTTP/1.1\r\nHo", post("/x", b"{}")[:-1]])
def test_a_request_that_breaks_off_reaches_nobody(tmp_path: Path, raw: bytes) -> None:
    async def talk(bench: Bench) -> None:
        assert rule_of(await ask(bench.socket, raw, half_close=True)) == "400 wire.incomplete"

    check(tmp_path, talk)


def test_bytes_that_come_before_the_answer_are_never_read_as_a_request(tmp_path: Path) -> None:
    asked: list[str] = []
    came = asyncio.Event()

    async def wait_for_more(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await came.wait()
        writer.write(told(200, 1))

    def look(request: Request, _state: GateState) -> Steps:
        asked.append(request.path)
        yield ReadEngine("/x")
        return Reply(200, b"done")

    async def talk(bench: Bench) -> None:
        bench.engine.answers["GET /v1.45/x"] = wait_for_more
        reader, writer = await asyncio.open_unix_connection(bench.socket)
        writer.write(post("/first", connection="keep-alive"))
        await bench.engine.arrivals.get()
        writer.write(post("/second", connection="keep-alive"))
        came.set()
        assert body_of(await reader.read()) == b"done"
        writer.close()

    check(tmp_path, talk, bench=Bench(tmp_path, look))
    assert asked == ["/first"]


def test_a_client_that_waits_for_100_continue_gets_it(tmp_path: Path) -> None:
    async def talk(bench: Bench) -> None:
        reader, writer = await asyncio.open_unix_connection(bench.socket)
        writer.write(post("/x", b"{}", "Expect: 100-continue")[:-2])
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"{}")
        assert status_of(await reader.read()) == 200
        writer.close()

    check(tmp_path, talk)


def test_a_bug_in_a_handler_is_a_500_and_the_broker_lives(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(request: Request, _state: GateState) -> Steps:
        yield ReadEngine("/x")
        if request.path == "/broken":
            raise RuntimeError("secret-of-a-client")
        return Reply(200, b"fine")

    async def talk(bench: Bench) -> None:
        found = await ask(bench.socket, post("/broken"))
        assert rule_of(found) == "500 broker.failed"
        assert b"secret-of-a-client" not in found
        assert status_of(await ask(bench.socket, post("/fine"))) == 200

    check(tmp_path, talk, bench=Bench(tmp_path, broken))
    assert "request.failed method=POST path=/broken" in caplog.text


def test_admissions_come_one_after_the_other_and_reads_beside_them(tmp_path: Path) -> None:
    """The second create counts the intent of the first."""
    seen: list[tuple[str, int]] = []
    looked = asyncio.Event()

    async def slow(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await looked.wait()
        writer.write(told(200, 1))

    def create(request: Request, state: GateState) -> Steps:
        if request.method == "GET":
            looked.set()
            yield from ()
            return Reply(200)
        yield ReadEngine("/slow")
        seen.append((request.path, len(state.inventory.open)))
        answer = yield WriteRecord(
            entry(int(request.path[1:]), request={"route": "container.create"})
        )
        assert isinstance(answer, Record)
        assert answer.entry.id in state.inventory.open, "a record is folded before it is told"
        return Reply(200)

    async def talk(bench: Bench) -> None:
        bench.engine.answers["GET /v1.45/slow"] = slow
        creates = [asyncio.ensure_future(ask(bench.socket, post(f"/{n}"))) for n in (1, 2, 3)]
        await bench.engine.arrivals.get()
        assert len(bench.engine.sent) == 1
        assert status_of(await ask(bench.socket, get("/read"))) == 200
        assert [status_of(each) for each in await asyncio.gather(*creates)] == [200] * 3

    check(tmp_path, talk, bench=Bench(tmp_path, create))
    assert [count for _, count in seen] == [0, 1, 2]


def test_a_mutation_passes_the_crash_points_and_a_read_none(tmp_path: Path) -> None:
    passed: list[str] = []

    async def talk(bench: Bench) -> None:
        passed.clear()
        await ask(bench.socket, get("/x"))
        assert passed == []
        await ask(bench.socket, post("/x"))
        assert passed == [
            "client.receive.before",
            "client.receive.after",
            "client.send.before",
            "client.send.after",
        ]

    check(tmp_path, talk, bench=Bench(tmp_path, echo, reach=passed.append))


def test_refusals_beyond_the_limit_are_counted_also_by_a_broker_that_ends(tmp_path: Path) -> None:
    """The last response names its summary record, and is sent at once when the broker ends."""
    asked = asyncio.Event()
    told: list[bytes] = []

    def refusing(request: Request, state: GateState) -> Steps:
        asked.set()
        return (yield from handle(request, state))

    limits = ServerLimits(records=Limit(per_s=0, burst=1, summary_s=3600))
    bench = Bench(tmp_path, refusing, limits=limits)

    async def test() -> None:
        async with bench.serving():
            assert rule_of(await ask(bench.socket, post("/commit"))) == "403 route.denied"
            asked.clear()
            last = asyncio.ensure_future(ask(bench.socket, post("/commit")))
            await asked.wait()
        told.append(await last)

    run(test())
    (summary,) = bench.recorded("summary")
    assert len(bench.recorded("refusal")) == 1
    assert summary.entry.result["counts"] == {"route.denied": 1}
    assert rule_of(told[0]) == "403 route.denied"
    assert json.loads(body_of(told[0]))["trimtab"]["id"] == summary.entry.id


def test_few_large_answers_are_made_at_a_time_and_small_ones_beside_them(tmp_path: Path) -> None:
    """A slot is in use until the client has read its answer."""
    running = 0
    most: list[int] = []
    go_on = asyncio.Event()

    async def slow(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal running
        running += 1
        most.append(running)
        await go_on.wait()
        running -= 1
        writer.write(told(200, []))

    def listed(request: Request, _state: GateState) -> Steps:
        if request.path.endswith("/_ping"):
            yield from ()
            return Reply(200)
        yield ReadEngine("/list")
        return Reply(200, b"x" * 1_000_000)

    async def talk(bench: Bench) -> None:
        bench.engine.answers["GET /v1.45/list"] = slow
        lists = [
            asyncio.ensure_future(ask(bench.socket, get("/v1.45/containers/json")))
            for _ in range(12)
        ]
        for _ in range(2):
            await bench.engine.arrivals.get()
        assert status_of(await ask(bench.socket, get("/_ping"))) == 200
        assert running == 2
        go_on.set()
        assert [status_of(each) for each in await asyncio.gather(*lists)] == [200] * 12
        assert max(most) == 2

    answers = {"operator": Share(4, 2)}
    check(tmp_path, talk, bench=Bench(tmp_path, listed, ServerLimits(answers=answers)))


def test_who_reads_no_answer_gets_no_more_of_them_than_its_share(tmp_path: Path) -> None:
    def listed(_request: Request, _state: GateState) -> Steps:
        yield from ()
        return Reply(200, b"x" * 8_000_000)

    async def talk(bench: Bench) -> None:
        connections = []
        for _ in range(2):
            reader, writer = await asyncio.open_unix_connection(bench.socket, limit=1024)
            writer.write(get("/v1.45/volumes"))
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            connections.append(writer)
        found = await ask(bench.socket, get("/v1.45/networks"))
        assert rule_of(found) == "503 broker.busy"
        for writer in connections:
            writer.close()
        assert status_of(await ask(bench.socket, get("/v1.45/networks"))) == 200

    limits = ServerLimits(answers={"operator": Share(4, 2)}, wait_s=0.5)
    check(tmp_path, talk, bench=Bench(tmp_path, listed, limits))
