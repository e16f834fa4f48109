"""What a crash leaves at the journal's end is repaired and recorded; anything else is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from controller.core.record import GENESIS, parse
from controller.journal.audit import verify
from controller.journal.log import Limits
from controller.journal.reader import records
from controller.journal.segments import MARK_NAME, Mark
from controller.model.errors import StateError
from tests.unit.journal.builders import (
    FailingDisk,
    edit,
    entry,
    intent_or_outcome,
    open_log,
    write_journal,
)

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
    (journal / MARK_NAME).write_bytes(Mark(seq, found.hash).to_bytes())


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
    for length in range(1, len(good) - start):
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


def refused(journal: Path) -> str:
    """Open; return where the damage is said to be. No file may have changed."""
    before = {path.name: path.read_bytes() for path in journal.iterdir()}
    with pytest.raises(StateError) as caught:
        open_log(journal)
    assert {path.name: path.read_bytes() for path in journal.iterdir()} == before
    assert caught.value.code == "journal.damaged"
    assert "restore it from a backup" in caught.value.remedy
    return caught.value.message.partition(" is damaged at ")[2]


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
    mark = Mark(9, "0" * 64)
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
    assert refused(journal).endswith(".head isn't as the journal's writer leaves it")


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
    log = open_log(journal, limits=Limits(max_segment_bytes=1))
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
