"""A disk that is full, read-only or broken: appending is refused, reading goes on, it comes back."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import pytest

from controller.journal.store.reader import records
from controller.journal.store.segments import MARK_NAME, list_segments
from controller.journal.verify.verify import verify
from controller.journal.writer.append_log import Log, SegmentLimits
from controller.model.errors import JournalUnavailable
from tests.unit.journal.builders import FailingDisk, entry, open_log, open_writer

NOON_TEXT = "2026-01-01T12:00:00.000Z"


def refusal(log: Log, number: int) -> JournalUnavailable:
    with pytest.raises(JournalUnavailable) as caught:
        log.append(entry(number))
    return caught.value


def last_segment(folder: Path) -> bytes:
    return list_segments(folder)[-1].read_bytes()


# Real file systems.


class SmallDisk(Protocol):
    root: Path
    full: str  # how a write fails

    def fill(self) -> None: ...
    def free(self) -> None: ...


class LimitedFiles:
    """No file of this process may grow: the one way without root to make real writes fail."""

    full = "File too large"

    def __init__(self, root: Path) -> None:
        self.root = root
        self._before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(self) -> None:
        # A few bytes of a new file fit, so that a write is short before it fails.
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, self._before[1]))

    def free(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._before)


class Mounted:
    """A file system of its own: a few pages large, or 8 MiB of ext4."""

    full = "No space left on device"

    def __init__(self, root: Path) -> None:
        self.root = root
        self._filler = root / "filler"

    def fill(self) -> None:
        file = os.open(self._filler, os.O_WRONLY | os.O_CREAT)
        # The large part first, then to the last byte.
        for block in (b"x" * 65_536, b"x" * 512):
            self._write(file, block)
        os.close(file)

    @staticmethod
    def _write(file: int, block: bytes) -> None:
        with suppress(OSError):
            while True:
                os.write(file, block)

    def free(self) -> None:
        self._filler.unlink(missing_ok=True)


KINDS = ["limit", *(["tmpfs", "ext4"] if os.geteuid() == 0 else [])]


@pytest.fixture(params=KINDS)
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SmallDisk]:
    root = tmp_path / "disk"
    root.mkdir()
    if request.param == "limit":
        limited = LimitedFiles(root)
        yield limited
        limited.free()
        return
    mount(request.param, root, tmp_path / "image")
    try:
        yield Mounted(root)
    finally:
        run("umount", str(root))


def mount(kind: str, root: Path, image: Path) -> None:
    if kind == "tmpfs":
        run("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(root))
        return
    with image.open("wb") as file:
        file.truncate(8 * 1024 * 1024)
    run("mkfs.ext4", "-q", str(image))
    run("mount", "-o", "loop", str(image), str(root))


def run(*arguments: str) -> None:
    subprocess.run(arguments, check=True, capture_output=True, timeout=30)


def test_a_full_disk_refuses_appends_and_resumes_when_there_is_space(
    small_disk: SmallDisk,
) -> None:
    folder = small_disk.root / "journal"
    log = open_log(folder)
    for number in range(5):
        log.append(entry(number))
    before = list(records(folder))
    small_disk.fill()
    # Whatever still fits in the last block is written; from then on nothing is.
    number = 5
    with suppress(JournalUnavailable):
        while True:
            before.append(log.append(entry(number)))
            number += 1
    for number in range(100, 103):
        error = refusal(log, number)
        assert error.code == "journal.unavailable"
        assert error.message == f"the journal can't be written: {small_disk.full}"
        assert error.remedy
    assert (log.writable, log.error, log.last_seq) == (False, small_disk.full, len(before))
    # Reading goes on, and shows nothing of what was refused.
    assert list(log.records()) == before
    assert verify(folder).records == len(before)
    small_disk.free()
    after = log.append(entry(200))
    assert (log.writable, log.error) == (True, "")
    assert after.seq == len(before) + 2
    opening = next(log.records(after=len(before)))
    assert opening.entry.result["outage"] == {
        "since": NOON_TEXT,
        "error": small_disk.full,
        "refused": 4,
    }
    log.close()
    found = verify(folder)
    assert (found.ok, found.records, found.unfinished_bytes) == (True, after.seq, 0)
    assert [repair.what for repair in found.repairs] == [
        f"not writable from {NOON_TEXT} to {NOON_TEXT}: {small_disk.full}; 4 entries refused"
    ]


def test_a_journal_opened_on_a_full_disk_repairs_its_torn_tail_later(
    small_disk: SmallDisk,
) -> None:
    folder = small_disk.root / "journal"
    log = open_log(folder)
    for number in range(5):
        log.append(entry(number))
    log.close()
    with list_segments(folder)[-1].open("ab") as file:
        file.write(b'{"torn":"' + b"x" * 3000)
    small_disk.fill()
    log = open_log(folder)
    assert not log.writable
    assert [record.seq for record in log.records()] == [1, 2, 3, 4, 5, 6]
    small_disk.free()
    assert log.append(entry(6)).seq == 8
    log.close()
    assert verify(folder).ok
    assert [path.stat().st_size for path in folder.glob("*.torn-*")] == [3009]


if os.geteuid() == 0:

    @pytest.fixture
    def read_only(tmp_path: Path) -> Iterator[Path]:
        root = tmp_path / "disk"
        root.mkdir()
        mount("tmpfs", root, tmp_path / "image")
        log = open_log(root / "journal")
        log.append(entry(1))
        log.close()
        run("mount", "-o", "remount,ro", str(root))
        try:
            yield root
        finally:
            run("umount", str(root))

    def test_a_read_only_journal_is_readable_and_resumes_by_itself(read_only: Path) -> None:
        disk = ResumingDisk()
        with open_writer(read_only / "journal", disk=disk) as writer:
            assert (writer.writable, writer.error) == (False, "Read-only file system")
            with pytest.raises(JournalUnavailable) as caught:
                writer.append(entry(2))
            assert caught.value.remedy.endswith("writable again")
            assert [record.seq for record in writer.records()] == [1, 2]
            run("mount", "-o", "remount,rw", str(read_only))
            # Nobody appends meanwhile.
            assert disk.synced.wait(30)
            assert writer.append(entry(3)).seq == 4
            assert writer.writable
        assert verify(read_only / "journal").ok


class ResumingDisk(FailingDisk):
    """Tells when something was made durable again."""

    def __init__(self) -> None:
        super().__init__()
        self.synced = threading.Event()

    def fsync(self, file: int) -> None:
        super().fsync(file)
        self.synced.set()


# Faults that only a broken disk shows, through the seam of file calls.


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.mark.parametrize("call", ["write", "fsync"])
@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.ENOSPC, errno.EDQUOT])
def test_a_failing_call_refuses_the_batch_and_leaves_no_byte_of_it(
    folder: Path, call: str, number: int
) -> None:
    disk = FailingDisk()
    log = open_log(folder, disk=disk)
    log.append(entry(1))
    before = last_segment(folder)
    disk.failing[call] = number
    assert refusal(log, 2).message == f"the journal can't be written: {os.strerror(number)}"
    assert last_segment(folder) == before
    disk.failing.clear()
    assert log.append(entry(3)).seq == 4
    log.close()
    assert [r.entry.id for r in records(folder) if r.entry.stage != "segment"] == [
        entry(1).id,
        entry(3).id,
    ]
    assert verify(folder).ok


@pytest.mark.slow
def test_a_short_write_of_any_length_leaves_no_byte(folder: Path) -> None:
    disk = FailingDisk()
    log = open_log(folder, disk=disk)
    for written in range(0, 700, 7):
        log.append(entry(written))
        before = last_segment(folder)
        disk.failing["write"], disk.written = errno.ENOSPC, written
        refusal(log, 10_000 + written)
        refusal(log, 20_000 + written)
        assert before == list_segments(folder)[-2].read_bytes()
        assert last_segment(folder)[written:] == b""
        disk.failing.clear()
        assert verify(folder).ok
    log.close()
    assert verify(folder).ok


def test_what_cant_be_cut_back_is_cut_before_anything_else_is_written(folder: Path) -> None:
    disk = FailingDisk()
    log = open_log(folder, disk=disk)
    log.append(entry(1))
    before = last_segment(folder)
    disk.failing |= {"write": errno.EIO, "truncate": errno.EIO}
    disk.written = 50
    refusal(log, 2)
    del disk.failing["write"]
    refusal(log, 3)
    assert len(last_segment(folder)) == len(before) + 50
    assert list(log.records())[-1].seq == log.last_seq == 2
    disk.failing.clear()
    log.append(entry(4))
    log.close()
    assert list_segments(folder)[0].read_bytes() == before
    assert verify(folder).ok


def test_a_record_that_was_written_but_refused_is_never_read_from_the_journal(
    folder: Path,
) -> None:
    """It can't be cut off yet, so the file has it as a whole line."""
    disk = FailingDisk()
    log = open_log(folder, disk=disk)
    log.append(entry(1))
    disk.failing |= {"fsync": errno.EIO, "truncate": errno.EIO}
    refusal(log, 2)
    assert last_segment(folder).count(b"\n") == 3
    assert [record.seq for record in log.records()] == [1, 2]
    disk.failing.clear()
    log.append(entry(3))
    log.close()
    assert entry(2).id not in {record.entry.id for record in records(folder)}


