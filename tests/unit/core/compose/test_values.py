import pytest

from controller.core.compose.nodes import ComposeNode, Fault, ReadingReport
from controller.core.compose.values import (
    DURATION,
    GRACE,
    LIMIT,
    NUMBER,
    SIZE,
    ValueForm,
    byte_text,
    split_command,
)

NODE = ComposeNode(None, "f", 1, 1)


def read(form: ValueForm, value):
    return form.read(ComposeNode(value, "f", 1, 1), (), ReadingReport())


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
    assert read(SIZE, text) == size


@pytest.mark.parametrize("text", ["", "1e3", "-1", "1 x", "1.2.3m", "m"])
def test_a_text_that_is_no_size_is_refused(text):
    with pytest.raises(Fault):
        read(SIZE, text)


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("90s", 90_000),
        ("1.5h", 5_400_000),
        ("0", 0),
        ("500ms", 500),
        ("1h0.5s", 3_600_500),
        ("-1s", -1000),
        ("1500us", 2),
        (".5s", 500),
        ("3ns", 0),
    ],
)
def test_a_duration_is_in_milliseconds(text, milliseconds):
    assert read(DURATION, text) == milliseconds


@pytest.mark.parametrize("text", ["", "10", "s", "1 s", "1d", "9" * 30 + "h", "1s1"])
def test_a_text_that_is_no_duration_is_refused(text):
    with pytest.raises(Fault):
        read(DURATION, text)


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


@pytest.mark.parametrize(
    ("form", "value", "written"),
    [
        (NUMBER, 2.0, 2),
        (NUMBER, 0.5, 0.5),
        (NUMBER, 0, None),
        (LIMIT, -1, None),
        (LIMIT, 5, 5),
        (GRACE, 1500, "2s"),
        (GRACE, 0, "0ms"),
        (SIZE, 67108864, "64Mi"),
        (SIZE, 0, None),
    ],
)
def test_a_value_in_a_document(form, value, written):
    assert form.write(value) == written


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("67108864", "64Mi"),
        (67108864, "64Mi"),
        ("64m", "64Mi"),
        ("1.5g", "1536Mi"),
        ("10MB", "10Mi"),
        ("2kib", "2Ki"),
        ("1000", "1Ki"),
        ("much", None),
        ("9" * 400, None),
    ],
)
def test_sizes_round_up_to_1_kibibyte(value, text):
    assert byte_text(value) == text
