"""The broker process: start, identity of the engine, policy, end."""

import asyncio
import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from controller.broker.gate.commands import (
    Command,
    CommandResult,
    Forward,
    ReadEngine,
    Relay,
    WriteRecord,
)
from controller.broker.gate.state import GateState
from controller.broker.server import background_tasks
from controller.broker.server.server import ServerLimits
from controller.journal.store.reader import records
from controller.model.errors import PolicyInvalid, StateError
from controller.model.policy.document import Policy
from controller.model.records import Reply, Request
from controller.system.systemd import ServiceManager
from tests.unit.broker.engine_side import told
from tests.unit.broker.serving import (
    STRICT,
    Bench,
    TestClock,
    ask,
    entry,
    get,
    post,
    run,
    status_of,
)

Steps = Generator[Command, CommandResult, Reply | Relay]


def ok(_request: Request, state: GateState) -> Steps:
    yield from ()
    return Reply(200, state.policy.name.encode())


def served(bench: Bench) -> None:
    """Serve one request."""

    async def test() -> None:
        async with bench.serving():
            assert status_of(await ask(bench.socket, get("/x"))) == 200

    run(test())


# Serving and ending


class Hurried(TestClock):
    """A clock that advances by a second at each reading."""

    def monotonic(self) -> float:
        self.ahead += 1
        return super().monotonic()


def test_after_its_end_nothing_of_the_broker_is_left_but_its_books(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ok)
    served(bench)
    assert not bench.socket.exists()
    assert sorted(path.name for path in (tmp_path / "broker").iterdir()) == [
        "index.sqlite",
        "index.sqlite.lock",
        "inventory.json",
        "journal",
        "lock",
    ]
    with (tmp_path / "broker" / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    served(bench)
    policies = [record.entry.verdict for record in bench.recorded("policy")]
    assert policies == [{"policy": STRICT.digest}] * 2


def test_a_manager_waits_as_long_as_the_journal_is_read(tmp_path: Path) -> None:
    """A start without READY is ended after a while, but not one that goes on reading."""
    bench = Bench(tmp_path, ok)
    served(bench)
    (tmp_path / "broker" / "inventory.json").unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(5)
        environ = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        bench.manager = ServiceManager(environ, pid=1, monotonic=bench.clock.monotonic)
        served(bench)
        first = manager.recv(4096).decode().splitlines()
        assert [each.partition("=")[0] for each in first] == ["EXTEND_TIMEOUT_USEC", "STATUS"]
        assert first[1].startswith("STATUS=reading the journal")
        while manager.recv(4096) != b"READY=1":
            pass


def test_a_broker_that_still_reads_its_journal_ends_and_loses_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ok)
    served(bench)
    (tmp_path / "broker" / "inventory.json").unlink()
    before = list(records(bench.journal))

    async def test() -> None:
        stop = asyncio.Event()
        stop.set()
        await bench.broker().serve(stop)

    run(test())
    assert list(records(bench.journal)) == before
    assert not (tmp_path / "broker" / "inventory.json").exists()
    served(bench)
    assert list(records(bench.journal))[: len(before)] == before


