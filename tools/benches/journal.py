"""The journal: how many appends a second, how long one waits, how fast it is checked and read."""

from __future__ import annotations

import os
import resource
import tempfile
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from time import perf_counter

from controller.app.process import SystemClock, new_id
from controller.core.records.query import Filter
from controller.journal.index.queries import FolderArchive
from controller.journal.verify.verify import verify
from controller.journal.writer.append_log import Disk
from controller.journal.writer.writer_thread import Writer
from controller.model.records import Entry, Record
from tools.benches.measure import milliseconds, percentile, rate, ratio, row

RECORDS = 100_000
APPENDS = 10_000


class CountingDisk(Disk):
    """Counts the flushes."""

    def __init__(self) -> None:
        self.flushes = 0

    def fsync(self, file: int) -> None:
        self.flushes += 1
        super().fsync(file)


def run() -> None:
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder:
        base = bare_writes(Path(folder))
        for in_flight in (1, 8, 64):
            appends(Path(folder) / f"journal-{in_flight}", in_flight, base)
        big = Path(folder) / "journal-big"
        fill(big)
        reading(big)


def bare_writes(folder: Path) -> float:
    """Write and flush lines one by one, without a journal: what the disk itself costs."""
    line = b"x" * 1100 + b"\n"
    file = os.open(folder / "bare", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    waits = []
    started = perf_counter()
    for _ in range(2000):
        before = perf_counter()
        os.write(file, line)
        os.fsync(file)
        waits.append(perf_counter() - before)
    taken = perf_counter() - started
    os.close(file)
    waits.sort()
    row(
        "bare write + fsync",
        rate=rate(len(waits), taken),
        p50=milliseconds(percentile(waits, 0.5)),
        p99=milliseconds(percentile(waits, 0.99)),
    )
    return percentile(waits, 0.5)


def appends(folder: Path, in_flight: int, base: float) -> None:
    """Keep so many appends waiting at any time."""
    disk = CountingDisk()
    waits: list[float] = []
    with Writer(folder, clock=SystemClock(), new_id=new_id, disk=disk) as writer:
        flushes = disk.flushes
        pending: dict[Future[Record], float] = {}

        def submit(number: int) -> None:
            before = perf_counter()
            future = writer.submit(entry(number))
            future.add_done_callback(lambda _: waits.append(perf_counter() - before))
            pending[future] = before

        started = perf_counter()
        for number in range(APPENDS):
            submit(number)
            if len(pending) >= in_flight:
                done, _ = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                    del pending[future]
        wait(pending)
        taken = perf_counter() - started
        flushes = disk.flushes - flushes
    waits.sort()
    row(
        f"append, {in_flight} in flight",
        rate=rate(APPENDS, taken),
        p50=milliseconds(percentile(waits, 0.5)),
        p99=milliseconds(percentile(waits, 0.99)),
        each_fsync=f"{APPENDS / flushes:.1f} records",
        p50_to_bare=ratio(percentile(waits, 0.5), base),
    )


def fill(folder: Path) -> None:
    with Writer(folder, clock=SystemClock(), new_id=new_id) as writer:
        started = perf_counter()
        queued: list[Future[Record]] = []
        for number in range(RECORDS):
            queued.append(writer.submit(entry(number)))
            if len(queued) == 2000:
                for future in queued:
                    future.result()
                queued.clear()
        for future in queued:
            future.result()
        row(f"append, {RECORDS:,} in bulk", rate=rate(RECORDS, perf_counter() - started))


def reading(folder: Path) -> None:
    size = sum(path.stat().st_size for path in folder.glob("*.jsonl"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = perf_counter()
    found = verify(folder)
    checking = perf_counter() - started
    assert found.ok, found
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    row(
        f"verify, {found.records:,} records",
        rate=rate(found.records, checking),
        taken=f"{checking:.2f} s",
        size=f"{size / 2**20:.0f} MiB",
        memory=f"+{grown / 1024:.0f} MiB",
    )
    for name, wanted, limit in (
        ("list, the last 50", Filter(), 50),
        ("list --service", Filter(service="web-7"), 50),
    ):
        started = perf_counter()
        with FolderArchive(folder) as archive:
            count = len(list(archive.find(wanted, limit=limit)))
        taken = perf_counter() - started
        row(name, taken=f"{taken:.2f} s", found=str(count), to_verify=ratio(taken, checking))
    started = perf_counter()
    Writer(folder, clock=SystemClock(), new_id=new_id).close()
    row("open to write", taken=f"{perf_counter() - started:.2f} s")


_intents: dict[int, str] = {}


def entry(number: int) -> Entry:
    """The number-th of a stream of creates and their outcomes, as the broker records them."""
    pair = number // 2
    actor: dict[str, object] = {
        "uid": 990, "gid": 990, "pid": 4242, "role": "controller", "separated": True,
    }  # fmt: skip
    if number % 2:
        result: dict[str, object] = {
            "status": 201, "error": "", "durationMs": 120, "container": f"{pair:064x}",
        }  # fmt: skip
        return Entry(_intents.pop(pair), "outcome", actor=actor, result=result)
    _intents[pair] = new_id()
    name = f"web-{pair % 40}"
    labels = {
        "io.trimtab.service": name,
        "io.trimtab.namespace": "default",
        "io.trimtab.owner": "platform-team",
        "io.trimtab.slot": "1",
        "io.trimtab.revision": f"v1:{pair:064x}",
        "io.trimtab.image": "ghcr.io/platformnetwork/api:1.4.2",
    }
    settings = {
        "memoryBytes": 2**31,
        "nanoCpus": 10**9,
        "pids": 256,
        "networks": ["platform-network"],
    }
    request: dict[str, object] = {
        "method": "POST",
        "route": "container.create",
        "object": f"{name}.1-{pair:08x}",
        "summary": {"name": f"{name}.1-{pair:08x}", "labels": labels, "settings": settings},
        "digest": f"{pair:064x}",
    }
    verdict: dict[str, object] = {
        "decision": "mutate",
        "rules": ["defaults.memory", "defaults.pids", "capabilities.drop"],
        "mutations": ["memory is 2 GiB", "at most 256 processes", "all capabilities dropped"],
        "policy": "e" * 64,
    }
    claims: dict[str, object] = {
        "cause": "slot 1 is empty",
        "source": {"file": "web.yaml", "line": 3, "commit": ""},
        "plan": "f" * 64,
        "onBehalfOf": "",
    }
    return Entry(
        _intents[pair], "intent", actor=actor, request=request, verdict=verdict, claims=claims
    )
