"""docs/benchmarks/README.md and its plot, made from the results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from tools.suite.chart import draw
from tools.suite.figures import shown
from tools.suite.line import Line
from tools.suite.results import LineResult, Results
from tools.suite.tables import cells

HEAD: Final = """\
# Benchmarks

Made by `make bench` from [figures.json](figures.json); don't edit this page by hand.
[Decision 52](../decisions/0052-how-figures-are-made.md) says how figures are made. Each figure is the median of the
rounds, with the 95 % interval of the median. A goal is *met* if the median is within
the goal, *unclear* if the median is beyond the goal and the interval spans the goal, else *missed*. Ratios compare measurements of the same round.

![medians, intervals and goals](figures.svg)
"""


def write_page(folder: Path, results: Results, lines: Sequence[Line]) -> None:
    """Write the page and the plot."""
    notes = {
        line.name: note.read_text("utf-8").strip()
        for line in lines
        if (note := folder / "notes" / f"{line.name}.md").exists()
    }
    (folder / "README.md").write_text(page(results, lines, notes), "utf-8")
    (folder / "figures.svg").write_text(draw(results), "utf-8")


def page(results: Results, lines: Sequence[Line], notes: Mapping[str, str]) -> str:
    """Return the page. *notes* have what profiles show of a line, by name."""
    parts = [HEAD, _machine(results), _goals(results)]
    parts += [
        _section(line, results.lines[line.name], notes.get(line.name, ""))
        for line in lines
        if line.name in results.lines
    ]
    return "\n".join(parts)


def _machine(results: Results) -> str:
    rows = "".join(f"| {name} | {text} |\n" for name, text in results.machine.items())
    return f"## The machine\n\n| | |\n|---|---|\n{rows}"


def _goals(results: Results) -> str:
    rows = [
        (f"[{line.line}](#{line.line})", *cells(figure))
        for line in results.lines.values()
        for figure in line.figures
        if figure.goal is not None
    ]
    header = ("line", "figure", "median", "95 % interval", "at most", "goal")
    return f"## Goals\n\n{_table(header, rows)}"


def _section(line: Line, result: LineResult, note: str) -> str:
    header = ("figure", "median", "95 % interval", "at most", "goal")
    rounds = max((len(figure.values) for figure in result.figures), default=0)
    body = (
        f"Not measured: {result.error}\n"
        if result.error
        else _table(header, [cells(figure) for figure in result.figures])
    )
    said = "".join(text + "\n\n" for text in (dominance(line, result), note) if text)
    return (
        f"## {line.name}\n\n{line.title}. {line.how}\n\n{body}\n"
        f"{said}"
        f"{_count(rounds, 'round')} at {result.at} in {result.took_s:.0f} s with set-up; load average"
        f" {result.load_before} before and {result.load_after} after.\n"
    )


def dominance(line: Line, result: LineResult) -> str:
    """Return which part of a figure is the floor's; empty if the line has no such parts."""
    medians = {figure.name: figure.interval.median for figure in result.figures}
    if line.parts is None or not set(line.parts) <= medians.keys():
        return ""
    whole, floor = (medians[name] for name in line.parts)
    name, floor_name = line.parts
    share, rest = 100 * floor / whole, shown(max(0.0, whole - floor), "ms")
    dominant = f"`{floor_name}`" if share > 50 else "trimtab"
    return (
        f"What dominates: {dominant}. Of {shown(whole, 'ms')} (`{name}`), {shown(floor, 'ms')}"
        f" ({share:.0f} %) are the floor's (`{floor_name}`) and {rest} are trimtab's."
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(_rows(header, rows)) + "\n"


def _rows(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield f"|{'---|' * len(header)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
