"""Streams on a real engine: nothing cuts them but their ends, and nothing piles up behind them."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from controller.broker.engine.client import IDLE_MAX
from controller.broker.server.connection import ConnectionTimeouts
from controller.broker.server.server import ServerLimits
from controller.core.policy.text import load_policy
from tests.compat.world import DEVELOPMENT, IMAGE, Broker, development_policy
from tests.gate import wire
from tests.instance import eventually
from tests.served import served

if TYPE_CHECKING:
    from tests.engine import FoundEngine, PrivateEngine

#: Shorter than what is quiet here.
HURRY = ConnectionTimeouts(head_s=0.3, body_s=0.3, idle_s=0.3, write_s=0.3, linger_s=0.3)
QUIET_S = 2
UPGRADE: dict[str, str | None] = {"Connection": "Upgrade", "Upgrade": "tcp"}
LINE = "x" * 8000
#: What a broker may grow by while it relays: buffers, not what is relayed.
GROWTH_KIB = 24 * 1024
#: Far more than that; the engine takes a second of processor time for each 20 MB.
MANY = 72_000_000
PIPE = "busybox yes {line} | busybox head -c {size}"


class Caller:
    """An operator who speaks HTTP by hand, and reads when it wants to."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(
        self,
        method: str,
        target: str,
        body: object = None,
        headers: Any = None,
        *,
        after: bytes = b"",
    ) -> socket.socket:
        """Send a request, with what else is to follow it at once; return its connection."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(wire.ANSWER_S)
        connection.connect(str(self.path))
        sent = None if body is None else json.dumps(body).encode()
        request = wire.request(method, f"/v1.45{target}".encode(), sent, headers)
        connection.sendall(request + after)
        return connection

    def ask(self, method: str, target: str, body: object = None) -> wire.Answer:
        """Send a request, and return its answer."""
        with self.open(method, target, body) as connection:
            return wire.read(connection)

    def must(self, method: str, target: str, body: object = None) -> Any:
        """Ask for what must be had, and return it."""
        answer = self.ask(method, target, body)
        assert answer.good, answer
        return answer.json

    def create(self, command: str, *, host: dict[str, Any] | None = None, **more: object) -> str:
        """Create a container that runs a line of the shell; return its id.

        It has no network: two brokers of one policy would want networks of the same names.
        """
        settings = {"NetworkMode": "none", **(host or {})}
        body = {"Image": IMAGE, "Cmd": ["sh", "-c", command], "HostConfig": settings, **more}
        return str(self.must("POST", "/containers/create", body)["Id"])

    def start(self, identifier: str) -> None:
        """Start it."""
        self.must("POST", f"/containers/{identifier}/start")


def head_of(connection: socket.socket) -> bytes:
    """Return the head of an answer, byte by byte: what follows stays unread."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        part = connection.recv(1)
        assert part, head
        head += part
    return head


def to_the_end(connection: socket.socket) -> bytes:
    """Return all that comes until the broker closes the connection."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(1024 * 1024):
            parts.append(part)
    return b"".join(parts)


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="trimtab-streams-", dir="/var/tmp"))
    yield made
    shutil.rmtree(made)


@contextlib.contextmanager
def opened(engine: PrivateEngine | FoundEngine) -> Iterator[Broker]:
    """A broker; what was made through it is removed at the end."""
    made_in = Path(tempfile.mkdtemp(prefix="trimtab-streams-", dir="/var/tmp"))
    made = Broker(made_in, engine=engine.host, policy=development_policy())
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.end()
        remove(engine, made, "container", "network")
        shutil.rmtree(made_in)


def remove(engine: PrivateEngine | FoundEngine, broker: Broker, *kinds: str) -> None:
    """Remove a broker's objects of some kinds, past the broker."""
    instance = json.loads((broker.log.parent / "state" / "instance.json").read_text())["id"]
    mine = f"label=io.trimtab.instance={instance}"
    for kind in kinds:
        options = ["-a"] if kind == "container" else []
        found = engine.docker(kind, "ls", "-q", *options, "--filter", mine).stdout.split()
        if found:
            engine.docker(kind, "rm", *(["-f"] if kind == "container" else []), *found)


