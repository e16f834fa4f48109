"""Whatever is done to a signed journal without its key, it shows, and the first bad record is named.

Each is verified with the public key as somebody on another host has it: as far as signatures carry
and parsed from there, and parsed as a whole. Both say the same.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from signal import SIGKILL
from typing import NamedTuple

import pytest

from controller.core.encoding.json_values import canonical
from controller.core.records.checkpoint import (
    Checkpoint,
    checkpoint_entry,
    key_entry,
    parse_checkpoint,
    read_checkpoint,
)
from controller.core.records.record import GENESIS, parse, parse_any, prepare
from controller.core.transparency import (
    PrivateKey,
    PublicKey,
    Range,
    leaf_hash,
    parse_note,
    parse_private,
    sign_note,
)
from controller.journal.store.segments import (
    MARK_NAME,
    DurableMark,
    list_segments,
    name_of,
    read_lines,
)
from controller.journal.verify import fast_scan
from controller.journal.verify.verify import TrustAnchors, Verification, verify
from controller.journal.writer.append_log import SegmentLimits
from controller.journal.writer.checkpointer import CheckpointInterval
from controller.model.errors import StateError
from controller.model.records import Entry, Record
from tests.unit.journal.builders import (
    ORIGIN,
    FixedClock,
    edit,
    entry,
    intent_or_outcome,
    key_files,
    open_log,
    read_public_keys,
    uuid7,
)
from tests.unit.journal.writer.test_checkpointer import rotate

pytestmark = pytest.mark.slow

EVERY = CheckpointInterval(records=5)


class Signed(NamedTuple):
    """A journal, and what somebody kept of it elsewhere."""

    folder: Path
    old: PrivateKey
    key: PublicKey
    copies: tuple[Checkpoint, ...]  # one a segment
    listed: tuple[tuple[PublicKey, int | None], ...] = ()  # journal.pub

    def trusted(self, *copies: Checkpoint) -> TrustAnchors:
        """As journal.pub has it."""
        until = {key: end for key, end in self.listed if end is not None}
        return TrustAnchors(frozenset(key for key, _ in self.listed), copies, until)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    """Four segments of forty records (1-13, 14-26, 27-37, 38-40), with another key from 26 on."""
    folder = tmp_path_factory.mktemp("signed") / "journal"
    clock = FixedClock()
    log = open_log(folder, clock=clock, every=EVERY, limits=SegmentLimits(max_segment_age_s=1.0))
    old = parse_private(key_files(folder).secret.read_text())
    copies = []
    for segment in range(3):
        for number in range(8):
            log.append(intent_or_outcome(8 * segment + number))
        if segment == 1:
            log.append(rotate(900))
        copies.append(parse_checkpoint(parse_note(key_files(folder).checkpoint.read_text())))
        clock.time += 1.0
    log.append(entry(500))
    log.close()
    listed = tuple(read_public_keys(key_files(folder).public).items())
    return Signed(folder, old, listed[0][0], tuple(copies), listed)


@pytest.fixture
def journal(written: Signed, tmp_path: Path) -> Signed:
    folder = shutil.copytree(written.folder, tmp_path / "journal")
    return written._replace(folder=folder)


def judged(
    journal: Signed, *, copies: Sequence[Checkpoint] = (), trust: TrustAnchors | None = None
) -> Verification:
    """Verify both ways; where a signature covers it, both must name the same record."""
    trust = trust or TrustAnchors(frozenset({journal.key}), tuple(copies))
    fast, whole = verify(journal.folder, trust), verify(journal.folder, trust, thorough=True)
    assert place(fast) == place(whole)
    assert not fast.ok or fast == whole
    return fast


def place(found: Verification) -> tuple[object, ...]:
    return (found.first_bad, found.fault, found.reason, found.file, found.line, found.records)


def check(
    journal: Signed,
    expected: str,
    *,
    copies: Sequence[Checkpoint] = (),
    trust: TrustAnchors | None = None,
) -> None:
    found = judged(journal, copies=copies, trust=trust)
    told = f"{found.fault} {found.first_bad}: {found.reason}"
    assert told.startswith(expected), told


def lines_of(folder: Path) -> list[bytes]:
    return [line.data for path in list_segments(folder) for line in read_lines(path)]


def seqs_of(folder: Path, stage: str) -> list[int]:
    return [parse(line).seq for line in lines_of(folder) if parse(line).entry.stage == stage]


def test_what_nobody_touched_holds_with_either_key_and_each_copy(journal: Signed) -> None:
    found = judged(journal, copies=journal.copies)
    assert (found.ok, found.records) == (True, len(lines_of(journal.folder)))
    assert found.signed == found.records - 1
    assert [reign.key for reign in found.keys] == [str(journal.old.public), str(journal.key)]
    assert judged(journal, trust=journal.trusted(*journal.copies)) == found
    # Who has the key from before the rotation learns of the next from what it signed.
    before = verify(journal.folder, TrustAnchors(frozenset({journal.old.public})))
    assert (before.ok, before.signed) == (True, found.signed)
    # Without any the journal's own word is taken, and that is told.
    alone = verify(journal.folder)
    assert (alone.ok, alone.signed, alone.trusted) == (True, found.signed, False)


def test_every_record_is_proven_without_being_parsed_but_the_last(
    journal: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the bench would measure something else than what is said here."""
    parsed: list[int] = []
    real = parse_any

    def counting(line: bytes) -> tuple[Record, str]:
        record, newer = real(line)
        parsed.append(record.seq)
        return record, newer

    monkeypatch.setattr("controller.journal.store.chain.parse_any", counting)
    assert verify(journal.folder, TrustAnchors(frozenset({journal.key}))).ok
    last = len(lines_of(journal.folder))
    assert parsed == [last - 1, last]


