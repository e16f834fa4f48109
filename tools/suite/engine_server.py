"""The simulated engine behind a Unix socket, for hosts larger than a machine can run.

Run as ``python -m tools.suite.engine_server SOCKET``. Besides the Engine API, routes below
``/bench/`` clone a container many times, emit a storm of events, and time the reaction to a removal.

Latency is that of a real engine (dockerd 26.1, overlay2, two cores): 0.3 ms for an inspect, 20 ms for
a mutation; the list takes longer here than on a real engine.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import sys
import time
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl

from tests.sim import filters
from tests.sim.clock import VirtualClock
from tests.sim.engine import _EVENT_FILTERS, SimEngine, _event_matches
from tests.sim.ground import LOCAL
from tests.sim.objects import Body, SimContainer

READ_S: Final = 0.0003
MUTATION_S: Final = 0.02
#: By how much a timer of asyncio can be late.
TIMER_S: Final = 0.001
#: Larger than any process id of the host: the kernel shows nobody there.
PIDS: Final = 2**22
#: The longest wait for the reaction to a removal.
REACT_S: Final = 30.0
#: A storm's events come in bursts, one each tick.
TICK_S: Final = 0.01
#: Unsent bytes of a subscriber beyond which events are dropped.
BUFFER_MAX: Final = 1 << 20
#: Stands for an event's time while its text is prepared.
TIME_MARK: Final = 1_234_567_890_123_456_789
_LENGTH: Final = re.compile(rb"(?i)\r\ncontent-length: *([0-9]+)")


class HostClock(VirtualClock):
    """The host's clock in the form of the simulation's."""

    def now(self) -> float:
        return time.time()  # noqa: TID251 - events carry the host's time

    def monotonic(self) -> float:
        return time.monotonic()

    def advance(self, seconds: float) -> None:
        """The host's time passes by itself."""


class BenchEngine(SimEngine):
    """The simulated engine on the host's clock, with subscribers to its events.

    As a real engine, it finds a container by its name without a search through all of them.
    """

    def __init__(self) -> None:
        self.subscribers: dict[asyncio.StreamWriter, filters.Filters] = {}
        #: The containers by name. An entry of a removed or renamed container is ignored.
        self._named: dict[str, SimContainer] = {}
        super().__init__(HostClock(), images=LOCAL)
        self._count = PIDS

    def find(self, reference: str) -> SimContainer | None:
        """Return a container by its full id or its name."""
        if reference in self.containers:
            return self.containers[reference]
        name = reference.removeprefix("/")
        found = self._named.get(name)
        is_current = found is not None and found.id in self.containers and found.name == name
        return found if is_current else None

    def _event(self, kind: str, action: str, container: SimContainer, **more: str) -> None:
        if action in {"create", "rename"}:
            self._named[container.name] = container
        super()._event(kind, action, container, **more)

    def _refuse_taken(self, name: str) -> None:
        if self.find(name) is not None:
            super()._refuse_taken(name)

    def _bind_ports(self, container: SimContainer) -> None:
        if self._bindings(container):
            super()._bind_ports(container)

    def _event_of(self, kind: str, action: str, subject: str, attributes: Body) -> None:
        super()._event_of(kind, action, subject, attributes)
        self.publish(self.events[-1])

    def publish(self, event: Body) -> None:
        """Send an event to the subscribers."""
        line = json.dumps(event).encode() + b"\n"
        chunk = b"%x\r\n%b\r\n" % (len(line), line)
        for writer, wanted in self.subscribers.items():
            if _event_matches(event, dict(wanted)):
                writer.write(chunk)

    def clone(self, template: str, rows: list[Mapping[str, str]]) -> None:
        """Add a container for each row: id, name and labels differ from the template's."""
        like = self.containers[template]
        for row in rows:
            made = copy(like)
            made.id, made.name = row["id"], row["name"]
            labels = {**like.config["Labels"], **{k: row[k] for k in row if k.startswith("io.")}}
            made.config = {**like.config, "Labels": labels, "Hostname": made.id[:12]}
            made.networks = {name: copy(end) for name, end in like.networks.items()}
            self.containers[made.id] = self._named[made.name] = made


