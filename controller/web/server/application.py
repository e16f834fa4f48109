"""The page over HTTP: checks of each request, the pages, the stream of events, logins, and static files.

The page changes nothing: it answers GET and HEAD, and POST of the forms that begin and end a session. A request without the
Host of the site is refused, since a name that an attacker points at this host (DNS rebinding) reaches it with
the attacker's scripts. Addresses for programs take any Host: what they show needs a header that no browser sends by itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from mimetypes import guess_type
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import controller.web
from controller.model.errors import TrimtabError
from controller.ports import Clock
from controller.view_follower import Followed
from controller.web.pages import (
    Away,
    Fetched,
    PageName,
    PageRoute,
    WebSession,
    needs_of,
    render,
    route_of,
)
from controller.web.server.login import SESSION_S, BrowserSession, Logins, LoginsBlocked, Sessions
from controller.web.server.port import InstanceReader
from controller.web.server.tokens import TokenScope, read_scope

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
    path.name: (path.read_bytes(), guess_type(path.name)[0])
    for path in (Path(controller.web.__file__).parent / "static").iterdir()
}
#: A silent stream gets a comment that often, so that a broken connection is found.
BEAT_S: Final = 15.0
NO_SESSION: Final = (
    "This browser has no session, or its link was used or is older than 60 s.\n"
    "Run 'trimtab web' for a new link.\n"
)


#: A view that is older is no present state of the host.
FRESH_S: Final = 60.0
#: The longest form, in bytes, and the seconds for it.
_FORM_MAX, _FORM_S = 4096, 10.0
_FORMS: Final = frozenset({"/login", "/logout"})
_FOR_PROGRAMS: Final = frozenset({"/livez", "/readyz", "/metrics", "/api/v1/health"})

log = logging.getLogger("trimtab.web")


@dataclass(frozen=True, slots=True)
class Site:
    """The address of the page, such as ``https://trimtab.example.org``, and a name for its cookie."""

    url: str
    name: str

    @property
    def cookie(self) -> str:
        """The name of the cookie. Browsers take the prefix by TLS alone, and for this host and all paths."""
        return f"__Host-{self.name}" if self.is_secure else self.name

    @property
    def host(self) -> str:
        """The value of Host that requests of browsers must have."""
        return urlsplit(self.url).netloc

    @property
    def is_secure(self) -> bool:
        """True if browsers reach the page by TLS."""
        return self.url.startswith("https:")


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

    async def lines(
        self, has_right: Callable[[], bool], beat_s: float = BEAT_S
    ) -> AsyncIterator[str]:
        """Yield an event for each change, and a comment after each silence of *beat_s* seconds.

        The reader's right is asked for before each of them: without it the stream ends.
        """
        sent = self._number
        yield ": the page is followed\n\n"
        while not self._is_over:
            try:
                async with asyncio.timeout(beat_s):
                    while self._number == sent:
                        await self._changed.wait()
            except TimeoutError:
                line = ": still here\n\n"
            else:
                sent = self._number
                line = f"data: {sent}\n\n"
            if self._is_over or not has_right():
                return
            yield line


