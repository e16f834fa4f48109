"""``trimtab web`` on a real instance: one user's browser, by a link that works once, until a signal (G47)."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPMessage, HTTPResponse
from urllib.parse import urlsplit

import pytest

from tests.instance import PATIENCE_S, TRIMTAB, Host, eventually, web
from tests.unprivileged import as_user

pytestmark = pytest.mark.needs_root
STRANGER = 64_231
BROKEN = 'entrypoint: [/bin/sh, -c, "echo no config found; exit 3"]'


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the page."""

    status: int
    headers: HTTPMessage
    text: str


class Visitor:
    """A browser without a script, on the page of an instance."""

    def __init__(self, link: str) -> None:
        self.host, self.link = urlsplit(link).netloc, urlsplit(link).path
        self.cookie = "none=none"

    @contextmanager
    def stream(self, path: str, method: str = "GET", **headers: str) -> Iterator[HTTPResponse]:
        """Yield an answer whose body isn't read yet."""
        with closing(HTTPConnection(self.host, timeout=PATIENCE_S)) as connection:
            connection.request(method, path, headers={"Cookie": self.cookie, **headers})
            with connection.getresponse() as answer:
                yield answer

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """Return an answer."""
        with self.stream(path, method, **headers) as answer:
            return Answer(answer.status, answer.headers, answer.read().decode())

    def get(self, path: str) -> str:
        """Return the text of a page."""
        answer = self.ask(path)
        assert answer.status == 200, answer
        return answer.text

    def enter(self) -> Answer:
        """Use the link."""
        answer = self.ask(self.link)
        self.cookie = answer.headers["Set-Cookie"].partition(";")[0]
        return answer


@contextmanager
def page_of(host: Host) -> Iterator[tuple[subprocess.Popen[str], Visitor]]:
    """Run ``trimtab web`` during the block."""
    argv = [TRIMTAB, "web", "--state", str(host.state)]
    with subprocess.Popen(
        argv, env=host.environment(), stdout=subprocess.PIPE, text=True, cwd=host.folder
    ) as process:
        assert process.stdout is not None
        try:
            yield process, Visitor(process.stdout.readline().strip())
        finally:
            if process.poll() is None:
                process.kill()


def events(answer: HTTPResponse) -> Iterator[str]:
    """Yield the events of a stream as they arrive."""
    while line := answer.readline().decode():
        if line.startswith("data:"):
            yield line


def test_the_page_shows_its_user_what_is_broken_and_follows_changes(host: Host) -> None:
    host.write("web.yaml", web())
    with host.running(), page_of(host) as (process, visitor):
        assert visitor.ask("/").status == 403, "no session"
        cookie = visitor.enter().headers["Set-Cookie"]
        assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {*cookie.split("; ")}
        assert visitor.ask(visitor.link).status == 403, "the link was used"
        assert "/Service/default/web" in visitor.get("/")
        assert "container.create" in visitor.get("/journal")
        assert "can't be read" not in visitor.get("/Service/default/web/logs")

        with visitor.stream("/events") as followed:
            news = events(followed)
            host.write("api.yaml", web("api", extra=BROKEN))
            next(news)
            eventually(
                lambda: "CrashLoop" in visitor.get("/Service/default/api"), what="the failure"
            )
            assert "exited with 3" in visitor.get("/Service/default/api")
            assert "/Service/default/api" in visitor.get("/")
            assert "no config found" in visitor.get("/Service/default/api/logs")

            host.stop()
            eventually(lambda: "The controller doesn't answer" in visitor.get("/"), what="the age")
            assert "/Service/default/web" in visitor.get("/"), "the last view"

            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=PATIENCE_S) == 0
            assert all(line.startswith("data:") for line in news), "the stream has an end"


def test_another_user_and_another_name_of_the_host_are_refused(host: Host) -> None:
    with host.running(), page_of(host) as (_, visitor):
        port = visitor.host.partition(":")[2]
        for name in ("evil.example", f"evil.example:{port}", f"localhost:{port}", "127.0.0.1"):
            assert visitor.ask(visitor.link, Host=name).status == 421, name
        program = (
            "import sys, urllib.request\n"
            "print(urllib.request.urlopen(sys.argv[1], timeout=30).status)"
        )
        argv = [sys.executable, "-c", program, f"http://{visitor.host}{visitor.link}"]
        foreign = subprocess.run(
            as_user(argv, uid=STRANGER, gid=STRANGER),
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            timeout=PATIENCE_S,
        )
        assert foreign.returncode != 0
        assert "ConnectionResetError" in foreign.stderr or "RemoteDisconnected" in foreign.stderr
        assert visitor.enter().status == 200, "nobody used the link"
        assert visitor.ask("/", method="POST").status == 405
