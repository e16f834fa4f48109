"""Figures as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from controller.cli.output.tables import table
from tools.suite.figures import Figure, shown


def cells(figure: Figure) -> tuple[str, str, str, str, str]:
    """Return the name, the median, the interval, the goal and the verdict."""
    found, unit = figure.interval, figure.unit
    return (
        figure.name,
        shown(found.median, unit),
        f"{shown(found.low, unit)} to {shown(found.high, unit)}",
        "" if figure.goal is None else shown(figure.goal, unit),
        figure.verdict or "",
    )


def figure_table(figures: Sequence[Figure]) -> str:
    """Return a row for each figure."""
    header = ("FIGURE", "MEDIAN", "95 % INTERVAL", "AT MOST", "GOAL")
    return table(header, [cells(figure) for figure in figures])
