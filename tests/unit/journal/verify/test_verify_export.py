"""A part of the journal, copied so that it can be verified by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.core.records.checkpoint import prune_entry
from controller.core.records.record import parse
from controller.journal.store.reader import last_seq, records
from controller.journal.store.segments import MARK_NAME, first_seq_of, list_segments, read_lines
from controller.journal.verify.verify import Copied, TrustAnchors, copy_segments, verify
from controller.journal.writer.append_log import SegmentLimits
from controller.journal.writer.checkpointer import CheckpointInterval
from controller.journal.writer.retention import DAY_S, Retention, RetentionLimits, compress
from controller.model.errors import StateError
from controller.model.records import Record
from tests.unit.journal.builders import (
    NOON,
    FixedClock,
    entry,
    key_files,
    open_log,
    read_public_keys,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four days of a journal: a segment a day, which ends with its checkpoint."""
    folder = tmp_path / "journal"
    clock = FixedClock()
    log = open_log(
        folder,
        clock=clock,
        every=CheckpointInterval(),
        limits=SegmentLimits(max_segment_age_s=DAY_S),
    )
    for day in range(4):
        for number in range(5):
            log.append(entry(10 * day + number))
        clock.time += DAY_S
    log.close()
    return folder


def firsts(folder: Path) -> list[int]:
    """Return the first seqs of the segments, and the one after the last record."""
    return [*map(first_seq_of, list_segments(folder)), last_seq(folder) + 1]


def seqs(copy: Path) -> list[int]:
    """Return the seqs by the lines alone: a copy may begin anywhere."""
    lines = (line for path in list_segments(copy) for line in read_lines(path))
    return [parse(line.data).seq for line in lines]


def check(folder: Path, copy: Path, copied: Copied) -> None:
    """The copy holds together by the key alone, and its records are the journal's."""
    trust = TrustAnchors(frozenset(read_public_keys(key_files(folder).public)))
    begin = copied.begin if copied.begin > copied.first else 1
    found = verify(copy, trust, begin=begin)
    assert (found.ok, found.reason) == (True, "")
    assert found == verify(copy, trust, begin=begin, thorough=True)
    assert found.begin <= copied.begin
    there = {record.seq: record for record in records(folder)}
    assert seqs(copy) == list(range(copied.first, copied.last + 1))
    assert all(there[record.seq] == record for record in walked(copy, copied.first))


def walked(copy: Path, first: int) -> Iterator[Record]:
    return records(copy, after=first)


@pytest.mark.parametrize(
    ("begin", "end", "segments"),
    [
        # From and to which segment's first record; the segments that are copied, and the one from
        # which on they can be verified: all, where the journal's own beginning is among them.
        (0, None, (0, 4, 0)),
        (0, 0, (0, 1, 0)),
        (1, 1, (0, 2, 0)),
        (2, 2, (1, 3, 2)),
        (2, None, (1, 4, 2)),
        (3, None, (2, 4, 3)),
        (4, None, (2, 4, 3)),  # beyond the end: the last one
    ],
)
def test_whole_segments_are_copied_and_the_one_before_for_its_checkpoint(
    folder: Path, tmp_path: Path, begin: int, end: int | None, segments: tuple[int, int, int]
) -> None:
    bounds = firsts(folder)
    assert len(bounds) == 5
    upto = 0 if end is None else bounds[end]
    copied = copy_segments(folder, tmp_path / "copy", after=bounds[begin] - 1, upto=upto)
    first, last, held = segments
    assert copied == Copied(bounds[first], bounds[last] - 1, bounds[held])
    check(folder, tmp_path / "copy", copied)


def test_compressed_segments_and_a_line_that_is_being_written_make_no_difference(
    folder: Path, tmp_path: Path
) -> None:
    bounds = firsts(folder)
    compress(list_segments(folder)[1])
    with list_segments(folder)[-1].open("ab") as file:
        file.write(b'{"actor"')
    copied = copy_segments(folder, tmp_path / "copy", after=bounds[2])
    assert copied == Copied(bounds[1], bounds[-1] - 1, bounds[2])
    assert [path.suffix for path in list_segments(tmp_path / "copy")] == [".gz", ".jsonl", ".jsonl"]
    check(folder, tmp_path / "copy", copied)


def test_of_a_journal_that_was_pruned_what_tells_of_that_goes_along(
    folder: Path, tmp_path: Path
) -> None:
    def tell(until: int, reason: str, digest: str) -> None:
        log = open_log(folder, clock=FixedClock(NOON + 4 * DAY_S), every=CheckpointInterval())
        log.append(prune_entry(log._new_id(), until=until, reason=reason, digest=digest))
        log.close()

    keep = RetentionLimits(age_s=2.5 * DAY_S, plain_s=1000 * DAY_S)
    Retention(folder, limits=keep, record_pruning=tell).apply(now=NOON + 4 * DAY_S)
    bounds = firsts(folder)
    assert bounds[0] > 1
    copied = copy_segments(folder, tmp_path / "copy", upto=bounds[0])
    assert copied == Copied(bounds[0], bounds[-1] - 1, bounds[0])
    check(folder, tmp_path / "copy", copied)


@pytest.mark.parametrize("marked", ["not", "empty"])
def test_a_journal_without_its_mark_is_copied_to_its_last_whole_line(
    folder: Path, tmp_path: Path, marked: str
) -> None:
    whole = copy_segments(folder, tmp_path / "whole")
    (folder / MARK_NAME).unlink()
    if marked == "empty":
        (folder / MARK_NAME).touch()
    with list_segments(folder)[-1].open("ab") as file:
        file.write(b'{"actor"')
    assert copy_segments(folder, tmp_path / "copy") == whole
    check(folder, tmp_path / "copy", whole)


def test_a_damaged_segment_is_told_and_not_copied_to_its_damage(
    folder: Path, tmp_path: Path
) -> None:
    for last in (b"no line of a journal", b""):
        segment = list_segments(folder)[1]
        if last:
            segment.write_bytes(segment.read_bytes() + last + b"\n")
        else:
            compress(segment)
            packed = list_segments(folder)[1]
            packed.write_bytes(packed.read_bytes()[:-30])
        with pytest.raises(StateError) as caught:
            copy_segments(folder, tmp_path / f"copy of {last!r}", upto=10)
        assert caught.value.code == "journal.damaged"


def test_nothing_is_overwritten_and_what_is_missing_is_said(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    (tmp_path / "none").mkdir()
    for source, copy, code in (
        (folder, tmp_path / "full", "export.not-empty"),
        (folder, tmp_path / "full" / "file", "export.unwritable"),
        (folder, tmp_path / "no" / "such" / "place", "export.unwritable"),
        (tmp_path / "nowhere", tmp_path / "copy", "journal.missing"),
        (tmp_path / "none", tmp_path / "copy", "journal.missing"),
    ):
        with pytest.raises(StateError) as caught:
            copy_segments(source, copy)
        assert caught.value.code == code
    assert (tmp_path / "full" / "file").read_text() == "mine"
