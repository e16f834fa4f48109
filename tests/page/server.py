"""Serves the pages of a world on a loopback port, with the headers that the page's process sends."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import controller.web
from controller.model.container_output import LogLine
from controller.web.pages import (
    Away,
    Fetched,
    PageLogs,
    PageName,
    PageRoute,
    Records,
    WebSession,
    needs_of,
    render,
    route_of,
)
from tests.page import worlds

STATIC = Path(controller.web.__file__).parent / "static"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@dataclass(slots=True)
class World:
    """What the server shows; ``tell`` sends news to its readers."""

    view: Mapping[str, Any] | None
    records: tuple[Mapping[str, Any], ...] | Away = ()
    output: tuple[str, ...] = ("listening on :8080",)
    away_since: datetime | None = None
    session: WebSession = field(default_factory=lambda: WebSession("ann", logs=None))
    has_events: bool = True
    number: int = 0
    #: The streams of events so far.
    streams: int = 0
    news: threading.Condition = field(default_factory=threading.Condition)

    def tell(self, view: Mapping[str, Any]) -> None:
        """Show another view, and say so."""
        with self.news:
            self.view, self.number = view, self.number + 1
            self.news.notify_all()

    def page(self, path: str, query: Mapping[str, str]) -> tuple[int, str, str]:
        """Return status, HTML and ETag of a page."""
        route = route_of(path) or PageRoute(PageName.NOT_FOUND)
        needs = needs_of(route, self.view, query, self.session, worlds.NOW)
        found = self._found(needs.records.query) if needs.records else None
        logs = None
        if needs.logs:
            lines = tuple(LogLine(worlds.ago(minutes=1), "stdout", text) for text in self.output)
            logs = PageLogs(needs.logs.container, lines)
        samples = worlds.samples() if needs.samples else ()
        fetched = Fetched(worlds.NOW, self.away_since, found, logs, samples)
        page = render(route, self.view, query, self.session, fetched)
        return page.status, page.html, page.etag

    def _found(self, query: Mapping[str, str]) -> Records | Away:
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


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    world: World

    def do_GET(self) -> None:
        split = urlsplit(self.path)
        if split.path == "/events":
            self._events()
        elif split.path.startswith("/static/"):
            file = STATIC / split.path.removeprefix("/static/")
            self._answer(200, file.read_bytes(), _TYPES[file.suffix])
        else:
            status, html, etag = self.world.page(split.path, dict(parse_qsl(split.query)))
            if self.headers.get("If-None-Match") == etag:
                self._answer(304, b"", "text/html; charset=utf-8", etag)
            else:
                self._answer(status, html.encode(), "text/html; charset=utf-8", etag)

    def _answer(self, status: int, body: bytes, kind: str, etag: str = "") -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        if etag:
            self.send_header("ETag", etag)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _events(self) -> None:
        if not self.world.has_events:
            self._answer(503, b"", "text/plain")
            return
        self.send_response(200)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        with self.world.news:
            sent = self.world.number
            self.world.streams += 1
        while True:
            with self.world.news:
                if self.world.number == sent:
                    self.world.news.wait(1.0)
                is_new, sent = self.world.number != sent, self.world.number
            try:
                self.wfile.write(f"data: {sent}\n\n".encode() if is_new else b": still here\n\n")
                self.wfile.flush()
            except OSError:
                return

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base's name)
        pass


@contextmanager
def serve(world: World) -> Iterator[str]:
    """Serve a world, and yield its address."""
    handler = type("Handler", (_Handler,), {"world": world})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
