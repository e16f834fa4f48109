"""Polls of a Git source with nothing new: the processor time of the fetcher and the git that it runs.

nginx, which serves the repository over HTTP, doesn't count; over file:// git starts a server of its
own, which does.
"""

from __future__ import annotations

import resource
import statistics
import tempfile
from pathlib import Path

from controller.app.clock import SystemClock
from controller.fetch.fetcher import DeclaredSources, Fetcher, FetcherParts
from tests.git.places import PASSWORD
from tests.git.repository import DOCUMENT, Repository, source_spec, unverified
from tests.git.servers import NginxServer
from tools.benches.measure import Figure, milliseconds, row

POLLS = 100
GOAL_S = 0.020
_HTTP = ', "allowInsecureLoopback": true, "credentials": "team"'


def run() -> list[Figure]:
    figures = []
    with tempfile.TemporaryDirectory(prefix="trimtab-bench-") as name:
        folder = Path(name)
        repository = Repository(folder / "served" / "deploy.git")
        repository.commit({"deploy/web.yaml": DOCUMENT})
        server = NginxServer(folder / "nginx", folder / "served", password=PASSWORD)
        with server.running():
            http = f"{server.address}/deploy.git"
            for protocol, address in (("file", repository.url), ("http", http)):
                times = _polls(folder / protocol, address)
                median = statistics.median(times)
                row(
                    f"poll over {protocol}",
                    median=milliseconds(median),
                    worst=milliseconds(times[-1]),
                )
                goal = f"under {milliseconds(GOAL_S)}"
                figures.append(Figure(f"CPU of a poll over {protocol}", milliseconds(median), goal))
    return figures


def _polls(folder: Path, url: str) -> list[float]:
    """Return the seconds of processor time of each poll, sorted."""
    secret = folder / "git" / "team" / "password"
    secret.parent.mkdir(parents=True)
    secret.touch(mode=0o600)
    secret.write_text(PASSWORD)
    spec = source_spec(url, git=_HTTP if url.startswith("http") else "")
    fetcher = Fetcher(
        FetcherParts(
            folder=folder,
            credentials=folder / "git",
            verify=unverified,
            load_sources=lambda: DeclaredSources({"shop": spec}, complete=True),
            clock=SystemClock(),
            random=lambda: 0.5,
            feedback=folder / "feedback.json",
            host="host-1",
        )
    )
    fetcher.start()
    try:
        fetcher.sync("shop")
        return sorted(_poll_s(fetcher) for _ in range(POLLS))
    finally:
        fetcher.stop()


def _poll_s(fetcher: Fetcher) -> float:
    before = _cpu_s()
    answer = fetcher.sync("shop")
    taken = _cpu_s() - before
    source = answer["source"]
    assert isinstance(source, dict), "the source is unknown"
    assert answer["done"], "the poll did not end"
    assert source["state"] == "Ready", source["message"]
    return taken


def _cpu_s() -> float:
    """Return the processor time of this process and its ended children."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
