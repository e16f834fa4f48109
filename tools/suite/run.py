"""A run of the suite: measure lines one after the other, print the table, write the page."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from time import gmtime, monotonic, strftime

from tools.suite import machine
from tools.suite.line import Line
from tools.suite.lines import LINES
from tools.suite.page import write_page
from tools.suite.results import LineResult, Results, merge_into
from tools.suite.stage import Stage
from tools.suite.tables import figure_table


def run_lines(lines: Sequence[Line], *, rounds: int, out: Path | None) -> int:
    """Measure lines and print their figures; with *out*, update the results and the page there.

    A line that fails is reported, and the others are measured all the same.
    """
    if os.geteuid() != 0:
        print("needs root: the suite starts an engine of its own", file=sys.stderr)
        return 77
    described = machine.describe()
    print("\n".join(f"{name:<11}{text}" for name, text in described.items()))
    measured: dict[str, LineResult] = {}
    with Stage(rounds=rounds) as stage:
        for line in lines:
            print(f"\n{line.name}: {line.title}", flush=True)
            measured[line.name] = result = _measure(line, stage)
            print(result.error or figure_table(result.figures))
            print(
                f"{result.took_s:.0f} s; load {result.load_before} before, {result.load_after} after"
            )
    if out is not None:
        fresh = Results(machine=described, lines=measured)
        merged = merge_into(out / "figures.json", fresh, order=[line.name for line in LINES])
        write_page(out, merged, LINES)
        print(f"\nwritten: {out}/README.md")
    return int(any(result.error for result in measured.values()))


def _measure(line: Line, stage: Stage) -> LineResult:
    before, began, at = machine.load(), monotonic(), strftime("%Y-%m-%dT%H:%M:%SZ", gmtime())
    error, figures = None, []
    try:
        figures = line.run(stage)
    except Exception as problem:  # noqa: BLE001 - whatever ends a line, the others are measured
        traceback.print_exc()
        error = f"{type(problem).__name__}: {problem}".splitlines()[0]
    return LineResult(
        line=line.name,
        figures=tuple(figures),
        error=error,
        at=at,
        took_s=monotonic() - began,
        load_before=before,
        load_after=machine.load(),
    )
