"""Shows which fault met which action, and which planted bug was found by which seed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.sim.faults import Action, Fault, table

if TYPE_CHECKING:
    from collections.abc import Iterable

#: How many worlds were lived, and what met what in them.
TALLY = pytest.StashKey[tuple[int, Counter[tuple[Fault, Action]]]]()


@dataclass(frozen=True, slots=True)
class Finding:
    """A planted bug, and the first world that found it."""

    invariant: int
    patch: str
    what: str
    seed: int | None


#: The planted bugs that were looked for.
FINDINGS = pytest.StashKey[list[Finding]]()


def findings_table(findings: Iterable[Finding]) -> list[str]:
    """Return the table of planted bugs as lines."""
    head = ("invariant", "patch", "first seed", "what")
    rows = [
        (str(f.invariant), f.patch, "none" if f.seed is None else str(f.seed), f.what)
        for f in sorted(findings, key=lambda f: (f.invariant, f.patch))
    ]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(3)]
    return [
        "  ".join([*(f"{row[i]:<{widths[i]}}" for i in range(3)), row[3]]) for row in [head, *rows]
    ]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print both tables."""
    tally = config.stash.get(TALLY, None)
    if tally is not None:
        terminalreporter.section(f"faults met in {tally[0]} worlds")
        for line in table(tally[1]):
            terminalreporter.write_line(line)
    findings = config.stash.get(FINDINGS, None)
    if findings:
        terminalreporter.section("planted bugs")
        for line in findings_table(findings):
            terminalreporter.write_line(line)
