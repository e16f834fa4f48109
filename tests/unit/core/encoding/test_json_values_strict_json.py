from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core.encoding.json_values import (
    BYTES_MAX,
    DEPTH_MAX,
    TOKENS_MAX,
    InvalidJson,
    fold,
    parse_strict,
)

TOO_MANY = "more than 20000 strings, brackets, commas and colons"
TOO_FOREIGN = "keys outside ASCII of more than 8192 characters in all"

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(VALUES)
def test_what_has_one_reading_is_read_as_everybody_reads_it(value: object) -> None:
    text = json.dumps(value)
    if _collides(value):
        with pytest.raises(InvalidJson):
            parse_strict(text.encode())
    else:
        assert parse_strict(text.encode()) == value


def _collides(value: object) -> bool:
    if isinstance(value, dict):
        folded = {fold(key) for key in value}
        return len(folded) < len(value) or any(map(_collides, value.values()))
    return isinstance(value, list) and any(map(_collides, value))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not JSON at character 0: Expecting value"),
        (b"{", "not JSON at character 1: Expecting property name enclosed in double quotes"),
        (b"{} {}", "not JSON at character 3: Extra data"),
        (b"{}]", "not JSON at character 2: Extra data"),
        (b"\xef\xbb\xbf{}", "a byte order mark"),
        (b'{"a":"\xff"}', "not UTF-8 at byte 6"),
        (b'{"a":"\xed\xa0\x80"}', "not UTF-8 at byte 6"),
        (b'{"a":"\\ud800"}', "half a surrogate pair in a string"),
        (b'{"\\udc00":1}', "half a surrogate pair in a string"),
        (b'{"a":["x\\u0000"]}', "a NUL in a string"),
        (b'{"\\u0000":1}', "a NUL in a string"),
        (b'{"a":NaN}', "the number NaN isn't an integer"),
        (b'{"a":-Infinity}', "the number -Infinity isn't an integer"),
        (b'{"a":1e9}', "the number 1e9 isn't an integer"),
        (b'{"a":67108864.0}', "the number 67108864.0 isn't an integer"),
        (b'{"a":9223372036854775808}', "the number 9223372036854775808 doesn't fit into 64 bits"),
        (b'{"a":-9223372036854775809}', "the number -9223372036854775809 doesn't fit into 64 bits"),
        (b'{"a":' + b"9" * 5000 + b"}", f"the number {'9' * 24} doesn't fit into 64 bits"),
        (b'{"A":1,"A":1}', "the keys 'A' and 'A' are one to some readers"),
        (
            b'{"HostConfig":{},"hostconfig":null}',
            "the keys 'HostConfig' and 'hostconfig' are one to some readers",
        ),
        (
            '{"Binds":1,"Bind\u017f":2}'.encode(),
            "the keys 'Binds' and 'Bind\u017f' are one to some readers",
        ),
        (
            '{"NetworkMode":1,"Networ\u212aMode":2}'.encode(),
            "the keys 'NetworkMode' and 'Networ\u212aMode' are one to some readers",
        ),
        (b'{"\\u0041":1,"a":2}', "the keys 'A' and 'a' are one to some readers"),
        (b'{"x":[{"b":1,"B":2}]}', "the keys 'b' and 'B' are one to some readers"),
        (b"[" * 15_000, f"nested deeper than {DEPTH_MAX}"),
        (b"[" * 100_000, TOO_MANY),
        (b'{"a":[' + b"{}," * 340_000 + b"{}]}", TOO_MANY),
        (b'"' * 100_000, TOO_MANY),
        (f'{{"{chr(0xFDFA) * 340_000}":1}}'.encode(), TOO_FOREIGN),
        (json.dumps({f"{chr(0xFDFA) * 80}{n}": n for n in range(101)}).encode(), TOO_FOREIGN),
        (b"[" * 65 + b"]" * 65, f"nested deeper than {DEPTH_MAX}"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, f"nested deeper than {DEPTH_MAX}"),
        (b" " * (BYTES_MAX + 1), f"larger than {BYTES_MAX} bytes"),
    ],
)
def test_ambiguous_json_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(InvalidJson) as refusal:
        parse_strict(data)
    assert str(refusal.value) == why


def test_strings_are_one_token_each_whatever_they_contain() -> None:
    text = '[{,:\\\\\\"' * 10_000
    assert parse_strict(json.dumps({"a": text}).encode()) == {"a": text}
    many = [""] * (TOKENS_MAX // 2)
    assert parse_strict(json.dumps(many).encode()) == many
    with pytest.raises(InvalidJson, match="more than 20000"):
        parse_strict(json.dumps([*many, ""]).encode())


#: One token each, and as many as fit; the strings have every mark and end in every escape.
ONE_TOKEN = ("[", "{", ",", ":", '"[{,:"', r'"\\\\"', r'"\\\""', r'"\\\\\""', r'"\""')


@given(st.lists(st.sampled_from([*ONE_TOKEN, " ", "1", "null", "]"]), max_size=40))
def test_tokens_are_counted_as_a_reader_counts_them(pieces: list[str]) -> None:
    tokens = sum(piece in ONE_TOKEN for piece in pieces)
    text = "".join(pieces)
    padding = "," * (TOKENS_MAX - tokens)

    def why(data: str) -> str:
        with pytest.raises(InvalidJson) as refusal:
            parse_strict(data.encode())
        return str(refusal.value)

    # A text that begins with a comma is no JSON: only the first reason says what was counted.
    assert why(f",{padding}{text}") == TOO_MANY
    assert why(f"{padding}{text}") != TOO_MANY


def test_the_edges_still_pass() -> None:
    assert parse_strict(b"[" * 64 + b"1" + b"]" * 64) is not None
    assert parse_strict(b'{"a":9223372036854775807,"b":-9223372036854775808,"c":-0}') == {
        "a": 2**63 - 1,
        "b": -(2**63),
        "c": 0,
    }
    assert parse_strict('"\U0001f600"'.encode()) == "\U0001f600"
    assert parse_strict(b'"\\ud83d\\ude00"') == "\U0001f600"