def test_after_a_failed_fsync_a_segment_is_never_appended_to_again(folder: Path) -> None:
    """The page cache may show what the disk hasn't."""
    disk = FailingDisk()
    log = open_log(folder, disk=disk)
    log.append(entry(1))
    before = last_segment(folder)
    disk.failing["fsync"] = errno.EIO
    refusal(log, 2)
    disk.failing.clear()
    for number in range(3, 6):
        log.append(entry(number))
    log.close()
    segments = list_segments(folder)
    assert len(segments) == 2
    assert segments[0].read_bytes() == before


def test_a_segment_whose_durable_end_is_gone_stops_the_journal_for_good(folder: Path) -> None:
    disk = FailingDisk()
    log = open_log(folder, disk=disk)
    log.append(entry(1))
    disk.failing |= {"fsync": errno.EIO, "reread": 1}
    refusal(log, 2)
    del disk.failing["fsync"]
    gone = "00000000000000000001.jsonl lost a record that was durable"
    assert refusal(log, 3).message == f"the journal can't be written: {gone}"
    disk.failing.clear()
    assert refusal(log, 4).message == f"the journal can't be written: {gone}"
    assert log.error == gone
    log.close()


def test_a_batch_of_a_new_segment_that_fails_leaves_an_empty_one_to_use(folder: Path) -> None:
    disk = FailingDisk()
    log = open_log(folder, disk=disk, limits=SegmentLimits(max_segment_bytes=1))
    log.append(entry(1))
    disk.failing["fsync"] = errno.EIO
    refusal(log, 2)
    assert last_segment(folder) == b""
    assert verify(folder).ok
    disk.failing.clear()
    log.append(entry(3))
    log.close()
    assert verify(folder).ok
    assert verify(folder).records == 5


