import pytest

from controller.core.compose.forms.values import (
    duration_text,
    parse_duration,
    parse_size,
    single_precision,
    split_command,
)
from controller.core.compose.text.nodes import ComposeNode, Fault

NODE = ComposeNode(None, "f", 1, 1)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1024", 1024),
        ("1k", 1024),
        ("1.5g", 1610612736),
        ("64 MiB", 67108864),
        ("2TB", 2199023255552),
    ],
)
def test_a_size_is_in_powers_of_1024(text, size):
    assert parse_size(NODE, text) == size


@pytest.mark.parametrize("text", ["", "1e3", "-1", "1 x", "1.2.3m", "m"])
def test_a_text_that_is_no_size_is_refused(text):
    with pytest.raises(Fault):
        parse_size(NODE, text)


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("90s", "1m30s"),
        ("1.5h", "1h30m0s"),
        ("0", "0s"),
        ("500ms", "500ms"),
        ("1h0.5s", "1h0m0.5s"),
        ("-1s", "-1s"),
        ("1500us", "1.5ms"),
        (".5s", "500ms"),
        ("3ns", "3ns"),
    ],
)
def test_a_duration_is_printed_as_go_prints_it(text, printed):
    assert duration_text(parse_duration(NODE, text)) == printed


@pytest.mark.parametrize("text", ["", "10", "s", "1 s", "1d", "9" * 30 + "h", "1s1"])
def test_a_text_that_is_no_duration_is_refused(text):
    with pytest.raises(Fault):
        parse_duration(NODE, text)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a  'b c' \"d e\"f", ["a", "b c", "d ef"]),
        ("a\\ b", ["a b"]),
        ("''", [""]),
        ("a 'it\\s'", ["a", "it\\s"]),
        ("`x y` z", ["`x y`", "z"]),
        ("a $(b c)", ["a", "$(b c)"]),
        ("", []),
    ],
)
def test_a_command_line_is_split(line, words):
    assert split_command(NODE, line) == (words, False)


def test_a_command_line_ends_at_an_operator():
    assert split_command(NODE, "a && b") == (["a"], True)
    assert split_command(NODE, "a 2> b") == (["a"], True)


@pytest.mark.parametrize("line", ["'a", '"a', "a\\", "a (b)", "`a"])
def test_an_open_command_line_is_refused(line):
    with pytest.raises(Fault):
        split_command(NODE, line)


def test_numbers_have_single_precision():
    assert single_precision(0.123456789) == 0.12345679
    assert [single_precision(1.1), single_precision(2.0)] == [1.1, 2]
