"""The index is never the truth: whatever becomes of it, the same is answered."""

from __future__ import annotations

import random
import shutil
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from controller.core.records.checkpoint import prune_entry
from controller.core.records.query import Filter, Page, Question
from controller.journal.index import queries
from controller.journal.index.builder import Builder, IndexLocked
from controller.journal.index.database import path_of
from controller.journal.index.queries import FolderArchive
from controller.journal.store.reader import records
from controller.journal.store.segments import list_segments, name_of
from controller.journal.writer.append_log import SegmentLimits
from controller.journal.writer.checkpointer import CheckpointInterval
from controller.journal.writer.retention import DAY_S, Retention, RetentionLimits, compress
from controller.model.errors import StateError
from controller.model.records import Entry
from tests.unit.journal.builders import NOON, FixedClock, edit, entry, open_log, write_journal
from tests.unit.journal.stories import make_up, write_entries


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A journal of nine records in three segments."""
    write_journal(tmp_path / "journal", [2, 2, 2])
    return tmp_path / "journal"


def found(folder: Path, wanted: Filter | None = None, *, scan: bool = False) -> list[int]:
    with FolderArchive(folder, scan=scan) as archive:
        return [record.seq for record, _ in archive.find(wanted or Filter())]


def last(folder: Path, limit: int) -> list[int]:
    with FolderArchive(folder) as archive:
        return [record.seq for record, _ in archive.find(Filter(), limit=limit)]


INTENTS = Filter(stages=frozenset({"intent"}))


def test_it_is_made_by_asking_private_and_beside_the_journal(folder: Path) -> None:
    assert found(folder, INTENTS) == [2, 5, 8]
    assert path_of(folder).parent == folder.parent
    kept = sorted(folder.parent.glob("index.sqlite*"))
    assert kept
    assert {stat.S_IMODE(path.stat().st_mode) for path in kept} == {0o600}


def test_it_grows_with_the_journal(folder: Path) -> None:
    assert len(found(folder)) == 9
    inode = path_of(folder).stat().st_ino
    more = folder.parent / "more"
    write_journal(more, [2, 2, 2, 3])
    for path in list_segments(more)[3:]:
        shutil.copy(path, folder / path.name)
    shutil.copy(more / ".head", folder / ".head")
    assert found(folder) == list(range(1, 14))
    assert path_of(folder).stat().st_ino == inode, "it was kept"


def forget(path: Path) -> None:
    path.unlink()


def garble(path: Path) -> None:
    path.write_bytes(b"no database" * 100)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:9000])


def garble_within(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    path.write_bytes(content)


def make_older(path: Path) -> None:
    change(path, "PRAGMA user_version = 0")


def lead_elsewhere(path: Path) -> None:
    change(path, "UPDATE records SET offset = offset + 1 WHERE seq = 5")


def swap(path: Path) -> None:
    change(path, "UPDATE records SET (segment, offset, length) = "
                 "(SELECT segment, offset, length FROM records WHERE seq = 2) WHERE seq = 5")  # fmt: skip


def say_otherwise(path: Path) -> None:
    intent = "(SELECT word FROM words WHERE text = 'intent')"
    change(path, f"UPDATE records SET stage = {intent} WHERE seq = 6")


def be_of_another(path: Path) -> None:
    change(path, f"UPDATE meta SET hash = '{'0' * 64}'")


def lose_a_table(path: Path) -> None:
    change(path, "DROP TABLE things")


def change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.executescript(statement)


def lose_times(path: Path) -> None:
    change(path, "DROP TABLE spans")


def lose_containers(path: Path) -> None:
    change(path, "DROP TABLE lives")


def go_on_elsewhere(path: Path) -> None:
    change(path, "UPDATE meta SET offset = offset - 7")


def go_on_nowhere(path: Path) -> None:
    change(path, "UPDATE meta SET offset = -1")


def garble_intents(path: Path) -> None:
    change(path, "INSERT INTO intents VALUES ('x', 'no JSON')")


def make_up_intents(path: Path) -> None:
    change(path, """INSERT INTO intents VALUES ('x', '{"of": "another version"}')""")


def garble_times(path: Path) -> None:
    change(path, "UPDATE spans SET low = CAST(x'b3' AS TEXT)")


def point_nowhere(path: Path) -> None:
    change(path, "UPDATE records SET offset = 'x' WHERE seq = 5")


HARM = (
    *(forget, garble, empty, cut, garble_within, make_older),
    *(lose_times, lose_containers, go_on_elsewhere, go_on_nowhere, garble_intents, make_up_intents),
    *(lead_elsewhere, swap, say_otherwise, be_of_another, lose_a_table),
    *(point_nowhere, garble_times),
)


@pytest.mark.parametrize("harm", HARM)
def test_a_damaged_index_is_rebuilt_and_answers_stay_the_same(
    folder: Path, harm: Callable[[Path], None]
) -> None:
    assert found(folder, INTENTS) == [2, 5, 8]
    harm(path_of(folder))
    with FolderArchive(folder) as archive:
        assert archive.ask(Question(there="2026-02-01T00:00:00.000Z")) == Page()
    assert found(folder, INTENTS) == [2, 5, 8]
    assert last(folder, 9) == list(range(1, 10))
    with Builder(folder) as builder:
        assert builder.is_whole()
        assert builder.index.place.seq == 9


def test_an_index_of_another_journal_is_not_believed(folder: Path) -> None:
    assert len(found(folder)) == 9
    shutil.rmtree(folder)
    records = write_entries(folder, make_up(random.Random(5)))
    assert len(records) > 9
    assert found(folder) == [record.seq for record in records]


def test_a_journal_that_was_rolled_back_is_answered_as_it_is(folder: Path) -> None:
    assert len(found(folder)) == 9
    shutil.rmtree(folder)
    write_journal(folder, [2])
    assert found(folder) == [1, 2, 3]


@pytest.mark.parametrize(
    "lost",
    [
        "DELETE FROM records WHERE seq = 5",
        "DELETE FROM records WHERE seq = 1",
        "DELETE FROM records WHERE seq < 6; UPDATE meta SET first = 6",
    ],
)
def test_an_index_that_lost_rows_is_made_anew_for_whoever_opens_it(folder: Path, lost: str) -> None:
    with Builder(folder) as builder:
        assert [*builder.build()] == [9]
        change(path_of(folder), lost)
        assert found(folder, INTENTS) == [2, 5, 8], "by who leaves it to its keeper too"
    assert found(folder, INTENTS) == [2, 5, 8]
    with Builder(folder) as builder:
        assert builder.index.place.seq == 9
        assert builder.is_whole()


def test_what_a_row_says_wrongly_hides_its_record_from_all_but_those_who_do_not_believe_it(
    folder: Path,
) -> None:
    """What SECURITY.md says isn't guaranteed."""
    assert found(folder, INTENTS) == [2, 5, 8]
    change(path_of(folder), "UPDATE records SET stage = 0 WHERE seq = 5")
    assert found(folder, INTENTS) == [2, 8]
    assert found(folder, INTENTS, scan=True) == [2, 5, 8]


