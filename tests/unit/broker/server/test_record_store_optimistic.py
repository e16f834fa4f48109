"""Optimistic outcomes amid other records: after each step the inventory is a fold in the journal's order.

A seeded random test sends intents and outcomes, and lets the disk write the next entry or fail.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from controller.broker.gate.state import GateState
from controller.broker.server.record_store import RecordStore
from controller.broker.server.server import UNKNOWN_ENGINE
from controller.core.records.inventory import fold, fold_all
from controller.core.records.record import timestamp
from controller.model.errors import JournalUnavailable
from controller.model.inventory import Inventory
from controller.model.records import Entry, Record
from controller.ports import JournalHealth
from tests.unit.broker.serving import STRICT, TestClock, entry, ids, run

STEPS = 80
#: What an intent takes down.
TAKES = {"container.stop": "slot", "container.remove": "service", "container.update": "slot"}


class Disk:
    """A ``ports.QueuedJournal`` in memory. The test decides when an entry is durable."""

    last_health = JournalHealth()
    signed_at_open = 0
    error = ""

    def __init__(self, tick_s: float) -> None:
        self._tick_s = tick_s
        self.queue: deque[tuple[Entry, Future[Record]]] = deque()
        self.durable: list[Record] = []

    @property
    def last_seq(self) -> int:
        return len(self.durable)

    def submit(self, each: Entry) -> Future[Record]:
        self.queue.append((each, Future()))
        return self.queue[-1][1]

    def append(self, each: Entry) -> Record:
        time = timestamp(1_800_000_000.0 + self._tick_s * len(self.durable))
        self.durable.append(Record(len(self.durable) + 1, time, each, "", ""))
        return self.durable[-1]

    def records(self, *, after: int = 0) -> Iterator[Record]:
        yield from self.durable[after:]

    def pruned_inventory(self, *, known: int) -> Inventory | None:
        return None

    def close(self) -> None:
        while self.queue:
            self.write_next()

    def write_next(self, *, fails: bool = False) -> None:
        each, future = self.queue.popleft()
        if fails:
            future.set_exception(JournalUnavailable("journal.unwritable", "no space left"))
        else:
            future.set_result(self.append(each))


class Flows:
    """Random flows over few containers, so that many of them are about the same one."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self._number = 0
        self._open: list[tuple[Entry, dict[str, object]]] = []

    def begin(self) -> Entry:
        """Return the intent of a new flow."""
        self._number += 1
        subject = f"c{self.random.randrange(4)}"
        route = self.random.choice(
            ["container.create", "container.start", "container.kill", *TAKES]
        )
        labels = {
            "io.trimtab.service": f"web{subject}",
            "io.trimtab.namespace": "default",
            "io.trimtab.origin": "controller",
            "io.trimtab.revision": f"v2:{self._number % 3}",
            "io.trimtab.slot": "run-1" if subject == "c0" else "1",
        }
        summary: dict[str, object] = {
            "namespace": "default",
            "service": labels["io.trimtab.service"],
            "settings": {"name": f"n{self._number}", "memory": 2 ** (20 + self._number % 4)},
            "fields": ["Memory"],
            "outcome": "unstarted" if route == "container.remove" else "",
            "takesDown": TAKES.get(route, ""),
        }
        if route == "container.create":
            summary |= {"labels": labels, "image": "ghcr.io/p/web:1", "imageId": "sha256:1"}
        request: dict[str, object] = {"route": route, "object": subject, "summary": summary}
        actor = {"role": self.random.choice(["controller", "controller", "client"]), "uid": 1}
        intent = entry(self._number, request=request, actor=actor)
        result: dict[str, object] = (
            {"status": 201, "container": subject} if "create" in route else {"status": 204}
        )
        self._open.append((intent, result))
        return intent

    def end(self) -> Entry | None:
        """Return the outcome of an open flow, a successful one or a failure."""
        if not self._open:
            return None
        intent, result = self._open.pop(self.random.randrange(len(self._open)))
        result = self.random.choice([result, result, {"status": 500}])
        return Entry(intent.id, "outcome", actor=intent.actor, result=result)


def ahead_of(durable: Inventory, optimistic: list[Entry]) -> Inventory:
    """Return the inventory as a fold of the optimistic outcomes after all durable records."""
    for each in optimistic:
        ahead = fold(durable, Record(durable.seq + 1, durable.time, each, "", ""))
        durable = replace(ahead, seq=durable.seq)
    return durable


async def check(seed: int, tick_s: float) -> None:
    flows, disk = Flows(seed), Disk(tick_s)
    state = GateState(STRICT, Inventory(), "test", UNKNOWN_ENGINE, TestClock(), ids())
    store = RecordStore(disk, state, Path("/nowhere"))
    store.load()
    writing: list[asyncio.Task[Record | None]] = []
    optimistic: list[Entry] = []
    folded, failures = state.inventory, 0
    for _ in range(STEPS):
        what = flows.random.random()
        each = flows.begin() if what < 0.3 else flows.end() if what < 0.6 else None
        if each is not None:
            is_early = each.stage == "outcome" and flows.random.random() < 0.8
            writing.append(asyncio.create_task(store.write(each, optimistic=is_early)))
            optimistic += [each] if is_early else []
        elif disk.queue:
            written = disk.queue[0][0]
            fails = flows.random.random() < 0.1
            failures += fails and written in optimistic
            disk.write_next(fails=fails)
            optimistic = [other for other in optimistic if other is not written]
            folded = folded if fails else fold(folded, disk.durable[-1])
        for _ in range(3):  # the write begins, and its result is folded
            await asyncio.sleep(0)
        if not optimistic or not tick_s:  # the times of optimistic outcomes are the ones before
            # As text, since the order of entries counts too.
            assert repr(state.inventory) == repr(ahead_of(folded, optimistic))
        assert (state.inventory.seq, state.inventory.time) == (folded.seq, folded.time)
    disk.close()
    await asyncio.gather(*writing)
    assert store.rollbacks == failures
    assert repr(state.inventory) == repr(fold_all(Inventory(), disk.durable))


@pytest.mark.parametrize("seed", range(12))
def test_the_inventory_is_that_of_the_records_and_of_each_optimistic_outcome(seed: int) -> None:
    run(check(seed, tick_s=0.0))


@pytest.mark.parametrize("seed", range(3))
def test_the_times_of_records_replace_those_of_optimistic_outcomes_in_the_end(seed: int) -> None:
    run(check(seed, tick_s=1.0))
