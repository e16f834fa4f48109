"""What is written is signed: after so many records, so much time, at each segment's end."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from controller.core.records.checkpoint import (
    inventory_entry,
    prune_entry,
    read_checkpoint,
    read_key,
)
from controller.core.transparency import BadNote, PublicKey, parse_note, parse_private
from controller.journal.store.reader import records
from controller.journal.store.segments import list_segments, read_lines
from controller.journal.verify.verify import TrustAnchors, verify
from controller.journal.writer.append_log import Log, SegmentLimits
from controller.journal.writer.checkpointer import CheckpointInterval, SigningKeys, hash_key
from controller.model.errors import JournalUnavailable, StateError
from controller.model.mutations import ROTATE_KEY
from controller.model.records import Entry, Record
from tests.others import pymerkle_root, sigstore_reads
from tests.unit.journal.builders import (
    ORIGIN,
    CountingDisk,
    FailingDisk,
    FixedClock,
    entry,
    key_files,
    open_log,
    open_writer,
    read_public_keys,
    uuid7,
)

OFTEN = CheckpointInterval(records=5, seconds=60.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def lines_of(folder: Path) -> list[bytes]:
    return [line.data for path in list_segments(folder) for line in read_lines(path)]


def told(folder: Path) -> str:
    """The stages, a letter each; a key that is brought in is K."""
    return "".join("K" if read_key(record) else record.entry.stage[0] for record in records(folder))


def checkpoints(folder: Path) -> list[Record]:
    return [record for record in records(folder) if record.entry.stage == "checkpoint"]


def check_signed(folder: Path, *keys: PublicKey) -> None:
    """Each checkpoint is what sigstore and pymerkle say of the lines before it."""
    lines = lines_of(folder)
    signers = keys or read_public_keys(key_files(folder).public)
    for record in checkpoints(folder):
        note = str(record.entry.result["note"])
        key = next(key for key in signers if parse_note(note).is_signed_by(key))
        read = sigstore_reads(note, key)
        assert read.origin == "trimtab/5109a1b2c3d4e5f6"
        assert read.log_size == record.seq - 1
        assert bytes.fromhex(read.log_hash) == pymerkle_root(lines[: record.seq - 1])
    assert verify(folder).ok


def test_a_journal_begins_with_its_key_and_a_checkpoint_of_it(folder: Path) -> None:
    log = open_log(folder, every=OFTEN)
    assert told(folder) == "sKc"
    key = parse_private(key_files(folder).secret.read_text())
    assert read_public_keys(key_files(folder).public) == {key.public: None}
    assert [read_key(record) for record in records(folder)][1] == key.public
    check_signed(folder)
    log.close()
    assert told(folder) == "sKc"


def test_after_so_many_records_one_write_holds_their_checkpoint_too(folder: Path) -> None:
    log = open_log(folder, every=OFTEN)
    for number in range(11):
        assert log.append(entry(number)).seq == 4 + number + number // 5
    assert told(folder) == "sKcrrrrrcrrrrrcr"
    check_signed(folder)
    assert checkpoints(folder)[-1].seq == 15
    assert key_files(folder).checkpoint.read_text() == checkpoints(folder)[-1].entry.result["note"]
    log.close()
    assert told(folder) == "sKcrrrrrcrrrrrcrc"
    check_signed(folder)


def test_what_waits_is_signed_in_time_and_nothing_is_signed_twice(folder: Path) -> None:
    clock = FixedClock()
    log = open_log(folder, clock=clock, every=OFTEN)
    due = [log.due_s]
    log.append(entry(1))
    clock.time += 20
    log.append(entry(2))
    due.append(log.due_s)
    clock.time += 39
    log.commit([])  # nothing is due
    assert told(folder) == "sKcrr"
    clock.time += 1
    log.commit([])
    assert told(folder) == "sKcrrc"
    assert [*due, log.due_s] == [None, 40.0, None]
    clock.time += 3600
    log.commit([])
    assert told(folder) == "sKcrrc"
    check_signed(folder)
    log.close()


def test_the_writer_signs_in_time_though_nobody_writes(folder: Path) -> None:
    class Disk(CountingDisk):
        def fsync(self, file: int) -> None:
            super().fsync(file)
            if self.calls["fsync"] == 4:  # the file, its folder, the entry
                signed.set()

    signed = threading.Event()
    writer = open_writer(folder, disk=Disk(), every=CheckpointInterval(seconds=0.0))
    writer.append(entry(1))
    assert signed.wait(30)
    assert told(folder) == "sKcrc"
    writer.close()
    assert told(folder) == "sKcrc"
    check_signed(folder)


def test_what_tells_that_records_go_is_signed_in_the_same_write(folder: Path) -> None:
    """They go right after it, and nothing that isn't signed may tell so."""
    log = open_log(folder, every=CheckpointInterval())
    log.append(entry(1))
    log.append(prune_entry(uuid7(2), until=3, reason="age", digest=""))
    log.append(entry(3))
    abandon(log)
    assert told(folder) == "sKcrocr"
    check_signed(folder)


