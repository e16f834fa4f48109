"""Writes the table of the units' exposure into docs/operations/services.md.

``python -m tests.e2e.units`` writes it; a test holds the page to what systemd says.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "configs" / "systemd"
PAGE = ROOT / "docs" / "operations" / "services.md"
MARKS = ("<!-- exposure: made by python -m tests.e2e.units -->", "<!-- end of exposure -->")
BROKER = "trimtab-broker.service"
_TOTAL = re.compile(r"exposure level for \S+: ([0-9.]+)")


def analyze(*argv: str) -> str:
    """Return what ``systemd-analyze`` prints."""
    command = ("systemd-analyze", *argv)
    done = subprocess.run(command, cwd=UNITS, capture_output=True, text=True, check=False)
    assert not done.stderr, done.stderr
    return done.stdout


def services() -> list[str]:
    """Return the names of the services."""
    return sorted(path.name for path in UNITS.glob("*.service"))


def exposure(unit: str) -> float:
    """Return the overall exposure of a unit: 0 is safe, 10 is unsafe."""
    found = _TOTAL.search(analyze("security", "--offline=yes", f"./{unit}"))
    assert found is not None
    return float(found[1])


def missed(unit: str) -> set[str]:
    """Return the directives that raise a unit's exposure."""
    rows: list[dict[str, Any]] = json.loads(
        analyze("security", "--offline=yes", "--json=short", f"./{unit}")
    )
    return {row["name"] for row in rows if row["exposure"] not in {None, "0.0"}}


def table() -> str:
    """Return the table of all services."""
    rows = [f"| `{unit}` | {exposure(unit)} |" for unit in services()]
    return "\n".join(["| unit | exposure |", "|---|---|", *rows])


def with_table(text: str) -> str:
    """Return the page with the table as it is now."""
    begin, end = MARKS
    head, _, rest = text.partition(begin)
    return f"{head}{begin}\n{table()}\n{end}{rest.partition(end)[2]}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text("utf-8")), "utf-8")
