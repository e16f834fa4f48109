"""Following the journal: durable records only, in order, across segments, and never another's."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from controller.core.encoding.json_values import canonical
from controller.core.records.record import LINE_MAX_BYTES, parse
from controller.journal.store.chain import BASE_NAME, PrunedBase
from controller.journal.store.reader import records
from controller.journal.store.segments import MARK_NAME, DurableMark, first_seq_of, list_segments
from controller.journal.writer.append_log import SegmentLimits
from controller.journal.writer.checkpointer import CheckpointInterval
from controller.journal.writer.retention import compress
from controller.model.errors import StateError
from controller.model.records import Record
from controller.ship import fd_server
from controller.ship.fd_server import JournalFiles, LocalFiles, RemoteFiles
from controller.ship.follower import Cursor, Diverged, Follower
from controller.system.durable_files import write_atomic
from tests.unit.journal.builders import entry, open_writer

START = Cursor()


def wrote(folder: Path, count: int, *, first: int = 1, segment_bytes: int = 10**9) -> list[Record]:
    """Write so many records; return all that are there then, segments' own included."""
    writer = open_writer(
        folder, limits=SegmentLimits(max_segment_bytes=segment_bytes, retry_s=0.01)
    )
    try:
        for number in range(first, first + count):
            writer.append(entry(number))
        return list(writer.records())
    finally:
        writer.close()


@contextmanager
def following(files: JournalFiles, cursor: Cursor = START) -> Iterator[Follower]:
    follower = Follower(files, cursor)
    try:
        yield follower
    finally:
        follower.close()


def seqs(follower: Follower, *, records: int = 10**6, size: int = 10**9) -> list[int]:
    mark = follower.mark()
    assert mark is not None
    return [each.record.seq for each in follower.batch(mark, records=records, size=size)]


@contextmanager
def handed(folder: Path) -> Iterator[JournalFiles]:
    """The files as an unprivileged process gets them."""
    ours, theirs = fd_server.pair()
    thread = threading.Thread(target=fd_server.serve, args=(ours, LocalFiles(folder)))
    thread.start()
    try:
        yield RemoteFiles(theirs)
    finally:
        theirs.close()
        thread.join(20)
        ours.close()