def test_a_segment_that_cant_be_made_refuses_and_leaves_the_one_before(folder: Path) -> None:
    disk = FailingDisk()
    log = open_log(folder, disk=disk, limits=SegmentLimits(max_segment_bytes=1))
    log.append(entry(1))
    disk.failing["open"] = errno.EMFILE
    assert "Too many open files" in refusal(log, 2).message
    disk.failing.clear()
    assert log.append(entry(3)).seq == 5
    log.close()
    assert verify(folder).ok


def test_a_mark_that_cant_be_written_refuses_nothing(folder: Path) -> None:
    disk = FailingDisk()
    log = open_log(folder, disk=disk)
    disk.failing["overwrite"] = errno.EIO
    for number in range(3):
        log.append(entry(number))
    assert log.writable
    log.close()
    # Half a mark would look forged: it is emptied, and vouches for nothing.
    assert (folder / MARK_NAME).read_bytes() == b""
    assert verify(folder).records == 4
    log = open_log(folder)
    log.append(entry(4))
    log.close()
    assert len((folder / MARK_NAME).read_bytes()) == 128


def test_every_waiting_caller_is_told_and_the_writer_resumes_by_itself(folder: Path) -> None:
    disk = ResumingDisk()
    with open_writer(folder, disk=disk) as writer:
        disk.failing["write"] = errno.ENOSPC
        futures = [writer.submit(entry(number)) for number in range(20)]
        errors = [future.exception(30) for future in futures]
        assert all(isinstance(error, JournalUnavailable) for error in errors)
        assert len({id(error) for error in errors}) == 20, "each caller has its own exception"
        assert "No space left on device" in str(errors[0])
        assert f"(free space on the file system of {folder})" in str(errors[0])
        assert (writer.writable, writer.error) == (False, "No space left on device")
        disk.synced.clear()
        disk.failing.clear()
        assert disk.synced.wait(30)
        assert writer.append(entry(30)).seq == writer.last_seq
        assert writer.writable
    (outage,) = [
        record.entry.result["outage"]
        for record in records(folder)
        if "outage" in record.entry.result
    ]
    assert isinstance(outage, dict)
    assert outage["refused"] == 20
    assert verify(folder).ok
