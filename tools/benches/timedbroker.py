"""The broker, that tells beside its work how long each record kept its request waiting.

Run as ``python -m tools.benches.timedbroker broker …``. What is told is the whole wait: to bring the
entry into its form, to queue it, write it, flush it, and fold it into the inventory.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from time import perf_counter
from typing import Final

from controller.broker import books
from controller.cli.main import main
from controller.model.entries import Entry, Record

#: Names the file that waits are told in, a line each.
WAITS: Final = "TRIMTAB_BENCH_WAITS"


class TimedBooks(books.Books):
    """Books that time whoever waits for a record."""

    async def write(self, entry: Entry) -> Record | None:
        began = perf_counter()
        record = await super().write(entry)
        _tell({"stage": entry.stage, "waited": perf_counter() - began})
        return record


def _tell(wait: dict[str, object]) -> None:
    with Path(os.environ[WAITS]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(wait) + "\n")


if __name__ == "__main__":
    books.Books = TimedBooks  # type: ignore[misc]
    main()
