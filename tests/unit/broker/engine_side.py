"""The engine's end of its socket: responds as the test says, and stores the requests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from controller.broker.server.background_tasks import EVENTS

Act = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def told(status: int, value: object = None) -> bytes:
    """Return a whole answer with a JSON body."""
    body = json.dumps(value).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\nConnection: close\r\n\r\n" + body


def chunked(*parts: bytes, end: bool = True) -> bytes:
    """Return an answer in chunks."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return head + body + (b"0\r\n\r\n" if end else b"")


VERSION = {"Version": "26.1.5", "ApiVersion": "1.45", "Os": "linux", "Arch": "amd64"}
INFO: dict[str, object] = {
    "ID": "engine-1",
    "NCPU": 2,
    "MemTotal": 4096,
    "DockerRootDir": "/var/lib/docker",
    "SecurityOptions": ["name=seccomp,profile=builtin"],
}


#: What the broker asks by itself, at its start.
QUIET: dict[str, object] = {
    "/v1.45/containers/json": [],
    "/v1.45/networks": [],
    "/v1.45/volumes": {"Volumes": []},
}


#: The answer to the broker's own following of events.
LOOKOUT = "lookout"


@dataclass
class EngineSide:
    """Answers by ``METHOD PATH`` (without the query): raw bytes, or what acts on the connection.

    ``sent`` has the first line and the body of every request besides /version, /info and what
    the broker asks at its start.
    """

    path: Path
    answers: dict[str, bytes | Act] = field(default_factory=dict)
    sent: list[tuple[str, bytes]] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)
    version: dict[str, object] = field(default_factory=lambda: dict(VERSION))
    info: dict[str, object] = field(default_factory=lambda: dict(INFO))
    arrivals: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    asked: int = 0  # how often it was asked who it is

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            first = head.split(b"\r\n")[0].decode()
            length = 0
            for line in head.decode().lower().split("\r\n"):
                if line.startswith("content-length:"):
                    length = int(line.partition(":")[2])
            body = await reader.readexactly(length)
            method, target, _ = first.split(" ")
            path = target.partition("?")[0]
            if path == "/version" and "GET /version" not in self.answers:
                self.asked += 1
                writer.write(told(200, self.version))
                return
            if path.endswith("/info"):
                writer.write(told(200, self.info))
                return
            if (quiet := QUIET.get(path)) is not None and f"{method} {path}" not in self.answers:
                writer.write(told(200, quiet))
                return
            if target.endswith(EVENTS) and LOOKOUT not in self.answers:
                # The broker's own, as long as no test means it: an engine where nothing happens.
                writer.write(chunked(end=False))
                await reader.read()
                return
            self.sent.append((f"{method} {target}", body))
            self.heads.append(head)
            self.arrivals.put_nowait(f"{method} {target}")
            asked = LOOKOUT if target.endswith(EVENTS) else f"{method} {path}"
            act = self.answers.get(asked, told(404, {"message": "no such thing"}))
            if isinstance(act, bytes):
                writer.write(act)
            else:
                await act(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            return  # the broker hung up
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[EngineSide]:
        """Serve while the block runs; connections end with it."""
        self.path.unlink(missing_ok=True)
        self.arrivals = asyncio.Queue()
        tasks: set[asyncio.Task[None]] = set()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(self._serve(reader, writer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        server = await asyncio.start_unix_server(connected, self.path)
        try:
            yield self
        finally:
            server.close()
            for task in tuple(tasks):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for _ in range(3):  # transports end in the loop's next rounds
                await asyncio.sleep(0)
