"""Run the compat ring and print the table with the outcome of each row: ``make ring KIND=compat``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import pytest

from tests.compat.row import Row
from tests.compat.table import TABLE, shown

WIDE = 100


class Seen:
    """A pytest plugin that keeps the outcome of the rows."""

    def __init__(self) -> None:
        self.failed: set[Row] = set()
        self.run: set[Row] = set()

    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> pytest.TestReport | None:
        """Remember a row by its test; whatever fails on the way fails the row."""
        row = getattr(item, "callspec", None) and item.callspec.params.get("row")  # type: ignore[attr-defined] # pytest's own, of parametrised tests
        if isinstance(row, Row):
            self.run.add(row)
            if call.excinfo is not None:
                self.failed.add(row)
        return None


def lines(seen: Seen) -> list[str]:
    """Return the matrix."""
    told = []
    for row in TABLE:
        if row not in seen.run:
            word = "NOT RUN"
        elif row in seen.failed:
            word = "FAILED"
        else:
            word = f"refused: {row.refused}" if row.refused else "works"
        told.append(f"{row.client:<14} {row.role:<8} {shown(row):<{WIDE}.{WIDE}} {word}")
    wrong = sum(row not in seen.run or row in seen.failed for row in TABLE)
    refused = sum(bool(row.refused) for row in TABLE)
    told.append(f"{len(TABLE)} rows: {len(TABLE) - refused} work, {refused} refused; {wrong} wrong")
    return told


def main(arguments: Sequence[str]) -> int:
    """Run the ring; 0 if every row does what the table says."""
    if os.geteuid() != 0:
        print("compat needs root: callers of other uids, and an engine of its own")
        return 1
    seen = Seen()
    code = int(pytest.main(["-q", "tests/compat", *arguments], plugins=[seen]))
    print("\n".join(lines(seen)))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