# Records that are changed, removed, moved, made up.


def test_a_flipped_bit_of_any_record_is_noticed_there(journal: Signed) -> None:
    """In the middle of each line, one after the other."""
    seq = 0
    for path in list_segments(journal.folder):
        good = path.read_bytes()
        offset = 0
        for line in good.splitlines(keepends=True):
            seq += 1
            at = offset + len(line) // 2
            path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
            found = verify(journal.folder, TrustAnchors(frozenset({journal.key})))
            assert (found.first_bad, found.fault) == (seq, "changed")
            offset += len(line)
        path.write_bytes(good)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_each_byte_of_a_checkpoint_is_noticed(journal: Signed, which: int) -> None:
    path = list_segments(journal.folder)[which]
    good = path.read_bytes()
    seq = parse(good.splitlines()[-1]).seq
    start = good.rindex(b"\n", 0, -1) + 1
    for at in range(start, len(good) - 1, 7):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        assert verify(journal.folder, TrustAnchors(frozenset({journal.key}))).first_bad == seq


Change = Callable[[list[bytes]], list[bytes]]
LINES: list[tuple[int, Change, str]] = [
    (0, lambda lines: [*lines[:4], *lines[5:]], "gap 5: it is record 6"),
    (0, lambda lines: [*lines[:4], lines[5], lines[4], *lines[6:]], "gap 5: it is record 6"),
    (0, lambda lines: [*lines[:5], lines[4], *lines[5:]], "gap 6: it is record 5"),
    (0, lambda _: [], "gap 1: it is missing"),
    (0, lambda lines: lines[:-1], "gap 13: it is missing: the file begins with record 14"),
    (1, lambda lines: lines[:3], "gap 17: it is missing"),
    (1, lambda lines: [b"".join(lines)[:-9]], "cut 26: its line is cut short"),
    # At the end of a segment that is closed, where the next one goes on as if nothing were there.
    (0, lambda lines: [*lines, lines[-2]], "gap 14: it is record 12"),
    (0, lambda lines: [*lines, lines[4]], "gap 14: it is record 5"),
    (1, lambda lines: [*lines, b'{"forged":1}\n'], "changed 27: "),
    (1, lambda lines: [*lines, b"\n"], "changed 27: it is empty"),
    (2, lambda lines: [*lines, b"drop table\n"], "changed 38: it isn't JSON"),
    (2, lambda lines: [*lines, b'{"x'], "cut 38: its line is cut short"),
    (3, lambda lines: lines[:-1], "cut 40: it is missing: records up to 40 were durable"),
    (3, lambda lines: [b"".join(lines)[:-1]], "cut 40: its line is cut short"),
    (3, lambda lines: [*lines, lines[-1]], "gap 41: it is record 40"),
]


