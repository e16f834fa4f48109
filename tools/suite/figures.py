"""Figures: the values of the rounds, their median with a 95 % interval, and the goal.

A figure with a goal has a verdict: "met" if the median is within the goal, "unclear" if the median is
beyond the goal and the interval spans it, else "missed". A figure without a goal explains the figures
around it.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

Verdict = Literal["met", "unclear", "missed"]

RESAMPLES: Final = 2000
#: The share of resampled medians on each side that the interval leaves out.
TAIL: Final = 0.025
#: Digits after the point of each unit.
UNITS: Final = {"x": 2, "ms": 1, "s": 2, "%": 2, "MB": 1, "": 0}


@dataclass(frozen=True, slots=True)
class Interval:
    """A median and the bounds of its 95 % interval."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """The measured values of a quantity, by round."""

    name: str
    #: A member of ``UNITS``; "x" is a ratio, "" a count.
    unit: str
    values: tuple[float, ...]
    #: The upper bound; None for a figure that only explains others.
    goal: float | None = None

    def __post_init__(self) -> None:
        assert self.values, f"no values of {self.name}"
        assert self.unit in UNITS, f"unknown unit of {self.name}: {self.unit}"

    @property
    def interval(self) -> Interval:
        """Return the median and its interval."""
        return median_interval(self.values)

    @property
    def verdict(self) -> Verdict | None:
        """Return what the values say of the goal; None without a goal."""
        if self.goal is None:
            return None
        found = self.interval
        if found.median <= self.goal:
            return "met"
        return "unclear" if found.low <= self.goal else "missed"

    def to_json(self) -> dict[str, Any]:
        """Return the members of the figure in the results file."""
        found = self.interval
        return {
            "name": self.name,
            "unit": self.unit,
            "median": round(found.median, 6),
            "low": round(found.low, 6),
            "high": round(found.high, 6),
            "goal": self.goal,
            "verdict": self.verdict,
            "values": [round(value, 6) for value in self.values],
        }


def figure_from_json(members: dict[str, Any]) -> Figure:
    """Return the figure of the results file; derived members are computed again."""
    return Figure(
        name=str(members["name"]),
        unit=str(members["unit"]),
        values=tuple(float(value) for value in members["values"]),
        goal=members["goal"],
    )


def median_interval(values: Sequence[float], *, seed: int = 0) -> Interval:
    """Return the median and the percentile bootstrap of the median, always with the same draws."""
    draws = random.Random(seed)  # noqa: S311 - resampling, nothing secret
    medians = sorted(
        statistics.median(draws.choices(values, k=len(values))) for _ in range(RESAMPLES)
    )
    outside = int(TAIL * RESAMPLES)
    return Interval(statistics.median(values), medians[outside], medians[-1 - outside])


def ratios(above: Sequence[float], below: Sequence[float]) -> tuple[float, ...]:
    """Return the ratio of each round: noise that lasts a whole round cancels out."""
    return tuple(one / other for one, other in zip(above, below, strict=True))


def milliseconds(seconds: Sequence[float]) -> tuple[float, ...]:
    """Return values in milliseconds."""
    return tuple(value * 1000 for value in seconds)


def shown(value: float, unit: str) -> str:
    """Return a value with the digits and the sign of the unit."""
    text = f"{value:,.{UNITS[unit]}f}"
    return f"{text}{unit}" if unit == "x" else f"{text} {unit}".rstrip()
