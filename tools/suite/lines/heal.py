"""Healing: the time until a container that was removed by force runs again."""

from __future__ import annotations

from time import monotonic
from typing import Final

from tests.instance import Host
from tools.benches.engine_api import starts
from tools.suite.bare import Bare
from tools.suite.figures import Figure, milliseconds, ratios
from tools.suite.line import Line
from tools.suite.rounds import interleave
from tools.suite.stage import Stage

#: A constant allowance beside the ratio: the engine's event and the controller's look.
ALLOWANCE_S: Final = 0.030


def _heal(host: Host, bare: Bare, service: str) -> float:
    """Remove a service's container by force; return the seconds until its successor starts."""
    (container,) = host.running_ids(service)
    started = starts(bare.socket)
    bare.remove(container)
    began = monotonic()
    next(name for name in started if name == service)
    return monotonic() - began


def _measure(stage: Stage) -> list[Figure]:
    host, bare = stage.running, stage.bare
    seconds = interleave(
        {
            "healed": lambda number: _heal(host, bare, f"s{number}"),
            "bare": lambda _round: bare.time_one(stage.like),
        },
        stage.rounds,
    )
    less = [max(0.0, value - ALLOWANCE_S) for value in seconds["healed"]]
    return [
        Figure(
            name="removed to running, less 30 ms / bare create + start",
            unit="x",
            values=ratios(less, seconds["bare"]),
            goal=1.15,
        ),
        Figure(name="removed to running", unit="ms", values=milliseconds(seconds["healed"])),
        Figure(name="bare create + start", unit="ms", values=milliseconds(seconds["bare"])),
    ]


LINE: Final = Line(
    name="heal",
    title="A removed container runs again, 50 services",
    how="A container is removed by force on the engine's own socket, past the broker. The time runs"
    " from the answer to the removal until the engine's event of its successor's start. Beside it,"
    " a create and start with the same settings on the engine's own socket. A service loses its"
    " container once: a second time, the controller would wait on purpose.",
    run=_measure,
    parts=("removed to running", "bare create + start"),
)
