from __future__ import annotations

import json
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core.encoding.json_values import canonical
from controller.core.records.record import (
    GENESIS,
    LINE_MAX_BYTES,
    BadLine,
    NewerLine,
    is_clock_jump,
    line_of,
    parse,
    parse_any,
    prepare,
    timestamp,
)
from controller.model.mutations import Mutation
from controller.model.records import Entry, Stage

ID = "01890a5d-ac96-774b-bcce-b302099a8057"
TIME = "2026-01-01T12:00:00.000Z"


def sealed(entry: Entry, *, seq: int = 7, prev: str = "ab" * 32) -> bytes:
    return prepare(entry).seal(seq=seq, time=TIME, prev=prev)[1]


def altered(**changes: object) -> bytes:
    """A line whose hash is right and whose form is canonical, with other members."""
    members = json.loads(sealed(Entry(ID, "intent", actor={"uid": 0})))
    del members["hash"]
    members |= changes
    import hashlib

    own = hashlib.sha256(canonical(members)).hexdigest()
    return canonical({**members, "hash": own})


def test_a_line_is_the_canonical_form_of_its_members_and_leaves_out_empty_ones() -> None:
    entry = Entry(
        ID,
        "intent",
        actor={"uid": 990, "role": "controller", "separated": True},
        request={"object": "wéb.1\n", "route": "container.create"},
        result={},
    )
    line = sealed(entry)
    assert line.decode() == (
        '{"actor":{"role":"controller","separated":true,"uid":990},'
        '"hash":"224098e0846710e9aa86054b743bece1f79adb2ef5ec5ac47ea9d79c999b8049",'
        f'"id":"{ID}","prev":"{"ab" * 32}",'
        '"request":{"object":"wéb.1\\n","route":"container.create"},'
        f'"seq":7,"stage":"intent","time":"{TIME}"}}'
    )
    assert canonical(json.loads(line)) == line


def test_the_first_record_follows_64_zeros() -> None:
    assert GENESIS == "0" * 64
    assert parse(sealed(Entry(ID, "segment"), seq=1, prev=GENESIS)).prev == GENESIS


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
PARTS = st.dictionaries(TEXTS | st.sampled_from(["hash", "id", "seq"]), VALUES, max_size=4)


@given(
    parts=st.fixed_dictionaries(
        dict.fromkeys(("actor", "request", "verdict", "claims", "result"), PARTS)
    ),
    seq=st.integers(1, 2**53),
    stage=st.sampled_from(["intent", "outcome", "refusal", "segment"]),
)
def test_what_is_written_is_what_is_read(
    parts: dict[str, dict[str, object]], seq: int, stage: Stage
) -> None:
    record, line = prepare(Entry(ID, stage, **parts)).seal(seq=seq, time=TIME, prev=GENESIS)
    assert parse(line) == record
    assert line_of(record) == line
    assert canonical(json.loads(line)) == line
    assert b"\n" not in line


def test_what_json_cannot_tell_apart_is_recorded_as_a_reader_will_see_it() -> None:
    entry = Entry(ID, "read", result={"pair": (1, 2), "big": 2**53 + 1})
    record, _ = prepare(entry).seal(seq=1, time=TIME, prev=GENESIS)
    assert record.entry.result == {"pair": [1, 2], "big": "9007199254740993"}


def test_changing_an_entry_after_it_was_prepared_changes_no_record() -> None:
    names: list[object] = ["A"]
    prepared = prepare(Entry(ID, "read", request={"env": names}))
    names.append("B")
    assert prepared.entry.request == {"env": ["A"]}


def test_what_is_kept_of_an_entry_is_what_is_read_of_its_line() -> None:
    """Of the types that JSON has, and of no others: an enumeration's members are their values."""
    told: dict[str, object] = {
        "route": Mutation.CONTAINER_STOP,
        "status": HTTPStatus.OK,
        "names": ("b", "a"),
        "size": 2**60,
        Mutation.CONTAINER_START: MappingProxyType({"b": None, "a": True}),
    }
    record, line = prepare(Entry(ID, "read", request=told)).seal(seq=1, time=TIME, prev=GENESIS)
    assert record == parse(line)
    types = {key: (type(key), type(value)) for key, value in record.entry.request.items()}
    assert types == {
        "container.start": (str, dict),
        "names": (str, list),
        "route": (str, str),
        "size": (str, str),
        "status": (str, int),
    }


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (Entry("1", "intent"), "not a UUIDv7 in lower case: '1'"),
        (Entry(ID.upper(), "intent"), f"not a UUIDv7 in lower case: '{ID.upper()}'"),
        (Entry(ID[:14] + "4" + ID[15:], "intent"), "not a UUIDv7 in lower case"),
        (Entry(ID, cast("Stage", "done")), "no stage of a record: 'done'"),
        (Entry(ID, "read", result={"x": 0.5}), "result can't be recorded: "),
        (Entry(ID, "read", result={"x": "\ud800"}), "result can't be recorded: "),
        (Entry(ID, "read", result=cast("Any", {1: 2})), "result can't be recorded: "),
        (Entry(ID, "read", result={"x": {1}}), "result can't be recorded: "),
        (Entry(ID, "read", result={"x": "a" * LINE_MAX_BYTES}), "longer than 1048576 bytes"),
    ],
)
def test_what_cannot_be_a_record_is_refused_before_it_has_a_place(entry: Entry, why: str) -> None:
    with pytest.raises(ValueError, match=r".*") as caught:
        prepare(entry)
    assert str(caught.value).startswith(why)


