"""Long objects of the engine: short members are read, long ones skipped, in linear work."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.broker.engine import response
from controller.broker.engine.response import ObjectCutter

TEXTS = st.text(st.sampled_from('ab"\\{}[],: \n\u00e4\U0001f600'), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=12,
)
MEMBER_MAX = 24


def read(text: str, size: int) -> tuple[dict[str, Any], str | None]:
    """Feed a text in pieces. Return the members and the rest after the object."""
    cutter, rest = ObjectCutter(), None
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    for number, piece in enumerate(pieces):
        rest = cutter.feed(piece, final=number == len(pieces) - 1)
        if rest is not None:
            return cutter.members, rest + "".join(pieces[number + 1 :])
    return cutter.members, None


@given(
    members=st.dictionaries(TEXTS, VALUES, max_size=5),
    size=st.integers(1, 60),
    indent=st.sampled_from([None, 1]),
    rest=st.sampled_from(["", ',{"Id":"}"}]', "\n"]),
)
def test_the_short_members_are_read_and_the_object_ends_where_it_ends(
    members: dict[str, Any], size: int, indent: int | None, rest: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(response, "MEMBER_MAX", MEMBER_MAX)
        text = json.dumps(members, indent=indent, ensure_ascii=False)
        found, after = read(text[1:] + rest, size)
    assert after == rest
    assert found.items() <= members.items()
    for name, value in members.items():
        shown = json.dumps({name: value}, indent=indent, ensure_ascii=False)
        assert name in found or len(shown) > MEMBER_MAX


@pytest.mark.parametrize(
    "text",
    ["1}", '"a":tru}', '"a" 1}', '"a":NaN}', '"a":1' + "0" * 5000, "x" * 2000 + "}"],
)
def test_what_is_no_json_is_noticed(text: str) -> None:
    with pytest.raises(ValueError, match="it has no"):
        read(text + " " * response.MEMBER_MAX * 2, 4096)


def test_a_member_that_is_nested_too_deeply_is_left_out() -> None:
    deep = "[" * 100_000 + "]" * 100_000
    assert read(f'"Id":"a","Deep":{deep},"State":"x"}}!', 1000) == ({"Id": "a", "State": "x"}, "!")


def test_memory_is_that_of_a_member() -> None:
    cutter = ObjectCutter()
    cutter.feed('"Id":"a","Labels":{')
    for number in range(1000):
        assert cutter.feed(f'"{number}":"{"x" * 8000}",') is None
        assert len(cutter._text) <= response.MEMBER_MAX + 8100
    assert cutter.feed('"":""},"State":"y"} rest') == " rest"
    assert cutter.members == {"Id": "a", "State": "y"}