@pytest.fixture(scope="module")
def lasting(engine: PrivateEngine | FoundEngine) -> Iterator[Broker]:
    with opened(engine) as made:
        yield made


@pytest.fixture
def broker(engine: PrivateEngine | FoundEngine, lasting: Broker) -> Iterator[Broker]:
    """The broker of all tests that leave it running, without the containers of the others."""
    yield lasting
    remove(engine, lasting, "container")


@pytest.fixture
def caller(broker: Broker) -> Caller:
    return Caller(broker.socket)


def test_a_stream_may_be_quiet_for_longer_than_anything_else_may_take(
    engine: PrivateEngine | FoundEngine, folder: Path
) -> None:
    policy = load_policy(DEVELOPMENT.read_text(), str(DEVELOPMENT))
    limits = ServerLimits(timeouts=HURRY)
    with served(engine, folder / "b", policy=policy, limits=limits) as path:
        caller = Caller(path)
        made = caller.create(f"sleep {QUIET_S}; echo said", StopTimeout=1)
        attached = caller.open(
            "POST", f"/containers/{made}/attach?stream=1&stdout=1", None, UPGRADE
        )
        assert head_of(attached).startswith(b"HTTP/1.1 101 ")
        about = "%7B%22container%22%3A%5B%22" + made + "%22%5D%2C%22event%22%3A%5B%22die%22%5D%7D"
        events = caller.open("GET", f"/events?filters={about}")
        caller.start(made)
        logs = caller.open("GET", f"/containers/{made}/logs?follow=1&stdout=1")
        wait = caller.open("POST", f"/containers/{made}/wait")
        for stream in (events, logs, wait):
            assert head_of(stream).startswith(b"HTTP/1.1 200 ")
        assert b"said\n" in to_the_end(attached)
        assert wire.dechunked(logs.recv(64))[8:] == b"said\n"
        assert b'"StatusCode":0' in wait.recv(4096)
        assert b'"die"' in events.recv(4096)
        for stream in (attached, events, logs, wait):
            stream.close()


@pytest.mark.needs_root
def test_behind_a_slow_reader_nothing_piles_up(broker: Broker, caller: Caller) -> None:
    made = caller.create(
        PIPE.format(line=LINE, size=MANY),
        host={"LogConfig": {"Type": "json-file", "Config": {"max-size": "100m"}}},
    )
    attached = caller.open("POST", f"/containers/{made}/attach?stream=1&stdout=1", None, UPGRADE)
    assert head_of(attached).startswith(b"HTTP/1.1 101 ")
    before = broker.memory_kib
    caller.start(made)
    # Nobody reads: the program in the container is held up once all buffers are full.
    eventually(lambda: _stands_still(broker), what="a broker that waits for its client")
    assert caller.must("GET", f"/containers/{made}/json")["State"]["Running"] is True
    seen, most = 0, broker.memory_kib
    with attached:
        while part := attached.recv(1024 * 1024):
            seen += len(part)
            most = max(most, broker.memory_kib)
    assert seen >= MANY
    assert most - before < GROWTH_KIB, f"{before} KiB grew to {most} KiB"
    # One way, from what was logged.
    logs = caller.open("GET", f"/containers/{made}/logs?stdout=1")
    assert head_of(logs).startswith(b"HTTP/1.1 200 ")
    eventually(lambda: _stands_still(broker), what="a broker that waits for its client")
    assert broker.memory_kib - before < GROWTH_KIB
    logs.close()


def _stands_still(broker: Broker) -> bool:
    """Tell whether it neither ran nor was about to, between two looks."""
    before = _turns(broker)
    with contextlib.suppress(subprocess.TimeoutExpired):
        broker.process.wait(0.3)  # the time between the looks; it doesn't end
    return _turns(broker) - before <= 3  # its own once-a-second chores


