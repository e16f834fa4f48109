"""Whoever reads segments for another process ends with it, however that ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from multiprocessing import active_children
from pathlib import Path

import pytest

from controller.journal.store.segments import first_seq_of, list_segments
from controller.journal.verify import fast_scan
from controller.journal.verify.fast_scan import ScanJob
from tests.unit.journal.builders import NOON
from tools.benches import records as bench
from tools.benches.records import write_journal

ROOT = Path(__file__).parents[4]
ASKER = """
import sys
from pathlib import Path
from tests.unit.journal.verify.test_fast_scan import asked

found = asked(Path(sys.argv[1]))
print(next(found).last, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Some segments, of which what is found fills a pipe."""
    monkeypatch.setattr(bench, "SEGMENT_BYTES", 2_000_000)
    write_journal(tmp_path / "journal", 12_000, end=NOON)
    assert len(list_segments(tmp_path / "journal")) > 4
    return tmp_path / "journal"


def asked(folder: Path) -> Iterator[fast_scan.Scanned]:
    """Have two processes read a journal, however small it is."""
    jobs = [ScanJob(path, first_seq_of(path) - 1) for path in list_segments(folder)]
    return fast_scan._scan_in_parallel(jobs, 2)


def test_they_end_when_no_more_is_asked_for(journal: Path) -> None:
    found = asked(journal)
    assert next(found).last
    assert len(active_children()) == 2
    del found
    assert not active_children()


def test_they_end_when_the_one_that_asked_is_killed(journal: Path) -> None:
    """They hold its output too: its end comes when the last of them is gone."""
    argv = [sys.executable, "-c", ASKER, str(journal)]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, cwd=ROOT) as asker:
        assert asker.stdout is not None
        assert asker.stdout.readline().strip().isdigit()
        asker.kill()
        rest, _ = asker.communicate(timeout=60)
        assert rest == b""
