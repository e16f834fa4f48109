"""Payloads: one definition of a JSON object for its readers and its writers."""

from __future__ import annotations

import pytest

from controller.core.encoding.json_values import (
    Payload,
    flag,
    items,
    mapping,
    nested,
    number,
    parse_json,
    parse_object,
    text,
    texts,
)


class Inner(Payload):
    name: str = text("name")


class Outer(Payload):
    file: str = text("fileName")
    line: int | None = number("line")
    rules: tuple[str, ...] = texts("rules", optional=True)
    checked: bool = flag("checked", default=True)
    others: dict[str, int] = mapping("others")  # type: ignore[assignment]
    inner: Inner = nested("inner", Inner)
    all: tuple[Inner, ...] = items("all", Inner)


WRITTEN = Outer(
    file="a", line=3, rules=("r",), checked=False, inner=Inner(name="i"), all=(Inner(name="j"),)
)


def test_a_payload_is_written_under_the_names_of_its_members_and_read_back():
    assert WRITTEN.members == {
        "fileName": "a",
        "line": 3,
        "rules": ["r"],
        "checked": False,
        "inner": {"name": "i"},
        "all": [{"name": "j"}],
    }
    read = Outer.read(WRITTEN.members)
    assert (read.file, read.line, read.rules, read.checked) == ("a", 3, ("r",), False)
    assert (read.inner, read.all) == (Inner(name="i"), (Inner(name="j"),))
    assert read == WRITTEN


@pytest.mark.parametrize(
    "members",
    [
        None,
        [],
        {},
        {"fileName": 1, "line": True, "rules": "r", "checked": 1, "others": [], "inner": 7},
        {"line": "3", "all": {}},
    ],
)
def test_what_is_missing_or_of_another_type_reads_as_empty(members):
    read = Outer.read(members)
    assert (read.file, read.line, read.rules, read.checked) == ("", None, (), True)
    assert (read.others, read.inner.name, read.all) == ({}, "", ())


def test_an_empty_optional_member_is_not_written():
    assert Outer(file="", rules=()).members == {"fileName": ""}
    assert not Outer(rules=())


def test_the_second_payload_takes_precedence():
    both = Outer(file="a", line=1) | Outer(line=2, checked=False)
    assert both.members == {"fileName": "a", "line": 2, "checked": False}


@pytest.mark.parametrize("data", [b"", b"NaN", b'{"a":Infinity}', b"\xff", b"[" * 100_000, b"{}{}"])
def test_what_is_no_json_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(data)
    assert parse_object(data) == {}
