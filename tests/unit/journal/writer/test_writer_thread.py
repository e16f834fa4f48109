"""The writer's promises: an acknowledged record is durable and in the chain, in order."""

from __future__ import annotations

import fcntl
import os
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from controller.core.records.record import GENESIS
from controller.journal.store.reader import records
from controller.journal.store.segments import MARK_NAME
from controller.journal.verify.verify import verify
from controller.journal.writer import writer_thread as writers
from controller.journal.writer.append_log import SegmentLimits
from controller.journal.writer.writer_thread import Writer
from controller.model.errors import JournalUnavailable, StateError
from controller.model.records import Entry, Record
from tests.unit.journal.builders import (
    NOON,
    CountingDisk,
    FixedClock,
    HeldDisk,
    entry,
    open_log,
    open_writer,
)

FIRST = "00000000000000000001.jsonl"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_record_is_its_entry_with_its_place_in_the_chain(folder: Path) -> None:
    with open_writer(folder) as writer:
        first = writer.append(entry(1, "intent", actor={"uid": 0}))
        second = writer.append(entry(2))
        opening, *rest = writer.records()
    assert (opening.seq, opening.prev, opening.entry.stage) == (1, GENESIS, "segment")
    assert opening.entry.result == {
        "format": 1,
        "previous": {"segment": 0, "seq": 0, "hash": GENESIS},
    }
    assert rest == [first, second]
    assert first == Record(
        seq=2,
        time="2026-01-01T12:00:00.000Z",
        entry=entry(1, "intent", actor={"uid": 0}),
        prev=opening.hash,
        hash=first.hash,
    )
    assert (second.seq, second.prev) == (3, first.hash)
    assert names(folder) == [MARK_NAME, FIRST]


def test_records_after_a_seq_begin_right_after_it(folder: Path) -> None:
    with open_writer(folder, limits=SegmentLimits(max_segment_bytes=900)) as writer:
        for number in range(9):
            writer.append(entry(number))
        every = list(writer.records())
        assert len(names(folder)) > 3
        for seq in range(writer.last_seq + 1):
            assert list(writer.records(after=seq)) == every[seq:]
        with pytest.raises(StateError, match=f"record {len(every) + 1} .* it is missing"):
            list(writer.records(after=writer.last_seq + 1))


