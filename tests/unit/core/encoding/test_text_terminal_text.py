"""Untrusted text on a terminal."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core.encoding.text import printable, printable_json, printable_output, quote_line


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("plain text", "plain text"),
        ("tab\tand\u00a0spaces\u3000stay", "tab\tand\u00a0spaces\u3000stay"),
        ("\x1b[2Jcleared", "\\u001b[2Jcleared"),
        ("title \x1b]0;owned\x07", "title \\u001b]0;owned\\u0007"),
        ("back\rwards\b", "back\\u000dwards\\u0008"),
        ("right\u202eto left", "right\\u202eto left"),
        ("\x9b2J", "\\u009b2J"),
    ],
)
def test_a_line_of_output_changes_nothing_but_its_own_place(line: str, expected: str) -> None:
    assert printable_output(line, colours=True) == expected
    assert printable_output(line, colours=False) == expected


def test_colours_stay_on_a_terminal_and_end_with_the_line() -> None:
    line = "\x1b[1;31mERROR\x1b[0m no \x1b[4mfile"
    assert printable_output(line, colours=True) == f"{line}\x1b[0m"
    assert printable_output(line, colours=False) == "ERROR no file"


@given(st.text())
def test_no_control_character_but_a_tab_is_left(line: str) -> None:
    shown = printable_output(line, colours=False)
    assert all(c == "\t" or c.isprintable() or c.isspace() for c in shown)
    assert not {"\x1b", "\r", "\n", "\x9b"} & set(shown)


@given(st.text())
def test_what_is_printable_is_one_line(line: str) -> None:
    assert printable(line).isprintable() or printable(line) == ""


def test_a_quoted_line_is_cut_and_escaped() -> None:
    assert quote_line("  FATAL:\tno \x1b[31mpassword\x1b[0m\x07 ", limit=60) == (
        '"FATAL: no password\\u0007"'
    )
    assert quote_line("x" * 100, limit=10) == '"xxxxxxxxx…"'


@given(st.text(), st.sampled_from([None, 2]))
def test_json_has_no_control_character_and_the_same_value(text: str, indent: int | None) -> None:
    shown = printable_json({"line": [text]}, indent=indent)
    assert json.loads(shown) == {"line": [text]}
    assert all(letter == "\n" or letter.isprintable() for letter in shown)


def test_json_escapes_the_controls_that_terminals_obey() -> None:
    assert (
        printable_json("\x9b2J\x7fé\u202e\U000e0001") == '"\\u009b2J\\u007fé\\u202e\\udb40\\udc01"'
    )
