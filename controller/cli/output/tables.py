"""Tables that fit the terminal.

In a pipe, a table has every column in full. On a terminal, columns shrink or are left out in the
order of their ``rank``, until the table fits the width. The last column is a text: it gets the
remaining cells, and is wrapped but never cut. With too few remaining cells, the text moves to
separate lines below its row.
"""

from __future__ import annotations

import shutil
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from controller.core.encoding.text import printable

#: Between columns; smaller on a terminal, where space is scarce.
GAP, GAP_ON_TERMINAL = "   ", "  "
INDENT = "    "
ELLIPSIS = "…"
#: Cells; narrower text is hard to read.
TEXT_LEAST = 40
#: A cell; in the last column it can have several lines.
Cell = str | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Column:
    """A column, and its changes on a narrow terminal."""

    header: str
    #: Shortens a text to a number of cells.
    shrink: Callable[[str, int], str] | None = None
    #: The smallest width after shrinking.
    least: int = 0
    #: Columns with the lowest rank shrink first.
    rank: int = 0
    #: The column is left out if shrinking isn't enough.
    optional: bool = False
    #: The column is left out on every terminal if it has only these texts.
    dull: frozenset[str] = frozenset()
    #: Adds colours to a text.
    style: Callable[[str], str] | None = None


@dataclass(frozen=True, slots=True)
class _Grid:
    """The columns before the text, and their cells."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    gap: str
    #: The width of each column in cells, its header included. Every table is measured once.
    widths: tuple[int, ...]

    @property
    def width(self) -> int:
        """The cells of a line, with the gap before the text."""
        return sum(self.widths) + len(self.gap) * len(self.widths)

    def without(self, numbers: Iterable[int]) -> _Grid:
        omitted = set(numbers)
        rest = [n for n in range(len(self.columns)) if n not in omitted]
        return _Grid(
            tuple(self.columns[n] for n in rest),
            tuple(tuple(row[n] for n in rest) for row in self.rows),
            self.gap,
            tuple(self.widths[n] for n in rest),
        )

    def with_column(self, number: int, cells: Sequence[str]) -> _Grid:
        rows = zip(self.rows, cells, strict=True)
        changed = ((*row[:number], cell, *row[number + 1 :]) for row, cell in rows)
        width = _column_width(self.columns[number], cells)
        widths = (*self.widths[:number], width, *self.widths[number + 1 :])
        return replace(self, rows=tuple(changed), widths=widths)

    def lines(self) -> Iterator[str]:
        """Yield the line of the header and the line of each row, with styles, padded to the text."""
        heads = zip(self.columns, self.widths, strict=True)
        yield "".join(_pad(c.header, w) + self.gap for c, w in heads)
        for row in self.rows:
            yield "".join(
                _pad(cell, width, column.style) + self.gap
                for cell, width, column in zip(row, self.widths, self.columns, strict=True)
            )


def _measured(columns: Sequence[Column], rows: tuple[tuple[str, ...], ...], gap: str) -> _Grid:
    widths = (_column_width(column, [row[n] for row in rows]) for n, column in enumerate(columns))
    return _Grid(tuple(columns), rows, gap, tuple(widths))


def _column_width(column: Column, cells: Iterable[str]) -> int:
    return max(cell_width(column.header), *map(cell_width, cells), 0)


def terminal_width() -> int | None:
    """Return the width of the terminal in cells, or None if standard output isn't a terminal."""
    return shutil.get_terminal_size((80, 24)).columns if sys.stdout.isatty() else None