@pytest.mark.parametrize(("which", "change", "expected"), LINES)
def test_lines_that_are_removed_moved_or_repeated_are_noticed(
    journal: Signed, which: int, change: Change, expected: str
) -> None:
    edit(list_segments(journal.folder)[which], change)
    check(journal, expected)


def test_swapped_segments_are_noticed(journal: Signed) -> None:
    first, second, *_ = list_segments(journal.folder)
    first.rename(journal.folder / "x")
    second.rename(first)
    (journal.folder / "x").rename(second)
    check(journal, "gap 1: it is record 14")


@pytest.mark.parametrize("at", [2, 7, 13, 15, 20, 30, 36])
@pytest.mark.parametrize("which", [0, 1, 3])
def test_a_segment_that_is_there_again_under_another_number_is_noticed_where_it_belongs(
    journal: Signed, which: int, at: int
) -> None:
    after = next(first for first in (14, 27, 38) if first > at)
    shutil.copy(list_segments(journal.folder)[which], journal.folder / name_of(at))
    check(journal, f"gap {after}: it is missing: the file begins with record {at}")


def test_segments_spliced_into_one_are_noticed(journal: Signed) -> None:
    first, second, *_ = list_segments(journal.folder)
    first.write_bytes(first.read_bytes() + second.read_bytes())
    second.unlink()
    check(journal, "changed 14: a segment begins with its segment record, and has no other")


@pytest.mark.parametrize("which", [0, 1])
def test_a_missing_segment_is_noticed(journal: Signed, which: int) -> None:
    path = list_segments(journal.folder)[which]
    path.unlink()
    check(journal, f"gap {int(path.stem)}: it is missing")


@pytest.mark.parametrize("seq", [1, 6, 13, 14, 20, 38, 40])
def test_a_mark_of_another_record_is_noticed_wherever_it_is_of(journal: Signed, seq: int) -> None:
    records = [parse(line) for line in lines_of(journal.folder)]
    mark = journal.folder / MARK_NAME
    mark.write_bytes(DurableMark(seq, records[seq - 1].hash).to_bytes())
    assert judged(journal).ok, "as after a loss of power"
    mark.write_bytes(DurableMark(seq, records[seq - 2].hash).to_bytes())
    check(journal, f"changed {seq}: it isn't the record that was made durable")


def test_a_damaged_compressed_segment_is_noticed_at_its_record(journal: Signed) -> None:
    path = list_segments(journal.folder)[1]
    packed = path.with_name(f"{path.name}.gz")
    packed.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    path.unlink()
    assert judged(journal).ok
    good = packed.read_bytes()
    for length in range(60, len(good), 97):
        packed.write_bytes(good[:length])
        whole = zlib.decompressobj(wbits=31).decompress(good[:length]).count(b"\n")
        check(journal, f"unreadable {14 + whole}: ")
    packed.write_bytes(good[:-5] + bytes([good[-5] ^ 1]) + good[-4:])  # of the end's checksum
    check(journal, "unreadable 27: ")
    for at in range(20, len(good), 97):
        packed.write_bytes(good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :])
        assert 14 <= (judged(journal).first_bad or 0) <= 26


def test_what_is_put_after_a_compressed_segment_is_noticed(journal: Signed) -> None:
    path = list_segments(journal.folder)[1]
    good = path.read_bytes()
    packed = path.with_name(f"{path.name}.gz")
    path.unlink()
    for more, expected in (
        (gzip.compress(good.splitlines(keepends=True)[3]), "gap 27: it is record 17"),
        (gzip.compress(b"drop table\n"), "changed 27: it isn't JSON"),
        (b"drop table", "unreadable 27: "),
    ):
        packed.write_bytes(gzip.compress(good) + more)
        check(journal, expected)


# A forger who can compute hashes and links, and has no key that signs.

Entries = list[tuple[Entry, str]]