def test_who_reads_while_another_keeps_it_reads_what_came_since_as_well(folder: Path) -> None:
    with Builder(folder) as builder:
        assert [*builder.build(upto=4)] == [4]
        with pytest.raises(IndexLocked):
            Builder(folder)
        assert found(folder, INTENTS) == [2, 5, 8]
        assert last(folder, 3) == [7, 8, 9]
        with FolderArchive(folder) as archive:
            after = archive.ask(Question(Filter(after=2), limit=4, last=False))
        assert [record.seq for record, _ in after.found] == [3, 4, 5, 6]
        assert after.following == 6
        assert builder.index.place.seq == 4, "only its keeper changes it"
        with FolderArchive(folder) as archive:
            assert [*builder.build(upto=7)] == [7]
            seqs = [record.seq for record, _ in archive.find(Filter())]
        assert seqs == list(range(1, 10)), "nothing twice, though more was indexed meanwhile"


def test_an_index_that_is_far_behind_is_left_to_its_keeper(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "TAIL_MAX", 3)
    with Builder(folder) as builder:
        assert [*builder.build(upto=4)] == [4]
        assert found(folder, INTENTS) == [2, 5, 8]


def test_a_wrong_row_of_an_index_that_another_keeps_harms_nobody(folder: Path) -> None:
    with Builder(folder) as builder:
        assert [*builder.build()] == [9]
        lead_elsewhere(path_of(folder))
        assert found(folder, INTENTS) == [2, 5, 8]


def test_where_no_index_can_be_made_one_is_made_for_each_question(folder: Path) -> None:
    path_of(folder).mkdir()
    assert found(folder, INTENTS) == [2, 5, 8]
    assert path_of(folder).is_dir()


def test_a_line_that_is_being_written_is_no_record_yet(folder: Path) -> None:
    segment = list_segments(folder)[-1]
    line = segment.read_bytes().splitlines()[-1]
    with segment.open("ab") as file:
        file.write(line[:50])
    assert len(found(folder)) == 9
    with segment.open("ab") as file:
        file.write(line[50:70])
    assert len(found(folder)) == 9


def test_the_first_bad_record_is_named_also_by_who_asks_for_another(folder: Path) -> None:
    second = list_segments(folder)[1]
    edit(second, lambda lines: [lines[0], lines[1].replace(b"web", b"wab"), *lines[2:]])
    with pytest.raises(StateError, match="record 5") as caught:
        found(folder, Filter(upto=2))
    assert caught.value.code == "journal.damaged"