@pytest.fixture(params=["own", "handed"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[JournalFiles]:
    if request.param == "own":
        yield LocalFiles(tmp_path / "journal")
        return
    with handed(tmp_path / "journal") as found:
        yield found


def test_all_records_come_once_and_in_order_across_segments(
    tmp_path: Path, files: JournalFiles
) -> None:
    folder = tmp_path / "journal"
    written = wrote(folder, 40, segment_bytes=2000)
    assert len(list_segments(folder)) > 3
    follower = Follower(files, Cursor())
    whole = list(range(1, len(written) + 1))
    found: list[int] = []
    while part := seqs(follower, records=7):
        assert len(part) <= 7
        found += part
    assert found == whole
    # And on from there, when there is more.
    more = wrote(folder, 5, first=100, segment_bytes=2000)
    assert seqs(follower) == list(range(len(whole) + 1, len(more) + 1))
    assert seqs(follower) == []
    follower.close()


def test_one_goes_on_from_a_cursor_wherever_it_is(tmp_path: Path, files: JournalFiles) -> None:
    written = wrote(tmp_path / "journal", 20, segment_bytes=2000)
    for record in written:
        follower = Follower(files, Cursor(record.seq, record.hash))
        assert seqs(follower, records=3) == [
            seq for seq in range(record.seq + 1, record.seq + 4) if seq <= len(written)
        ]
        follower.close()


def test_a_batch_is_bounded_by_its_size(tmp_path: Path) -> None:
    wrote(tmp_path / "journal", 20)
    follower = Follower(LocalFiles(tmp_path / "journal"), Cursor())
    assert seqs(follower, size=1) == [1]
    follower.close()


def test_compressed_segments_are_read_too(tmp_path: Path, files: JournalFiles) -> None:
    folder = tmp_path / "journal"
    written = wrote(folder, 40, segment_bytes=2000)
    for segment in list_segments(folder)[:-1]:
        segment.with_name(f"{segment.name}.gz").write_bytes(gzip.compress(segment.read_bytes()))
        segment.unlink()
    with following(files) as follower:
        assert len(seqs(follower)) == len(written)


def packed(folder: Path) -> Path:
    """Compress the first segment."""
    segment, *_ = list_segments(folder)
    compress(segment)
    return segment.with_name(f"{segment.name}.gz")


def cut_short(segment: Path) -> None:
    segment.write_bytes(segment.read_bytes()[:-20])


def spoil_its_codes(segment: Path) -> None:
    data = bytearray(segment.read_bytes())
    data[30:60] = b"\xff" * 30
    segment.write_bytes(data)


def replace_by_something_else(segment: Path) -> None:
    segment.write_bytes(b"no gzip at all")


@pytest.mark.parametrize("spoil", [cut_short, spoil_its_codes, replace_by_something_else])
def test_a_compressed_segment_that_is_damaged_is_noticed(
    tmp_path: Path, files: JournalFiles, spoil: Callable[[Path], None]
) -> None:
    folder = tmp_path / "journal"
    wrote(folder, 40, segment_bytes=20_000)
    spoil(packed(folder))
    with following(files) as follower, pytest.raises(Diverged, match=r"\.gz is damaged"):
        seqs(follower)


def test_a_line_without_end_is_not_read_to_its_end(tmp_path: Path, files: JournalFiles) -> None:
    folder = tmp_path / "journal"
    wrote(folder, 1)
    with list_segments(folder)[0].open("r+b") as file:
        file.truncate(2 * LINE_MAX_BYTES)
        file.write(b"{" * (LINE_MAX_BYTES + 1))
    with following(files) as follower, pytest.raises(Diverged, match="a line of more than"):
        seqs(follower)


def test_what_is_not_durable_yet_is_not_read(tmp_path: Path, files: JournalFiles) -> None:
    folder = tmp_path / "journal"
    written = wrote(folder, 5)
    mark = json.loads((folder / MARK_NAME).read_text())
    before = {"hash": written[-2].hash, "seq": mark["seq"] - 1}
    text = json.dumps(before, separators=(",", ":"), sort_keys=True)
    (folder / MARK_NAME).write_bytes(text.encode().ljust(127) + b"\n")
    follower = Follower(files, Cursor())
    assert seqs(follower)[-1] == mark["seq"] - 1
    # Half a line after it is nobody's yet.
    with list_segments(folder)[-1].open("ab") as file:
        file.write(b'{"half":')
    assert seqs(follower) == []
    follower.close()


@pytest.mark.parametrize("folder", [True, False])
def test_there_may_be_no_journal_yet(tmp_path: Path, files: JournalFiles, folder: bool) -> None:
    if folder:
        (tmp_path / "journal").mkdir()
    assert Follower(files, Cursor()).mark() is None


def prune(folder: Path, count: int, *, gone: int | None = None) -> int:
    """Remove segments as retention does, all or the first *gone*; return the last record of all."""
    segments = list_segments(folder)
    line = segments[count - 1].read_bytes().splitlines()[-1]
    base = PrunedBase(parse(line), line, first_seq_of(segments[count - 1]))
    write_atomic(folder / BASE_NAME, base.to_bytes())
    for segment in segments[: count if gone is None else gone]:
        segment.unlink()
    return base.record.seq


def signed(folder: Path) -> list[Record]:
    """Write a journal whose closed segments end with their checkpoints, as they do."""
    limits = SegmentLimits(max_segment_bytes=12_000, retry_s=0.01)
    writer = open_writer(folder, limits=limits, every=CheckpointInterval(records=7))
    try:
        for number in range(1, 40):
            writer.append(entry(number))
    finally:
        writer.close()
    return list(records(folder))


def test_what_was_pruned_is_counted_as_missing_and_the_rest_is_read(
    tmp_path: Path, files: JournalFiles
) -> None:
    folder = tmp_path / "journal"
    written = signed(folder)
    assert len(list_segments(folder)) > 3
    until = prune(folder, 2)
    start = Cursor(2, written[1].hash)
    follower = Follower(files, start)
    found = seqs(follower)
    assert (found[0], follower.missing) == (until + 1, until - 2)
    # Sent again, after a delivery that failed: nothing more is missing.
    follower.rewind(start)
    assert seqs(follower) == found
    assert follower.missing == until - 2
    follower.close()


def test_while_segments_are_pruned_the_rest_is_read(tmp_path: Path, files: JournalFiles) -> None:
    folder = tmp_path / "journal"
    signed(folder)
    second = first_seq_of(list_segments(folder)[1])
    prune(folder, 2, gone=1)
    with following(files) as follower:
        assert seqs(follower)[0] == second
        assert follower.missing == second - 1


def test_what_follows_the_pruned_records_hangs_on_what_stayed_of_them(
    tmp_path: Path, files: JournalFiles
) -> None:
    folder = tmp_path / "journal"
    signed(folder)
    prune(folder, 2)
    base = json.loads((folder / BASE_NAME).read_bytes())
    line = changed(base["line"].encode())
    forged = PrunedBase(parse(line), line, base["segment"])
    (folder / BASE_NAME).write_bytes(forged.to_bytes())
    with following(files) as follower, pytest.raises(Diverged, match="doesn't follow"):
        seqs(follower)


def changed(line: bytes) -> bytes:
    """Return another record that holds together, as one can write who can write at all."""
    members = json.loads(line)
    del members["hash"]
    members["time"] = "2026-01-01T13:00:00.000Z"
    return canonical({**members, "hash": hashlib.sha256(canonical(members)).hexdigest()})


def lose_first(folder: Path) -> None:
    list_segments(folder)[0].unlink()


def lose_second(folder: Path) -> None:
    list_segments(folder)[1].unlink()


def lose_more_than_was_pruned(folder: Path) -> None:
    prune(folder, 1)
    list_segments(folder)[0].unlink()


def cut_the_last(folder: Path) -> None:
    last = list_segments(folder)[-1]
    last.write_bytes(last.read_bytes().splitlines(keepends=True)[0])


def lose_all_but_the_mark(folder: Path) -> None:
    for segment in list_segments(folder):
        segment.unlink()


def lose_all(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def replace_the_last_record(folder: Path) -> None:
    last = list_segments(folder)[-1]
    *lines, line = last.read_bytes().splitlines()
    last.write_bytes(b"\n".join([*lines, changed(line), b""]))


#: What is done to a journal while its mark stays, and what is noticed before anything is shipped.
HOLES = {
    "first": (lose_first, r"begins at record \d+, and was pruned until 0"),
    "second": (lose_second, r"has no record \d+"),
    "pruned": (lose_more_than_was_pruned, r"begins at record \d+, and was pruned until \d+"),
    "cut": (cut_the_last, r"has no record \d+"),
    "all": (lose_all_but_the_mark, "has no record 1"),
    "replaced": (replace_the_last_record, r"isn't the one that its mark knows"),
}


@pytest.mark.parametrize("name", HOLES)
def test_a_record_that_is_gone_is_noticed(tmp_path: Path, files: JournalFiles, name: str) -> None:
    folder = tmp_path / "journal"
    written = signed(folder)
    spoil, why = HOLES[name]
    spoil(folder)
    with following(files) as follower, pytest.raises(Diverged, match=why):
        while seqs(follower):
            assert follower.cursor.seq < len(written)


@pytest.mark.parametrize("spoil", [cut_the_last, lose_all_but_the_mark, lose_all])
@pytest.mark.parametrize("goes_on", [True, False])
def test_it_is_noticed_also_after_everything_was_shipped(
    tmp_path: Path, files: JournalFiles, spoil: Callable[[Path], None], goes_on: bool
) -> None:
    folder = tmp_path / "journal"
    last = signed(folder)[-1]
    with following(files) as follower:
        assert seqs(follower)[-1] == last.seq
        assert seqs(follower) == []
        spoil(folder)
        if not goes_on:
            follower.rewind(Cursor(last.seq, last.hash))  # as the next process does
        with pytest.raises(Diverged, match=r"isn't there any more|its mark is gone"):
            seqs(follower)


def test_a_segment_that_was_compressed_after_it_was_shipped_is_found(
    tmp_path: Path, files: JournalFiles
) -> None:
    folder = tmp_path / "journal"
    signed(folder)
    with following(files) as follower:
        assert seqs(follower)
        compress(list_segments(folder)[-1])
        assert seqs(follower) == []


def test_a_mark_that_a_loss_of_power_set_back_is_waited_for(
    tmp_path: Path, files: JournalFiles
) -> None:
    folder = tmp_path / "journal"
    written = wrote(folder, 5)
    last, before = written[-1], written[1]
    (folder / MARK_NAME).write_bytes(DurableMark(before.seq, before.hash).to_bytes())
    with following(files, Cursor(last.seq, last.hash)) as follower:
        assert seqs(follower) == []
        wrote(folder, 1, first=100)
        assert seqs(follower) == [last.seq + 1]


@pytest.mark.parametrize("how", ["missing", "empty"])
def test_a_journal_without_a_mark_is_not_taken_for_none(
    tmp_path: Path, files: JournalFiles, how: str
) -> None:
    folder = tmp_path / "journal"
    wrote(folder, 1)
    (folder / MARK_NAME).unlink()
    if how == "empty":
        (folder / MARK_NAME).touch()
    with pytest.raises(OSError, match=f"its mark is {how}"):
        Follower(files, Cursor()).mark()


def test_an_older_journal_in_its_place_is_noticed(tmp_path: Path, files: JournalFiles) -> None:
    written = wrote(tmp_path / "journal", 5)
    for seq, why in (
        (99, "record 99 was shipped, and isn't there any more"),
        (len(written), "record 6 was shipped, and its mark knows another"),
        (3, "record 3 isn't the one that was shipped"),
    ):
        cursor = Cursor(seq, "f" * 64)
        with following(files, cursor) as follower, pytest.raises(Diverged, match=why):
            seqs(follower)


@pytest.mark.parametrize("spoil", [b"2026", b"web.3"])
def test_a_changed_record_is_never_shipped(
    tmp_path: Path, files: JournalFiles, spoil: bytes
) -> None:
    folder = tmp_path / "journal"
    wrote(folder, 5)
    (segment,) = list_segments(folder)
    lines = segment.read_bytes().splitlines(keepends=True)
    lines[3] = lines[3].replace(spoil, spoil[:-1] + b"9")
    segment.write_bytes(b"".join(lines))
    with following(files) as follower, pytest.raises(Diverged, match="record 4 is damaged"):
        seqs(follower)


def test_a_mark_of_nonsense_is_noticed(tmp_path: Path, files: JournalFiles) -> None:
    folder = tmp_path / "journal"
    wrote(folder, 1)
    (folder / MARK_NAME).write_text("x")
    with pytest.raises(Diverged, match="its mark can't be read"):
        Follower(files, Cursor()).mark()


@pytest.mark.parametrize(
    "name",
    [
        "../journal.key",
        "..",
        "",
        "x",
        "lock",
        ".head/../../journal.key",
        "0" * 20 + ".jsonl.gz.x",
        "list ",
        "\xff",
    ],
)
def test_only_files_of_a_journal_are_opened(tmp_path: Path, files: JournalFiles, name: str) -> None:
    wrote(tmp_path / "journal", 1)
    (tmp_path / "journal.key").write_text("secret")
    with pytest.raises(OSError, match=r"No such file|no file of a journal|Invalid"):
        os.close(files.open(name or "-"))


def test_links_and_what_is_no_file_are_not_opened(tmp_path: Path, files: JournalFiles) -> None:
    folder = tmp_path / "journal"
    folder.mkdir()
    (tmp_path / "secret").write_text("secret")
    (folder / f"{1:020d}.jsonl").symlink_to(tmp_path / "secret")
    (folder / f"{2:020d}.jsonl").mkdir()
    os.mkfifo(folder / f"{3:020d}.jsonl")
    for number in (1, 2, 3):
        with pytest.raises(OSError, match=r".") as raised:
            os.close(files.open(f"{number:020d}.jsonl"))
        assert raised.value.errno


def test_a_parent_that_is_gone_is_told(tmp_path: Path) -> None:
    ours, theirs = fd_server.pair()
    ours.close()
    with pytest.raises(StateError, match="is gone"):
        RemoteFiles(theirs).names()
    theirs.close()


def test_nothing_but_names_and_descriptors_goes_over(tmp_path: Path) -> None:
    wrote(tmp_path / "journal", 1)
    with handed(tmp_path / "journal") as files:
        handle = files.open(files.names()[0])
        try:
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.write(handle, b"x")
        finally:
            os.close(handle)
