"""Polls of a Git source with nothing new: the processor time of the fetcher and the git that it runs.

nginx and sshd, which serve the repository over HTTP and SSH, don't count; over file:// git starts a
server of its own, which does.
"""

from __future__ import annotations

import resource
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path

from controller.app.process import SystemClock
from controller.fetch.fetcher import DeclaredSources, Fetcher, FetcherParts
from tests.git.places import PASSWORD
from tests.git.repository import DOCUMENT, Repository, source_spec, unverified
from tests.git.servers import NginxServer, SshServer
from tools.benches.measure import Figure, milliseconds, row

POLLS = 100
GOAL_S = 0.020
_CREDENTIALS = ', "credentials": "team"'
_HTTP = f', "allowInsecureLoopback": true{_CREDENTIALS}'


def run() -> list[Figure]:
    figures = []
    with tempfile.TemporaryDirectory(prefix="trimtab-bench-") as name:
        folder = Path(name)
        repository = Repository(folder / "served" / "deploy.git")
        repository.commit({"deploy/web.yaml": DOCUMENT})
        server = NginxServer(folder / "nginx", folder / "served", password=PASSWORD)
        ssh = SshServer(folder / "sshd")
        key, host = (ssh.folder / "id").read_text(), ssh.known_host()
        with server.running(), ssh.running():
            for protocol, address, git, secrets in (
                ("file", repository.url, "", {}),
                ("http", f"{server.address}/deploy.git", _HTTP, {"password": PASSWORD}),
                (
                    "ssh",
                    ssh.url(repository.folder),
                    _CREDENTIALS,
                    {"id": key, "known_hosts": host},
                ),
            ):
                times = _polls(folder / protocol, address, git, secrets)
                median = statistics.median(times)
                row(
                    f"poll over {protocol}",
                    median=milliseconds(median),
                    worst=milliseconds(times[-1]),
                )
                goal = f"under {milliseconds(GOAL_S)}"
                figures.append(Figure(f"CPU of a poll over {protocol}", milliseconds(median), goal))
    return figures


def _polls(folder: Path, url: str, git: str, secrets: Mapping[str, str]) -> list[float]:
    """Return the seconds of processor time of each poll, sorted; *secrets* are files by name."""
    credentials = folder / "git" / "team"
    credentials.mkdir(parents=True)
    for name, text in secrets.items():
        secret = credentials / name
        secret.touch(mode=0o600)
        secret.write_text(text)
    spec = source_spec(url, git=git)
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
