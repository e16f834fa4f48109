"""What a checkpoint's record says, and what is none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.core.records.checkpoint import (
    CHECKPOINT_MAX_BYTES,
    Checkpoint,
    CheckpointRecord,
    asks_for_key,
    checkpoint_entry,
    key_entry,
    origin_of,
    parse_checkpoint,
    read_checkpoint,
    read_key,
)
from controller.core.records.record import GENESIS, prepare
from controller.core.transparency import BadNote, Note, PrivateKey, Range, leaf_hash, sign_note
from controller.model.records import Entry, Record

IDENTITY = "01890000-0000-7000-8000-000000000000"
ORIGIN = origin_of("5109a1b2c3d4e5f6")
KEY = PrivateKey(ORIGIN, bytes(range(32)))
OTHER = PrivateKey(ORIGIN, bytes(range(1, 33)))


def sealed(entry: Entry, *, seq: int) -> Record:
    return prepare(entry).seal(seq=seq, time="2026-01-01T12:00:00.000Z", prev=GENESIS)[0]


def tree_of(size: int) -> Range:
    return Range().extend(leaf_hash(str(number).encode()) for number in range(size))


def written(size: int) -> Record:
    tree = tree_of(size)
    note = sign_note(str(Checkpoint(ORIGIN, size, tree.root)), [KEY, OTHER])
    return sealed(checkpoint_entry(IDENTITY, note, tree, OTHER.public), seq=size + 1)


def test_a_record_says_what_was_signed_and_where_the_tree_goes_on() -> None:
    read = read_checkpoint(written(7))
    tree = tree_of(7)
    checkpoint = Checkpoint("trimtab/5109a1b2c3d4e5f6", 7, tree.root)
    assert read == CheckpointRecord(
        sign_note(str(checkpoint), [KEY, OTHER]), checkpoint, tree, OTHER.public
    )
    assert read.note.is_signed_by(KEY.public)


def test_no_line_of_a_checkpoint_is_longer_than_what_is_kept_free() -> None:
    # 2^50 records need an edge of up to 50 hashes.
    size = 2**50 - 1
    tree = Range(0, size, (bytes(32),) * 50)
    note = sign_note(str(Checkpoint(ORIGIN, size, tree.root)), [KEY, OTHER])
    entry = prepare(checkpoint_entry(IDENTITY, note, tree, OTHER.public))
    assert entry.size < CHECKPOINT_MAX_BYTES


def changed(record: Record, **result: object) -> Record:
    entry = record.entry
    return replace(record, entry=replace(entry, result={**entry.result, **result}))


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (replace(written(7), seq=9), "it is of 7 records, and is record 9"),
        (changed(written(7), edge=[]), "its edge: not the hashes of a tree of 7 leaves"),
        (changed(written(7), edge=written(7).entry.result["edge"][::-1]), "hasn't the root"),  # type: ignore[index]
        (changed(written(7), edge=["x", "y", "z"]), "a hash isn't in base64"),
        (changed(written(7), edge=["AAAA"] * 3), "a hash hasn't 32 bytes"),
        (changed(written(7), edge="AAAA"), "its edge: not the hashes of a tree of 7 leaves"),
        (changed(written(7), note="text"), "no text, blank line and signatures"),
        (changed(written(7), note=7), "it holds no note and key"),
    ],
)
def test_a_record_that_does_not_hold_together_is_none(record: Record, reason: str) -> None:
    with pytest.raises(BadNote, match=reason):
        read_checkpoint(record)


ROOT = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I="


@pytest.mark.parametrize(
    "text", ["a\n", "a\n1\n", f"\n1\n{ROOT}\n", f"a\n01\n{ROOT}\n", f"a\n-1\n{ROOT}\n", "a\n1\nAA\n"]
)  # fmt: skip
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(BadNote):
        parse_checkpoint(Note(text, ()))


def test_lines_after_the_third_are_nothing_to_us() -> None:
    assert parse_checkpoint(Note(f"a\n1\n{ROOT}\nmore\n", ())).size == 1


def test_a_key_is_brought_in_by_the_broker_alone() -> None:
    entry = key_entry(IDENTITY, KEY.public, lost=False)
    assert read_key(sealed(entry, seq=2)) == KEY.public
    assert read_key(sealed(replace(entry, stage="read"), seq=2)) is None
    with pytest.raises(BadNote, match="that the broker didn't bring in"):
        read_key(sealed(replace(entry, actor={"role": "operator"}), seq=2))
    with pytest.raises(BadNote):
        read_key(sealed(replace(entry, result={"key": "x"}), seq=2))


def test_an_operator_asks_for_a_new_key() -> None:
    asked = Entry(IDENTITY, "operator", request={"route": "journal.rotate-key"})
    assert asks_for_key(asked)
    assert not asks_for_key(replace(asked, stage="refusal"))
    assert not asks_for_key(replace(asked, request={"route": "own.records"}))
