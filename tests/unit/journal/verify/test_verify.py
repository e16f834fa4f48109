"""Whatever is changed in a journal's files, the first bad record is named."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from controller.core.encoding.json_values import canonical
from controller.core.records.record import line_of, parse, prepare
from controller.journal.store.chain import binding
from controller.journal.store.segments import MARK_BYTES, MARK_NAME, DurableMark, name_of, read_mark
from controller.journal.verify import fast_scan
from controller.journal.verify.verify import verify
from controller.model.errors import StateError
from controller.model.records import Entry
from tests.unit.journal.builders import edit, entry, newer, open_log, write_journal

# Records 1-5, 6-10 and 11-14: the first of each is the segment record.
FIRST = "00000000000000000001.jsonl"
SECOND = "00000000000000000006.jsonl"
THIRD = "00000000000000000011.jsonl"
HASH = "its hash isn't that of its content"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written") / "journal"
    write_journal(folder, [4, 4, 3])
    return folder


@pytest.fixture
def journal(written: Path, tmp_path: Path) -> Path:
    return shutil.copytree(written, tmp_path / "journal")


def check(journal: Path, expected: str) -> None:
    found = verify(journal)
    assert f"{found.first_bad} {found.file}:{found.line} {found.reason}" == expected
    assert found.records == (found.first_bad or 0) - 1
    assert not found.ok


def test_an_untouched_journal_is_intact(journal: Path) -> None:
    found = verify(journal)
    assert found.ok
    assert (found.records, found.segments, found.open_intents) == (14, 3, ((uuid(5), 14),))
    assert found.last_hash == read_last(journal).hash


def uuid(number: int) -> str:
    return entry(number).id


def read_last(journal: Path):
    return parse((journal / THIRD).read_bytes().splitlines()[-1])


def swap(first: int, second: int) -> Callable[[list[bytes]], list[bytes]]:
    def change(lines: list[bytes]) -> list[bytes]:
        lines[first - 1], lines[second - 1] = lines[second - 1], lines[first - 1]
        return lines

    return change


def without(*numbers: int) -> Callable[[list[bytes]], list[bytes]]:
    return lambda lines: [line for n, line in enumerate(lines, 1) if n not in numbers]


def repeated(number: int) -> Callable[[list[bytes]], list[bytes]]:
    return lambda lines: [*lines[:number], lines[number - 1], *lines[number:]]


@pytest.mark.parametrize(
    ("file", "change", "expected"),
    [
        (FIRST, without(1), f"1 {FIRST}:1 it is record 2"),
        (FIRST, without(3), f"3 {FIRST}:3 it is record 4"),
        (FIRST, without(2, 3), f"2 {FIRST}:2 it is record 4"),
        (FIRST, without(5), f"5 {SECOND}:1 it is missing: the file begins with record 6"),
        (FIRST, swap(2, 3), f"2 {FIRST}:2 it is record 3"),
        (FIRST, swap(1, 5), f"1 {FIRST}:1 it is record 5"),
        (FIRST, repeated(2), f"3 {FIRST}:3 it is record 2"),
        (FIRST, lambda _: [], f"1 {SECOND}:1 it is missing: the file begins with record 6"),
        (SECOND, without(1), f"6 {SECOND}:1 it is record 7"),
        (SECOND, swap(4, 5), f"9 {SECOND}:4 it is record 10"),
        (SECOND, lambda lines: [*lines[:2], b"\n", *lines[2:]], f"8 {SECOND}:3 it is empty"),
        (SECOND, lambda lines: [b"".join(lines)[:-1]], f"10 {SECOND}:5 its line is cut short"),
        (SECOND, lambda lines: [b"".join(lines)[:-9]], f"10 {SECOND}:5 its line is cut short"),
        (THIRD, without(3), f"13 {THIRD}:3 it is record 14"),
        (THIRD, without(4), f"14 {THIRD}:4 it is missing: records up to 14 were durable"),
        (THIRD, without(2, 3, 4), f"12 {THIRD}:2 it is missing: records up to 14 were durable"),
        (THIRD, lambda _: [], f"11 {THIRD}:1 it is missing: records up to 14 were durable"),
        (THIRD, lambda lines: [b"".join(lines)[:-1]], f"14 {THIRD}:4 its line is cut short"),
        (THIRD, repeated(4), f"15 {THIRD}:5 it is record 14"),
        (THIRD, lambda lines: [*lines, lines[0]], f"15 {THIRD}:5 it is record 11"),
        (THIRD, lambda lines: [*lines, b"\0" * 99 + b"\n"], f"15 {THIRD}:5 it isn't JSON"),
    ],
)  # fmt: skip
def test_lines_that_are_removed_moved_or_repeated_are_noticed(
    journal: Path, file: str, change: Callable[[list[bytes]], list[bytes]], expected: str
) -> None:
    edit(journal / file, change)
    check(journal, expected)


@pytest.mark.slow
def test_every_flipped_byte_is_noticed_at_its_record(journal: Path) -> None:
    """Each byte of the second segment, one after the other: braces, names, digits, newlines."""
    path = journal / SECOND
    good = path.read_bytes()
    seq = 6
    for offset, byte in enumerate(good):
        path.write_bytes(good[:offset] + bytes([byte ^ 1]) + good[offset + 1 :])
        assert verify(journal).first_bad == seq, f"byte {offset}: {chr(byte)!r}"
        seq += byte == ord("\n")


@pytest.mark.slow
@pytest.mark.parametrize("bits", [0x20, 0x80, 0xFF])
def test_a_byte_of_the_last_record_is_noticed_whatever_it_becomes(journal: Path, bits: int) -> None:
    path = journal / THIRD
    good = path.read_bytes()
    start = good.rindex(b"\n", 0, -1) + 1
    for offset in range(start, len(good)):
        path.write_bytes(good[:offset] + bytes([good[offset] ^ bits]) + good[offset + 1 :])
        assert verify(journal).first_bad == 14, f"byte {offset}"


def rehashed(line: bytes, *, prev: str | None = None) -> bytes:
    """The line of a forger who changes a record and computes its hash anew."""
    record = parse(line.rstrip(b"\n"))
    forged = Entry(record.entry.id, record.entry.stage, request={"object": "forged"})
    sealed = prepare(forged).seal(seq=record.seq, time=record.time, prev=prev or record.prev)
    return sealed[1] + b"\n"


def test_a_forged_record_with_a_right_hash_breaks_the_link_of_the_next(journal: Path) -> None:
    edit(journal / FIRST, lambda lines: [*lines[:2], rehashed(lines[2]), *lines[3:]])
    check(journal, f"4 {FIRST}:4 it doesn't continue the record before it (prev)")


def test_a_forged_last_record_isnt_the_one_that_was_made_durable(journal: Path) -> None:
    edit(journal / THIRD, lambda lines: [*lines[:3], rehashed(lines[3])])
    check(journal, f"14 {THIRD}:4 it isn't the record that was made durable")


def test_a_segment_that_is_missing_is_noticed(journal: Path) -> None:
    (journal / SECOND).unlink()
    check(journal, f"6 {THIRD}:1 it is missing: the file begins with record 11")


def test_the_first_segment_missing_is_noticed(journal: Path) -> None:
    (journal / FIRST).unlink()
    check(journal, f"1 {SECOND}:1 it is missing: the file begins with record 6")


def test_the_last_segment_missing_is_noticed(journal: Path) -> None:
    (journal / THIRD).unlink()
    check(journal, f"11 {SECOND}:6 it is missing: records up to 14 were durable")


def test_all_segments_missing_is_noticed(journal: Path) -> None:
    for name in (FIRST, SECOND, THIRD):
        (journal / name).unlink()
    check(journal, "1 :1 it is missing: records up to 14 were durable")


def test_a_cut_line_before_another_segment_is_noticed_without_a_mark(journal: Path) -> None:
    (journal / MARK_NAME).unlink()
    edit(journal / SECOND, lambda lines: [b"".join(lines)[:-9]])
    check(journal, f"10 {SECOND}:5 its line is cut short")


def test_swapped_segments_are_noticed(journal: Path) -> None:
    (journal / FIRST).rename(journal / "x")
    (journal / SECOND).rename(journal / FIRST)
    (journal / "x").rename(journal / SECOND)
    check(journal, f"1 {FIRST}:1 it is record 6")


def test_a_segment_under_another_name_is_noticed(journal: Path) -> None:
    (journal / SECOND).rename(journal / "00000000000000000007.jsonl")
    check(journal, "6 00000000000000000007.jsonl:1 it is missing: the file begins with record 7")


def test_two_segments_spliced_into_one_are_noticed(journal: Path) -> None:
    """Every link holds, so only the segment records tell."""
    (journal / FIRST).write_bytes((journal / FIRST).read_bytes() + (journal / SECOND).read_bytes())
    (journal / SECOND).unlink()
    check(journal, f"6 {FIRST}:6 a segment begins with its segment record, and has no other")


def test_a_segment_of_another_journal_is_noticed(journal: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    log = open_log(other)
    for number in range(100, 104):
        log.append(entry(number))
    log.close()
    shutil.copy(other / FIRST, journal / FIRST)
    check(journal, f"6 {SECOND}:1 it doesn't continue the record before it (prev)")


def test_a_segment_record_that_binds_to_nothing_is_noticed(journal: Path) -> None:
    """The chain holds, but the record names another segment as the one before."""

    def change(lines: list[bytes]) -> list[bytes]:
        record = parse(lines[0].rstrip())
        previous = binding(segment=2, seq=record.seq - 1, digest=record.prev)
        result: dict[str, object] = {"format": 1, "previous": previous}
        forged = Entry(record.entry.id, "segment", actor=record.entry.actor, result=result)
        return [prepare(forged).seal(seq=11, time=record.time, prev=record.prev)[1] + b"\n"]

    edit(journal / THIRD, change)
    (journal / MARK_NAME).unlink()
    check(journal, f"11 {THIRD}:1 its segment doesn't continue the one before it")


def test_a_format_of_a_later_version_is_not_taken_for_ours(journal: Path) -> None:
    def change(lines: list[bytes]) -> list[bytes]:
        record = parse(lines[0].rstrip())
        result = {**record.entry.result, "format": 2}
        later = Entry(record.entry.id, "segment", actor=record.entry.actor, result=result)
        return [prepare(later).seal(seq=11, time=record.time, prev=record.prev)[1] + b"\n"]

    edit(journal / THIRD, change)
    (journal / MARK_NAME).unlink()
    check(journal, f"11 {THIRD}:1 its segment's format isn't known to this version")


def marked(**members: object) -> bytes:
    """A mark as the writer leaves it, but for some members."""
    told = {"hash": "0" * 64, "seq": 14, **members}
    return canonical(told).ljust(MARK_BYTES - 1) + b"\n"


@pytest.mark.parametrize(
    "content",
    [
        *(b"x", b"{}\n", DurableMark(14, "0" * 64).to_bytes()[:-1], b"\0" * 128, b"[" * 9999),
        *(marked(seq="14"), marked(seq=None), marked(seq=True), marked(seq=[]), marked(seq=-1)),
        *(marked(hash=0), marked(hash=None), marked(hash=["0" * 64])),
    ],
)
def test_a_mark_that_the_writer_did_not_leave_is_noticed(journal: Path, content: bytes) -> None:
    (journal / MARK_NAME).write_bytes(content)
    check(journal, "1 :1 .head doesn't have the form that the journal's writer writes")


@pytest.mark.parametrize(
    ("put", "why"),
    [
        (lambda path, elsewhere: path.symlink_to(elsewhere), "Too many levels of symbolic links"),
        (lambda path, _: path.mkdir(), "not an ordinary file"),
        (lambda path, _: os.mkfifo(path), "not an ordinary file"),
    ],
    ids=["link", "folder", "pipe"],
)
def test_what_is_no_file_in_place_of_a_segment_is_not_read(
    journal: Path, tmp_path: Path, put: Callable[[Path, Path], None], why: str
) -> None:
    (journal / SECOND).rename(tmp_path / "elsewhere")
    put(journal / SECOND, tmp_path / "elsewhere")
    for begin in (1, 9):
        found = verify(journal, begin=begin)
        assert (found.first_bad, found.fault, found.records) == (6, "unreadable", 5)
        assert found.reason.startswith(f"{SECOND} can't be read: {why}")


def test_a_segment_before_the_first_is_noticed(journal: Path) -> None:
    shutil.copy(journal / FIRST, journal / name_of(0))
    check(journal, f"1 {name_of(0)}:1 it is missing: the file begins with record 0")


def test_a_line_without_an_end_is_refused_in_bounded_memory(journal: Path) -> None:
    with (journal / SECOND).open("ab") as file:
        file.truncate(1 << 34)  # 16 GiB of holes
    check(journal, f"11 {SECOND}:6 its line is cut short")


# Stages: each intent is closed at most once, by a later record, and ids aren't used again.


def check_stages(tmp_path: Path, entries: list[Entry], expected: str) -> None:
    log = open_log(tmp_path / "journal")
    for one in entries:
        log.append(one)
    log.close()
    found = verify(tmp_path / "journal")
    assert (f"{found.first_bad} {found.reason}" if found.first_bad else "") == expected


def test_an_intent_may_stay_open_and_others_may_come_between(tmp_path: Path) -> None:
    order = [entry(1, "intent"), entry(2), entry(3, "intent"), entry(1, "outcome")]
    check_stages(tmp_path, order, "")
    assert verify(tmp_path / "journal").open_intents == ((uuid(3), 4),)


def test_an_outcome_before_its_intent_is_noticed(tmp_path: Path) -> None:
    order = [entry(1, "outcome"), entry(1, "intent")]
    check_stages(tmp_path, order, "2 it closes no open intent of its id")


def test_an_intent_closed_twice_is_noticed(tmp_path: Path) -> None:
    order = [entry(1, "intent"), entry(1, "outcome"), entry(2), entry(1, "recovered")]
    check_stages(tmp_path, order, "5 it closes no open intent of its id")


@pytest.mark.parametrize("stage", ["intent", "refusal", "read"])
def test_an_id_that_is_used_again_is_noticed(tmp_path: Path, stage) -> None:
    order = [entry(1, "intent"), entry(1, "outcome"), entry(1, stage)]
    check_stages(tmp_path, order, "4 its id was used before")


def test_the_end_of_what_an_intent_began_has_its_id(tmp_path: Path) -> None:
    order = [entry(1, "intent"), entry(1, "outcome"), entry(1, "operator"), entry(1, "operator")]
    check_stages(tmp_path, order, "")


def test_an_id_is_remembered_beyond_the_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast_scan, "_WINDOW", 4)
    order = [entry(number) for number in range(20)]
    check_stages(tmp_path, [*order, entry(3), entry(50)], "22 its id was used before")


def test_ids_that_go_backwards_are_no_repetition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock was set back: every id is smaller than many before it."""
    monkeypatch.setattr(fast_scan, "_WINDOW", 4)
    order = [entry(number) for number in [*range(100, 120), *range(20), *range(120, 130)]]
    check_stages(tmp_path, order, "")


