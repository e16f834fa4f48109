"""What a crash leaves at the journal's end is repaired and recorded; anything else is refused."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from controller.core.records.checkpoint import Checkpoint
from controller.core.records.record import GENESIS, parse, prepare
from controller.core.transparency import PrivateKey, Range, parse_private, sign_note
from controller.journal.store.reader import records
from controller.journal.store.segments import MARK_NAME, DurableMark, list_segments, name_of
from controller.journal.verify.verify import verify
from controller.journal.writer.append_log import SegmentLimits
from controller.journal.writer.checkpointer import CheckpointInterval
from controller.journal.writer.retention import compress
from controller.model.errors import StateError
from tests.unit.journal.builders import (
    ORIGIN,
    FailingDisk,
    FixedClock,
    edit,
    entry,
    intent_or_outcome,
    key_files,
    newer,
    open_log,
    uuid7,
    write_journal,
)
from tests.unit.journal.verify.test_verify_tamper import Entries, Signed, changed, forge, without

pytestmark = pytest.mark.slow

MORE = [(entry(700 + number), "2026-01-01T12:00:01.000Z") for number in range(8)]
# Records 1-5 and 6-9: the first of each is the segment record.
FIRST = "00000000000000000001.jsonl"
LAST = "00000000000000000006.jsonl"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written") / "journal"
    write_journal(folder, [4, 3])
    return folder


@pytest.fixture
def journal(written: Path, tmp_path: Path) -> Path:
    return shutil.copytree(written, tmp_path / "journal")


def vouch(journal: Path, seq: int) -> None:
    """Set the mark back, as after a loss of power; 0 removes it."""
    if not seq:
        (journal / MARK_NAME).unlink()
        return
    found = next(record for record in records(journal) if record.seq == seq)
    (journal / MARK_NAME).write_bytes(DurableMark(seq, found.hash).to_bytes())


def reopen(journal: Path) -> dict[str, object] | None:
    """Open, append one record, close; return what was recorded of a repair."""
    log = open_log(journal)
    log.append(entry(500))
    log.close()
    found = verify(journal)
    assert found.ok, found
    segments = [record for record in records(journal) if record.entry.stage == "segment"]
    repair = segments[-1].entry.result.get("repair")
    assert repair is None or isinstance(repair, dict)
    return repair


def test_an_intact_journal_is_continued_in_its_segment(journal: Path) -> None:
    assert reopen(journal) is None
    assert [path.name for path in sorted(journal.glob("*.jsonl"))] == [FIRST, LAST]
    assert verify(journal).records == 10


@pytest.mark.parametrize("vouched", [8, 9, 0])
def test_a_last_line_torn_at_any_byte_is_moved_aside_and_recorded(
    journal: Path, vouched: int
) -> None:
    vouch(journal, vouched)
    good = (journal / LAST).read_bytes()
    start = good.rindex(b"\n", 0, -1) + 1
    # Each byte once, and some of them again for other marks.
    for length in range(1, len(good) - start, 1 if vouched == 9 else 12):
        copy = shutil.copytree(journal, journal.parent / f"torn-{length}")
        (copy / LAST).write_bytes(good[: start + length])
        assert reopen(copy) == {
            "bytes": length,
            "files": [f"{LAST}.torn-1"],
            "reason": "its line is cut short",
            "durable": vouched == 9,
        }
        assert (copy / f"{LAST}.torn-1").read_bytes() == good[start : start + length]
        assert (copy / LAST).read_bytes() == good[:start]
        assert verify(copy).records == 8 + 2  # the segment record that tells, and the new one


def test_a_last_line_gone_to_its_last_byte_is_recorded_too(journal: Path) -> None:
    edit(journal / LAST, lambda lines: lines[:-1])
    repair = reopen(journal)
    assert repair is not None
    assert (repair["bytes"], repair["durable"]) == (0, True)
    assert (journal / f"{LAST}.torn-1").read_bytes() == b""


def test_without_a_mark_a_missing_last_line_cant_be_seen(journal: Path) -> None:
    vouch(journal, 0)
    edit(journal / LAST, lambda lines: lines[:-1])
    assert reopen(journal) is None


@pytest.mark.parametrize(
    "tail", [b"\0" * 4096, b"\0" * 100 + b"\n", b"{}\n", b'{"actor"', b"\n", b"\xff\xfe"]
)
def test_garbage_after_the_last_record_is_moved_aside(journal: Path, tail: bytes) -> None:
    with (journal / LAST).open("ab") as file:
        file.write(tail)
    repair = reopen(journal)
    assert repair is not None
    assert (journal / f"{LAST}.torn-1").read_bytes() == tail


def test_a_batch_whose_pages_reached_the_disk_out_of_order_is_moved_aside(journal: Path) -> None:
    """Beyond what the mark vouches for, whole lines may follow a hole of zeros."""
    vouch(journal, 7)
    edit(journal / LAST, lambda lines: [*lines[:2], b"\0" * len(lines[2]), lines[3]])
    repair = reopen(journal)
    assert repair is not None
    assert repair["durable"] is False
    assert verify(journal).records == 7 + 2


def test_a_torn_segment_record_is_moved_aside(journal: Path) -> None:
    vouch(journal, 5)
    edit(journal / LAST, lambda lines: [lines[0][:40]])
    repair = reopen(journal)
    assert repair is not None
    assert (repair["files"], repair["bytes"]) == ([f"{LAST}.torn-1"], 40)
    assert [path.name for path in sorted(journal.glob("*.jsonl"))] == [FIRST, LAST]


def test_an_empty_last_segment_is_used(journal: Path) -> None:
    vouch(journal, 5)
    edit(journal / LAST, lambda _: [])
    assert reopen(journal) is None
    assert verify(journal).records == 7


def test_a_torn_first_record_of_all_is_moved_aside(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    open_log(journal).close()
    (journal / MARK_NAME).unlink()
    edit(journal / FIRST, lambda lines: [lines[0][:10]])
    repair = reopen(journal)
    assert repair is not None
    first = next(records(journal))
    assert (first.seq, first.prev) == (1, GENESIS)


def test_torn_pieces_never_overwrite_each_other(journal: Path) -> None:
    for number in range(1, 4):
        newest = max(journal.glob("*.jsonl"))
        with newest.open("ab") as file:
            file.write(b"torn %d" % number)
        (journal / f"{newest.name}.torn-1").write_bytes(b"of long ago")
        log = open_log(journal)
        log.close()
        assert (journal / f"{newest.name}.torn-2").read_bytes() == b"torn %d" % number
        assert (journal / f"{newest.name}.torn-1").read_bytes() == b"of long ago"


def refused(journal: Path, *, every: CheckpointInterval | None = None) -> str:
    """Open; return where the damage is said to be. No file may have changed."""
    before = all_below(journal.parent)
    with pytest.raises(StateError) as caught:
        open_log(journal, every=every)
    assert all_below(journal.parent) == before
    assert caught.value.code == "journal.damaged"
    assert "restore it from a backup" in caught.value.remedy
    return caught.value.message.partition(" is damaged at ")[2]


def all_below(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def flipped(line: bytes) -> bytes:
    return line.replace(b'"web.', b'"wob.').replace(b'"status":204', b'"status":500')


@pytest.mark.parametrize(
    ("file", "change", "where"),
    [
        (
            LAST,
            lambda lines: [*lines[:2], flipped(lines[2]), lines[3]],
            f"record 8 ({LAST}, line 3): its hash isn't that of its content",
        ),
        (
            LAST,
            lambda lines: [lines[0], *lines[2:]],
            f"record 7 ({LAST}, line 2): it is record 8",
        ),
        (
            LAST,
            lambda lines: lines[:-2],
            f"record 8 ({LAST}, line 3): it is missing: records up to 9 were durable",
        ),
        (
            LAST,
            lambda lines: [*lines[:2], lines[2][:-7]],
            f"record 8 ({LAST}, line 3): its line is cut short",
        ),
        (
            FIRST,
            lambda lines: [*lines[:-1], flipped(lines[-1])],
            f"record 5 ({FIRST}, line 5): its hash isn't that of its content",
        ),
        (
            FIRST,
            lambda lines: lines[:-1],
            f"record 5 ({FIRST}, line 5): it is missing",
        ),
    ],
)
def test_damage_before_the_tail_is_refused_and_named(
    journal: Path, file: str, change: Callable[[list[bytes]], list[bytes]], where: str
) -> None:
    edit(journal / file, change)
    assert refused(journal) == where


def test_a_damaged_compressed_segment_before_the_last_is_refused_and_named(journal: Path) -> None:
    packed = (journal / FIRST).rename(journal / f"{FIRST}.gz")
    packed.write_bytes(gzip.compress(packed.read_bytes())[:-20])
    with pytest.raises(StateError, match=rf"record 5 \({FIRST}.gz") as caught:
        open_log(journal)
    assert caught.value.code == "journal.damaged"


def test_a_compressed_last_segment_is_continued_by_another(journal: Path) -> None:
    """As an operator may leave it, who compresses all by hand."""
    compress(journal / LAST)
    assert reopen(journal) is None
    assert [path.name for path in list_segments(journal)] == [FIRST, f"{LAST}.gz", name_of(10)]


@pytest.mark.parametrize("change", ["cut", "unfinished", "more", "no gzip"])
def test_a_compressed_last_segment_has_no_torn_end(journal: Path, change: str) -> None:
    """It was whole when it was compressed: what is wrong with it no crash did."""
    vouch(journal, 0)
    lines = (journal / LAST).read_bytes()
    content = {
        "cut": gzip.compress(lines)[:-20],
        "unfinished": gzip.compress(lines + b'{"actor"'),
        "more": gzip.compress(lines + b"drop table\n"),
        "no gzip": gzip.compress(lines) + b"x",
    }
    packed = (journal / LAST).rename(journal / f"{LAST}.gz")
    packed.write_bytes(content[change])
    with pytest.raises(StateError, match=f"{LAST}.gz") as caught:
        open_log(journal)
    assert caught.value.code == "journal.damaged"
    assert packed.read_bytes() == content[change]


def test_damage_before_the_last_line_is_refused_without_a_mark_too(journal: Path) -> None:
    vouch(journal, 0)
    edit(journal / LAST, lambda lines: [*lines[:2], flipped(lines[2]), lines[3]])
    assert refused(journal).startswith(f"record 8 ({LAST}, line 3)")


def test_a_bad_durable_record_is_no_tail_when_another_follows_it(journal: Path) -> None:
    vouch(journal, 8)
    edit(journal / LAST, lambda lines: [*lines[:2], flipped(lines[2]), lines[3]])
    assert refused(journal).startswith(f"record 8 ({LAST}, line 3)")


def test_another_last_record_than_was_made_durable_is_refused(journal: Path) -> None:
    """It is a whole record: not torn, but forged."""
    mark = DurableMark(9, "0" * 64)
    (journal / MARK_NAME).write_bytes(mark.to_bytes())
    assert refused(journal) == (
        f"record 9 ({LAST}, line 4): it isn't the record that was made durable"
    )


def test_a_mark_without_segments_is_refused(journal: Path) -> None:
    for path in journal.glob("*.jsonl"):
        path.unlink()
    assert refused(journal).startswith("record 1 (no file, line 1): it is missing")


def test_a_mark_that_isnt_one_is_refused_and_moves_nothing_aside(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    open_log(journal).close()
    (journal / MARK_NAME).write_bytes(b"x")
    assert refused(journal).endswith(".head doesn't have the form that the journal's writer writes")


def test_opening_reads_the_last_segment_only(journal: Path) -> None:
    """Damage far back is ``verify``'s to find: a big journal opens fast."""
    edit(journal / FIRST, lambda lines: [lines[0], flipped(lines[1]), *lines[2:]])
    log = open_log(journal)
    log.close()
    assert verify(journal).first_bad == 2


