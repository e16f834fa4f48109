"""What benches share: percentiles, rows, figures that have a goal, and commands as people run them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter
from typing import Final, NamedTuple

from controller.cli.output.tables import table


class Figure(NamedTuple):
    """What was measured of something, and what was wanted of it."""

    of: str
    measured: str
    goal: str


class Ran(NamedTuple):
    """What a command printed and took: its own time, that of the processors, and the most memory.

    The last two are also those of the processes that it waited for; memory is the largest one's.
    """

    output: bytes
    taken_s: float
    cpu_s: float
    peak_mib: int


def percentile(sorted_values: Sequence[float], share: float) -> float:
    """The value that *share* of the sorted values don't exceed."""
    return sorted_values[min(len(sorted_values) - 1, int(share * len(sorted_values)))]


def taken(act: Callable[[], object]) -> float:
    """Return the seconds that something takes."""
    before = perf_counter()
    act()
    return perf_counter() - before


def repeated(act: Callable[[], object], times: int) -> list[float]:
    """Return the seconds that something took each time, sorted."""
    return sorted(taken(act) for _ in range(times))


def run_command(argv: Sequence[str], *, processors: Iterable[int] = ()) -> Ran:
    """Run a command, on some processors only if they are named; it has to succeed.

    A small process between is its parent: what a process is started from counts as its own memory.
    """
    every = os.sched_getaffinity(0)
    told, tells = os.pipe()
    with os.fdopen(told, "rb") as figures:
        os.sched_setaffinity(0, set(processors) or every)
        try:
            between = [sys.executable, "-I", "-S", "-c", _BETWEEN, str(tells), *argv]
            done = subprocess.run(between, stdout=subprocess.PIPE, pass_fds=[tells], check=False)
        finally:
            os.sched_setaffinity(0, every)
            os.close(tells)
        code, *took = json.loads(figures.read())
    assert not code, f"{' '.join(argv)}: {code}"
    return Ran(done.stdout, *took)


_BETWEEN: Final = """
import json, os, resource, subprocess, sys, time
began = time.perf_counter()
code = subprocess.run(sys.argv[2:]).returncode
taken = time.perf_counter() - began
used = resource.getrusage(resource.RUSAGE_CHILDREN)
told = [code, taken, used.ru_utime + used.ru_stime, used.ru_maxrss // 1024]
os.write(int(sys.argv[1]), json.dumps(told).encode())
"""


def row(name: str, **figures: str) -> None:
    """Print one line of figures."""
    print(f"  {name:<30}" + "".join(f"{label} {value:<14}" for label, value in figures.items()))


def goals(figures: Sequence[Figure]) -> str:
    """Return a table of figures beside what was wanted; who reads it judges."""
    return table(("FIGURE", "MEASURED", "GOAL"), figures)


def rate(count: int, seconds: float) -> str:
    return f"{count / seconds:,.0f}/s"


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"


def ratio(value: float, base: float) -> str:
    return f"{value / base:.2f}x"
