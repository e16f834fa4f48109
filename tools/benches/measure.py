"""What benches share: percentiles and rows."""

from __future__ import annotations

from collections.abc import Sequence


def percentile(sorted_values: Sequence[float], share: float) -> float:
    """The value that *share* of the sorted values don't exceed."""
    return sorted_values[min(len(sorted_values) - 1, int(share * len(sorted_values)))]


def row(name: str, **figures: str) -> None:
    """Print one line of figures."""
    print(f"  {name:<26}" + "".join(f"{label} {value:<14}" for label, value in figures.items()))


def rate(count: int, seconds: float) -> str:
    return f"{count / seconds:,.0f}/s"


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"


def ratio(value: float, base: float) -> str:
    return f"{value / base:.2f}x"
