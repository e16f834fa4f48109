"""``trimtab web`` on a real instance: for one user's browser, and for holders of tokens (G47)."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPMessage, HTTPResponse
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest

from tests.instance import PATIENCE_S, TRIMTAB, Host, eventually, web
from tests.unprivileged import as_user

pytestmark = pytest.mark.needs_root
STRANGER, VIEWER, CALLER = 64_231, 64_232, 64_233
NAME = "trimtab.example"
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
def page_of(host: Host, **variables: str) -> Iterator[tuple[subprocess.Popen[str], Visitor]]:
    """Run ``trimtab web`` during the block."""
    argv = [TRIMTAB, "web", "--state", str(host.state)]
    env = {**host.environment(), **variables}
    with (
        host.log.open("ab") as log,
        subprocess.Popen(
            argv, env=env, stdout=subprocess.PIPE, stderr=log, text=True, cwd=host.folder
        ) as process,
    ):
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
        eventually(lambda: "/Service/default/web" in visitor.get("/"), what="the first view")
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
            eventually(
                lambda: "no config found" in visitor.get("/Service/default/api/logs"),
                what="the output of the container, which starts again and again",
            )

            host.stop()
            eventually(lambda: "The controller doesn't answer" in visitor.get("/"), what="the age")
            assert "/Service/default/web" in visitor.get("/"), "the last view"

            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=PATIENCE_S) == 0
            assert all(line.startswith("data:") for line in news), "the stream has an end"


def opened_by(uid: int, visitor: Visitor) -> subprocess.CompletedProcess[str]:
    """Use the link in a process of another user."""
    program = (
        "import sys, urllib.request\nprint(urllib.request.urlopen(sys.argv[1], timeout=30).status)"
    )
    argv = [sys.executable, "-c", program, f"http://{visitor.host}{visitor.link}"]
    return subprocess.run(
        as_user(argv, uid=uid, gid=uid),
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        timeout=PATIENCE_S,
    )


def test_the_browser_of_the_user_who_called_sudo_is_served(host: Host) -> None:
    with host.running(), page_of(host, SUDO_UID=str(CALLER)) as (_, visitor):
        foreign = opened_by(STRANGER, visitor)
        assert foreign.returncode != 0
        assert "ConnectionResetError" in foreign.stderr or "RemoteDisconnected" in foreign.stderr
        served = opened_by(CALLER, visitor)
        assert served.stdout == "200\n", served


def test_another_user_and_another_name_of_the_host_are_refused(host: Host) -> None:
    with host.running(), page_of(host) as (_, visitor):
        port = visitor.host.partition(":")[2]
        for name in ("evil.example", f"evil.example:{port}", f"localhost:{port}", "127.0.0.1"):
            assert visitor.ask(visitor.link, Host=name).status == 421, name
        foreign = opened_by(STRANGER, visitor)
        assert foreign.returncode != 0
        assert "ConnectionResetError" in foreign.stderr or "RemoteDisconnected" in foreign.stderr
        assert visitor.enter().status == 200, "nobody used the link"
        assert visitor.ask("/", method="POST").status == 405


class SocketVisitor(Visitor):
    """A browser behind a proxy at a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"http://{NAME}/")
        self._path = path

    @contextmanager
    def stream(
        self, path: str, method: str = "GET", body: str = "", **headers: str
    ) -> Iterator[HTTPResponse]:
        """Yield an answer whose body isn't read yet."""
        with closing(HTTPConnection(NAME)) as connection:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(PATIENCE_S)
            connection.sock.connect(str(self._path))
            sent = {"Cookie": self.cookie, **headers}
            connection.request(method, path, body or None, sent)
            with connection.getresponse() as answer:
                yield answer

    def is_ready(self) -> bool:
        """Return True if the page has a view."""
        try:
            return self.ask("/readyz").status == 200
        except (FileNotFoundError, ConnectionRefusedError):
            return False

    def log_in(self, token: str) -> Answer:
        """Use a token."""
        with self.stream("/login", "POST", urlencode({"token": token})) as answer:
            self.cookie = str(answer.getheader("Set-Cookie")).partition(";")[0]
            return Answer(answer.status, answer.headers, answer.read().decode())


def test_a_viewer_of_the_policy_serves_holders_of_tokens(host: Host) -> None:
    host.state.mkdir()
    path = host.folder / "web" / "web.sock"
    web_folder, own = host.state / "web", host.state / "page"
    for folder in (path.parent, web_folder, own):
        folder.mkdir()
    os.chown(path.parent, VIEWER, VIEWER)
    os.chown(own, VIEWER, VIEWER)
    os.chown(web_folder, 0, VIEWER)
    web_folder.chmod(0o2750)
    (host.state / "trimtab.yaml").write_text(
        f"web: {{listen: 'unix://{path}', url: 'https://{NAME}',"
        " proxyUser: root, proxyHeader: Remote-User}\n"
    )
    host.write("web.yaml", web("shop").replace("owner: team", "owner: shop"))
    host.write("api.yaml", web("api"))
    policy = host.folder / "policy.yaml"
    viewers = f"viewers: [{{uid: {VIEWER}, owners: all, logs: [shop]}}]\n"
    policy.write_text(f"{Path(host.policy).read_text()}\n{viewers}")
    host.policy = str(policy)
    argv = as_user([TRIMTAB, "web", "run", "--state", str(host.state)], uid=VIEWER, gid=VIEWER)
    with host.running():
        all_owners = host.cli("web", "token", "add", "ann", "--scope", "view+logs:shop,team")
        prometheus = host.cli("web", "token", "add", "prometheus", "--scope", "metrics")
        assert host.json("web", "token", "list")["tokens"][0]["name"] == "ann"
        log = host.folder / "web.log"
        with (
            log.open("wb") as output,
            subprocess.Popen(argv, stderr=output, env=host.environment(), cwd="/") as process,
        ):
            try:
                visitor = SocketVisitor(path)
                eventually(visitor.is_ready, what="a view")
                assert visitor.ask("/").status == 303
                entered = visitor.log_in(all_owners.stdout.strip())
                assert entered.headers["Set-Cookie"].startswith("__Host-trimtab=")
                assert "/Service/default/shop" in visitor.get("/")
                assert "container.create" in visitor.get("/journal")
                for other in ("problems", "sources", "static/page.js", "journal/unknown", "x"):
                    visitor.ask(f"/{other}")
                text = visitor.get("/Service/default/shop/logs")
                assert "be read" not in text and "isn't allowed" not in text
                assert "isn't allowed" in visitor.get("/Service/default/api/logs"), "by the policy"

                secret = prometheus.stdout.strip()
                metrics = visitor.ask("/metrics", Authorization=f"Bearer {secret}")
                assert 'trimtab_up{process="broker"} 1' in metrics.text
                assert 'trimtab_up{process="controller"} 1' in metrics.text
                proxied = SocketVisitor(path).ask("/", **{"Remote-User": "bob"})
                assert (proxied.status, "/Service/default/shop" in proxied.text) == (200, True)

                host.cli("web", "token", "revoke", "ann")
                assert visitor.ask("/").status == 303
                process.send_signal(signal.SIGTERM)
                assert process.wait(timeout=PATIENCE_S) == 0, log.read_text()
                assert "import.late" not in log.read_text()
            finally:
                if process.poll() is None:
                    process.kill()