def test_a_lost_durable_record_isnt_vouched_for_any_more_before_its_place_is_taken(
    journal: Path,
) -> None:
    """Killed between the repair and the next record, the journal still opens."""
    edit(journal / LAST, lambda lines: [*lines[:3], lines[3][:-9]])
    disk = FailingDisk()
    disk.failing["write"] = 5  # EIO: the piece can't be moved aside, so nothing is cut
    log = open_log(journal, disk=disk)
    assert not log.writable
    log.close()
    assert (journal / LAST).read_bytes().splitlines()[3][:9] == b'{"hash":"'

    # Now the repair gets through, but the segment record after it doesn't.
    class Dying(FailingDisk):
        def truncate(self, file: int, size: int) -> None:
            super().truncate(file, size)
            self.failing["write"] = 5

    log = open_log(journal, disk=Dying())
    assert not log.writable
    log.close()
    assert verify(journal).records == 8
    # What was moved aside is recorded all the same, by the start that gets through.
    assert reopen(journal) == {
        "bytes": 0,
        "files": [f"{LAST}.torn-1"],
        "reason": "a start that got no further moved it aside",
        "durable": False,
    }
    assert open_log(journal).last_seq == 10


def test_a_repair_is_recorded_once(journal: Path) -> None:
    with (journal / LAST).open("ab") as file:
        file.write(b"torn")
    log = open_log(journal, limits=SegmentLimits(max_segment_bytes=1))
    log.append(entry(501))
    log.append(entry(502))
    log.close()
    repairs = [record.seq for record in records(journal) if "repair" in record.entry.result]
    assert repairs == [10]


