"""The broker, that tells beside its work how long records kept a request waiting.

Run as ``python -m tools.benches.timedbroker broker …``. What is told is the whole wait: to bring the
entry into its form, to queue it, write it, flush it, and fold it into the inventory; and that of an
intent for the outcomes that were answered before.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from time import perf_counter
from typing import Final

from controller.broker.server import driver, record_store
from controller.cli.main import main
from controller.model.records import Entry, Record

#: Names the file that waits are told in, a line each.
WAITS: Final = "TRIMTAB_BENCH_WAITS"


class TimedBooks(record_store.RecordStore):
    """Books that time whoever waits for a record."""

    async def write(self, entry: Entry, *, optimistic: bool = False) -> Record | None:
        began = perf_counter()
        record = await super().write(entry, optimistic=optimistic)
        task = asyncio.current_task()
        if task is None or task.get_name() != driver.AFTER_ITS_ANSWER:
            _tell({"for": entry.stage, "waited": perf_counter() - began})
        return record

    async def is_durable_since(self, rollbacks: int) -> bool:
        began = perf_counter()
        known = await super().is_durable_since(rollbacks)
        _tell({"for": "before", "waited": perf_counter() - began})
        return known


def _tell(wait: dict[str, object]) -> None:
    with Path(os.environ[WAITS]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(wait) + "\n")


if __name__ == "__main__":
    record_store.RecordStore = TimedBooks  # type: ignore[misc]
    main()