class Server:
    """Connections to one engine, and the routes of the bench."""

    def __init__(self, engine: BenchEngine) -> None:
        self._engine = engine
        self._arrival: asyncio.Future[float] | None = None
        self._storm: dict[str, float] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = _LENGTH.search(head)
                body = await reader.readexactly(int(length[1])) if length else b""
                method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
                await self._answer(method, target, body, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._engine.subscribers.pop(writer, None)
            writer.close()

    async def _answer(
        self, method: str, target: str, body: bytes, writer: asyncio.StreamWriter
    ) -> None:
        path, _, query = target.partition("?")
        if path.endswith("/events") and "until" not in query:
            self._subscribe(query, writer)
            return
        if path.startswith("/bench/"):
            status, content = 200, json.dumps(await self._bench(path, json.loads(body or b"{}")))
            answer = content.encode()
        else:
            if method in {"POST", "DELETE"} and self._arrival and not self._arrival.done():
                self._arrival.set_result(time.monotonic())
            await _pass(READ_S if method in {"GET", "HEAD"} else MUTATION_S)
            status, answer = self._engine.call(method, target, body or None)
        sent = b"" if method == "HEAD" else answer
        length = b"" if status in {204, 304} else b"Content-Length: %d\r\n" % len(answer)
        head = b"HTTP/1.1 %d OK\r\nApi-Version: 1.45\r\nContent-Type: application/json\r\n%b\r\n"
        writer.write(head % (status, length) + sent)
        await writer.drain()

    def _subscribe(self, query: str, writer: asyncio.StreamWriter) -> None:
        told = dict(parse_qsl(query))
        self._engine.subscribers[writer] = filters.read(told.get("filters", ""), _EVENT_FILTERS)
        head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked"
        writer.write(f"{head}\r\n\r\n".encode())

    async def _bench(self, path: str, asked: dict[str, Any]) -> Any:
        match path:
            case "/bench/clone":
                self._engine.clone(asked["template"], asked["rows"])
                return {}
            case "/bench/remove":
                return {"reacted_s": await self._remove(asked["id"])}
            case "/bench/storm":
                return await self._blow(asked["rate"], asked["seconds"], asked["removed"])
            case "/bench/state":
                states = [each.running for each in self._engine.containers.values()]
                return {"containers": len(states), "running": sum(states)}
            case _:
                raise AssertionError(f"no such route: {path}")

    async def _remove(self, container: str) -> float | None:
        """Remove a container; return the seconds until the first mutation arrives, None for never."""
        self._arrival = asyncio.get_running_loop().create_future()
        began = time.monotonic()
        self._engine.call("DELETE", f"/containers/{container}?force=1")
        try:
            async with asyncio.timeout(REACT_S):
                return await self._arrival - began
        except TimeoutError:
            return None

    async def _blow(self, rate: int, seconds: float, removed: int) -> dict[str, float]:
        """Emit events of random containers; remove some of them in the last second."""
        dice = random.Random(0)  # noqa: S311 - which containers
        everything = list(self._engine.containers.values())
        victims = dice.sample(everything, removed)
        storm = Storm(self._engine, everything)
        began, used = time.monotonic(), time.process_time()
        while (passed := time.monotonic() - began) < seconds:
            # A generator that falls behind must not catch up in one long burst.
            due = min(int(rate * passed) - storm.sent, int(2 * rate * TICK_S))
            storm.emit(dice.choices(range(len(everything)), k=max(0, due)))
            if passed > seconds - 1 and victims:
                self._engine.call("DELETE", f"/containers/{victims.pop().id}?force=1")
            await asyncio.sleep(TICK_S)
        took = time.monotonic() - began
        for victim in victims:
            self._engine.call("DELETE", f"/containers/{victim.id}?force=1")
        return {
            "rate": storm.sent / took,
            "lost": storm.lost,
            "cpu": (time.process_time() - used) / took,
        }


class Storm:
    """Events that change nothing, as prepared texts: an event costs a few microseconds.

    As a real engine, the storm drops events for a subscriber that doesn't read.
    """

    def __init__(self, engine: BenchEngine, containers: Sequence[SimContainer]) -> None:
        self._engine = engine
        self.sent = 0
        #: Events that were dropped.
        self.lost = 0
        self._texts = [self._prepare(container) for container in containers]
        event = json.loads(b"0".join(self._texts[0]))
        #: As a real engine, the storm tells nobody what the filters leave out.
        self._subscribed = [
            writer
            for writer, wanted in engine.subscribers.items()
            if _event_matches(event, dict(wanted))
        ]

    def _prepare(self, container: SimContainer) -> tuple[bytes, bytes]:
        """Return the text of an event before and after its time in nanoseconds."""
        attributes = {**container.config["Labels"], "name": container.name}
        event = {
            "Type": "container",
            "Action": "health_status: healthy",
            "Actor": {"ID": container.id, "Attributes": attributes},
            "scope": "local",
            "timeNano": TIME_MARK,
        }
        before, _, after = json.dumps(event).partition(str(TIME_MARK))
        return before.encode(), after.encode() + b"\n"

    def emit(self, numbers: Sequence[int]) -> None:
        """Send an event of each container given by its number, as one write."""
        now = time.time_ns()
        chunks = []
        for offset, number in enumerate(numbers):
            before, after = self._texts[number]
            line = b"%b%d%b" % (before, now + offset, after)
            chunks.append(b"%x\r\n%b\r\n" % (len(line), line))
        written = b"".join(chunks)
        for writer in self._subscribed:
            if writer.transport.get_write_buffer_size() > BUFFER_MAX:
                self.lost += len(chunks)
            else:
                writer.write(written)
        self.sent += len(chunks)


async def _pass(seconds: float) -> None:
    """Let time pass. A timer of asyncio is late by up to a millisecond, longer than a read takes."""
    due = time.monotonic() + seconds
    if seconds > TIMER_S:
        await asyncio.sleep(seconds - TIMER_S)
    while time.monotonic() < due:  # noqa: ASYNC110 - no event ends it
        await asyncio.sleep(0)


async def serve(path: Path) -> None:
    """Serve until the process is ended."""
    server = Server(BenchEngine())
    listening = await asyncio.start_unix_server(server.serve, path, limit=2**26)
    async with listening:
        await listening.serve_forever()


if __name__ == "__main__":
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    asyncio.run(serve(Path(sys.argv[1])))
