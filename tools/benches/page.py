"""1,000 services: the first byte and size of the page, what 64 live readers cost, and a scrape of the metrics."""

from __future__ import annotations

import http.client
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from controller.loop.metrics import ControllerMetrics
from controller.loop.status_reporter import FRESH_S
from controller.model.desired.plan import AnyAction
from controller.model.errors import EngineError, EngineFailed
from controller.web.server.login import STREAMS_MAX
from tests import worlds
from tests.unit.loop.toy import House
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


def _fail(action: AnyAction) -> EngineError | None:
    return EngineFailed("engine.error", "no") if action.verb == "start-container" else None


def _scrapes() -> tuple[list[float], int]:
    """Return the sorted seconds of a core that scrapes take, each with a status of its own, and their bytes.

    Of all services, each fiftieth fails to start.
    """
    with tempfile.TemporaryDirectory() as folder:
        house = House(Path(folder))
        services = [worlds.service(f"service-{n:04}") for n in range(SERVICES)]
        running = (each.key.name for n, each in enumerate(services) if n % 50)
        house.engine.world = worlds.engine(*map(worlds.container, running))
        house.engine.fault = _fail
        house.declare(*services)
        while house.step():
            pass
        metrics, times, text = ControllerMetrics(house.controller, 0.0), [], ""
        for _ in range(REQUESTS):
            house.watch.time += 2 * FRESH_S
            began = time.process_time()
            text = metrics.text()
            times.append(time.process_time() - began)
        return sorted(times), len(text.encode())


def run() -> list[Figure]:
    """Measure, and return the figures with their goals."""
    scrapes, scraped = _scrapes()
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
        Figure("scrape, median", f"{percentile(scrapes, 0.5) * 1000:.1f} ms of a core", "≤ 20 ms"),
        Figure("scrape", f"{scraped / 1000:.0f} kB", "≤ 1 MiB"),
    ]
