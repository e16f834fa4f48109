"""A broker that also writes down how long each request waited for records and for the engine.

Run as ``python -m tools.benches.timedbroker broker …``. A wait for a record is the whole wait: form,
queue, write, flush, fold. A wait for the engine is a forwarded mutation, from the request to the end
of the response.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from controller.broker.engine.client import EngineClient
from controller.broker.server import record_store
from controller.cli.main import main
from controller.model.records import Entry, Record

#: Names the file of waits, a line each.
WAITS: Final = "TRIMTAB_BENCH_WAITS"


class TimedRecordStore(record_store.RecordStore):
    """A record store with timed waits for records."""

    async def write(self, entry: Entry) -> Record | None:
        began = perf_counter()
        record = await super().write(entry)
        _note("record", perf_counter() - began)
        return record


_forward = EngineClient.forward


async def _timed_forward(self: EngineClient, *arguments: Any, **named: Any) -> Any:
    began = perf_counter()
    reply = await _forward(self, *arguments, **named)
    _note("engine", perf_counter() - began)
    return reply


def _note(kind: str, seconds: float) -> None:
    with Path(os.environ[WAITS]).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"for": kind, "waited": seconds}) + "\n")


if __name__ == "__main__":
    record_store.RecordStore = TimedRecordStore  # type: ignore[misc]
    EngineClient.forward = _timed_forward  # type: ignore[method-assign]
    main()
