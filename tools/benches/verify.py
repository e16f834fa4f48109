"""``journal verify`` on a million signed records: how long, how much memory, and how much is parsed."""

from __future__ import annotations

import os
import resource
import tempfile
from pathlib import Path
from time import perf_counter

from controller.core.note import PrivateKey
from controller.journal.audit import Trust, verify
from tools.benches.measure import rate, ratio, row
from tools.benches.records import Written, write_journal

RECORDS = 1_000_000
THOROUGH = 100_000
END = 1_790_000_000.0
KEY = PrivateKey("trimtab/bench", bytes(32))


def run() -> None:
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder:
        small = Path(folder) / "small"
        written = write_journal(small, THOROUGH, end=END, key=KEY)
        each = measure("each line parsed", small, written, thorough=True, workers=1)
        big = Path(folder) / "big"
        written = write_journal(big, RECORDS, end=END, key=KEY)
        for workers in sorted({1, os.cpu_count() or 1}):
            taken = measure(f"signed, {workers} at work", big, written, workers=workers)
            row("", to_parsing=ratio(taken, each))


def measure(
    name: str, folder: Path, written: Written, *, thorough: bool = False, workers: int
) -> float:
    """Verify a journal, print what that took, and return the seconds for each record."""
    before = _cpu_s()
    started = perf_counter()
    found = verify(folder, Trust(frozenset({KEY.public})), thorough=thorough, workers=workers)
    taken = perf_counter() - started
    assert found.ok, found
    assert found.signed == found.records - 1 == written.records - 1, found
    row(
        f"{name}, {found.records:,}",
        taken=f"{taken:.2f} s",
        cpu=f"{_cpu_s() - before:.2f} s",
        rate=rate(found.records, taken),
        size=f"{written.bytes / 2**20:.0f} MiB",
        peak=f"{_peak_mib()} MiB",
    )
    return taken / found.records


def _cpu_s() -> float:
    """Return the seconds of processor time of this process and of those that it waited for."""
    own, others = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime


def _peak_mib() -> int:
    """Return the most memory that one of the processes held."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(who).ru_maxrss for who in kinds) // 1024