def forge(journal: Signed, change: Callable[[Entries], Entries]) -> None:
    """Write all of the journal anew: every hash, link, binding and the mark are right."""
    records = [parse(line) for line in lines_of(journal.folder)]
    entries = change([(record.entry, record.time) for record in records])
    for path in list_segments(journal.folder):
        path.unlink()
    seq, prev, first, previous = 0, GENESIS, 0, 0
    for one, time in entries:
        seq += 1
        forged = one
        if one.stage == "segment":
            previous, first = first, seq
            bound = {"segment": previous, "seq": seq - 1, "hash": prev}
            forged = replace(one, result={**one.result, "previous": bound})
        record, line = prepare(forged).seal(seq=seq, time=time, prev=prev)
        prev = record.hash
        with (journal.folder / name_of(first)).open("ab") as file:
            file.write(line + b"\n")
    (journal.folder / MARK_NAME).write_bytes(DurableMark(seq, prev).to_bytes())


def changed(seq: int, **parts: dict[str, object]) -> Callable[[Entries], Entries]:
    def change(entries: Entries) -> Entries:
        entry, time = entries[seq - 1]
        return [*entries[: seq - 1], (replace(entry, **parts), time), *entries[seq:]]  # type: ignore[arg-type]

    return change


def test_a_forger_who_changes_nothing_leaves_it_as_it_was(journal: Signed) -> None:
    """What shows below shows by what was changed alone."""
    forge(journal, lambda entries: entries)
    assert judged(journal) == judged(journal._replace(folder=journal.folder))
    assert judged(journal, copies=journal.copies).ok


@pytest.mark.parametrize(
    ("seq", "expected"),
    [
        (5, "root 3: one of the records 3 to 8 isn't what was signed by the checkpoint 9"),
        (12, "root 9: one of the records 9 to 12 isn't what was signed by the checkpoint 13"),
        (23, "root 19: one of the records 19 to 25 isn't what was signed by the checkpoint 26"),
        (39, "root 37: one of the records 37 to 39 isn't what was signed by the checkpoint 40"),
    ],
)
def test_a_rechained_journal_has_no_valid_signature(
    journal: Signed, seq: int, expected: str
) -> None:
    """Named is the first record that no good checkpoint is of."""
    forge(journal, changed(seq, request={"object": "forged"}))
    check(journal, expected)


@pytest.mark.parametrize("seq", [1, 5, 13, 14])
@pytest.mark.parametrize(
    "time", ["2026-99-01T12:00:00.000Z", "2025-99-01T12:00:00.000Z", "noon", "\xff" * 24]
)
def test_a_time_that_is_none_is_no_record(journal: Signed, seq: int, time: str) -> None:
    """Its hash is right, so that the scan reads it."""

    def change(entries: Entries) -> Entries:
        return [*entries[: seq - 1], (entries[seq - 1][0], time), *entries[seq:]]

    forge(journal, change)
    check(journal, f"changed {seq}: time ")


def test_a_time_that_is_none_at_the_end_of_an_unsigned_segment_is_no_record(
    journal: Signed,
) -> None:
    """The scan compares the segments' times before it knows that nobody signed them."""

    def change(entries: Entries) -> Entries:
        unsigned = [each for each in entries if each[0].stage != "checkpoint"]
        last = max(at for at, each in enumerate(unsigned) if each[0].stage == "segment") - 1
        return [
            *unsigned[:last],
            (unsigned[last][0], "2026-99-01T12:00:00.000Z"),
            *unsigned[last + 1 :],
        ]

    forge(journal, change)
    found = judged(journal)
    assert (found.fault, found.reason.startswith("time ")) == ("changed", True), found


def test_a_record_that_is_slipped_in_is_none_that_was_signed(journal: Signed) -> None:
    forge(journal, lambda entries: [*entries[:4], (entry(700), entries[4][1]), *entries[4:]])
    check(journal, "signature 10: its checkpoint can't be believed: it is of 8 records, and is re")


def without(stage: str) -> Callable[[Entries], Entries]:
    return lambda entries: [each for each in entries if each[0].stage != stage]


def test_a_journal_without_checkpoints_is_not_trusted(journal: Signed) -> None:
    forge(journal, without("checkpoint"))
    check(journal, "signature 1: no checkpoint is signed by a key that is trusted")
    # Who trusts no key in particular is told that nothing is signed.
    assert (verify(journal.folder).ok, verify(journal.folder).signed) == (True, 0)


