"""The plot: a row for each figure with a goal, on a scale in which the goal is 1."""

from __future__ import annotations

from html import escape
from typing import Final

from tools.suite.figures import Figure, Verdict, shown
from tools.suite.results import Results

_ROW: Final = 22
_LEFT: Final = 430
_SCALE: Final = 340
_WIDTH: Final = _LEFT + _SCALE + 110
_TOP: Final = 44
#: The end of the scale, in goals; longer bars are cut, and their value stands beside them.
END: Final = 2.0
_COLORS: Final[dict[Verdict | None, str]] = {
    "met": "#2a7f62",
    "unclear": "#8a8a8a",
    "missed": "#b3492b",
}


def draw(results: Results) -> str:
    """Return the plot as SVG."""
    rows = [
        (line.line, figure)
        for line in results.lines.values()
        for figure in line.figures
        if figure.goal is not None
    ]
    height = _TOP + _ROW * len(rows) + 12
    goal_x = _LEFT + _SCALE / END
    drawn = [_row(index, line, figure) for index, (line, figure) in enumerate(rows)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}"'
        f' font-family="sans-serif" font-size="12">\n'
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>\n'
        f'<text x="{goal_x:.0f}" y="20" text-anchor="middle">goal</text>\n'
        f'<line x1="{goal_x:.0f}" y1="26" x2="{goal_x:.0f}" y2="{height - 8}" stroke="#555"'
        ' stroke-dasharray="4 3"/>\n' + "".join(drawn) + "</svg>\n"
    )


def _row(index: int, line: str, figure: Figure) -> str:
    found, goal = figure.interval, figure.goal
    assert goal is not None, "only figures with a goal are drawn"
    y = _TOP + _ROW * index
    median, low, high = (_place(value, goal) for value in (found.median, found.low, found.high))
    color = _COLORS[figure.verdict]
    label = f"{line}: {figure.name}"
    return (
        f'<text x="{_LEFT - 8}" y="{y + 12}" text-anchor="end">{escape(label)}</text>\n'
        f'<rect x="{_LEFT}" y="{y + 3}" width="{median - _LEFT:.1f}" height="11" fill="{color}"/>\n'
        f'<line x1="{low:.1f}" y1="{y + 8.5}" x2="{high:.1f}" y2="{y + 8.5}" stroke="black"'
        ' stroke-width="1.5"/>\n'
        f'<text x="{_LEFT + _SCALE + 8}" y="{y + 12}">{shown(found.median, figure.unit)}</text>\n'
    )


def _place(value: float, goal: float) -> float:
    """Return the x of a value. A goal of 0 has no scale: 0 lies at the left, all else at the end."""
    share = value / goal if goal else (END if value else 0.0)
    return _LEFT + _SCALE * min(max(share, 0.0), END) / END