def test_a_reader_sees_nothing_of_a_torn_tail(journal: Path) -> None:
    with (journal / LAST).open("ab") as file:
        file.write(b'{"torn')
    assert [record.seq for record in records(journal, after=6)] == [7, 8, 9]


def test_what_was_recorded_before_goes_on_being_read(journal: Path) -> None:
    before = [parse(line) for line in (journal / LAST).read_bytes().splitlines()]
    log = open_log(journal)
    log.append(intent_or_outcome(99))
    log.close()
    assert list(records(journal, after=5))[:4] == before


# Where it is signed. Records 1-3 begin it (sKc), each write of five has a checkpoint.

EVERY = CheckpointInterval(records=5)


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    """A journal of 30 records, its key and its published checkpoint of the first 29."""
    folder = tmp_path / "state" / "journal"
    folder.parent.mkdir()
    log = open_log(folder, every=EVERY)
    for number in range(22):
        log.append(entry(number))
    log.close()
    assert (log.last_seq, log.signed) == (30, 29)
    return folder


def spoil(journal: Path, seq: int) -> None:
    """Flip a bit of a record of the first segment."""
    edit(
        journal / FIRST,
        lambda lines: [*lines[: seq - 1], lines[seq - 1].replace(b"hash", b"hasi"), *lines[seq:]],
    )


