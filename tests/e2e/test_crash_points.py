"""Killed at any named point, and started again: nothing open, nothing twice, everything Ready.

Most of the time goes into waiting (recovery says "not applied" only once the engine can't be at it
any more), so that the instances of the sweep run side by side, each with networks of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from controller.model.crashpoints import CRASH_POINTS
from tests.instance import Host, eventually, web

if TYPE_CHECKING:
    from tests.engine import FoundEngine, PrivateEngine

AT_ONCE = 5
PATIENCE_S = 120.0
KILLED = "was killed by SIGKILL"

#: When a point is met: the first mutation makes the network, the second a container, the third
#: starts it. The journal is written at the broker's start too, the inventory at its end.
#: ``test_scenarios.py`` of the gate kills the broker around every kind of change, and the sweep of
#: ``tests/sim`` at every moment of its stories: here each point is met at one change.
TIMES = {
    "journal.": (1, 4),
    "upstream.": (2,),
    "broker.": (2,),
    "client.": (2,),
    "inventory.": (1,),
    "state.": (1,),
    "files.": (1,),
}
CONFIG = """\
apiVersion: trimtab/v1
kind: Config
metadata: {name: site, owner: team}
spec: {data: {page.html: hello}}
"""
#: Points at which a kill leaves the same behind as at another one, so that the sweep visits that one alone:
#: nothing is done in between, or nothing that outlives the process. What it wrote is the kernel's, synced
#: or not; what it had only in memory is gone. A point that is added to the code belongs into the sweep,
#: unless its code shows the same.
SAME_MOMENT = {
    "client.receive.before": "journal.write.before",
    "client.receive.after": "journal.write.before",
    "journal.fsync.before": "journal.write.after",
    "journal.fsync.after": "journal.write.after",
    "upstream.send.before": "journal.write.after",
    "upstream.receive.before": "upstream.send.after",
    "files.content.fsync.before": "files.content.write.after",
    "files.rename.before": "files.write.after",
    "broker.receive.before": "broker.send.after",
    "broker.receive.after": "broker.send.after",
    "state.fsync.before": "state.write.after",
}
#: Points of files that one module writes, and reads at its next start. Its unit tests kill it at each of them
#: (``broker/files/test_store.py``, ``broker/server/test_record_store.py``, ``loop/state/test_store.py``); the
#: sweep visits one, right after something was written.
SAME_FILES = {
    "files.content.write.before": "files.content.write.after",
    "files.content.fsync.after": "files.content.write.after",
    "files.write.before": "files.write.after",
    "files.rename.after": "files.write.after",
    "inventory.write.before": "inventory.write.after",
    "state.write.before": "state.write.after",
    "state.fsync.after": "state.write.after",
}
LEFT_OUT = SAME_MOMENT | SAME_FILES
SWEEP = [
    (point, count)
    for point in CRASH_POINTS
    if point not in LEFT_OUT
    for count in next(times for prefix, times in TIMES.items() if point.startswith(prefix))
]


def test_every_point_is_in_the_sweep() -> None:
    visited = {point for point, _ in SWEEP}
    assert visited | LEFT_OUT.keys() == set(CRASH_POINTS)
    assert visited >= set(LEFT_OUT.values())


@pytest.fixture(scope="module")
def sweep(
    engine: PrivateEngine | FoundEngine,
) -> Iterator[dict[tuple[str, int], Future[None]]]:
    """Every run of the sweep, under way."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {
            (point, count): pool.submit(crash_and_recover, engine, point, count, number)
            for number, (point, count) in enumerate(SWEEP)
        }


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("point", "count"), SWEEP)
def test_a_process_killed_at_a_point_leaves_nothing_open_and_nothing_twice(
    sweep: dict[tuple[str, int], Future[None]], point: str, count: int
) -> None:
    sweep[point, count].result()


def crash_and_recover(
    engine: PrivateEngine | FoundEngine, point: str, count: int, number: int
) -> None:
    host = Host(engine)
    try:
        host.use_networks_of_its_own(f"sweep{number}")
        # Names are the engine's: instances that share it need services of different names.
        service = f"web-{number}"
        extra = ""
        if point.startswith("files."):
            host.write("site.yaml", CONFIG)
            extra = "mounts: [{type: config, source: site, target: /srv/site}]"
        host.write("web.yaml", web(service, extra=extra))
        host.up(TRIMTAB_CRASH_AT=f"{point}:{count}")
        if point.startswith("inventory."):
            host.await_ready(service)
            host.stop()  # the broker saves its inventory, and dies of it
        eventually(lambda: KILLED in host.said(), within_s=PATIENCE_S, what=f"a kill at {point}")
        eventually(lambda: host.process_ended or host.status(), within_s=PATIENCE_S)
        if host.process_ended:  # it died before it served, or at its end: up ended with it
            host.up()
        host.await_ready(service, within_s=PATIENCE_S)
        eventually(host.nothing_open, within_s=PATIENCE_S, what="no open intent")
        assert host.stop() == 0
        assert host.nothing_open()
        labels = [c["Config"]["Labels"] for c in host.containers(service)]
        assert Counter(each["io.trimtab.slot"] for each in labels) == {"1": 1}
        records = host.records()
        intents = [r["id"] for r in records if r["stage"] == "intent"]
        closings = [r["id"] for r in records if r["stage"] in {"outcome", "recovered"}]
        assert sorted(intents) == sorted(closings), "each intent is closed exactly once"
    finally:
        host.close()