def test_many_threads_make_one_gapless_chain_and_lose_nothing(folder: Path) -> None:
    """8 threads, 200 appends each, over several segments."""
    acknowledged: list[Record] = []
    failures: list[BaseException] = []

    def append(thread: int) -> None:
        try:
            acknowledged.extend(writer.append(entry(thread * 1000 + n)) for n in range(200))
        except BaseException as error:
            failures.append(error)
            raise

    with open_writer(folder, limits=SegmentLimits(max_segment_bytes=64 * 1024)) as writer:
        threads = [threading.Thread(target=append, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures
    assert len(acknowledged) == 1600
    found = verify(folder)
    assert (found.ok, found.records) == (True, 1600 + found.segments)
    assert found.segments > 3
    written = [record for record in records(folder) if record.entry.stage != "segment"]
    assert written == sorted(acknowledged, key=lambda record: record.seq)
    # And each thread's own records are in the order of its calls.
    for number in range(8):
        own = [entry(number * 1000 + n).id for n in range(200)]
        assert [record.entry.id for record in written if record.entry.id in own] == own


def test_all_that_is_queued_is_made_durable_by_one_fsync(folder: Path) -> None:
    disk = HeldDisk()
    with open_writer(folder, disk=disk) as writer:
        disk.released.clear()
        first = writer.submit(entry(0))
        assert disk.waiting.wait(30)
        before = disk.calls.copy()
        later = [writer.submit(entry(number)) for number in range(1, 501)]
        assert not any(future.done() for future in [first, *later])
        disk.released.set()
        assert [future.result(30).seq for future in [first, *later]] == list(range(2, 503))
        assert disk.calls - before == {"write": 1, "fsync": 2}


def test_a_record_alone_costs_one_write_and_one_fsync(folder: Path) -> None:
    disk = CountingDisk()
    with open_writer(folder, disk=disk) as writer:
        before = disk.calls.copy()
        for number in range(10):
            writer.append(entry(number))
        assert disk.calls - before == {"write": 10, "fsync": 10}


def test_a_new_segment_costs_an_fsync_of_the_folder_too(folder: Path) -> None:
    disk = CountingDisk()
    with open_writer(folder, disk=disk, limits=SegmentLimits(max_segment_bytes=1)) as writer:
        before = disk.calls.copy()
        writer.append(entry(1))
        assert disk.calls - before == {"write": 1, "fsync": 2}


def test_a_segment_is_left_before_it_grows_too_long(folder: Path) -> None:
    with open_writer(folder, limits=SegmentLimits(max_segment_bytes=4000)) as writer:
        for number in range(60):
            writer.append(entry(number))
    sizes = [path.stat().st_size for path in sorted(folder.glob("*.jsonl"))]
    assert len(sizes) > 3
    assert max(sizes) <= 4000
    assert verify(folder).ok


def test_a_segment_is_left_when_it_is_a_day_old_whatever_the_clock_does(folder: Path) -> None:
    clock = FixedClock()
    log = open_log(folder, clock=clock)
    for age, segments in ((86_399.0, 1), (86_400.0, 2), (0.0, 3), (1.0, 3)):
        clock.time = NOON + age
        log.append(entry(int(age)))
        assert len(list(folder.glob("*.jsonl"))) == segments, age
    log.close()
    # The age goes on counting over a restart, from the segment's own record.
    clock.time = NOON + 90_000.0
    log = open_log(folder, clock=clock)
    log.append(entry(5))
    log.close()
    assert len(list(folder.glob("*.jsonl"))) == 4
    assert verify(folder).ok


def test_order_is_by_seq_though_the_clock_goes_back(folder: Path) -> None:
    clock = FixedClock()
    with open_writer(folder, clock=clock) as writer:
        writer.append(entry(1))
        clock.time -= 3600
        writer.append(entry(2))
    assert [record.time[11:13] for record in records(folder, after=1)] == ["12", "11"]
    assert verify(folder).ok


def test_an_entry_that_cant_be_recorded_fails_its_own_caller_only(folder: Path) -> None:
    with open_writer(folder) as writer:
        with pytest.raises(ValueError, match="result can't be recorded"):
            writer.submit(entry(1, result={"share": 0.5}))
        assert writer.append(entry(2)).seq == 2


def test_a_cancelled_entry_is_not_written(folder: Path) -> None:
    disk = HeldDisk()
    with open_writer(folder, disk=disk) as writer:
        disk.released.clear()
        writing = writer.submit(entry(1))
        assert disk.waiting.wait(30)
        queued = [writer.submit(entry(number)) for number in (2, 3, 4)]
        assert queued[1].cancel()
        assert not writing.cancel()
        disk.released.set()
        assert [f.result(30).seq for f in (writing, queued[0], queued[2])] == [2, 3, 4]
    assert verify(folder).records == 4


def test_an_append_waits_no_longer_than_its_deadline(folder: Path) -> None:
    disk = HeldDisk()
    with open_writer(folder, disk=disk, limits=SegmentLimits(deadline_s=0.05)) as writer:
        disk.released.clear()
        codes = []
        for number in (1, 2):
            with pytest.raises(JournalUnavailable) as caught:
                writer.append(entry(number))
            codes.append(caught.value.code)
        # The first was being written and may get there; the second certainly won't.
        assert codes == ["journal.stuck", "journal.busy"]
        disk.released.set()
        assert writer.submit(entry(3)).result(30).seq == 3
    assert [r.entry.id for r in records(folder, after=1)] == [entry(1).id, entry(3).id]


def test_a_full_queue_refuses_at_once_but_still_takes_closing_records(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writers, "QUEUE_MAX_ENTRIES", 3)
    disk = HeldDisk()
    with open_writer(folder, disk=disk) as writer:
        opened = writer.append(entry(100, "intent"))
        disk.released.clear()
        writing = writer.submit(entry(0))
        assert disk.waiting.wait(30)
        queued = [writer.submit(entry(number)) for number in (1, 2, 3)]
        refused = writer.submit(entry(4))
        closing = writer.submit(entry(100, "outcome"))
        error = refused.exception(0)
        assert isinstance(error, JournalUnavailable)
        assert (error.code, error.message) == ("journal.busy", "3 entries wait to be written")
        disk.released.set()
        done = [opened.seq, *(f.result(30).seq for f in [writing, *queued, closing])]
        assert done == [2, 3, 4, 5, 6, 7]


def test_closing_writes_what_is_queued_and_then_accepts_nothing(folder: Path) -> None:
    disk = HeldDisk()
    writer = open_writer(folder, disk=disk)
    disk.released.clear()
    futures = [writer.submit(entry(number)) for number in range(50)]
    disk.released.set()
    writer.close()
    assert [future.result(0).seq for future in futures] == list(range(2, 52))
    with pytest.raises(JournalUnavailable) as caught:
        writer.append(entry(99))
    assert caught.value.code == "journal.closed"
    assert (writer.writable, writer.error) == (False, "the journal is closed")
    writer.close()


def test_closing_writes_also_what_is_queued_behind_a_cancelled_batch(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writers, "BATCH_MAX_ENTRIES", 2)
    disk = HeldDisk()
    writer = open_writer(folder, disk=disk, limits=SegmentLimits(deadline_s=0.05))
    disk.released.clear()
    writing = writer.submit(entry(0))
    assert disk.waiting.wait(30)
    queued = [writer.submit(entry(number)) for number in range(1, 5)]
    assert queued[0].cancel()
    assert queued[1].cancel()
    writer.close()  # the disk is stuck: nothing is given back yet
    disk.released.set()
    assert [future.result(30).seq for future in (writing, *queued[2:])] == [2, 3, 4]
    writer.close()
    open_log(folder).close()


def test_a_batch_is_bounded_in_bytes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writers, "BATCH_MAX_BYTES", 10_000)
    disk = HeldDisk()
    with open_writer(folder, disk=disk) as writer:
        disk.released.clear()
        futures = [writer.submit(entry(0))]
        assert disk.waiting.wait(30)
        before = disk.calls["write"]
        note: dict[str, object] = {"note": "x" * 4000}
        futures += [writer.submit(entry(number, result=note)) for number in range(1, 7)]
        disk.released.set()
        assert [future.result(30).seq for future in futures] == list(range(2, 9))
        assert disk.calls["write"] - before == 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_in_the_writer_lets_nobody_wait_for_ever(folder: Path) -> None:
    class Broken(CountingDisk):
        def write(self, file: int, data: bytes) -> None:
            if self.calls["write"] == 1:
                raise ZeroDivisionError
            super().write(file, data)

    with open_writer(folder, disk=Broken()) as writer:
        futures: list[Future[Record]] = [writer.submit(entry(number)) for number in range(3)]
        for future in futures:
            error = future.exception(30)
            assert isinstance(error, JournalUnavailable)
        assert not writer.writable
        assert writer.error == "the journal's writer failed: ZeroDivisionError()"


# The folder: private, and one writer's.


def test_a_second_writer_is_refused_until_the_first_is_closed(folder: Path) -> None:
    with open_writer(folder):
        with pytest.raises(StateError) as caught:
            open_writer(folder)
        assert caught.value.code == "journal.held"
    with open_writer(folder) as writer:
        assert writer.last_seq == 1


def test_a_refused_writer_leaves_the_lock_alone(folder: Path) -> None:
    with open_writer(folder):
        with pytest.raises(StateError):
            open_writer(folder)
        file = os.open(folder, os.O_RDONLY)
        try:
            with pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        finally:
            os.close(file)


@pytest.fixture
def loose_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def test_folder_and_files_are_private_whatever_the_umask(folder: Path, loose_umask: None) -> None:
    with open_writer(folder) as writer:
        writer.append(entry(1))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {MARK_NAME: 0o600, FIRST: 0o600}


@pytest.mark.parametrize(
    ("name", "mode", "remedy"),
    [("", 0o750, "chmod 0700"), (FIRST, 0o640, "chmod 0600"), (MARK_NAME, 0o602, "chmod 0600")],
)
def test_what_is_open_to_others_is_refused(folder: Path, name: str, mode: int, remedy: str) -> None:
    open_writer(folder).close()
    (folder / name).chmod(mode)
    with pytest.raises(StateError) as caught:
        open_writer(folder)
    assert caught.value.code == "journal.permissions"
    assert remedy in caught.value.remedy


if os.geteuid() == 0:

    @pytest.mark.parametrize("name", ["", FIRST])
    def test_what_belongs_to_another_user_is_refused(folder: Path, name: str) -> None:
        open_writer(folder).close()
        os.chown(folder / name, 65_534, -1)
        with pytest.raises(StateError, match="belongs to uid 65534, the broker runs as 0"):
            open_writer(folder)


@pytest.mark.parametrize("name", [FIRST, MARK_NAME])
def test_a_link_in_place_of_a_file_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    open_writer(folder).close()
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateError, match="not an ordinary file"):
        open_writer(folder)