GOOD = sealed(Entry(ID, "intent", actor={"uid": 0}, claims={"hash": "x", "cause": "y"}))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"", "it is empty"),
        (b"x", "it isn't JSON"),
        (b"\xff" + GOOD, "it isn't JSON"),
        (b"\0" * 80, "it isn't JSON"),
        (b"[" * 100_000, "it isn't JSON"),
        (b"[]", "it isn't a JSON object"),
        (GOOD[:-1], "it isn't JSON"),
        (GOOD + b" ", "it isn't in canonical form"),
        (GOOD + b"\r", "it isn't in canonical form"),
        (GOOD.replace(b'"seq":7', b'"seq": 7'), "it isn't in canonical form"),
        (GOOD.replace(b'"seq":7', b'"seq":7,"seq":7'), "it isn't in canonical form"),
        (GOOD.replace(b'"seq":7', b'"seq":7.0'), "it holds a number that isn't an integer"),
        (GOOD.replace(b'"seq":7', b'"seq":NaN'), "it holds a number that isn't an integer"),
        (GOOD.replace(b'"seq":7', b'"seq":7e0'), "it holds a number that isn't an integer"),
        (GOOD.replace(b'"y"', b'"\\u0079"'), "it isn't in canonical form"),
        (GOOD.replace(b'"y"', b'"\\ud800"'), "it isn't JSON"),
        (GOOD.replace(b'"y"', b'"z"'), "its hash isn't that of its content"),
        (GOOD.replace(b'"seq":7', b'"seq":8'), "its hash isn't that of its content"),
        (b" " * (LINE_MAX_BYTES + 1), "it is longer than 1048576 bytes"),
        (altered(seq=2**53 + 1), "seq isn't a positive integer"),
        (altered(x=-(2**60)).replace(b'"-11529', b"-11529").replace(b'976"', b"976"),
         "it holds an integer beyond 2^53 that isn't a string"),
        (altered(seq=0), "seq isn't a positive integer"),
        (altered(seq=True), "seq isn't a positive integer"),
        (altered(seq="7"), "seq isn't a positive integer"),
        (altered(id=ID.upper()), "id has the wrong format"),
        (altered(id=None), "id has the wrong format"),
        (altered(time="2026-01-01T12:00:00Z"), "time has the wrong format"),
        (altered(time="2026-01-01T24:00:00.000Z"), "time has the wrong format"),
        (altered(time="2026-02-30T12:00:00.000Z"), "time is not a valid date"),
        (altered(time="0000-01-01T12:00:00.000Z"), "time is not a valid date"),
        (altered(prev="AB" * 32), "prev has the wrong format"),
        (altered(stage=[]), "unknown stage []"),
        (altered(actor={}), "actor isn't an object with members"),
        (altered(actor=[1]), "actor isn't an object with members"),
        (canonical({"seq": 1}), "it lacks hash, id, prev, stage, time"),
    ],
)  # fmt: skip
def test_a_line_that_would_not_be_written_is_not_read(line: bytes, why: str) -> None:
    with pytest.raises(BadLine) as caught:
        parse(line)
    assert str(caught.value) == why


@pytest.mark.parametrize(
    ("line", "known"),
    [
        (altered(note="x", later={"y": 1}), "later, note"),
        (altered(stage="done"), "done"),
        (altered(stage="done", note="x"), "note, done"),
    ],
)
def test_a_whole_line_with_more_than_is_known_is_newer_and_not_damaged(
    line: bytes, known: str
) -> None:
    with pytest.raises(NewerLine) as caught:
        parse(line)
    assert str(caught.value) == f"it is of a newer trimtab, with {known}"
    record, newer = parse_any(line)
    assert (record.seq, record.entry.actor, newer) == (7, {"uid": 0}, str(caught.value))
    with pytest.raises(BadLine, match="its hash isn't that of its content"):
        parse(line.replace(b'"seq":7', b'"seq":8'))


def test_keys_beyond_the_basic_plane_sort_as_rfc_8785_says() -> None:
    """By UTF-16 code units: U+1F600 (d83d…) before U+FB33, unlike by code points."""
    line = sealed(Entry(ID, "read", result={"\ufb33": 1, "\U0001f600": 2}))
    assert line.index("\U0001f600".encode()) < line.index("\ufb33".encode())
    assert parse(line).entry.result == {"\ufb33": 1, "\U0001f600": 2}


def test_times_are_utc_with_milliseconds() -> None:
    assert timestamp(1_767_268_800.9999) == "2026-01-01T12:00:00.999Z"
    assert timestamp(0) == "1970-01-01T00:00:00.000Z"


@pytest.mark.parametrize(
    ("before", "time", "expected"),
    [
        ("2026-01-01T12:00:00.000Z", "2026-01-01T12:00:00.000Z", False),
        ("2026-01-01T12:00:59.000Z", "2026-01-01T12:00:00.000Z", False),
        ("2026-01-01T12:00:59.000Z", "2026-01-01T11:59:01.000Z", False),
        ("2026-01-01T12:00:00.000Z", "2026-01-01T11:58:59.000Z", True),
        ("2026-01-01T12:00:00.000Z", "2023-01-01T12:00:00.000Z", True),
        ("2026-01-01T12:00:00.000Z", "2027-01-02T12:00:00.000Z", False),
        ("2026-01-01T12:00:00.000Z", "2027-01-02T12:01:00.000Z", True),
        ("2026-12-31T23:59:59.000Z", "2027-01-01T00:00:00.000Z", False),
        ("2026-99-01T12:00:00.000Z", "2026-01-01T12:00:00.000Z", False),
    ],
)
def test_a_clock_jumps_back_or_by_more_than_a_year(before: str, time: str, expected: bool) -> None:
    assert is_clock_jump(before, time) is expected
