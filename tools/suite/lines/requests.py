"""Requests and judgements of one new service."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from tools.suite.figures import Figure
from tools.suite.line import Line
from tools.suite.simulated import SimulatedInstance, counted_judgements
from tools.suite.stage import Stage, document

#: Virtual time until the new service is available and reported, before the next periodic list.
_SETTLES_S: Final = 15.0


def count_one_service() -> tuple[list[tuple[str, str]], int]:
    """Add one service to an instance with one; return the requests and the judgements."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "desired"
        folder.mkdir()
        _declare(folder, "first")
        instance = SimulatedInstance(folder)
        # Past a periodic list, so that the next one comes after the count.
        instance.live(35.0)
        assert len(instance.engine.containers) == 1, "the first service runs"
        instance.wire.requests.clear()
        _declare(folder, "second")
        with counted_judgements() as judged:
            instance.loop.files_changed()
            instance.live(_SETTLES_S)
        assert len(instance.engine.containers) == 2, "the second service runs"
        return list(instance.wire.requests), judged.count


def _declare(folder: Path, name: str) -> None:
    text = document(name, "network: {mode: none}").replace("worker:1", "web:1")
    (folder / f"{name}.yaml").write_text(text)


def _measure(_stage: Stage) -> list[Figure]:
    requests, judged = count_one_service()
    reads = sum(method == "GET" for method, _ in requests)
    count = float(len(requests))
    return [
        Figure(name="requests, controller to broker", unit="", values=(count,), goal=12),
        Figure(name="of them reads", unit="", values=(float(reads),)),
        Figure(name="judgements of the create", unit="", values=(float(judged),), goal=3),
    ]


LINE: Final = Line(
    name="requests",
    title="Requests and judgements of one new service",
    how="Counted in one process, with the real loop, adapter and gate over the simulated engine, in"
    f" virtual time: from the changed file until {_SETTLES_S:g} s later, when the service is"
    " available and reported. A judgement is a call of `core.admission.create.admit_create`, by the"
    " controller or by the broker.",
    run=_measure,
)