def test_an_end_that_is_written_anew_shows_once_it_is_longer_than_a_journal_leaves_unsigned(
    journal: Signed,
) -> None:
    """Within that period it doesn't, until the broker signs: it holds the tree of what it wrote."""
    time = "2026-01-01T12:00:09.000Z"
    for more, told in ((2000, ""), (2100, "signature 38: too many records follow")):
        forge(
            journal,
            lambda entries, n=more: entries[:37] + [(entry(2000 + k), time) for k in range(n)],  # type: ignore[misc]
        )
        found = judged(journal)
        assert f"{found.fault} {found.first_bad}: {found.reason}".startswith(told or " None")


def test_a_saved_checkpoint_reveals_a_cut_end(journal: Signed) -> None:
    """Cut right after a checkpoint, and the mark set back: nothing else is wrong with it."""
    whole = verify(journal.folder).signed
    (newest,) = (
        read_checkpoint(record).checkpoint for record in map(parse, lines_of(journal.folder)[-1:])
    )
    assert newest.size == whole
    forge(journal, lambda entries: entries[:37])
    assert judged(journal).ok
    assert judged(journal, copies=journal.copies).ok  # those are of what is there still
    check(
        journal,
        "cut 38: it is missing: the saved checkpoint covers 39 records",
        copies=[newest],
    )


def test_a_saved_checkpoint_reveals_a_restored_folder(tmp_path: Path) -> None:
    """A backup of last night in place of the journal, which then goes on."""
    folder, backup = tmp_path / "journal", tmp_path / "backup"
    log = open_log(folder, every=EVERY)
    for number in range(7):
        log.append(entry(number))
    log.close()
    shutil.copytree(folder, backup)
    log = open_log(folder, every=EVERY)
    for number in range(10, 17):
        log.append(entry(number))
    log.close()
    kept = parse_checkpoint(parse_note(key_files(folder).checkpoint.read_text()))
    (key,) = read_public_keys(key_files(folder).public)
    shutil.rmtree(folder)
    backup.rename(folder)
    journal = Signed(folder, PrivateKey("", b""), key, ())
    assert judged(journal).ok
    check(journal, "cut 13: it is missing: the saved checkpoint", copies=[kept])
    # The next start misses them; whoever takes the published checkpoint away too gets further.
    with pytest.raises(StateError, match=r"up to record 12, and journal\.checkpoint is of"):
        open_log(folder, every=EVERY)
    key_files(folder).checkpoint.unlink()
    log = open_log(folder, every=EVERY)
    for number in range(20, 60):
        log.append(entry(number))
    log.close()
    # Even the broker's own key doesn't make another history of it.
    assert judged(journal).ok
    check(
        journal,
        f"root 1: the checkpoint of {kept.size} records that was kept elsewhere is of others",
        copies=[kept],
    )


def other(copy: Checkpoint) -> Checkpoint:
    """What somebody kept of another history of as many records."""
    return replace(copy, root=bytes(32))


def test_no_saved_checkpoint_replaces_another(journal: Signed) -> None:
    """Of two that are of as many records at least one is of others."""
    kept = journal.copies[1]
    for copies in ((kept, other(kept)), (other(kept), kept), (other(kept), *journal.copies)):
        check(journal, "root ", copies=copies)


def test_a_checkpoint_of_records_that_arent_looked_at_is_compared_or_told(
    journal: Signed,
) -> None:
    """From record 14 on: checkpoint 13 tells of the first 12, and of the first 8, 12 and 13."""
    lines = lines_of(journal.folder)
    for size in range(14):
        kept = Checkpoint(ORIGIN, size, Range().extend(map(leaf_hash, lines[:size])).root)
        for copies, ok in (((kept,), True), ((other(kept),), False), ((kept, other(kept)), False)):
            trust = TrustAnchors(frozenset({journal.key}), copies)
            found = verify(journal.folder, trust, begin=14)
            assert found == verify(journal.folder, trust, begin=14, thorough=True)
            told = () if size in {0, 8, 12, 13} or len(copies) == 2 else (size,)
            assert (found.ok, found.uncompared) == (ok or bool(told), told), size


# Checkpoints and keys.