def cut(journal: Path, seq: int) -> None:
    vouch(journal, seq)
    edit(journal / FIRST, lambda lines: lines[:seq])


def remove(journal: Path) -> None:
    for path in journal.iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("harm", "left"), [(lambda journal: cut(journal, 12), 12), (remove, 0)], ids=["cut", "removed"]
)
def test_records_of_the_published_checkpoint_are_missed_whatever_the_mark_says(
    sealed: Path, harm: Callable[[Path], None], left: int
) -> None:
    harm(sealed)
    with pytest.raises(StateError) as caught:
        open_log(sealed, every=EVERY)
    assert f"up to record {left}, and journal.checkpoint is of 29" in caught.value.message
    assert "move journal.checkpoint out" in caught.value.remedy
    before = all_below(sealed.parent)
    with pytest.raises(StateError):
        open_log(sealed, every=EVERY)
    assert all_below(sealed.parent) == before
    # The way on for whoever means it.
    key_files(sealed).checkpoint.rename(sealed.parent / "kept")
    log = open_log(sealed, every=EVERY)
    assert log.append(entry(900)).seq > left
    log.close()
    assert verify(sealed).ok


@pytest.mark.parametrize(
    "change",
    [
        lambda entries: without("checkpoint")(changed(5, request={"object": "x"})(entries)) * 2,
        lambda entries: [*changed(28, request={"object": "x"})(entries)[:-1], *MORE],
        lambda entries: [*entries[:27], *entries[28:-1], *MORE],
    ],
    ids=["without its checkpoints", "without the last one", "one record less"],
)
def test_a_start_does_not_sign_rewritten_records(
    sealed: Path, change: Callable[[Entries], Entries]
) -> None:
    """Else a public key alone would never tell it again."""

    def with_ids(entries: Entries) -> Entries:
        made = change(entries)
        return [(replace(one, id=uuid7(n)), time) for n, (one, time) in enumerate(made, 1)]

    key = parse_private(key_files(sealed).secret.read_text())
    forge(Signed(sealed, key, key.public, ()), with_ids)
    for path in list_segments(sealed):
        path.chmod(0o600)
    before = all_below(sealed.parent)
    with pytest.raises(StateError, match=r"first 29 records aren't those that journal\.checkpoint"):
        open_log(sealed, every=EVERY)
    assert all_below(sealed.parent) == before


