"""Lists read row by row: in any pieces the same as whole, of any length, in linear work."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.broker.engine import response
from controller.broker.engine.response import ListBroken, ListTooLong, RowParser
from controller.broker.gate.commands import Rows, encode_list

TEXTS = st.text(max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
LISTS = st.lists(st.dictionaries(TEXTS, VALUES, max_size=4), max_size=6)


def encode(row: dict[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode()


def parse(data: bytes, *, member: str = "", size: int = 7) -> Any:
    parser = RowParser(Rows(encode, member))
    for at in range(0, len(data), size):
        parser.feed(data[at : at + size])
    return json.loads(parser.finish())


@given(listed=LISTS, size=st.integers(1, 40), indent=st.sampled_from([None, 2]))
def test_a_list_in_pieces_is_the_list(
    listed: list[dict[str, Any]], size: int, indent: int | None
) -> None:
    data = json.dumps(listed, ensure_ascii=False, indent=indent).encode() + b"\n"
    assert parse(data, size=size) == listed
    there = {"Volumes": listed, "Warnings": ["later", {"x": [1]}]}
    data = json.dumps(there, ensure_ascii=False, indent=indent).encode()
    assert parse(data, member="Volumes", size=size)["Volumes"] == listed


@pytest.mark.parametrize(
    ("data", "member", "expected"),
    [
        (b"[]", "", []),
        (b"null", "", []),
        (b'{"Volumes":null,"Warnings":null}', "Volumes", {"Volumes": [], "Warnings": None}),
        # Another engine has another order.
        (
            b'{"Warnings":[],"Volumes":[{"Name":"a"}]}',
            "Volumes",
            {"Volumes": [{"Name": "a"}], "Warnings": None},
        ),
    ],
)
def test_what_else_an_engine_answers(data: bytes, member: str, expected: object) -> None:
    assert parse(data, member=member) == expected


@pytest.mark.parametrize("data", [b'[{"a":1}', b"[1,2]", b'[{"a":1},', b"", b"[\xff]", b'{"a":'])
def test_what_is_no_list_is_noticed(data: bytes) -> None:
    with pytest.raises((ListBroken, ValueError)):
        parse(data)


def test_rows_that_nobody_wants_take_no_room() -> None:
    row = json.dumps({"Id": "x", "Labels": {"pad": "x" * 60_000}}).encode()
    parser = RowParser(Rows(lambda each: json.dumps({"Id": each["Id"]}).encode()))
    parser.feed(b"[")
    for number in range(1000):  # 60 MB
        parser.feed((b"," if number else b"") + row)
    parser.feed(b"]")
    assert len(json.loads(parser.finish())) == 1000


def test_a_list_has_limits() -> None:
    big = b'{"a":"' + b"x" * (1 << 18) + b'"}'
    with pytest.raises(ListTooLong):
        parse(b"[" + b",".join([big] * 130) + b"]", size=1 << 20)
    with pytest.raises(ListTooLong):
        parse(b'"' + b"x" * (response.WHOLE_MAX + 10), size=1 << 20)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1 << 12, 1 << 16])
def test_a_long_row_costs_its_long_members_only(size: int) -> None:
    labels = {"io.trimtab.owner": 'a"{[\\', **{f"pad{n}": "}]\\" * 1000 for n in range(2000)}}
    ports = [{"PrivatePort": n, "Type": "tcp"} for n in range(60_000)]
    long = {"Id": "b", "Names": ["/b"], "Labels": labels, "State": "created", "Ports": ports}
    listed = [{"Id": "a", "Labels": {"x": "y"}}, long, {"Id": "c", "Labels": None}, long]
    short = {"Id": "b", "Names": ["/b"], "State": "created"}
    data = json.dumps(listed).encode()
    assert len(data) > 6 * response.ROW_MAX
    assert parse(data, size=size) == [listed[0], short, listed[2], short]


def test_a_row_of_unexpected_types_costs_that_row_only() -> None:
    def encode_names(row: dict[str, Any]) -> bytes:
        return json.dumps({"Id": row["Id"], "Names": [*row.get("Names", ())]}).encode()

    parser = RowParser(Rows(encode_names))
    parser.feed(
        b'[{"Id":"a","Names":["x"]},{"Id":"b","Names":3},{"Names":3},{"Id":"c","Names":[]}]'
    )
    assert json.loads(parser.finish()) == [
        {"Id": "a", "Names": ["x"]},
        {"Id": "b", "Names": []},
        {"Id": "c", "Names": []},
    ]


def test_a_long_row_in_small_pieces_is_tried_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = 0
    decode = json.JSONDecoder.raw_decode

    def counted(self: json.JSONDecoder, text: str, at: int = 0) -> Any:
        nonlocal tried
        tried += 1
        return decode(self, text, at)

    monkeypatch.setattr(json.JSONDecoder, "raw_decode", counted)
    listed = [{"a": "x" * 1_000_000}]
    data = json.dumps(listed).encode()
    parser = RowParser(Rows(encode))
    for at in range(0, len(data), 1000):
        parser.feed(data[at : at + 1000])
    parser.finish()
    assert tried < 20


def test_a_list_that_was_read_whole_is_the_same() -> None:
    listed = [{"Id": "a"}, {"Id": "b"}]
    only = Rows(lambda row: encode(row) if row["Id"] == "b" else None)
    assert json.loads(encode_list(only, encode_whole(listed))) == [{"Id": "b"}]
    with pytest.raises(ValueError, match="no list"):
        encode_list(only, b'{"message":"x"}')


def encode_whole(value: object) -> bytes:
    return json.dumps(value).encode()