def _turns(broker: Broker) -> int:
    status = Path(f"/proc/{broker.process.pid}/status").read_text()
    return sum(
        int(n)
        for n in re.findall(r"^(?:non)?voluntary_ctxt_switches:\s+(\d+)", status, re.MULTILINE)
    )


@pytest.mark.needs_root
def test_without_101_no_byte_is_taken_for_the_stream_s(broker: Broker, caller: Caller) -> None:
    smuggled = wire.request("GET", b"/v1.45/containers/json")
    attach = "/containers/nosuch/attach?stream=1"
    # In one piece: the broker may have hung up before a second one comes.
    with caller.open("POST", attach, None, UPGRADE, after=smuggled) as connection:
        said = to_the_end(connection)
    assert said.startswith(b"HTTP/1.1 404 ")
    assert said.count(b"HTTP/1.1") == 1


@pytest.mark.needs_root
def test_the_engine_sees_at_once_that_a_client_left(
    engine: PrivateEngine | FoundEngine, broker: Broker, caller: Caller
) -> None:
    def held() -> int:
        # The engine's ends: they lie in the network namespace of who connected, which is ours.
        table = Path("/proc/net/unix").read_text()
        return len(re.findall(rf" 03 +\d+ {re.escape(str(engine.socket))}$", table, re.MULTILINE))

    eventually(held, what="the broker's own following of events")
    streams = [caller.open("GET", "/events") for _ in range(20)]
    for each in streams:
        assert head_of(each).startswith(b"HTTP/1.1 200 ")
    assert held() > 20
    for each in streams:
        each.close()
    # What the broker keeps for itself comes and goes: some for requests, and one that follows events.
    eventually(lambda: held() <= IDLE_MAX + 1, what="the engine's connections closed")


@pytest.mark.needs_root
def test_the_broker_stops_within_its_grace_with_fifty_streams_open(
    engine: PrivateEngine | FoundEngine,
) -> None:
    with opened(engine) as broker:
        caller = Caller(broker.socket)
        made = caller.create("sleep 600")
        caller.start(made)
        targets = ("/events", f"/containers/{made}/logs?follow=1&stdout=1")
        streams = [caller.open("GET", targets[number % 2]) for number in range(50)]
        for each in streams:
            assert head_of(each).startswith(b"HTTP/1.1 200 ")
        assert broker.end() < 5
        for each in streams:
            assert not to_the_end(each).endswith(b"0\r\n\r\n"), "a cut stream doesn't look whole"
            each.close()


@pytest.mark.owns_engine
@pytest.mark.parametrize("how", ["kill", "stop"])
def test_an_engine_that_restarts_ends_streams_visibly_and_is_served_again(
    engine: PrivateEngine, broker: Broker, caller: Caller, how: str
) -> None:
    made = caller.create("sleep 600", host={"Init": True})
    caller.start(made)
    streams = [caller.open("GET", "/events") for _ in range(3)]
    attached = caller.open("POST", f"/containers/{made}/attach?stream=1&stdout=1", None, UPGRADE)
    for each in (*streams, attached):
        head_of(each)
    engine.kill() if how == "kill" else engine.stop()
    try:
        for each in streams:
            assert not to_the_end(each).endswith(b"0\r\n\r\n"), "a broken stream doesn't look whole"
        to_the_end(attached)
        away = caller.ask("GET", "/containers/json")
        assert (away.status, away.rule) == (502, "engine.unavailable")
    finally:
        engine.start()
    # No grace, no pause: the next request asks the engine that answers now.
    assert [each["Id"] for each in caller.must("GET", "/containers/json?all=1")] == [made]
    with caller.open("GET", "/events") as events:
        assert head_of(events).startswith(b"HTTP/1.1 200 ")
        caller.start(caller.create("true"))
    for each in (*streams, attached):
        each.close()