def resigned(entries: Entries, *keys: PrivateKey, named: PrivateKey | None = None) -> Entries:
    """Replace the last checkpoint by one of what is there, signed by *keys*."""
    *before, (_, time) = entries
    lines: list[bytes] = []
    prev = GENESIS
    for seq, (one, at) in enumerate(before, 1):
        record, line = prepare(one).seal(seq=seq, time=at, prev=prev)
        prev = record.hash
        lines.append(line)
    tree = Range().extend(map(leaf_hash, lines))
    note = sign_note(str(Checkpoint(ORIGIN, tree.end, tree.root)), keys)
    made = checkpoint_entry(uuid7(5_000_000), note, tree, (named or keys[-1]).public)
    return [*before, (made, time)]


@pytest.mark.parametrize(
    ("later", "follows", "fault"),
    [
        ({"stage": "progress"}, False, "newer"),
        ({"stage": "progress"}, True, "newer"),
        ({"later": 1}, False, "newer"),
        # A member at another place ends no scan: the record is as it was written.
        ({"before": {"x": 1}}, False, ""),
        ({"scope": 1}, False, ""),
        ({"weight": 1}, False, ""),
    ],
)
@pytest.mark.parametrize("thorough", [False, True])
def test_a_signed_record_of_a_newer_version_is_never_damage(
    journal: Signed, later: dict[str, object], fault: str, *, follows: bool, thorough: bool
) -> None:
    first = list_segments(journal.folder)[0]
    whole = lines_of(journal.folder)[:8]  # until the second checkpoint
    for path in list_segments(journal.folder):
        path.unlink()
    members, lines, prev = [json.loads(line) for line in whole], list[bytes](), GENESIS
    assert members[5]["stage"] == "intent"
    own = {} if follows else {"id": uuid7(9_000)}
    members.insert(6, {**members[5], **own, **later})
    for seq, each in enumerate(members, 1):
        each |= {"seq": seq, "prev": prev}
        del each["hash"]
        prev = hashlib.sha256(canonical(each)).hexdigest()
        lines.append(canonical({**each, "hash": prev}))
    tree = Range().extend(map(leaf_hash, lines))
    note = sign_note(str(Checkpoint(ORIGIN, tree.end, tree.root)), (journal.old,))
    made = checkpoint_entry(uuid7(5_000_000), note, tree, journal.old.public)
    record, line = prepare(made).seal(seq=10, time=str(members[-1]["time"]), prev=prev)
    first.write_bytes(b"".join(each + b"\n" for each in (*lines, line)))
    (journal.folder / MARK_NAME).write_bytes(DurableMark(10, record.hash).to_bytes())
    found = verify(journal.folder, TrustAnchors(frozenset({journal.old.public})), thorough=thorough)
    assert found.fault == ("newer" if thorough else fault), found
    assert found.first_bad == (7 if found.fault else None)


def test_an_old_key_on_a_newer_record_is_noticed(journal: Signed) -> None:
    """Somebody got hold of the key from before the rotation."""
    forge(journal, lambda entries: resigned(entries, journal.old))
    check(journal, "signature 40: its checkpoint is of the key trimtab/5109a1b2c3d4e5f6+")


def test_an_old_key_under_the_new_ones_name_is_noticed(journal: Signed) -> None:
    new = PrivateKey(ORIGIN, os.urandom(32))

    def change(entries: Entries) -> Entries:
        made = resigned(entries, journal.old, named=new)
        record = replace(made[-1][0], result={**made[-1][0].result, "key": str(journal.key)})
        return [*made[:-1], (record, made[-1][1])]

    forge(journal, change)
    check(journal, "signature 40: its checkpoint isn't signed by the key trimtab/5109a1b2c3d4e5f6+")


STRANGER = PrivateKey(ORIGIN, bytes(range(32)))
MORE = [(entry(900 + number), "2026-01-01T12:00:09.000Z") for number in range(10)]
FORGED = [(entry(800 + number), "2026-01-01T12:00:09.000Z") for number in range(3)]