def test_a_repetition_among_ids_that_go_backwards_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast_scan, "_WINDOW", 4)
    order = [entry(number) for number in [*range(100, 120), *range(12), 5, *range(30, 40)]]
    check_stages(tmp_path, order, "34 its id was used before")


def test_a_journal_is_verified_while_it_is_written(tmp_path: Path) -> None:
    log = open_log(tmp_path / "journal")
    for number in range(10):
        log.append(entry(number))
        assert verify(tmp_path / "journal").records == number + 2
    log.close()


def test_a_line_that_is_being_written_is_no_damage(journal: Path) -> None:
    with (journal / THIRD).open("ab") as file:
        file.write(b'{"actor":')
    found = verify(journal)
    assert (found.ok, found.records, found.unfinished_bytes) == (True, 14, 9)


def test_a_folder_without_a_journal_is_an_error(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(StateError, match="no journal in"):
            verify(folder)


def test_the_mark_holds_the_last_durable_record(journal: Path) -> None:
    last = read_last(journal)
    assert read_mark(journal) == DurableMark(last.seq, last.hash)
    assert hashlib.sha256(canonical_without_hash(journal)).hexdigest() == last.hash


def canonical_without_hash(journal: Path) -> bytes:
    """The last line without its member hash, by nothing of ours but the canonical form."""
    import json

    members = json.loads((journal / THIRD).read_bytes().splitlines()[-1])
    del members["hash"]
    assert line_of(read_last(journal)).startswith(b"{")
    return canonical(members)


def test_a_record_of_a_newer_version_is_told_as_newer(journal: Path) -> None:
    edit(journal / THIRD, lambda lines: [*lines, newer(lines[-1].rstrip()) + b"\n"])
    found = verify(journal)
    assert (found.fault, found.first_bad, found.records, found.ok) == ("newer", 15, 14, False)
    assert found.reason == "it is of a newer trimtab, with later"


def test_what_was_changed_is_told_also_behind_a_record_of_a_newer_version(journal: Path) -> None:
    """Otherwise whoever changes a record could have it pass for a newer one."""

    def change(lines: list[bytes]) -> list[bytes]:
        return [*lines[:2], newer(lines[1].rstrip()) + b"\n", *lines[3:]]

    edit(journal / THIRD, change)
    (journal / MARK_NAME).unlink()
    found = verify(journal)
    assert (found.fault, found.first_bad) == ("changed", 14)


@pytest.mark.parametrize("place", ["prev", "seq"])
def test_a_newer_record_in_anothers_place_is_noticed(journal: Path, place: str) -> None:
    def change(lines: list[bytes]) -> list[bytes]:
        origin = lines[-1] if place == "prev" else lines[-2]
        line = newer(origin.rstrip())
        if place == "prev":
            line = line.replace(b'"prev":"', b'"prev":"0', 1)
        return [*lines, line + b"\n"]

    edit(journal / THIRD, change)
    found = verify(journal)
    assert found.fault in {"changed", "gap"}
    assert found.first_bad == 15