def test_what_describes_a_snapshot_is_signed_in_the_same_write(folder: Path) -> None:
    """The snapshot is replaced right after it, and the next start believes signed records alone."""
    log = open_log(folder, every=CheckpointInterval())
    log.append(entry(1))
    log.append(inventory_entry(uuid7(2), until=3, digest="sha256:0"))
    log.append(entry(3))
    abandon(log)
    assert told(folder) == "sKcrrcr"
    check_signed(folder)


def test_a_segment_ends_with_its_checkpoint(folder: Path) -> None:
    log = open_log(
        folder, every=CheckpointInterval(), limits=SegmentLimits(max_segment_bytes=10_000)
    )
    for number in range(20):
        log.append(entry(number))
    log.close()
    ends = [list(read_lines(path))[-1].data for path in list_segments(folder)]
    assert len(ends) > 2
    assert all(b'"stage":"checkpoint"' in line for line in ends)
    assert max(path.stat().st_size for path in list_segments(folder)) <= 10_000
    check_signed(folder)


@pytest.mark.parametrize("before", range(1, 9))
def test_a_start_goes_on_with_the_tree_as_it_was(folder: Path, before: int) -> None:
    """After an ordinary end, and after one that signed nothing."""
    for number in range(3):
        log = open_log(folder, every=OFTEN)
        for step in range(before):
            log.append(entry(100 * number + step))
        if number == 1:
            log.close()
        else:
            abandon(log)
        check_signed(folder)
    assert verify(folder).records == len(lines_of(folder))


def abandon(log: Log) -> None:
    """End as a kill does: nothing more is written."""
    log._leave_segment()
    log.close()


def test_a_journal_of_before_is_signed_as_a_whole(folder: Path) -> None:
    log = open_log(folder, limits=SegmentLimits(max_segment_bytes=900))
    for number in range(9):
        log.append(entry(number))
    log.close()
    assert len(list_segments(folder)) > 3
    before = len(lines_of(folder))
    log = open_log(folder, every=OFTEN)
    assert [record.seq for record in checkpoints(folder)] == [before + 2]
    log.close()
    check_signed(folder)


def test_what_a_failed_write_would_have_signed_is_signed_later(folder: Path) -> None:
    disk = FailingDisk()
    log = open_log(folder, disk=disk, every=OFTEN)
    for number in range(4):
        log.append(entry(number))
    for call in ("write", "fsync"):
        disk.failing = {call: errno.EIO}
        with pytest.raises(JournalUnavailable):
            log.append(entry(4))
        disk.failing = {}
    log.append(entry(5))
    assert told(folder) == "sKcrrrrsrc"
    log.close()
    check_signed(folder)


def test_a_torn_checkpoint_is_made_anew(folder: Path) -> None:
    log = open_log(folder, every=OFTEN)
    for number in range(5):
        log.append(entry(number))
    abandon(log)
    (segment,) = list_segments(folder)
    mark = folder / ".head"
    mark.unlink()
    os.truncate(segment, segment.stat().st_size - 40)
    log = open_log(folder, every=OFTEN)
    assert told(folder) == "sKcrrrrrsc"
    log.close()
    check_signed(folder)