def test_a_published_checkpoint_that_lags_behind_is_of_the_same_records(sealed: Path) -> None:
    published = key_files(sealed).checkpoint.read_bytes()
    for number in range(50, 53):
        log = open_log(sealed, every=EVERY)
        for more in range(number * 10, number * 10 + 7):
            log.append(entry(more))
        log.close()
        key_files(sealed).checkpoint.write_bytes(published)
    assert verify(sealed).ok


def test_an_outdated_mark_makes_no_torn_tail_of_durable_records(sealed: Path) -> None:
    """Also where the published checkpoint went: a checkpoint with a record after it tells it."""
    vouch(sealed, 5)
    spoil(sealed, 6)
    where = f"record 6 ({FIRST}, line 6): "
    assert refused(sealed, every=EVERY).startswith(where)
    key_files(sealed).checkpoint.unlink()
    assert refused(sealed, every=EVERY).startswith(where)


def test_what_was_written_later_makes_no_torn_tail_of_what_was_durable(tmp_path: Path) -> None:
    journal, clock = tmp_path / "journal", FixedClock()
    log = open_log(journal, clock=clock)
    for number in range(4):
        clock.time += 0.001
        log.append(entry(number))
    log.close()
    vouch(journal, 2)
    spoil(journal, 3)
    assert refused(journal).startswith(f"record 3 ({FIRST}, line 3): ")


def test_a_last_write_that_was_torn_may_hold_its_checkpoint(sealed: Path) -> None:
    log = open_log(sealed, every=EVERY)
    published = key_files(sealed).checkpoint.read_bytes()
    log.commit([prepare(entry(number)) for number in range(100, 106)])
    log.close()
    vouch(sealed, 30)
    key_files(sealed).checkpoint.write_bytes(published)
    spoil(sealed, 32)
    log = open_log(sealed, every=EVERY)
    assert log.last_seq > 31
    log.close()
    repairs = [record.entry.result.get("repair") for record in records(sealed, after=31)]
    assert [repair["durable"] for repair in repairs if isinstance(repair, dict)] == [False]
    assert verify(sealed).ok


def by(name: str, key: PrivateKey, size: int) -> str:
    root = bytes(32) if size else Range().root
    return str(sign_note(str(Checkpoint(name, size, root)), [key]))


@pytest.mark.parametrize(
    ("published", "told"),
    [
        (lambda _: None, ""),
        (lambda key: by(ORIGIN, key, 0), ""),
        (lambda _: "", "journal.checkpoint.unreadable"),
        (lambda key: by(ORIGIN, key, 99)[:60], "journal.checkpoint.unreadable"),
        (lambda key: by("another", key, 99), "journal.checkpoint.foreign"),
        (lambda _: by(ORIGIN, PrivateKey(ORIGIN, bytes(32)), 99), "journal.checkpoint.foreign"),
    ],
    ids=["absent", "older", "empty", "cut", "of another journal", "of another key"],
)
def test_a_published_checkpoint_that_proves_nothing_stops_nothing(
    sealed: Path,
    published: Callable[[PrivateKey], str | None],
    told: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = key_files(sealed).checkpoint
    path.unlink()
    text = published(parse_private(key_files(sealed).secret.read_text()))
    if text is not None:
        path.write_text(text)
    log = open_log(sealed, every=EVERY)
    log.append(entry(900))
    log.close()
    assert log.signed == 31
    assert told in caplog.text
    assert bool(caplog.records) == bool(told)


def test_a_record_of_a_newer_version_is_neither_damage_nor_a_torn_tail(journal: Path) -> None:
    edit(journal / LAST, lambda lines: [*lines, newer(lines[-1].rstrip()) + b"\n"])
    before = all_below(journal.parent)
    with pytest.raises(StateError) as caught:
        open_log(journal)
    assert caught.value.code == "state.newer"
    assert f"record 10 ({LAST}, line 5): it is of a newer trimtab, with later" in str(caught.value)
    with pytest.raises(StateError) as read:
        [*records(journal)]
    assert read.value.code == "state.newer"
    assert all_below(journal.parent) == before