class PageServer:
    """Answers the requests of a site. *followed* returns the last view.

    Without *logins*, sessions begin by links alone.
    """

    def __init__(
        self,
        site: Site,
        sessions: Sessions,
        reader: InstanceReader,
        clock: Clock,
        followed: Callable[[], Followed],
        logins: Logins | None = None,
    ) -> None:
        self.news = News()
        self._site = site
        self._sessions = sessions
        self._reader = reader
        self._clock = clock
        self._followed = followed
        self._logins = logins

    def application(self) -> ASGIApp:
        """Return the server as an ASGI application."""
        routes = [
            Route("/events", self._events),
            Route("/static/{name}", self._static),
        ]
        if self._logins is None:
            routes.append(Route("/open/{link}", self._open))
        else:
            routes += (
                Route("/login", self._login, methods=["GET", "POST"]),
                Route("/logout", self._logout, methods=["POST"]),
                Route("/livez", self._live),
                Route("/readyz", self._ready),
                Route("/metrics", self._metrics),
                Route("/api/v1/health", self._health),
            )
        served = Starlette(routes=[*routes, Route("/{path:path}", self._page)])
        return _Guard(served, self._site.host, has_logins=self._logins is not None)

    def _session_of(self, request: Request) -> BrowserSession | None:
        secret = request.cookies.get(self._site.cookie, "")
        if self._logins is None:
            return self._sessions.find(secret, self._clock.monotonic())
        named = request.headers.getlist(self._logins.header)
        if (proxied := self._logins.from_proxy(_client(request), named)) is not None:
            return proxied
        session = self._sessions.find(secret, self._clock.monotonic())
        return session if session is not None and self._logins.is_valid(session) else None

    def _without_session(self) -> Response:
        return (
            PlainTextResponse(NO_SESSION, 403)
            if self._logins is None
            else RedirectResponse("/login", 303)
        )

    def _set_cookie(self, answer: Response, secret: str) -> Response:
        answer.set_cookie(
            self._site.cookie,
            secret,
            max_age=int(SESSION_S),
            secure=self._site.is_secure,
            httponly=True,
            samesite="strict",
        )
        return answer

    async def _open(self, request: Request) -> Response:
        """Begin the session of a link, and go to the first page."""
        if request.method != "GET":  # a program that looks at a link doesn't use it up
            return PlainTextResponse("", 405)
        secret = self._sessions.redeem(request.path_params["link"], self._clock.monotonic())
        if secret is None:
            return PlainTextResponse(NO_SESSION, 403)
        # A redirection would have no cookie yet if a page of another site led here: it is SameSite=Strict.
        answer = HTMLResponse('<a href="/">The page</a>', headers={"Refresh": "0; url=/"})
        return self._set_cookie(answer, secret)

    async def _login(self, request: Request) -> Response:
        """Show the form for a token, or begin the session of a token."""
        assert self._logins is not None, "the route exists with logins"
        if request.method != "POST":
            return self._login_page("", 200)
        forwarded = request.headers.getlist("x-forwarded-for")
        try:
            secret = self._logins.begin(
                (await _form(request)).get("token", ""),
                self._logins.address_of(_client(request), forwarded),
            )
        except LoginsBlocked:
            return self._login_page("Too many logins failed. Try again in a minute.", 429)
        except TrimtabError as error:
            log.warning("%s [%s]", error.message, error.code)
            return self._login_page("The server can't read its tokens. Its log says why.", 503)
        if secret is None:
            return self._login_page(
                "This token opens no page: it is unknown, expired or revoked, or for metrics alone.",
                403,
            )
        return self._set_cookie(RedirectResponse("/", 303), secret)

    def _login_page(self, note: str, status: int) -> Response:
        fetched = Fetched(_local(self._clock.now()), note=note)
        page = render(PageRoute(PageName.LOGIN), None, {}, WebSession(), fetched)
        return HTMLResponse(page.html, status)

    async def _logout(self, request: Request) -> Response:
        """End the session, if the form has its id."""
        session = self._session_of(request)
        if session is None or (await _form(request)).get("csrf") != session.reader.csrf:
            return self._without_session()
        self._sessions.end(session)
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(
            self._site.cookie, secure=self._site.is_secure, httponly=True, samesite="strict"
        )
        return answer

    # For programs

    async def _live(self, _request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _ready(self, _request: Request) -> Response:
        age_s = self._view_age_s()
        if age_s is None:
            return PlainTextResponse("there is no view yet\n", 503)
        return PlainTextResponse(
            f"the view is {age_s:.0f} s old\n", 200 if age_s < FRESH_S else 503
        )

    def _view_age_s(self) -> float | None:
        view = self._followed().view
        if view is None:
            return None
        return self._clock.now() - datetime.fromisoformat(view["at"]).timestamp()

    def _scope_of(self, request: Request) -> TokenScope | Response:
        """Return the scope of the token of a program, or the refusal."""
        assert self._logins is not None, "the route exists with logins"
        kind, _, secret = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer":
            return PlainTextResponse(
                "send 'Authorization: Bearer TOKEN'\n", 401, {"WWW-Authenticate": "Bearer"}
            )
        forwarded = request.headers.getlist("x-forwarded-for")
        try:
            token = self._logins.token(
                secret.strip(), self._logins.address_of(_client(request), forwarded)
            )
        except LoginsBlocked:
            return PlainTextResponse("too many logins failed\n", 429, {"Retry-After": "60"})
        except TrimtabError as error:
            log.warning("%s [%s]", error.message, error.code)
            return PlainTextResponse("the server can't read its tokens\n", 503)
        if token is None:
            return PlainTextResponse(
                "the token is unknown, expired or revoked\n", 401, {"WWW-Authenticate": "Bearer"}
            )
        return read_scope(token.scope)

    async def _metrics(self, request: Request) -> Response:
        scope = self._scope_of(request)
        if isinstance(scope, Response):
            return scope
        if not scope.has_metrics:
            return PlainTextResponse("the token's scope isn't metrics\n", 403)
        text = await run_in_threadpool(self._reader.metrics)
        if isinstance(text, Away):
            return PlainTextResponse("the policy doesn't let this process read metrics\n", 503)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def _health(self, request: Request) -> Response:
        """Answer whether all is as declared: 200 with what is known; with ``strict=1``, 503 if not."""
        scope = self._scope_of(request)
        if isinstance(scope, Response):
            return scope
        view, age_s = self._followed().view, self._view_age_s()
        health: dict[str, Any] = {"word": "Unknown", "text": "There is no view yet.", "counts": {}}
        if view is not None:
            health = {**view["state"], "at": view["at"], "ageSeconds": round(age_s or 0.0, 1)}
        is_fine = health["word"] == "AsDeclared" and age_s is not None and age_s < FRESH_S
        is_strict = request.query_params.get("strict") == "1"
        return JSONResponse(health, 503 if is_strict and not is_fine else 200)

    async def _static(self, request: Request) -> Response:
        found = STATIC.get(request.path_params["name"])
        return (
            PlainTextResponse("", 404) if found is None else Response(found[0], media_type=found[1])
        )

    async def _events(self, request: Request) -> Response:
        session = self._session_of(request)
        if session is None:
            return PlainTextResponse(NO_SESSION, 403)
        if not self._sessions.can_stream(session):
            return PlainTextResponse("too many streams are open: the page asks every 5 s\n", 503)

        lines = self.news.lines(lambda: self._session_of(request) is not None)
        return _Stream(lines, self._sessions.streaming(session))

    async def _page(self, request: Request) -> Response:
        session = self._session_of(request)
        if session is None:
            return self._without_session()
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


def _client(request: Request) -> str:
    """Return the address of the client; ``uid:N`` of one at a Unix socket (``serve.PageConnection``)."""
    return "" if request.client is None else request.client.host


async def _form(request: Request) -> dict[str, str]:
    """Return the fields of a form; {} for one that is too long, or takes too long."""
    body = b""
    try:
        async with asyncio.timeout(_FORM_S):
            async for part in request.stream():
                body += part
                if len(body) > _FORM_MAX:
                    return {}
    except TimeoutError:
        return {}
    return dict(parse_qsl(body.decode(errors="replace")))


class _Stream(StreamingResponse):
    """A stream of events, which has a place while it is open."""

    def __init__(self, lines: AsyncIterator[str], place: AbstractContextManager[None]) -> None:
        super().__init__(lines, media_type="text/event-stream")
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._place:
            await super().__call__(scope, receive, send)


class _Guard:
    """Refuses requests with another Host or method, or from another site, and adds ``HEADERS`` to every answer."""

    def __init__(self, served: ASGIApp, host: str, *, has_logins: bool) -> None:
        self._served = served
        self._host = host.encode()
        self._has_logins = has_logins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message.setdefault("headers", []))
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        await (self._refusal(scope) or self._served)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        def values(name: bytes) -> list[bytes]:
            return [value for key, value in scope["headers"] if key == name]

        path, method = scope["path"], scope["method"]
        is_for_programs = self._has_logins and path in _FOR_PROGRAMS
        if not is_for_programs and values(b"host") != [self._host]:
            return PlainTextResponse("this host has another name\n", 421)
        is_form = self._has_logins and path in _FORMS
        if method not in {"GET", "HEAD"} and not (method == "POST" and is_form):
            return PlainTextResponse("the page changes nothing\n", 405)
        # Browsers send Sec-Fetch-Site; with no-referrer, their Origin of a form is always null.
        if method == "POST" and {*values(b"sec-fetch-site")} - {b"same-origin"}:
            return PlainTextResponse("the form is another site's\n", 403)
        return None