def test_the_broker_ends_with_streams_open_and_answers_due(tmp_path: Path) -> None:
    """Streams are cut, idle clients are disconnected, and a mutation gets its response."""
    released = asyncio.Event()

    async def slow(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await released.wait()
        writer.write(told(200, 1))

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await reader.read()

    def handle(request: Request, _state: GateState) -> Steps:
        if request.method == "GET":
            return Relay("GET", "/events")
        yield WriteRecord(entry(1))
        answer = yield Forward("POST", "/slow")
        assert isinstance(answer, Reply)
        yield WriteRecord(entry(1, "outcome"))
        return answer

    bench = Bench(tmp_path, handle)
    bench.engine.answers = {"POST /v1.45/slow": slow, "GET /v1.45/events": silent}

    async def test() -> None:
        async with bench.serving():
            idle, idle_writer = await asyncio.open_unix_connection(bench.socket)
            stream = asyncio.ensure_future(ask(bench.socket, get("/events")))
            mutation = asyncio.ensure_future(ask(bench.socket, post("/slow")))
            for _ in range(2):
                await bench.engine.arrivals.get()
            bench.stop.set()
            assert await idle.read() == b""
            assert status_of(await stream) == 200
            assert not mutation.done()
            released.set()
            assert status_of(await mutation) == 200
            idle_writer.close()

    run(test())
    assert len(bench.recorded("outcome")) == 1


def test_what_isn_t_answered_within_the_grace_is_left_to_recovery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background_tasks, "FIRST_PAUSE_S", 0.001)

    async def hang(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    def handle(_request: Request, _state: GateState) -> Steps:
        yield WriteRecord(entry(1, request={"route": "container.kill", "object": "x"}))
        yield Forward("POST", "/hang")
        return Reply(200)

    bench = Bench(tmp_path, handle, limits=ServerLimits(grace_s=0.1))
    bench.engine.answers = {"POST /v1.45/hang": hang}

    async def test() -> None:
        async with bench.serving():
            mutation = asyncio.ensure_future(ask(bench.socket, post("/x")))
            await bench.engine.arrivals.get()
            bench.stop.set()
            assert await mutation == b""

    run(test())
    assert bench.recorded("outcome", "recovered") == []
    later = Bench(tmp_path, ok)

    async def recovered() -> None:
        async with later.serving() as broker:
            # What the engine may still be doing has its deadline, counted from the broker's start.
            later.clock.ahead = 3600
            while broker.state.inventory.open:
                await asyncio.to_thread(later.recorded, "recovered")

    run(recovered())
    assert [record.entry.id for record in later.recorded("recovered")] == [entry(1).id]


def test_a_second_broker_is_refused_while_the_first_one_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, ok)

    async def test() -> None:
        async with bench.serving():
            second = Bench(tmp_path, ok, clock=Hurried())
            with pytest.raises(StateError) as caught:
                await second.broker().serve(asyncio.Event())
            assert caught.value.code == "state.held"
            assert status_of(await ask(bench.socket, get("/x"))) == 200

    run(test())


def test_an_engine_that_is_away_doesn_t_keep_the_broker_from_serving(tmp_path: Path) -> None:
    def look(_request: Request, state: GateState) -> Steps:
        yield ReadEngine("/_ping")
        return Reply(200, state.engine.engine_id.encode())

    bench = Bench(tmp_path, look)

    async def test() -> None:
        ready = asyncio.Event()
        task = asyncio.ensure_future(bench.broker().serve(bench.stop, ready=ready))
        await ready.wait()
        assert (await ask(bench.socket, get("/x"))).endswith(b"\r\n\r\n")
        async with bench.engine.serving():
            assert (await ask(bench.socket, get("/x"))).endswith(b"\r\n\r\nengine-1")
        bench.stop.set()
        await task

    run(test())
    assert bench.known_engines == ["engine-1"]


def test_the_state_of_another_engine_is_refused(tmp_path: Path) -> None:
    def bind(engine_id: str) -> None:
        raise StateError("state.other-engine", f"not {engine_id}")

    bench = Bench(tmp_path, ok, bind_engine=bind)

    async def test() -> None:
        async with bench.engine.serving():
            with pytest.raises(StateError) as caught:
                await bench.broker().serve(bench.stop)
            assert caught.value.code == "state.other-engine"

    run(test())
    assert not bench.socket.exists()
    served(Bench(tmp_path, ok))


# The policy


def test_a_policy_that_is_wrong_at_the_start_ends_the_broker(tmp_path: Path) -> None:
    def load() -> Policy:
        raise PolicyInvalid("policy.invalid", "strict.yaml:3: what is this")

    with pytest.raises(PolicyInvalid):
        Bench(tmp_path, ok, load_policy=load).broker()