def brought_in(key: PublicKey, *, lost: bool) -> tuple[Entry, str]:
    return key_entry(uuid7(5_000_001), key, lost=lost), FORGED[0][1]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        # It goes on from before the rotation: with itself, with another that it signs for; and
        # further than where it had been given up.
        (
            lambda entries, old: resigned([*entries[:19], *FORGED, FORGED[0]], old),
            "cut 24: it is missing: nothing is signed by the key trimtab/5109a1b2c3d4e5f6+",
        ),
        (
            lambda entries, old: resigned(
                [*entries[:19], brought_in(STRANGER.public, lost=False), FORGED[0]], old, STRANGER
            ),
            "cut 22: it is missing: nothing is signed by the key trimtab/5109a1b2c3d4e5f6+",
        ),
        (
            lambda entries, old: [*resigned([*entries[:19], *FORGED[:2]], old), *MORE],
            "signature 26: it isn't signed by the key trimtab/5109a1b2c3d4e5f6+",
        ),
        (
            lambda entries, old: resigned([*entries[:19], *MORE, FORGED[0]], old),
            "signature 30: its checkpoint isn't signed by a key that is trusted",
        ),
        # It is brought in again.
        (
            lambda entries, old: resigned(
                [*entries, brought_in(old.public, lost=True), FORGED[0]], old
            ),
            "signature 42: its checkpoint isn't signed by a key that is trusted",
        ),
    ],
)
def test_a_rotated_out_key_signs_no_later_record(
    journal: Signed, change: Callable[[Entries, PrivateKey], Entries], expected: str
) -> None:
    """Somebody has it, and another verifies with the list that says until when it signed."""
    forge(journal, lambda entries: change(entries, journal.old))
    check(journal, expected, trust=journal.trusted())


def test_a_key_that_is_brought_in_again_is_not_trusted_by_who_knows_it_alone(
    journal: Signed,
) -> None:
    """A list from before the rotation says of no end; the rotation does."""
    forge(
        journal,
        lambda entries: resigned(
            [*entries, brought_in(journal.old.public, lost=True), FORGED[0]], journal.old
        ),
    )
    check(
        journal, "signature 42: its checkpoint", trust=TrustAnchors(frozenset({journal.old.public}))
    )


def test_a_copy_from_before_a_rotation_holds_with_the_older_key_alone(journal: Signed) -> None:
    forge(journal, lambda entries: entries[:13])
    check(journal, "cut 14: it is missing: nothing is signed by", trust=journal.trusted())
    assert judged(journal, trust=TrustAnchors(frozenset({journal.old.public}))).ok


@pytest.mark.parametrize("lost", [False, True])
def test_a_key_that_the_one_before_did_not_sign_for_is_not_trusted(
    journal: Signed, *, lost: bool
) -> None:
    """A forger brings in a key of his own, and may say that the one before was lost."""

    def change(entries: Entries) -> Entries:
        brought = key_entry(uuid7(5_000_001), STRANGER.public, lost=lost)
        more = [*entries[:-1], (brought, entries[-1][1]), entries[-1]]
        return resigned(more, STRANGER)

    forge(journal, change)
    expected = {
        False: "signature 41: its checkpoint isn't signed by the key",
        True: "signature 41: its checkpoint isn't signed by a key that is trusted",
    }
    check(journal, expected[lost])
    assert verify(journal.folder).ok is lost


def test_a_key_in_force_can_be_given_up_only_by_a_record_of_the_broker(journal: Signed) -> None:
    def change(entries: Entries) -> Entries:
        brought = key_entry(uuid7(5_000_001), STRANGER.public, lost=True)
        other = replace(brought, actor={"role": "operator", "uid": 0})
        return resigned([*entries[:-1], (other, entries[-1][1]), entries[-1]], STRANGER)

    forge(journal, change)
    check(journal, "signature 40: a key that the broker didn't bring in")


def test_a_checkpoint_of_another_journal_is_none_of_this_one(
    journal: Signed, tmp_path: Path
) -> None:
    """The same key, another history: its edge and note hold together, and not with the records."""

    def change(entries: Entries) -> Entries:
        other = resigned([*entries[:30], (entry(800), entries[0][1]), *entries[31:]], journal.old)
        return [*entries[:-1], other[-1]]

    forge(journal, change)
    check(journal, "signature 40: its checkpoint is of the key")


# From a place in the middle.


