"""The server of the page on a port of this machine, with a reader that answers from memory."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPMessage, HTTPResponse
from typing import Any

from controller.web.pages import Away, LogsNeeded, PageLogs, Records, WebSession
from controller.web.server.application import PageServer, Site
from controller.web.server.follower import Followed
from controller.web.server.port import Samples
from controller.web.server.serve import server_of
from controller.web.server.sessions import Sessions
from tests.page import worlds
from tests.unit.web.server.clock import HandClock

PATIENCE_S = 30.0
COOKIE = "trimtab-test"


@dataclass
class Reader:
    """``port.InstanceReader`` over values."""

    found: Records | Away = field(default_factory=Records)
    asked: list[Mapping[str, str]] = field(default_factory=list)

    def view(self, have: str, *, wait_s: float) -> Mapping[str, Any]:
        raise NotImplementedError("nobody follows")

    def records(self, query: Mapping[str, str]) -> Records | Away:
        self.asked.append(query)
        return self.found

    def logs(self, needed: LogsNeeded) -> PageLogs | Away:
        return PageLogs(needed.container)

    def samples(self, key: str) -> Samples:
        return worlds.samples()


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer whose body was read."""

    status: int
    headers: HTTPMessage
    text: str


class RunningSite:
    """A server that runs in a thread."""

    def __init__(self, listener: socket.socket) -> None:
        self.address: tuple[str, int] = listener.getsockname()
        self.name = f"127.0.0.1:{self.address[1]}"
        self.clock, self.reader = HandClock(), Reader()
        self.followed = Followed(worlds.ordinary())
        self.admitted = True
        numbers = iter(range(10_000))
        self.sessions = Sessions(lambda: f"secret-{next(numbers)}")
        self.loop = asyncio.new_event_loop()

    def serve(self, listener: socket.socket, ready: threading.Event) -> None:
        """Serve until ``end``."""

        async def run() -> None:
            site = Site(self.name, COOKIE)
            self.pages = PageServer(
                site, self.sessions, self.reader, self.clock, lambda: self.followed
            )
            self.server = server_of(
                self.pages.application(),
                is_admitted=lambda client, server: self.admitted and server == self.address,
                on_end=self.pages.news.end,
            )
            ready.set()
            await self.server.serve(sockets=[listener])

        with closing(self.loop):
            self.loop.run_until_complete(run())

    def end(self) -> None:
        """Ask the server to end."""
        self.server.should_exit = True

    def tell(self) -> None:
        """Tell the streams that there is news."""
        self.loop.call_soon_threadsafe(self.pages.news.tell)

    def cookie(self) -> str:
        """Return the cookie of a new session."""
        secret = self.sessions.begin(WebSession("ann"), self.clock.monotonic())
        return f"{COOKIE}={secret}"

    @contextmanager
    def stream(self, path: str, method: str = "GET", **headers: str) -> Iterator[HTTPResponse]:
        """Yield an answer whose body isn't read yet."""
        with closing(HTTPConnection(self.name, timeout=PATIENCE_S)) as connection:
            connection.request(
                method, path, headers={name.replace("_", "-"): headers[name] for name in headers}
            )
            with connection.getresponse() as answer:
                yield answer

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """Return an answer."""
        with self.stream(path, method, **headers) as answer:
            return Answer(answer.status, answer.headers, answer.read().decode())

    def connect(self) -> socket.socket:
        """Return a connection without a request."""
        return socket.create_connection(self.address, timeout=PATIENCE_S)


@contextmanager
def running_site() -> Iterator[RunningSite]:
    """Run a server during the block."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        site, ready = RunningSite(listener), threading.Event()
        thread = threading.Thread(target=site.serve, args=(listener, ready))
        thread.start()
        assert ready.wait(PATIENCE_S)
        try:
            yield site
        finally:
            site.end()
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
