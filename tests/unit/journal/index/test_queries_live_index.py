"""The index of a journal that is being written: kept behind the writer, and asked meanwhile."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from controller.app.process import SystemClock
from controller.core.records.query import EVERYTHING, Filter, Question
from controller.journal.index import database as indexes
from controller.journal.index import queries
from controller.journal.index.builder import Builder
from controller.journal.index.database import Index, IndexUnusable, Misfit, path_of
from controller.journal.index.queries import FolderArchive, LiveIndex
from controller.journal.store.segments import list_segments
from controller.journal.writer.append_log import Log
from controller.model.errors import StateError
from tests.instance import eventually
from tests.unit.journal.builders import edit, entry, open_log, write_journal


@contextmanager
def kept(folder: Path, durable: Callable[[], int]) -> Iterator[LiveIndex]:
    keeper = LiveIndex(folder, durable=durable, clock=SystemClock())
    try:
        yield keeper
    finally:
        keeper.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A journal of nine records in three segments."""
    write_journal(tmp_path / "journal", [2, 2, 2])
    return tmp_path / "journal"


def seqs(keeper: LiveIndex, wanted: Filter | None = None) -> list[int]:
    page = keeper.ask(Question(wanted or Filter()))
    return [record.seq for record, _ in page.found]


def indexed(keeper: LiveIndex, seq: int) -> bool:
    return eventually(lambda: keeper.indexed == seq, what=keeper.error or "indexed")


def write(log: Log, count: int) -> None:
    for _ in range(count):
        log.append(entry(log.last_seq))


def test_what_is_written_is_told_at_once_and_indexed_soon(tmp_path: Path) -> None:
    log = open_log(tmp_path / "journal")
    with kept(tmp_path / "journal", lambda: log.last_seq) as keeper:
        for _ in range(5):
            write(log, 20)
            keeper.wake()
            assert seqs(keeper) == list(range(1, log.last_seq + 1))
        assert indexed(keeper, log.last_seq)
        assert keeper.error == ""
    log.close()
    with Builder(tmp_path / "journal") as builder:
        assert builder.index.place.seq == log.last_seq
        assert builder.is_whole()


def test_what_is_not_durable_is_neither_told_nor_indexed(folder: Path) -> None:
    durable = [5]
    with kept(folder, lambda: durable[0]) as keeper:
        assert seqs(keeper) == [1, 2, 3, 4, 5]
        assert indexed(keeper, 5)
        durable[0] = 7
        assert seqs(keeper) == [1, 2, 3, 4, 5, 6, 7]
        keeper.wake()
        assert indexed(keeper, 7)
        assert keeper.durable == 7


def test_an_index_that_lost_rows_is_made_anew_at_the_start(folder: Path) -> None:
    with Builder(folder) as builder:
        assert [*builder.build()] == [9]
    change(folder, "DELETE FROM records WHERE seq = 5")
    with kept(folder, lambda: 9) as keeper:
        assert indexed(keeper, 9)
        assert 5 in seqs(keeper)


def test_a_row_that_leads_elsewhere_has_it_made_anew(folder: Path) -> None:
    with kept(folder, lambda: 9) as keeper:
        assert indexed(keeper, 9)
        change(folder, "UPDATE records SET offset = offset + 1 WHERE seq = 5")
        assert seqs(keeper) == list(range(1, 10)), "read without it meanwhile"

        def rows_fit() -> bool:
            try:
                with Index.open(folder) as index:
                    return len([*index.find(Filter(), EVERYTHING)]) == 9
            except (Misfit, IndexUnusable):
                return False

        eventually(rows_fit, what="an index whose rows lead to their records")


def change(folder: Path, statement: str) -> None:
    with closing(sqlite3.connect(path_of(folder), isolation_level=None)) as database:
        database.execute(statement)


def test_far_behind_it_says_so_instead_of_reading_everything(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "ALONE_MAX", 8)
    with Builder(folder), kept(folder, lambda: 9) as keeper:  # another process has the lock
        with pytest.raises(StateError, match="0 of 9 records are indexed") as caught:
            seqs(keeper)
        assert caught.value.code == "journal.indexing"
        assert "sqlite.lock" in keeper.error or "index.sqlite" in keeper.error


def test_a_damaged_journal_is_indexed_up_to_the_damage_and_named(folder: Path) -> None:
    third = list_segments(folder)[2]
    edit(third, lambda lines: [lines[0], lines[1].replace(b"web", b"wab"), *lines[2:]])
    with kept(folder, lambda: 9) as keeper:
        assert indexed(keeper, 7)
        eventually(lambda: "record 8" in keeper.error)
        with pytest.raises(StateError, match="record 8") as caught:
            seqs(keeper)
        assert caught.value.code == "journal.damaged"


def test_where_it_can_not_be_kept_that_is_said_and_a_short_journal_is_read_without(
    folder: Path,
) -> None:
    path_of(folder).mkdir()
    with kept(folder, lambda: 9) as keeper:
        eventually(lambda: "index.sqlite" in keeper.error)
        assert seqs(keeper) == list(range(1, 10))
        assert seqs(keeper, Filter(after=6, upto=8)) == [7, 8]


def test_without_room_nothing_is_indexed_and_all_is_answered(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    durable = [5]
    with kept(folder, lambda: durable[0]) as keeper:
        assert indexed(keeper, 5)
        monkeypatch.setattr(indexes, "ROOM_BYTES", 1 << 60)
        durable[0] = 9
        keeper.wake()
        eventually(lambda: "KiB are free" in keeper.error)
        assert (keeper.indexed, seqs(keeper)) == (5, list(range(1, 10)))
    with FolderArchive(folder) as archive:  # as root does where no broker runs
        assert [found.record.seq for found in archive.find(Filter())] == list(range(1, 10))
