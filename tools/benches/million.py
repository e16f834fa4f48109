"""A journal of a million signed records: what it takes to verify it, and to ask it.

``trimtab journal`` is run as people run it, so starting Python is in the times, and memory is that of
the largest process. A question is asked over and over in one process too: what it takes by itself.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout, suppress
from pathlib import Path
from time import process_time
from typing import Final

from controller.app.process import SystemClock
from controller.cli.main import main
from controller.core.transparency import PrivateKey
from controller.journal.index.queries import FolderArchive
from controller.journal.store.segments import first_seq_of, list_segments
from controller.journal.writer.retention import compress
from controller.settings import Instance, StateFolder, write_instance
from tools.benches.measure import (
    Figure,
    Ran,
    milliseconds,
    percentile,
    rate,
    ratio,
    repeated,
    row,
    run_command,
    taken,
)
from tools.benches.records import Written, write_journal

RECORDS: Final = 1_000_000
#: So many are enough to see what parsing each line costs.
THOROUGH: Final = 50_000
KEY: Final = PrivateKey("trimtab/bench", bytes(32))
TRIMTAB: Final = (sys.executable, "-m", "controller", "journal")
ASKED, STARTED = 20, 5
VERIFY_GOAL, MEMORY_GOAL, ANSWER_GOAL = "at most 5 s", "at most 128 MiB", "at most 200 ms"


def run() -> list[Figure]:
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder:
        small = Path(folder) / "small"
        now = SystemClock().now()
        each = verified(small, write_journal(small, THOROUGH, end=now, key=KEY), "--thorough")
        row(f"parsed, {THOROUGH:,}", **each.shown(), rate=rate(THOROUGH, each.ran.taken_s))
        root = Path(folder) / "state"
        layout = StateFolder(root=root, run=root / "run")
        layout.broker.mkdir(parents=True)
        instance = Instance(id="b" * 16, dir="/", run=str(layout.run))
        write_instance(root, instance)
        written = fill(layout.journal, now)
        figures = verifying(layout.journal, written, each)
        figures += asking(root, layout.journal, written)
        return figures + compressed(root, layout.journal, written)


def fill(folder: Path, now: float) -> Written:
    """Write the journal, as a month of work leaves it."""
    found: list[Written] = []
    took_s = taken(lambda: found.append(write_journal(folder, RECORDS, end=now, key=KEY)))
    size = f"{found[0].bytes / 2**20:.0f} MiB"
    row(f"written, {found[0].records:,}", taken=f"{took_s:.2f} s", size=size)
    return found[0]


class Verified:
    """One run of ``journal verify``, which found nothing bad."""

    def __init__(self, ran: Ran, records: int) -> None:
        self.ran = ran
        self.each_s = ran.taken_s / records

    def shown(self) -> dict[str, str]:
        ran = self.ran
        times = {"taken": f"{ran.taken_s:.2f} s", "cpu": f"{ran.cpu_s:.2f} s"}
        return {**times, "peak": f"{ran.peak_mib} MiB"}

    def figure(self, name: str) -> Figure:
        ran = self.ran
        return Figure(name, f"{ran.taken_s:.2f} s ({ran.cpu_s:.2f} s of processors)", VERIFY_GOAL)


def verified(
    folder: Path, written: Written, *more: str, processors: Sequence[int] = ()
) -> Verified:
    """Verify a journal; all of it has to be found good and signed."""
    argv = [*TRIMTAB, "verify", str(folder), "--key", str(KEY.public), "--json", *more]
    ran = run_command(argv, processors=processors)
    told = json.loads(ran.output)
    assert told["ok"], told
    assert told["signed"] == told["records"] - 1 == written.records - 1, told
    return Verified(ran, written.records)


def verifying(folder: Path, written: Written, each: Verified) -> list[Figure]:
    """Verify it with one processor, and with all."""
    every = sorted(os.sched_getaffinity(0))
    figures = []
    for some in (every[:1], every) if len(every) > 1 else (every,):
        found = verified(folder, written, processors=some)
        name = "verify, " + ("1 processor" if len(some) == 1 else f"{len(some)} processors")
        row(name, **found.shown(), to_parsing=ratio(found.each_s, each.each_s))
        figures.append(found.figure(name))
    return [*figures, Figure("its peak memory", f"{found.ran.peak_mib} MiB", MEMORY_GOAL)]


def compressed(root: Path, folder: Path, written: Written) -> list[Figure]:
    """Verify and ask it as it is after a week: all but what is written to is compressed."""
    segments = list_segments(folder)
    with ThreadPoolExecutor() as pool:
        took_s = taken(lambda: [*pool.map(compress, segments[:-1])])
    found = verified(folder, written)
    row("verify, compressed", **found.shown(), compressing=f"{took_s:.2f} s")
    # Whatever is asked of a compressed segment, it is unpacked up to there.
    late = str(first_seq_of(segments[1]) - 100)
    return [found.figure("verify, compressed"), *asked("show SEQ, compressed", root, "show", late)]


def asking(root: Path, folder: Path, written: Written) -> list[Figure]:
    """Make the index, and ask by it."""
    began = process_time()
    took_s = taken(lambda: FolderArchive(folder).close())
    size = f"{folder.with_name('index.sqlite').stat().st_size / 2**20:.0f} MiB"
    row("index, made", taken=f"{took_s:.2f} s", cpu=f"{process_time() - began:.2f} s", size=size)
    service, container = written.services[7], written.containers[7]
    lately = ("list", "--service", service, "--since", "1d")
    return [
        *asked("list --service X --since 1d", root, *lately),
        *asked("explain CONTAINER", root, "explain", container),
        *asked("blame SERVICE", root, "blame", service),
    ]


def asked(name: str, root: Path, *words: str) -> list[Figure]:
    """Ask a question over and over: in this process, and as a command of its own."""
    arguments = ["journal", *words, "--state", str(root)]
    answered(arguments)  # once, to warm up
    inside = repeated(lambda: answered(arguments), ASKED)
    argv = [sys.executable, "-m", "controller", *arguments]
    outside = repeated(lambda: run_command(argv), STARTED)
    answer, whole = percentile(inside, 0.5), percentile(outside, 0.5)
    shown = {"p50": milliseconds(answer), "max": milliseconds(inside[-1])}
    row(name, **shown, whole_command=milliseconds(whole))
    return [
        Figure(f"{name}, p50", milliseconds(answer), ANSWER_GOAL),
        Figure("  with Python's start", milliseconds(whole), ANSWER_GOAL),
    ]


def answered(arguments: list[str]) -> None:
    """Run a command in this process; it has to say something."""
    told = io.StringIO()
    with redirect_stdout(told), suppress(SystemExit):
        main(arguments)
    assert len(told.getvalue().splitlines()) > 2, f"{arguments}: {told.getvalue()}"
