"""The page of 1,000 services: its first byte, its size, and what 64 live readers cost its server."""

from __future__ import annotations

import http.client
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

from controller.web.server.login import STREAMS_MAX
from tools.benches.measure import Figure, percentile
from tools.suite.processes import cpu_seconds

SERVICES, REQUESTS, WATCHED_S = 1000, 50, 20.0
#: Serves the world until its input ends; a line of the input is a change.
_SERVER = """
import sys
from tests.page import worlds
from tests.page.server import World, serve
world = World(worlds.large(int(sys.argv[1])))
with serve(world) as address:
    print(address, flush=True)
    for line in sys.stdin:
        world.tell({**world.view, "version": line})
"""


@contextmanager
def _server() -> Iterator[tuple[subprocess.Popen[str], str]]:
    argv = [sys.executable, "-c", _SERVER, str(SERVICES)]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process, urlsplit(process.stdout.readline().strip()).netloc
        process.stdin.close()


def _page(host: str) -> tuple[float, int]:
    """Return the seconds until the first byte of the start page, and its bytes."""
    connection = http.client.HTTPConnection(host)
    began = time.perf_counter()
    connection.request("GET", "/")
    answer = connection.getresponse()
    first_s = time.perf_counter() - began
    size = len(answer.read())
    connection.close()
    return first_s, size


def run() -> list[Figure]:
    """Measure, and return the figures with their goals."""
    with _server() as (process, host), ExitStack() as streams:
        _page(host)  # templates are compiled
        times = sorted(_page(host)[0] for _ in range(REQUESTS))
        size = _page(host)[1]
        readers = []
        for _ in range(STREAMS_MAX):
            connection = http.client.HTTPConnection(host)
            streams.callback(connection.close)
            connection.request("GET", "/events")
            readers.append(streams.enter_context(connection.getresponse()))
        before = cpu_seconds(process.pid)
        time.sleep(WATCHED_S)
        waiting = (cpu_seconds(process.pid) - before) / WATCHED_S
        before = cpu_seconds(process.pid)
        assert process.stdin is not None
        process.stdin.write("1\n")
        process.stdin.flush()
        for reader in readers:
            while not reader.readline().startswith(b"data:"):
                pass
            _page(host)
        change_s = cpu_seconds(process.pid) - before
    return [
        Figure("first byte, median", f"{percentile(times, 0.5) * 1000:.0f} ms", ""),
        Figure("first byte, 95 %", f"{percentile(times, 0.95) * 1000:.0f} ms", "≤ 100 ms"),
        Figure("start page", f"{size / 1000:.0f} kB", "≤ 100 kB"),
        Figure(f"{STREAMS_MAX} live readers, no change", f"{waiting:.2%} of a core", "< 10 %"),
        Figure(
            f"{STREAMS_MAX} readers fetch one change", f"{change_s * 1000:.0f} ms of a core", ""
        ),
    ]