def test_a_folder_that_cant_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path)
    for path in (tmp_path / "file", tmp_path / "link", tmp_path / "no" / "where"):
        with pytest.raises(StateError) as caught:
            open_writer(path)
        assert caught.value.code == "journal.folder"


def test_other_files_in_the_folder_are_left_alone(folder: Path) -> None:
    open_writer(folder).close()
    (folder / "copy.jsonl").write_text("not ours")
    with open_writer(folder) as writer:
        writer.append(entry(1))
    assert (folder / "copy.jsonl").read_text() == "not ours"
    assert verify(folder).records == 2


def test_the_writer_is_a_journal_to_the_broker(folder: Path) -> None:
    from controller.ports import Journal

    def use(journal: Journal) -> Record:
        return journal.append(entry(1))

    with open_writer(folder) as writer:
        assert isinstance(writer, Writer)
        assert use(writer).seq == 2
    log = open_log(folder)
    assert use(log).seq == 3
    log.close()


def test_ids_repeat_only_between_an_intent_and_its_closing_record(folder: Path) -> None:
    with open_writer(folder) as writer:
        intent = writer.append(entry(1, "intent"))
        outcome = writer.append(Entry(intent.entry.id, "outcome", result={"status": 201}))
    assert (intent.entry.id, verify(folder).open_intents) == (outcome.entry.id, ())
