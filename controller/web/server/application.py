"""The page over HTTP: checks of each request, the pages, the stream of events, and static files.

The page changes nothing: it answers GET and HEAD. A request without the Host of the site is refused, since a
name that an attacker points at this host (DNS rebinding) reaches it with the attacker's scripts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    PlainTextResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import controller.web
from controller.ports import Clock
from controller.web.pages import Fetched, PageName, PageRoute, needs_of, render, route_of
from controller.web.server.follower import Followed
from controller.web.server.port import InstanceReader
from controller.web.server.sessions import SESSION_S, BrowserSession, Sessions

HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
STATIC: Final = {
    path.name: path for path in (Path(controller.web.__file__).parent / "static").iterdir()
}
#: A silent stream gets a comment that often, so that a broken connection is found.
BEAT_S: Final = 15.0
NO_SESSION: Final = (
    "This browser has no session, or its link was used or is older than 60 s.\n"
    "Run 'trimtab web' for a new link.\n"
)


@dataclass(frozen=True, slots=True)
class Site:
    """The address of the page: the value of Host that requests must have, and the name of the cookie."""

    host: str
    cookie: str


class News:
    """Wakes the open streams when the view changed. For the thread of the event loop alone."""

    def __init__(self) -> None:
        self._number = 0
        self._is_over = False
        self._changed = asyncio.Event()

    @property
    def number(self) -> int:
        """The number of changes so far."""
        return self._number

    def tell(self) -> None:
        """Wake all streams: there is a change."""
        self._number += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def end(self) -> None:
        """End all streams."""
        self._is_over = True
        self.tell()

    async def lines(self, beat_s: float = BEAT_S) -> AsyncIterator[str]:
        """Yield an event for each change, and a comment after each silence of *beat_s* seconds."""
        sent = self._number
        yield ": the page is followed\n\n"
        while not self._is_over:
            try:
                async with asyncio.timeout(beat_s):
                    while self._number == sent:
                        await self._changed.wait()
            except TimeoutError:
                yield ": still here\n\n"
                continue
            sent = self._number
            if not self._is_over:
                yield f"data: {sent}\n\n"


class PageServer:
    """Answers the requests of a site. *followed* returns the last view."""

    def __init__(
        self,
        site: Site,
        sessions: Sessions,
        reader: InstanceReader,
        clock: Clock,
        followed: Callable[[], Followed],
    ) -> None:
        self.news = News()
        self._site = site
        self._sessions = sessions
        self._reader = reader
        self._clock = clock
        self._followed = followed

    def application(self) -> ASGIApp:
        """Return the server as an ASGI application."""
        routes = [
            Route("/open/{link}", self._open),
            Route("/events", self._events),
            Route("/static/{name}", self._static),
            Route("/{path:path}", self._page),
        ]
        return _Guard(Starlette(routes=routes), self._site.host)

    def _session_of(self, request: Request) -> BrowserSession | None:
        secret = request.cookies.get(self._site.cookie, "")
        return self._sessions.find(secret, self._clock.monotonic())

    async def _open(self, request: Request) -> Response:
        """Begin the session of a link, and go to the first page."""
        if request.method != "GET":  # a program that looks at a link doesn't use it up
            return PlainTextResponse("", 405)
        secret = self._sessions.redeem(request.path_params["link"], self._clock.monotonic())
        if secret is None:
            return PlainTextResponse(NO_SESSION, 403)
        # A redirection would have no cookie yet if a page of another site led here: it is SameSite=Strict.
        answer = HTMLResponse('<a href="/">The page</a>', headers={"Refresh": "0; url=/"})
        answer.set_cookie(
            self._site.cookie, secret, max_age=int(SESSION_S), httponly=True, samesite="strict"
        )
        return answer

    async def _static(self, request: Request) -> Response:
        path = STATIC.get(request.path_params["name"])
        return PlainTextResponse("", 404) if path is None else FileResponse(path)

    async def _events(self, request: Request) -> Response:
        session = self._session_of(request)
        if session is None:
            return PlainTextResponse(NO_SESSION, 403)
        if not self._sessions.can_stream(session):
            return PlainTextResponse("too many streams are open: the page asks every 5 s\n", 503)

        return _Stream(self.news.lines(), self._sessions.streaming(session))

    async def _page(self, request: Request) -> Response:
        session = self._session_of(request)
        if session is None:
            return PlainTextResponse(NO_SESSION, 403)
        return await run_in_threadpool(self._render, request, session)

    def _render(self, request: Request, session: BrowserSession) -> Response:
        followed, now = self._followed(), _local(self._clock.now())
        route = route_of(request.scope["path"])
        if route is None or route.page is PageName.LOGIN:
            route = PageRoute(PageName.NOT_FOUND)
        query = dict(request.query_params)
        needs = needs_of(route, followed.view, query, session.reader, now)
        away = followed.away_since
        fetched = Fetched(
            now,
            controller_away_since=None if away is None else _local(away),
            records=self._reader.records(needs.records.query) if needs.records else None,
            logs=self._reader.logs(needs.logs) if needs.logs else None,
            samples=self._reader.samples(needs.samples) if needs.samples else (),
        )
        page = render(route, followed.view, query, session.reader, fetched)
        headers = {"ETag": page.etag}
        if request.headers.get("if-none-match") == page.etag:
            return Response(status_code=304, headers=headers)
        return HTMLResponse(page.html, page.status, headers)


def _local(time: float) -> datetime:
    return datetime.fromtimestamp(time, UTC).astimezone()


class _Stream(StreamingResponse):
    """A stream of events, which has a place while it is open."""

    def __init__(self, lines: AsyncIterator[str], place: AbstractContextManager[None]) -> None:
        super().__init__(lines, media_type="text/event-stream")
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._place:
            await super().__call__(scope, receive, send)


class _Guard:
    """Refuses requests with another Host or method, and adds ``HEADERS`` to every answer."""

    def __init__(self, served: ASGIApp, host: str) -> None:
        self._served = served
        self._host = host.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message.setdefault("headers", []))
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        served = self._served
        if [value for name, value in scope["headers"] if name == b"host"] != [self._host]:
            served = PlainTextResponse("this host has another name\n", 421)
        elif scope["method"] not in {"GET", "HEAD"}:
            served = PlainTextResponse("the page changes nothing\n", 405)
        await served(scope, receive, send_with_headers)