# Keys.


def rotate(number: int) -> Entry:
    return entry(number, "operator", request={"route": ROTATE_KEY, "object": ""})


def test_a_new_key_is_signed_by_the_one_before(folder: Path) -> None:
    log = open_log(folder, every=OFTEN)
    (old,) = read_public_keys(key_files(folder).public)
    log.append(entry(1))
    log.append(rotate(2))
    new, listed = read_public_keys(key_files(folder).public)
    assert (listed, new == old) == (old, False)
    noon = "2026-01-01T12:00:00.000Z"
    lines = f"{new} from 6 {noon}\n{old} until 6 from 2 {noon}\n"
    assert key_files(folder).public.read_text() == lines
    assert told(folder) == "sKcroKc"
    note = read_checkpoint(checkpoints(folder)[-1]).note
    assert (note.is_signed_by(old), note.is_signed_by(new)) == (True, True)
    assert parse_private(key_files(folder).secret.read_text()).public == new
    assert not key_files(folder).coming.exists()
    log.append(entry(3))
    log.close()
    note = read_checkpoint(checkpoints(folder)[-1]).note
    assert (note.is_signed_by(old), note.is_signed_by(new)) == (False, True)
    check_signed(folder)


def test_a_start_after_a_rotation_that_got_no_further_ends_it(folder: Path) -> None:
    log = open_log(folder, every=OFTEN)
    (old,) = read_public_keys(key_files(folder).public)
    secret = key_files(folder).secret.read_text()
    log.append(rotate(1))
    new = parse_private(key_files(folder).secret.read_text())
    abandon(log)
    # As if the process had ended before the files were put in their places.
    key_files(folder).secret.write_text(secret)
    key_files(folder).coming.write_text(new.secret())
    key_files(folder).coming.chmod(0o600)
    key_files(folder).public.write_text(f"{old}\n")
    log = open_log(folder, every=OFTEN)
    log.append(entry(2))
    log.close()
    assert told(folder) == "sKcoKcrc"
    assert parse_private(key_files(folder).secret.read_text()) == new
    assert read_public_keys(key_files(folder).public) == {new.public: None, old: 5}
    check_signed(folder)


@pytest.mark.parametrize("lost", [False, True])
def test_a_rotation_that_was_asked_for_is_done_by_the_next_start(
    folder: Path, *, lost: bool
) -> None:
    log = open_log(folder, every=OFTEN)
    secret = key_files(folder).secret.read_text()
    published = key_files(folder).checkpoint.read_text()
    log.append(rotate(1))
    abandon(log)
    # As if the write that brings it in had been torn right after the record that asks.
    key_files(folder).checkpoint.write_text(published)
    if not lost:
        key_files(folder).secret.rename(key_files(folder).coming)
        key_files(folder).secret.write_text(secret)
        key_files(folder).secret.chmod(0o600)
    (segment,) = list_segments(folder)
    data = segment.read_bytes().splitlines(keepends=True)
    (folder / ".head").unlink()
    segment.write_bytes(b"".join(data[:4]))
    log = open_log(folder, every=OFTEN)
    assert told(folder) == "sKcoKc"
    log.close()
    assert verify(folder).ok
    *_, brought = (record for record in records(folder) if read_key(record))
    assert brought.entry.result["lost"] is lost


def test_a_key_that_is_lost_is_followed_by_one_that_says_so(folder: Path) -> None:
    log = open_log(folder, every=OFTEN)
    log.append(entry(1))
    log.close()
    key_files(folder).secret.unlink()
    log = open_log(folder, every=OFTEN)
    assert told(folder) == "sKcrcKc"
    brought = [record for record in records(folder) if read_key(record)]
    assert [record.entry.result["lost"] for record in brought] == [False, True]
    log.append(entry(2))
    log.close()
    check_signed(folder)
    trust = TrustAnchors(frozenset(read_public_keys(key_files(folder).public)))
    for thorough in (False, True):
        (told_of,) = verify(folder, trust, thorough=thorough).repairs
        assert told_of.seq == brought[-1].seq
        assert told_of.what.startswith("the key before was lost")


