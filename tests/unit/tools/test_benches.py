"""What benches tell is what was measured; that they can be run is all that is tried of the rest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest

from tools.benches.measure import Figure, goals, percentile, run_command
from tools.suite.lines.share import waits_of

ROOT = Path(__file__).parents[3]
BUSY = "import os; x = bytearray(64 << 20); [0 for _ in range(10**6)]; print(len(os.sched_getaffinity(0)))"


def test_a_percentile_is_the_value_that_so_many_do_not_exceed() -> None:
    assert [percentile(range(1, 11), share) for share in (0, 0.5, 0.9, 1)] == [1, 6, 10, 10]
    assert percentile([3], 0.5) == 3


def test_figures_stand_beside_their_goals() -> None:
    figures = (Figure("verify", "2.1 s", "at most 5 s"), Figure("its memory", "60 MiB", "-"))
    assert goals(figures).splitlines() == [
        "FIGURE       MEASURED   GOAL",
        "verify       2.1 s      at most 5 s",
        "its memory   60 MiB     -",
    ]


def test_waits_are_added_up_by_kind() -> None:
    lines = [
        json.dumps({"for": kind, "waited": n}) for n, kind in enumerate(("record", "engine") * 2)
    ]
    assert waits_of(lines) == {"record": 0 + 2, "engine": 1 + 3}


def test_a_command_is_told_with_its_own_times_and_memory() -> None:
    """Whatever this process holds."""
    held = b"x" * (256 << 20)
    ran = run_command([sys.executable, "-c", BUSY], processors=[min(os.sched_getaffinity(0))])
    assert ran.output == b"1\n"
    assert 64 < ran.peak_mib < 200 < len(held) >> 20
    assert ran.cpu_s > 0
    assert ran.taken_s > 0


def test_a_command_that_fails_is_no_figure() -> None:
    with pytest.raises(AssertionError, match="7"):
        run_command([sys.executable, "-c", "raise SystemExit(7)"])


def test_each_bench_that_is_listed_is_there() -> None:
    loader = SourceFileLoader("bench", str(ROOT / "tools" / "bench"))
    spec = spec_from_loader("bench", loader)
    assert spec is not None
    bench = module_from_spec(spec)
    loader.exec_module(bench)
    for name in bench.BENCHES:
        assert (ROOT / "tools" / "benches" / f"{name}.py").is_file()


@pytest.mark.slow
def test_one_that_is_not_is_told_with_those_that_are() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "bench", "nothing"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 64
    assert "no such bench: nothing" in done.stderr
    assert "million" in done.stderr
