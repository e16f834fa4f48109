"""From a push to a running container: over file, HTTP and SSH, by polls and by webhooks.

Measured is from the moved branch of the repository to the start of the new container, as the engine's
events tell. nginx, sshd, the engine and the instance run on this machine. Each push changes the
environment of one service. A poll comes within the interval; pushes fall at random moments of it.
"""

from __future__ import annotations

import hmac
import http.client
import os
import pwd
import queue
import random
import secrets
import signal
import statistics
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import CLOCK_REALTIME, clock_gettime, monotonic, sleep

from controller.fetch.webhook import SECRETS
from tests import engine as engines
from tests.git.places import Happening, Place, open_place, surroundings_beside
from tests.instance import LABEL, Host, eventually
from tools.benches.engine_api import labels_of_starts
from tools.benches.measure import Figure, row

TRANSPORTS = ("file", "http", "ssh")
RUNS, INTERVAL_S, GOAL_S, PORT = 10, 10, 2.0, 9000
#: Predecessors go soon: the next push waits for that.
ROLLOUT = "  rollout: {minHealthy: 1s}\n"


@dataclass
class Pushed:
    """A source, and the repository that is pushed to."""

    name: str
    place: Place
    secret: bytes
    version: int = 1
    pushed_at: float = 0.0

    def push(self) -> float:
        """Push a change of the service; return when the branch had moved."""
        self.version += 1
        text = self.place.document(version=self.version) + ROLLOUT
        self.place.repository.commit({**self.place.good, "deploy/web.yaml": text})
        self.pushed_at = clock_gettime(CLOCK_REALTIME)
        return monotonic()

    def served_after_s(self, host: Host) -> float:
        """Return the seconds from the push until the fetcher served the commit."""
        link = host.state / "fetcher" / "sources" / self.name / "current"
        return link.lstat().st_mtime - self.pushed_at

    def send_webhook(self, engine: engines.PrivateEngine) -> None:
        body = b'{"ref": "refs/heads/main"}'
        digest = hmac.new(self.secret, body, "sha256").hexdigest()
        asked = http.client.HTTPConnection("127.0.0.1", PORT)
        asked.sock = engine.connect(PORT)
        headers = {"X-Hub-Signature-256": f"sha256={digest}"}
        asked.request("POST", f"/hooks/{self.name}", body, headers)
        assert asked.getresponse().status == http.client.ACCEPTED
        asked.close()


class Starts:
    """The starts of containers, as they come."""

    def __init__(self, engine: engines.PrivateEngine) -> None:
        self._heard: queue.SimpleQueue[tuple[str, float]] = queue.SimpleQueue()
        events = labels_of_starts(engine.socket)

        def listen() -> None:
            for labels in events:
                self._heard.put((labels[f"{LABEL}.namespace"], monotonic()))

        threading.Thread(target=listen, daemon=True).start()

    def next(self) -> tuple[str, float]:
        """Return the namespace and the time of the next start."""
        return self._heard.get(timeout=INTERVAL_S * 3)


def run() -> list[Figure]:
    if os.geteuid() != 0:
        print("  needs root: an engine of its own", file=sys.stderr)
        return []
    with ExitStack() as stack:
        engine = engines.open_engine()
        stack.callback(engine.close)
        assert isinstance(engine, engines.PrivateEngine), "as root the engine is its own"
        host = Host(engine)
        stack.callback(host.close)
        sources = {over: stack.enter_context(_source(host, over=over)) for over in TRANSPORTS}
        host.up("--webhook", f"127.0.0.1:{PORT}")
        stack.callback(host.stop, signal.SIGTERM)
        for over in TRANSPORTS:
            eventually(partial(host.is_ready, "web", namespace=f"{over}-space"), what=over)
        heard = Starts(engine)
        figures = []
        for over, source in sources.items():
            taken = [_by_webhook(host, engine, source, heard) for _ in range(RUNS)]
            figures.append(_figure(f"webhook over {over}", taken, GOAL_S))
        polled = [_by_poll(host, sources, heard) for _ in range(RUNS)]
        for over in TRANSPORTS:
            taken = [each[over] for each in polled]
            figures.append(_figure(f"poll over {over}", taken, INTERVAL_S + GOAL_S))
        return figures


def _figure(of: str, taken: list[tuple[float, float]], goal_s: float) -> Figure:
    times = [running_s for running_s, _ in taken]
    median, longest = f"{statistics.median(times):.2f} s", f"{max(times):.2f} s"
    served = f"{statistics.median(served_s for _, served_s in taken):.2f} s"
    row(of, runs=str(len(times)), median=median, max=longest, served=served)
    return Figure(f"push to running, {of}: max", longest, f"within {goal_s:g} s")


def _by_webhook(
    host: Host, engine: engines.PrivateEngine, source: Pushed, heard: Starts
) -> tuple[float, float]:
    """Push; return the seconds until the container runs, and until the commit was served."""
    began = source.push()
    source.send_webhook(engine)
    namespace, ended = heard.next()
    assert namespace == source.place.around.namespace, namespace
    served_s = source.served_after_s(host)
    _settle(host)
    return ended - began, served_s


def _by_poll(
    host: Host, sources: dict[str, Pushed], heard: Starts
) -> dict[str, tuple[float, float]]:
    """Push to all repositories at a random moment; return the seconds of each, as a webhook's."""
    sleep(random.random() * INTERVAL_S)  # noqa: S311 - a moment
    began = {over: source.push() for over, source in sources.items()}
    ended = dict(heard.next() for _ in sources)
    found = {
        over: (ended[f"{over}-space"] - began[over], source.served_after_s(host))
        for over, source in sources.items()
    }
    _settle(host)
    return found


def _settle(host: Host) -> None:
    """Wait until the old containers are gone."""
    eventually(lambda: len(host.containers()) == len(TRANSPORTS), what="old containers are gone")
    host.await_ready()


@contextmanager
def _source(host: Host, *, over: str) -> Iterator[Pushed]:
    """Make a repository with its server, a Source that follows it, and the secret of its webhook."""
    name = f"bench-{over}-{secrets.token_hex(3)}"
    secret = secrets.token_hex(32).encode()
    with ExitStack() as stack:
        beside = surroundings_beside(host, name, namespace=f"{over}-space")
        around = stack.enter_context(beside)
        place = stack.enter_context(open_place(Happening(lambda _: None, over=over), around))
        stack.enter_context(_secret(SECRETS / name, secret))
        host.write(f"{name}.yaml", place.source_document(name, interval=f"{INTERVAL_S}s"))
        yield Pushed(name, place, secret)


@contextmanager
def _secret(path: Path, content: bytes) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o640)
    path.write_bytes(content)
    os.chown(path, 0, pwd.getpwnam("trimtab-fetch").pw_gid)
    try:
        yield
    finally:
        path.unlink()
