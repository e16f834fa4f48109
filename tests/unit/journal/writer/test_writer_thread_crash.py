"""Killed at any point of a write, a journal opens again and holds all that was acknowledged."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.journal.store.reader import records
from controller.journal.verify.verify import verify
from controller.model.crashpoints import BROKER_POINTS
from tests.unit.journal.builders import entry, open_log

POINTS = [point for point in BROKER_POINTS if point.startswith("journal.")]
ROOT = Path(__file__).parents[4]


class Driver:
    """Writes journals, each in a process of its own (``driver.py``)."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(
        self, folder: Path, *, crash_at: str = "", threads: int = 3
    ) -> tuple[int, dict[int, str]]:
        """Write; return how it ended, and the acknowledged records: seq -> hash."""
        asked, answers = self._process.stdin, self._process.stdout
        assert asked is not None
        assert answers is not None
        asked.write(f"{folder}\t{threads}\t12\t{crash_at}\n")
        asked.flush()
        acknowledged: dict[int, str] = {}
        for line in answers:
            name, _, value = line.rstrip("\n").partition(" ")
            if name == "ended":
                return int(value), acknowledged
            if name != "done":
                assert name.isdigit(), line + answers.readline()
                acknowledged[int(name)] = value
        raise AssertionError("the driver ended")


@pytest.fixture(scope="module")
def driver() -> Iterator[Driver]:
    with subprocess.Popen(
        [sys.executable, Path(__file__).parents[1] / "driver.py"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        yield Driver(process)


def check(folder: Path, acknowledged: dict[int, str]) -> None:
    """The journal is intact, before and after it is opened again, and nothing is missing."""
    assert verify(folder).ok
    found = {record.seq: record.hash for record in records(folder)}
    assert acknowledged.items() <= found.items()
    log = open_log(folder)
    assert log.writable
    log.close()
    assert verify(folder).ok


@pytest.mark.parametrize("point", POINTS)
def test_a_writer_killed_at_a_point_loses_nothing_that_it_acknowledged(
    driver: Driver, tmp_path: Path, point: str
) -> None:
    """At the first, which makes a segment, and at later ones; one crash after the other."""
    folder = tmp_path / "journal"
    acknowledged: dict[int, str] = {}
    for time in (1, 2, 1, 3, 7):
        code, acknowledged_now = driver.run(folder, crash_at=f"{point}:{time}")
        assert code == -9, f"never killed at {point}:{time}"
        acknowledged |= acknowledged_now
        check(folder, acknowledged)
    assert acknowledged  # how many, depends on the turns of the threads
    code, acknowledged_now = driver.run(folder)
    assert (code, len(acknowledged_now)) == (0, 36)
    check(folder, acknowledged | acknowledged_now)


def test_one_thread_killed_after_its_write_leaves_one_record_more_than_it_knows(
    driver: Driver, tmp_path: Path
) -> None:
    """What was written but not acknowledged may be there: an open intent, for recovery."""
    folder = tmp_path / "journal"
    code, acknowledged = driver.run(folder, crash_at="journal.write.after:2", threads=1)
    assert (code, acknowledged) == (-9, {})
    found = verify(folder)
    assert (found.ok, found.records, len(found.open_intents)) == (True, 2, 1)


def test_an_unacknowledged_entry_killed_before_its_write_is_not_there(
    driver: Driver, tmp_path: Path
) -> None:
    folder = tmp_path / "journal"
    code, acknowledged = driver.run(folder, crash_at="journal.write.before:2", threads=1)
    assert (code, acknowledged) == (-9, {})
    assert verify(folder).records == 1


def test_the_lock_of_a_killed_writer_is_free(driver: Driver, tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    driver.run(folder, crash_at="journal.fsync.before:3")
    log = open_log(folder)
    assert log.append(entry(1)).seq == log.last_seq
    log.close()
