"""The server of the page on a port of this machine, with a reader that answers from memory."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPMessage, HTTPResponse
from pathlib import Path

from controller.view_follower import Followed
from controller.web.pages import Away, LogsNeeded, PageLogs, Records, WebSession
from controller.web.server.application import PageServer, Site
from controller.web.server.login import Logins, Sessions, TrustedProxy
from controller.web.server.port import Samples
from controller.web.server.serve import SocketAddress, server_of
from controller.web.server.tokens import TokenFile
from tests.page import worlds
from tests.unit.web.server.clock import HandClock

PATIENCE_S = 30.0
COOKIE = "trimtab-test"


@dataclass
class Reader:
    """``port.InstanceReader`` over values."""

    found: Records | Away = field(default_factory=Records)
    asked: list[Mapping[str, str]] = field(default_factory=list)

    def records(self, query: Mapping[str, str]) -> Records | Away:
        self.asked.append(query)
        return self.found

    def logs(self, needed: LogsNeeded) -> PageLogs | Away:
        return PageLogs(needed.container)

    def metrics(self) -> str | Away:
        return "trimtab_up 1\n"

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

    def __init__(
        self,
        listener: socket.socket,
        *,
        url: str = "",
        tokens: TokenFile | None = None,
        proxy: TrustedProxy | None = None,
    ) -> None:
        self.address = listener.getsockname()
        is_unix = isinstance(self.address, str)
        self.name = "localhost" if is_unix else f"127.0.0.1:{self.address[1]}"
        self.url = url or f"http://{self.name}"
        self.clock, self.reader = HandClock(), Reader()
        self.followed = Followed(worlds.ordinary())
        self.admitted = True
        numbers = iter(range(10_000))
        self.sessions = Sessions(lambda: f"secret-{next(numbers)}")
        self.logins = Logins(tokens, self.sessions, self.clock, proxy) if tokens else None
        self.loop = asyncio.new_event_loop()

    def serve(self, listener: socket.socket, ready: threading.Event) -> None:
        """Serve until ``end``."""

        async def run() -> None:
            site = Site(self.url, COOKIE)
            self.pages = PageServer(
                site, self.sessions, self.reader, self.clock, lambda: self.followed, self.logins
            )
            self.server = server_of(
                self.pages.application(),
                is_admitted=None if self.logins else self._is_admitted,
                on_end=self.pages.news.end,
            )
            ready.set()
            await self.server.serve(sockets=[listener])

        with closing(self.loop):
            self.loop.run_until_complete(run())

    def _is_admitted(self, _client: SocketAddress, server: SocketAddress) -> bool:
        return self.admitted and server == self.address

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
    def stream(
        self, path: str, method: str = "GET", body: str = "", **headers: str
    ) -> Iterator[HTTPResponse]:
        """Yield an answer whose body isn't read yet."""
        with closing(HTTPConnection(self.name, timeout=PATIENCE_S)) as connection:
            connection.sock = self.connect()
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body or None, sent)
            with connection.getresponse() as answer:
                yield answer

    def ask(self, path: str, method: str = "GET", body: str = "", **headers: str) -> Answer:
        """Return an answer."""
        with self.stream(path, method, body, **headers) as answer:
            return Answer(answer.status, answer.headers, answer.read().decode())

    def connect(self) -> socket.socket:
        """Return a connection without a request."""
        connection = socket.socket(
            socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET
        )
        connection.settimeout(PATIENCE_S)
        connection.connect(self.address)
        return connection


@contextmanager
def running_site(
    *,
    path: Path | None = None,
    url: str = "",
    tokens: TokenFile | None = None,
    proxy: TrustedProxy | None = None,
) -> Iterator[RunningSite]:
    """Run a server during the block, at the Unix socket *path* or at a port."""
    address = ("127.0.0.1", 0) if path is None else str(path)
    family = socket.AF_INET if path is None else socket.AF_UNIX
    with socket.create_server(address, family=family) as listener:
        site = RunningSite(listener, url=url, tokens=tokens, proxy=proxy)
        ready = threading.Event()
        thread = threading.Thread(target=site.serve, args=(listener, ready))
        thread.start()
        assert ready.wait(PATIENCE_S)
        try:
            yield site
        finally:
            site.end()
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
