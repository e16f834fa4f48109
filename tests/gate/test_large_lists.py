"""The broker's memory while a client asks for its longest list on all its connections."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.gate.fixtures import IMAGE, World

if TYPE_CHECKING:
    from tests.engine import FoundEngine, PrivateEngine

pytestmark = pytest.mark.needs_root
CONTAINERS, CONNECTIONS = 95, 62
#: Labels and arguments at their limits.
LARGE = {
    "Image": IMAGE,
    "Labels": {f"pad{n}": "x" * 3900 for n in range(4)},
    "Cmd": ["x" * 4000] * 15,
    "HostConfig": {"NetworkMode": "none"},
}
GROWTH_MAX_MIB = 100
#: A request that waits for the large answers of others gets its turn, or 503, after 10 s.
PING_MAX_S = 5.0


@pytest.fixture(scope="module")
def world(engine: PrivateEngine | FoundEngine) -> Iterator[World]:
    made = World(engine, [IMAGE])
    try:
        yield made
    finally:
        made.close()


def peak_mib(world: World) -> int:
    """Return the most memory that the broker had so far."""
    status = Path(f"/proc/{world.gate.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def test_many_large_answers_at_once_take_bounded_memory(world: World) -> None:
    def create(number: int) -> int:
        return world.ask("alice", "POST", f"/containers/create?name=alice-c{number}", LARGE).status

    with ThreadPoolExecutor(4) as pool:
        assert {*pool.map(create, range(CONTAINERS))} == {201}
    listed = world.ask("alice", "GET", "/containers/json?all=1")
    assert len(listed.json) == CONTAINERS
    before, slowest = peak_mib(world), 0.0
    statuses = []

    def ask() -> None:
        statuses.append(world.ask("alice", "GET", "/containers/json?all=1").status)

    threads = [threading.Thread(target=ask) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        began = time.monotonic()
        assert world.ask("operator", "GET", "/_ping").status == 200
        slowest = max(slowest, time.monotonic() - began)
        time.sleep(0.05)
    for thread in threads:
        thread.join()
    grown = peak_mib(world) - before
    sizes = {"answers": len(statuses), "bytes": len(listed.body), "grown_mib": grown}
    print(json.dumps({**sizes, "slowest_ping_s": round(slowest, 3), "peak": peak_mib(world)}))
    assert len(statuses) == CONNECTIONS
    assert set(statuses) <= {200, 503}
    assert grown < GROWTH_MAX_MIB
    assert slowest < PING_MAX_S
