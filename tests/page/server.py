"""Serves the pages of a world on a loopback port, by the server of the page."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from controller.model.container_output import LogLine
from controller.view_follower import Followed
from controller.web.pages import (
    Away,
    Fetched,
    LogsNeeded,
    PageLogs,
    PageName,
    PageRoute,
    Records,
    WebSession,
    needs_of,
    render,
    route_of,
)
from controller.web.server.application import PageServer, Site
from controller.web.server.login import BrowserSession, Logins, Sessions
from controller.web.server.port import Samples
from controller.web.server.serve import server_of
from controller.web.server.tokens import TokenFile
from tests.page import worlds


@dataclass(slots=True)
class World:
    """What the server shows; ``tell`` sends news to its readers."""

    view: Mapping[str, Any] | None
    records: tuple[Mapping[str, Any], ...] | Away = ()
    output: tuple[str, ...] = ("listening on :8080",)
    away_since: datetime | None = None
    session: WebSession = field(default_factory=lambda: WebSession("ann", logs=None))
    has_events: bool = True
    #: The streams of events so far.
    streams: int = 0
    #: Both are the server's, once it runs.
    on_news: Callable[[], object] = lambda: None
    end: Callable[[], object] = lambda: None

    def tell(self, view: Mapping[str, Any]) -> None:
        """Show another view, and say so."""
        self.view = view
        self.on_news()

    def followed(self) -> Followed:
        """Return the view as the server's follower has it."""
        away = self.away_since
        return Followed(self.view, None if away is None else away.timestamp())

    def page(self, path: str, query: Mapping[str, str]) -> tuple[int, str, str]:
        """Return status, HTML and ETag of a page."""
        route = route_of(path) or PageRoute(PageName.NOT_FOUND)
        needs = needs_of(route, self.view, query, self.session, worlds.NOW)
        found = self.found(needs.records.query) if needs.records else None
        logs = self.logs(needs.logs) if needs.logs else None
        samples = worlds.samples() if needs.samples else ()
        fetched = Fetched(worlds.NOW, self.away_since, found, logs, samples)
        page = render(route, self.view, query, self.session, fetched)
        return page.status, page.html, page.etag

    def logs(self, needed: LogsNeeded) -> PageLogs:
        """Return the output of a container."""
        lines = tuple(LogLine(worlds.ago(minutes=1), "stdout", text) for text in self.output)
        return PageLogs(needed.container, lines)

    def found(self, query: Mapping[str, str]) -> Records | Away:
        """Return the records of a query of the journal."""
        if isinstance(self.records, Away):
            return self.records
        lines = self.records
        if wanted := query.get("record"):
            lines = tuple(each for each in lines if each["record"]["id"] == wanted)
        if wanted := query.get("service"):
            lines = tuple(
                each for each in lines if each["about"]["service"] == wanted.rpartition("/")[2]
            )
        if wanted := query.get("action"):
            ids = {
                each["record"]["id"] for each in lines if each["about"]["action"].endswith(wanted)
            }
            lines = tuple(each for each in lines if each["record"]["id"] in ids)
        if wanted := query.get("upto"):
            lines = tuple(each for each in lines if each["record"]["seq"] <= int(wanted))
        return Records(lines)


class _Reader:
    """``InstanceReader`` over a world, whose view and records ``World`` has."""

    def __init__(self, world: World) -> None:
        self._world = world

    def records(self, query: Mapping[str, str]) -> Records | Away:
        return self._world.found(query)

    def logs(self, needed: LogsNeeded) -> PageLogs | Away:
        return self._world.logs(needed)

    def metrics(self) -> str | Away:
        raise NotImplementedError("no page asks for metrics")

    def samples(self, key: str) -> Samples:
        return worlds.samples()


class _Logins(Logins):
    """Lets everybody in as the session of a world."""

    def __init__(self, world: World, sessions: Sessions) -> None:
        super().__init__(TokenFile(Path("/nonexistent")), sessions, _Clock(), None)
        self._world = world

    def from_proxy(self, client: str, headers: list[str]) -> BrowserSession | None:
        return BrowserSession("open", self._world.session, until=float("inf"))


class _Sessions(Sessions):
    """Counts the streams of a world."""

    def __init__(self, world: World) -> None:
        super().__init__(lambda: "secret")
        self._world = world

    def can_stream(self, session: BrowserSession) -> bool:
        return self._world.has_events

    @contextmanager
    def streaming(self, session: BrowserSession) -> Iterator[None]:
        self._world.streams += 1
        yield


class _Clock:
    """The instant of the worlds."""

    def now(self) -> float:
        return worlds.NOW.timestamp()

    def monotonic(self) -> float:
        return worlds.NOW.timestamp()


@contextmanager
def serve(world: World) -> Iterator[str]:
    """Serve a world by the server of the page, and yield its address."""
    loop, ready = asyncio.new_event_loop(), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"

        async def run() -> None:
            sessions = _Sessions(world)
            pages = PageServer(
                Site(address, "trimtab"),
                sessions,
                _Reader(world),
                _Clock(),
                world.followed,
                _Logins(world, sessions),
            )
            server = server_of(pages.application(), is_admitted=None, on_end=pages.news.end)
            world.on_news = lambda: loop.call_soon_threadsafe(pages.news.tell)
            world.end = lambda: setattr(server, "should_exit", True)
            ready.set()
            await server.serve(sockets=[listener])

        thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
        thread.start()
        assert ready.wait(30)
        try:
            yield address
        finally:
            world.end()
            thread.join()
            loop.close()