def table(headers: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """Return a table for standard output; the last column is the text."""
    return render([Column(header) for header in headers], rows, width=terminal_width())


def render(
    columns: Sequence[Column],
    rows: Iterable[Sequence[Cell]],
    *,
    width: int | None,
    text_least: int = TEXT_LEAST,
) -> str:
    """Return a table for a terminal of *width* cells, or for a pipe if *width* is None.

    Control characters in cells are escaped, line ends too. On a terminal the text of a row can have
    several lines, as a tuple; in a pipe they are joined by ``; ``.
    """
    cells = [list(row) for row in rows]
    texts = [[row[-1]] if isinstance(row[-1], str) else [*row[-1]] for row in cells]
    heads = tuple(tuple(map(printable, row[:-1])) for row in cells)
    grid = _measured(columns[:-1], heads, GAP if width is None else GAP_ON_TERMINAL)
    header = columns[-1].header
    if width is None:
        return "\n".join(
            _text_right(
                grid, header, [[printable("; ".join(filter(None, text)))] for text in texts]
            )
        )
    texts = [[printable(line) for line in text if line] for text in texts]
    header = header if any(texts) else ""
    longest = max(cell_width(line) for line in (header, *(line for text in texts for line in text)))
    grid = grid.without(_dull(grid))
    room = width - min(longest, text_least)
    right = _narrow(grid, room, leave_out=False)
    if right.width <= room:
        return "\n".join(_text_right(right, header, _wrap_texts(texts, width - right.width)))
    below = _narrow(grid, width + len(grid.gap), leave_out=True)
    return "\n".join(_text_below(below, _wrap_texts(texts, max(width - len(INDENT), 20))))


def _dull(grid: _Grid) -> Iterator[int]:
    for number, column in enumerate(grid.columns):
        if column.dull and all(row[number] in column.dull for row in grid.rows):
            yield number


def _narrow(grid: _Grid, room: int, *, leave_out: bool) -> _Grid:
    """Shrink columns, and with *leave_out* omit columns, until the grid fits *room* if possible."""
    for column in sorted(grid.columns, key=lambda column: column.rank):
        number = grid.columns.index(column)
        excess = grid.width - room
        if excess > 0 and column.shrink is not None:
            target = max(column.least, cell_width(column.header), grid.widths[number] - excess)
            cells = [fit(row[number], target, column.shrink) for row in grid.rows]
            grid = grid.with_column(number, cells)
        if grid.width > room and column.optional and leave_out:
            grid = grid.without([number])
    return grid


def _text_right(grid: _Grid, header: str, texts: Iterable[Sequence[str]]) -> Iterator[str]:
    head, *lines = grid.lines()
    yield f"{head}{header}".rstrip()
    margin = " " * grid.width
    for line, text in zip(lines, texts, strict=True):
        first, *rest = text or [""]
        yield f"{line}{first}".rstrip()
        yield from (f"{margin}{part}".rstrip() for part in rest)


def _text_below(grid: _Grid, texts: Iterable[Sequence[str]]) -> Iterator[str]:
    head, *lines = grid.lines()
    yield head.rstrip()
    for line, text in zip(lines, texts, strict=True):
        yield line.rstrip()
        yield from (f"{INDENT}{part}" for part in text)


def _pad(cell: str, width: int, style: Callable[[str], str] | None = None) -> str:
    return (style(cell) if style else cell) + " " * (width - cell_width(cell))


def _wrap_texts(texts: Iterable[Sequence[str]], room: int) -> list[list[str]]:
    return [[part for line in text for part in wrap(line, room)] for text in texts]


# Texts in cells


def cell_width(text: str) -> int:
    """Return the width of printable text in cells of a terminal (Unicode Standard Annex 11)."""
    return len(text) if text.isascii() else sum(map(_letter_width, text))


def _letter_width(letter: str) -> int:
    if unicodedata.category(letter) in {"Mn", "Me"}:
        return 0  # drawn over the previous letter
    return 2 if unicodedata.east_asian_width(letter) in {"W", "F"} else 1


def fit(text: str, room: int, shrink: Callable[[str, int], str]) -> str:
    """Return *text*, shrunk if it is wider than *room* cells."""
    return text if cell_width(text) <= room else shrink(text, room)


def clip(text: str, room: int) -> str:
    """Return *text* in *room* cells, with an ellipsis in place of a cut end."""
    return text if cell_width(text) <= room else _start(text, room - 1) + ELLIPSIS


def _start(text: str, room: int) -> str:
    """Return the start of a text that fits *room* cells."""
    used = 0
    for number, letter in enumerate(text):
        used += _letter_width(letter)
        if used > room:
            return text[:number]
    return text


def clip_image(image: str, room: int) -> str:
    """Return an image's reference without registry and path, such as ``…/web:1.4``, then clipped."""
    _, slash, name = image.rpartition("/")
    repository, sha256, digest = name.partition("@sha256:")
    name = f"{repository}@{digest[:12]}" if sha256 else name
    return clip(f"{ELLIPSIS}/{name}" if slash else name, room)


def wrap(text: str, room: int) -> list[str]:
    """Return *text* in lines of at most *room* cells, broken at spaces if possible."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        longer = f"{line} {word}" if line else word
        if cell_width(longer) <= room:
            line = longer
            continue
        lines += [line] if line else []
        while cell_width(word) > room:
            start = _start(word, room) or word[0]
            lines.append(start)
            word = word[len(start) :]  # noqa: PLW2901 - the rest of the word
        line = word
    return [*lines, line] if line else lines
