"""Tables at different widths."""

from __future__ import annotations

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.cli.output.tables import (
    Column,
    cell_width,
    clip,
    clip_image,
    render,
    table,
    wrap,
)

COLUMNS = (
    Column("NAMESPACE", dull=frozenset({"default"})),
    Column("NAME", shrink=clip, least=8, rank=3),
    Column("IMAGE", shrink=clip_image, least=9, rank=1, optional=True),
    Column("MESSAGE"),
)
IMAGE = "registry.example.com/team/web:1.4"
ROWS = (
    ("default", "web", IMAGE, ""),
    ("default", "db", IMAGE, "the registry has no such image: push it, or correct the name"),
)


def lines(width: int | None, rows: tuple[tuple[str, ...], ...] = ROWS) -> list[str]:
    return render(COLUMNS, rows, width=width).split("\n")


def test_a_pipe_gets_every_column_in_full() -> None:
    assert lines(None) == [
        "NAMESPACE   NAME   IMAGE                               MESSAGE",
        "default     web    registry.example.com/team/web:1.4",
        f"default     db     registry.example.com/team/web:1.4   {ROWS[1][3]}",
    ]


def test_a_wide_terminal_wraps_the_text_in_its_column() -> None:
    assert lines(90) == [
        "NAME  IMAGE                              MESSAGE",
        "web   registry.example.com/team/web:1.4",
        "db    registry.example.com/team/web:1.4  the registry has no such image: push it, or",
        "                                         correct the name",
    ]


def test_the_image_gives_up_its_registry_first() -> None:
    assert lines(60) == [
        "NAME  IMAGE      MESSAGE",
        "web   …/web:1.4",
        "db    …/web:1.4  the registry has no such image: push it, or",
        "                 correct the name",
    ]


def test_on_a_narrow_terminal_the_text_stands_below_its_row() -> None:
    assert lines(44) == [
        "NAME  IMAGE",
        "web   registry.example.com/team/web:1.4",
        "db    registry.example.com/team/web:1.4",
        "    the registry has no such image: push it,",
        "    or correct the name",
    ]


def test_an_optional_column_is_left_out_where_nothing_else_helps() -> None:
    rows = (("shop", "a-name-of-some-length", IMAGE, "x" * 30),)
    assert lines(28, rows) == [
        "NAMESPACE  NAME",
        "shop       a-name-of-some-l…",
        "    " + "x" * 24,
        "    " + "x" * 6,
    ]


def test_without_any_text_its_header_is_left_out_on_a_terminal() -> None:
    assert lines(80, ROWS[:1]) == ["NAME  IMAGE", f"web   {IMAGE}"]


def test_a_colour_and_wide_letters_keep_the_columns_aligned() -> None:
    def red(text: str) -> str:
        return click.style(text, fg="red")

    shown = render(
        [Column("A", style=red), Column("B"), Column("C")],
        [("x", "日本", "y"), ("xyz", "e\u0301", "z")],
        width=80,
    )
    assert shown.split("\n") == [
        "A    B     C",
        f"{red('x')}    日本  y",
        f"{red('xyz')}  e\u0301     z",
    ]


def test_a_cell_plays_no_tricks_on_a_terminal() -> None:
    for width in (None, 80):
        shown = render([Column("A"), Column("B")], [("\x1b[2J", "\x1b[1m\rx")], width=width)
        assert "\x1b" not in shown
        assert "\r" not in shown
    assert table(("A", "B"), [("1", ("first", "second"))]) == "A   B\n1   first; second"
    assert table(("A", "B"), [("1", "first\nsecond")]) == "A   B\n1   first\\u000asecond"


@pytest.mark.parametrize(
    ("image", "room", "shown"),
    [
        ("docker.io/library/postgres:17", 40, "…/postgres:17"),
        ("postgres:17", 40, "postgres:17"),
        ("a/b@sha256:" + "0123456789" * 6, 40, "…/b@012345678901"),
        ("a/a-very-long-name:1.2.3", 10, "…/a-very-…"),
    ],
)
def test_what_is_left_of_an_image(image: str, room: int, shown: str) -> None:
    assert clip_image(image, room) == shown


WORDS = st.text(alphabet="ab 日é.-", max_size=40)


@given(
    st.lists(st.tuples(*[WORDS] * 3, st.text(alphabet="ab 日", max_size=200))), st.integers(50, 130)
)
def test_no_line_is_wider_than_the_terminal_and_no_text_is_lost(
    rows: list[tuple[str, str, str, str]], width: int
) -> None:
    columns = [
        Column(name, shrink=clip, least=8, rank=rank, optional=rank == 1)
        for rank, name in enumerate(("NAME", "IMAGE", "PORTS"))
    ]
    shown = render([*columns, Column("MESSAGE")], rows, width=width)
    assert max(map(cell_width, shown.split("\n"))) <= width
    for *_, text in rows:
        for word in text.split():
            assert all(part in shown for part in wrap(word, 20))


@given(st.text(alphabet="ab 日é.-", max_size=300), st.integers(2, 60))
def test_wrapping_keeps_every_word_and_no_line_is_too_wide(text: str, room: int) -> None:
    wrapped = wrap(text, room)
    assert all(cell_width(line) <= room for line in wrapped)
    assert "".join(wrapped).replace(" ", "") == text.replace(" ", "")