@pytest.mark.parametrize("begin", [1, 2, 9, 10, 14, 20, 27, 33, 38, 40])
def test_from_a_record_on_all_that_is_after_it_is_looked_at(journal: Signed, begin: int) -> None:
    trust = TrustAnchors(frozenset({journal.key, journal.old.public}), journal.copies[-1:])
    before = [seq for seq in seqs_of(journal.folder, "checkpoint") if seq < begin]
    found = verify(journal.folder, trust, begin=begin)
    assert found.begin == (before[-1] + 1 if before else 1)
    assert (found.ok, found.records) == (True, 40 - found.begin + 1)
    assert found.signed == 39
    path = list_segments(journal.folder)[2]
    edit(path, lambda lines: [*lines[:8], lines[8].replace(b"web", b"wab"), *lines[9:]])
    found = verify(journal.folder, trust, begin=begin)
    assert (found.first_bad, found.fault) == ((35, "changed") if begin <= 35 else (None, ""))


def test_from_a_segments_last_record_on_what_was_put_after_it_is_noticed(journal: Signed) -> None:
    edit(list_segments(journal.folder)[0], lambda lines: [*lines, lines[4]])
    for thorough in (False, True):
        found = verify(
            journal.folder, TrustAnchors(frozenset({journal.key})), begin=14, thorough=thorough
        )
        assert (found.first_bad, found.fault, found.reason) == (14, "gap", "it is record 5")


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_from_a_record_in_a_damaged_compressed_segment_its_damage_is_told(
    journal: Signed, kept: float
) -> None:
    path = list_segments(journal.folder)[1]
    packed = path.with_name(f"{path.name}.gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    os.truncate(packed, int(kept * packed.stat().st_size))
    trust = TrustAnchors(frozenset({journal.key, journal.old.public}))
    whole = verify(journal.folder, trust)
    assert whole.fault == "unreadable"
    for begin in range(15, 28):
        assert place(verify(journal.folder, trust, begin=begin))[:5] == place(whole)[:5]


def test_from_a_checkpoint_that_was_made_up_nothing_is_believed(journal: Signed) -> None:
    """Its edge is the one thing that is taken as given: so it is held against its signature."""

    def change(entries: Entries) -> Entries:
        head = resigned([*entries[:3], (entry(800), entries[3][1]), *entries[4:13]], STRANGER)
        return [*head, *entries[13:]]

    forge(journal, change)
    found = verify(journal.folder, TrustAnchors(frozenset({journal.key})), begin=14)
    assert (found.first_bad, found.fault) == (19, "signature")


@pytest.mark.parametrize("threads", [0, 1])
def test_big_journals_are_read_by_several_processes_to_the_same_end(
    journal: Signed, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    """Forked, or started anew where there are threads."""
    monkeypatch.setattr(fast_scan, "PARALLEL_BYTES", 1)
    trust = TrustAnchors(frozenset({journal.key}), journal.copies)
    with ThreadPoolExecutor(1) as pool:
        for _ in range(threads):
            pool.submit(int).result()
        assert verify(journal.folder, trust, workers=2) == verify(journal.folder, trust)
        edit(list_segments(journal.folder)[1], lambda lines: [*lines[:5], *lines[6:]])
        assert verify(journal.folder, trust, workers=2) == verify(journal.folder, trust)


def killed(jobs: Sequence[fast_scan.ScanJob], writer: Connection, _: Sequence[Connection]) -> None:
    writer.send(fast_scan.scan(jobs[0]))
    os.kill(os.getpid(), SIGKILL)


def test_a_process_that_is_killed_at_it_costs_time_alone(
    journal: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast_scan, "PARALLEL_BYTES", 1)
    monkeypatch.setattr(fast_scan, "_serve", killed)
    trust = TrustAnchors(frozenset({journal.key}), journal.copies)
    assert verify(journal.folder, trust, workers=2) == verify(journal.folder, trust)


@pytest.mark.parametrize(("bound", "value"), [("RECORDS_MAX", 3), ("POINTS_MAX_BYTES", 1)])
def test_what_is_too_much_to_be_kept_is_read_line_by_line(
    journal: Signed, monkeypatch: pytest.MonkeyPatch, bound: str, value: int
) -> None:
    monkeypatch.setattr(fast_scan, bound, value)
    trust = TrustAnchors(frozenset({journal.key}), journal.copies)
    assert verify(journal.folder, trust) == verify(journal.folder, trust, thorough=True)
