"""A broker for tests: a real socket, a real journal, a fake engine, and any gate."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from controller.broker.server.connection import HandleRequest
from controller.broker.server.server import Broker, BrokerPaths, HostServices, ServerLimits
from controller.journal.index.queries import LiveIndex
from controller.journal.store.reader import records
from controller.journal.writer.checkpointer import Checkpointer, KeyFiles, SigningKeys
from controller.journal.writer.writer_thread import Writer
from controller.model.crashpoints import Reach, pass_by
from controller.model.policy.document import Policy
from controller.model.records import Entry, Record, Stage
from controller.ports import NewId
from controller.system.systemd import ServiceManager, without_manager
from tests.unit.broker.engine_side import EngineSide

CONTROLLER = 54321
STRICT = Policy(name="test")


class TestClock:
    """Real time plus an offset set by the test."""

    __test__ = False

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> float:
        return 1_800_000_000.0 + self.monotonic()

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


def ids() -> Callable[[], str]:
    """Return a function that returns consecutive UUIDv7s."""
    numbers = itertools.count(1)
    return lambda: f"00000000-0000-7000-8000-{next(numbers):012x}"


def entry(number: int, stage: Stage = "intent", **parts: dict[str, object]) -> Entry:
    """Return an entry with an id of a separate range."""
    return Entry(f"00000000-0000-7000-9000-{number:012x}", stage, **parts)


@dataclass
class Bench:
    """The parts of a server test."""

    root: Path
    handle: HandleRequest
    limits: ServerLimits = field(default_factory=ServerLimits)
    policy: Policy = STRICT
    clock: TestClock = field(default_factory=TestClock)
    reach: Reach = pass_by
    group: int | None = None
    known_engines: list[str] = field(default_factory=list)
    load_policy: Callable[[], Policy] | None = None
    bind_engine: Callable[[str], None] | None = None
    signed: bool = False  # the journal is
    registry_auth: Path | None = None
    manager: ServiceManager = field(default_factory=without_manager)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    reload: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.engine = EngineSide(self.root / "engine.sock")
        self.socket = self.root / "run" / "broker.sock"
        self.journal = self.root / "broker" / "journal"
        self.journal.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.journal.chmod(0o700)

    def broker(self) -> Broker:
        """Create a broker on the present journal."""
        new_id = ids()
        services = HostServices(
            clock=self.clock,
            new_id=new_id,
            load_policy=self.load_policy or (lambda: self.policy),
            open_journal=lambda: Writer(
                self.journal,
                clock=self.clock,
                new_id=new_id,
                reach=self.reach,
                checkpointer=self._checkpointer(new_id) if self.signed else None,
            ),
            open_archive=lambda journal: LiveIndex(
                self.journal, durable=lambda: journal.last_seq, clock=self.clock
            ),
            bind_engine=self.bind_engine or self.known_engines.append,
            reach=self.reach,
            manager=self.manager,
        )
        places = BrokerPaths(
            state=self.root,
            socket=self.socket,
            policy=self.root / "policy.yaml",
            engine=f"unix://{self.engine.path}",
            registry_auth=self.registry_auth,
        )
        return Broker(
            places,
            instance="test",
            controller_uid=CONTROLLER,
            group=self.group,
            handle=self.handle,
            services=services,
            limits=self.limits,
        )

    def _checkpointer(self, new_id: NewId) -> Checkpointer:
        files = KeyFiles(
            self.root / "broker" / "journal.key",
            self.root / "journal.pub",
            self.root / "journal.checkpoint",
        )
        keys = SigningKeys(files, name="trimtab/test", new_seed=lambda: os.urandom(32))
        return Checkpointer(keys, origin="trimtab/test", clock=self.clock, new_id=new_id)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Broker]:
        """Serve during the block, then stop the broker and wait for its end."""
        self.stop, self.reload = asyncio.Event(), asyncio.Event()
        broker = self.broker()
        async with self.engine.serving():
            ready = asyncio.Event()
            serving = broker.serve(self.stop, reload=self.reload, ready=ready)
            task = asyncio.ensure_future(serving)
            waiting = asyncio.ensure_future(ready.wait())
            try:
                await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
                if ready.is_set():
                    yield broker
            finally:
                waiting.cancel()
                self.stop.set()
                await task

    def recorded(self, *stages: str) -> list[Record]:
        """Return the journal's records of these stages."""
        return [record for record in records(self.journal) if record.entry.stage in stages]


def run(test: Awaitable[None], *, within_s: float = 20) -> None:
    """Run a test's coroutine with a timeout."""

    async def bounded() -> None:
        await asyncio.wait_for(test, within_s)

    asyncio.run(bounded())


async def until(condition: Callable[[], bool]) -> None:
    """Wait until *condition* returns True. ``run`` has the timeout."""
    while True:
        if condition():
            return
        await asyncio.sleep(0.005)


async def ask(path: Path, raw: bytes, *, half_close: bool = False) -> bytes:
    """Send bytes over a new connection, and return all received bytes."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(raw)
        await writer.drain()
        if half_close:
            writer.write_eof()
        return await reader.read()
    finally:
        writer.close()


def get(path: str, *headers: str, method: str = "GET") -> bytes:
    """Return a request without a body that closes the connection."""
    lines = (f"{method} {path} HTTP/1.1", "Host: d", "Connection: close", *headers, "", "")
    return "\r\n".join(lines).encode()


def post(path: str, body: bytes = b"", *headers: str, connection: str = "close") -> bytes:
    """Return a request with a body."""
    lines = (
        f"POST {path} HTTP/1.1",
        "Host: d",
        f"Connection: {connection}",
        f"Content-Length: {len(body)}",
        *headers,
        "",
        "",
    )
    return "\r\n".join(lines).encode() + body


def status_of(answer: bytes) -> int:
    """Return the status of a response, 0 for no response."""
    return int(answer.split(b" ", 2)[1]) if answer else 0


def body_of(answer: bytes) -> bytes:
    """Return a response's body, chunked or not."""
    head, _, body = answer.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" not in head.lower():
        return body
    whole = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        whole, body = whole + body[:length], body[length + 2 :]
    return whole


def rule_of(answer: bytes) -> str:
    """Return ``STATUS RULE`` of a refusal."""
    return f"{status_of(answer)} {json.loads(body_of(answer))['trimtab']['rule']}"