def lose_a_segment(which: int) -> Callable[[Path], None]:
    return lambda folder: list_segments(folder)[which].unlink()


def add_one_of_another_time(folder: Path) -> None:
    shutil.copy(list_segments(folder)[1], folder / name_of(900))


def garble_what_is_compressed(folder: Path) -> None:
    first = list_segments(folder)[0]
    compress(first)
    packed = first.with_name(f"{first.name}.gz")
    data = bytearray(packed.read_bytes())
    data[60] ^= 0xFF
    packed.write_bytes(data)


@pytest.mark.parametrize("made", [True, False], ids=["with an index", "without one"])
@pytest.mark.parametrize(
    "harm",
    [lose_a_segment(0), lose_a_segment(1), add_one_of_another_time, garble_what_is_compressed],
    ids=["first", "second", "added", "garbled"],
)
def test_a_journal_with_a_hole_is_told_as_damaged_by_whoever_reads_there(
    folder: Path, harm: Callable[[Path], None], made: bool
) -> None:
    if made:
        found(folder)
    harm(folder)
    with pytest.raises(StateError) as caught:
        found(folder, INTENTS, scan=not made)
    assert caught.value.code == "journal.damaged"
    for wanted in (Filter(), Filter(upto=2), INTENTS):
        with pytest.raises(StateError, match="damaged"):
            found(folder, wanted)


def days(folder: Path, count: int) -> None:
    """Write so many days, a segment each: a container is created on the first and started daily."""
    clock = FixedClock()
    log = open_log(
        folder,
        clock=clock,
        every=CheckpointInterval(),
        limits=SegmentLimits(max_segment_age_s=DAY_S),
    )
    log.append(
        asked(
            1,
            "container.create",
            "web.1-aaaaaaaa",
            labels=WHOSE,
            settings={"name": "web.1-aaaaaaaa"},
        )
    )
    log.append(entry(1, "outcome", result={"status": 201, "container": CONTAINER}))
    for day in range(1, count):
        clock.time += DAY_S
        log.append(asked(day + 1, "container.start", CONTAINER))
        log.append(entry(day + 1, "outcome", result={"status": 204}))
    log.close()


CONTAINER = "c0ffee" + "0" * 58
WHOSE = {"io.trimtab.service": "web", "io.trimtab.namespace": "shop"}


def asked(number: int, route: str, thing: str, **summary: object) -> Entry:
    request: dict[str, object] = {"route": route, "object": thing, "summary": summary}
    return entry(number, "intent", actor={"role": "controller"}, request=request)


def prune(folder: Path, *, keep_days: int, now_day: int) -> None:
    def tell(until: int, reason: str, digest: str) -> None:
        log = open_log(folder, clock=FixedClock(NOON + now_day * DAY_S), every=CheckpointInterval())
        log.append(prune_entry(log._new_id(), until=until, reason=reason, digest=digest))
        log.close()

    keep = RetentionLimits(age_s=keep_days * DAY_S, plain_s=DAY_S)
    Retention(folder, limits=keep, record_pruning=tell).apply(now=NOON + now_day * DAY_S)


def test_what_was_pruned_is_let_go_and_what_is_known_of_it_stays(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    days(folder, 8)
    whole = found(folder)
    of_web = Filter(service="shop/web", stages=frozenset({"intent"}))
    assert len(found(folder, of_web)) == 8
    prune(folder, keep_days=3, now_day=8)
    assert any(path.suffix == ".gz" for path in list_segments(folder))
    first = next(records(folder)).seq
    assert first > 1
    kept = found(folder)
    assert kept[0] == first
    assert set(whole) - set(kept) == set(range(1, first))
    seqs = found(folder, of_web)
    assert 0 < len(seqs) < 8
    with Builder(folder) as builder:
        assert builder.is_whole()
        known = builder.index.life(CONTAINER)
        assert known is not None
    path_of(folder).unlink()
    # Made anew, of what is left: whose the container is, the inventory of then still tells.
    assert (found(folder), found(folder, of_web)) == (kept, seqs)
    with Builder(folder) as builder:
        anew = builder.index.life(CONTAINER)
        assert anew == replace(known, since=first - 1)


def test_an_index_of_which_all_was_pruned_is_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    days(folder, 8)
    with Builder(folder) as builder:
        assert next(builder.build(upto=3)) == 3
    prune(folder, keep_days=3, now_day=8)
    assert found(folder) == [record.seq for record in records(folder)]


def test_who_may_not_read_the_journal_makes_no_index(tmp_path: Path) -> None:
    with pytest.raises(StateError) as caught:
        found(tmp_path / "journal")
    assert caught.value.code == "journal.missing"
    assert list(tmp_path.iterdir()) == []