@pytest.mark.parametrize("wrong", [b"a key\n", b"\xff\xfe\n", b"KEY until\n", b"KEY until noon\n"])
def test_a_list_of_keys_that_somebody_garbled_is_made_anew_by_a_start(
    folder: Path, wrong: bytes
) -> None:
    log = open_log(folder, every=OFTEN)
    log.append(rotate(1))
    log.close()
    public = key_files(folder).public
    good = public.read_bytes()
    last = good.splitlines()[-1].split()[0]
    public.write_bytes(good + wrong.replace(b"KEY", last))
    with pytest.raises(BadNote):
        read_public_keys(public)
    open_log(folder, every=OFTEN).close()
    assert public.read_bytes() == good


def test_the_key_is_the_brokers_and_its_public_key_everybodys(folder: Path) -> None:
    before = os.umask(0)
    try:
        open_log(folder, every=OFTEN).close()
    finally:
        os.umask(before)
    files = key_files(folder)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (files.secret, files.public)]
    assert modes == [0o600, 0o644]
    assert stat.S_IMODE(files.checkpoint.stat().st_mode) == 0o644
    os.umask(0o077)
    try:
        files.public.unlink()
        open_log(folder, every=OFTEN).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE(files.public.stat().st_mode) == 0o644


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda path: path.chmod(0o640), "journal.permissions"),
        (lambda path: path.write_text("no key\n"), "journal.bad-key"),
        (lambda path: (path.rename(path.parent / "x"), path.symlink_to("x")), "journal.bad-key"),
    ],
)
def test_a_key_that_is_open_to_others_or_none_ends_the_start(folder: Path, spoil, code) -> None:
    open_log(folder, every=OFTEN).close()
    spoil(key_files(folder).secret)
    with pytest.raises(StateError) as caught:
        open_log(folder, every=OFTEN)
    assert caught.value.code == code
    assert caught.value.remedy


def test_a_key_that_cant_be_written_refuses_appends_until_it_can(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    log = open_log(folder, every=OFTEN)
    log.close()
    key_files(folder).secret.unlink()
    blocked = folder.with_name(".journal.key.new")
    blocked.mkdir()
    log = open_log(folder, every=OFTEN)
    with pytest.raises(JournalUnavailable):
        log.append(entry(1))
    assert told(folder) == "sKc"
    blocked.rmdir()
    log.append(entry(2))
    log.close()
    check_signed(folder)


def test_a_missing_segment_ends_the_start_of_what_would_sign_it(folder: Path) -> None:
    log = open_log(folder, limits=SegmentLimits(max_segment_bytes=900))
    for number in range(9):
        log.append(entry(number))
    log.close()
    list_segments(folder)[1].unlink()
    with pytest.raises(StateError, match="are missing") as caught:
        open_log(folder, every=OFTEN)
    assert caught.value.code == "journal.damaged"


def test_the_key_of_hashes_is_made_once_and_the_brokers(tmp_path: Path) -> None:
    path = tmp_path / "secrets.key"
    made = hash_key(path, new_seed=lambda: bytes(range(32)))
    assert (made, stat.S_IMODE(path.stat().st_mode)) == (bytes(range(32)), 0o600)
    assert hash_key(path, new_seed=lambda: b"another") == made
    path.chmod(0o640)
    with pytest.raises(StateError, match="open to others"):
        hash_key(path, new_seed=bytes)
    path.chmod(0o600)
    path.write_text("no key")
    with pytest.raises(StateError) as caught:
        hash_key(path, new_seed=bytes)
    assert caught.value.code == "journal.bad-key"


def test_what_is_published_for_everybody_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "journal"
    open_log(folder, every=OFTEN).close()
    files = key_files(folder)
    keys = SigningKeys(files, name=ORIGIN, new_seed=lambda: os.urandom(32))
    synced: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(stat.S_ISDIR(os.fstat(fd).st_mode)))
    keys.publish_checkpoint("note\n")
    assert synced == [False, True], "the content, then the name"
    keys.publish(since=1)
    assert synced == [False, True] * 2
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (files.public, files.checkpoint)]
    assert modes == [0o644, 0o644]