def test_what_a_policy_is_wrong_in_is_recorded_escaped_and_cut(tmp_path: Path) -> None:
    """Otherwise a name with invalid Unicode, or an endless name, would end the reload."""
    wrong = ("\x1b[2J\u202e", "\ud800", "x" * 2 * 1024 * 1024)
    policies: list[Policy | PolicyInvalid] = [Policy(name="good")]
    policies += [PolicyInvalid("policy.invalid", each) for each in wrong]

    def load() -> Policy:
        found = policies.pop(0)
        if isinstance(found, PolicyInvalid):
            raise found
        return found

    bench = Bench(tmp_path, ok, load_policy=load)

    async def test() -> None:
        async with bench.serving():
            for count in (1, 2, 3, 4):
                while len(bench.recorded("policy")) < count:
                    await asyncio.to_thread(bench.recorded, "policy")
                if policies:
                    bench.reload.set()

    run(test())
    said = [str(r.entry.result["error"]) for r in bench.recorded("policy")]
    assert said[:3] == ["", "policy.invalid: \\u001b[2J\\u202e", "policy.invalid: \\ud800"]
    assert len(said[3]) < 600


def test_a_reload_takes_a_good_policy_and_keeps_the_last_one_before_a_bad_one(
    tmp_path: Path,
) -> None:
    policies: list[Policy | PolicyInvalid] = [
        Policy(name="first"),
        Policy(name="second"),
        PolicyInvalid("policy.invalid", "strict.yaml:3: what is this\nstrict.yaml:4: \x1b"),
        Policy(name="third"),
    ]

    def load() -> Policy:
        found = policies.pop(0)
        if isinstance(found, PolicyInvalid):
            raise found
        return found

    bench = Bench(tmp_path, ok, load_policy=load)
    said: list[tuple[str, str]] = []

    async def test() -> None:
        async with bench.serving() as broker:
            for count in (1, 2, 3, 4):
                while len(bench.recorded("policy")) < count:
                    await asyncio.to_thread(bench.recorded, "policy")
                said.append((broker.state.policy.name, broker.state.health.policy_error))
                bench.reload.set()

    policies.append(Policy(name="fourth"))
    run(test())
    error = "policy.invalid: strict.yaml:3: what is this\nstrict.yaml:4: \\u001b"
    assert said == [("first", ""), ("second", ""), ("second", error), ("third", "")]
    records = [(r.entry.request["object"], r.entry.result) for r in bench.recorded("policy")][:4]
    assert records == [
        ("first", {"error": ""}),
        ("second", {"error": ""}),
        ("second", {"error": error.replace("\n", "\\u000a")}),
        ("third", {"error": ""}),
    ]


# Signals and the lifeline, on a process of its own

SERVE = """
import sys
from pathlib import Path
from tests.unit.broker.serving import Bench, STRICT
from tests.unit.broker.server.test_server import ok
bench = Bench(Path(sys.argv[1]), ok, load_policy=lambda: print("loaded", flush=True) or STRICT)
bench.broker().run(lifeline=int(sys.argv[2]) if sys.argv[2] else None)
print("ended", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT, None])
def test_signals_and_the_parent_s_end_are_heeded(
    tmp_path: Path, end: signal.Signals | None
) -> None:
    read_end, write_end = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(tmp_path), str(read_end)],
        cwd=Path(__file__).parents[4],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        pass_fds=[read_end],
        text=True,
    )
    os.close(read_end)
    assert process.stdout is not None
    with process.stdout as said:
        assert said.readline() == "loaded\n"
        # Signals before the handlers are there would end it: it serves once it answers.
        path = tmp_path / "run" / "broker.sock"
        while True:
            with socket.socket(socket.AF_UNIX) as client:
                if client.connect_ex(str(path)) == 0:
                    break
        process.send_signal(signal.SIGHUP)
        assert said.readline() == "loaded\n"
        if end is None:
            os.close(write_end)
        else:
            process.send_signal(end)
        assert said.readline() == "ended\n"
    assert process.wait(10) == 0
    if end is not None:
        os.close(write_end)
    assert not path.exists()
