"""A line of the suite: a name, a description, and the function that measures its figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tools.suite.figures import Figure
from tools.suite.stage import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of the suite."""

    name: str
    #: The measured quantity, for the heading of the page.
    title: str
    #: How the quantity is measured: contestants, begin and end, conditions.
    how: str
    run: Callable[[Stage], list[Figure]]
    #: The names of a figure and of the floor within it: the page says which part dominates.
    parts: tuple[str, str] | None = None
