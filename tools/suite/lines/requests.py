"""Requests and judgements of one new service."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tools.suite.figures import Figure
from tools.suite.line import Line
from tools.suite.simulated import SimulatedInstance, counted_judgements
from tools.suite.stage import Stage, document

#: Virtual time until the new service is available and reported, before the next periodic list.
_SETTLES_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Counted:
    """The work for one new service."""

    #: The controller's requests to the broker: method and path.
    requests: tuple[tuple[str, str], ...]
    #: The paths that the broker read from the engine.
    reads: tuple[str, ...]
    judgements: int


def count_one_service() -> Counted:
    """Add one service to an instance with one, and count."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "desired"
        folder.mkdir()
        _declare(folder, "first")
        instance = SimulatedInstance(folder)
        # Past a periodic list, so that the next one comes after the count.
        instance.live(35.0)
        assert len(instance.engine.containers) == 1, "the first service runs"
        instance.wire.requests.clear()
        instance.wire.reads.clear()
        _declare(folder, "second")
        with counted_judgements() as judged:
            instance.loop.files_changed()
            instance.live(_SETTLES_S)
        assert len(instance.engine.containers) == 2, "the second service runs"
        wire = instance.wire
        return Counted(tuple(wire.requests), tuple(wire.reads), judged.count)


def _declare(folder: Path, name: str) -> None:
    text = document(name, "network: {mode: none}").replace("worker:1", "web:1")
    (folder / f"{name}.yaml").write_text(text)


def _measure(_stage: Stage) -> list[Figure]:
    counted = count_one_service()
    looks = sum(method == "GET" for method, _ in counted.requests)
    sent, judged = float(len(counted.requests)), float(counted.judgements)
    return [
        Figure(name="requests, controller to broker", unit="", values=(sent,), goal=12),
        Figure(name="of them reads", unit="", values=(float(looks),)),
        Figure(name="reads of the engine", unit="", values=(float(len(counted.reads)),)),
        Figure(name="judgements of the create", unit="", values=(judged,), goal=3),
    ]


LINE: Final = Line(
    name="requests",
    title="Requests and judgements of one new service",
    how="Counted in one process, with the real loop, adapter and gate over the simulated engine, in"
    f" virtual time: from the changed file until {_SETTLES_S:g} s later, when the service is"
    " available and reported. A judgement is a call of `core.admission.create.judge_create`, by the"
    " controller or by the broker.",
    run=_measure,
)
