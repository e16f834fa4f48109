"""Cold convergence: the time until 50 new services run."""

from __future__ import annotations

from time import monotonic
from typing import Any, Final

from tools.benches.engine_api import starts
from tools.suite.figures import Figure, milliseconds, ratios
from tools.suite.line import Line
from tools.suite.rounds import interleave
from tools.suite.stage import PLAIN, SERVICES, Stage, document

#: Creates in flight of the bare client; the best of them is used.
_PARALLEL: Final = (2, 3, 4)
ISOLATED: Final = """\
healthcheck: {exec: [/bin/sh, -c, "exit 0"], interval: 5s, timeout: 2s}
resources: {memory: 64Mi}
"""


def _converge(stage: Stage, spec: str, *, services: int = SERVICES) -> tuple[float, dict[str, Any]]:
    """Write documents for a running controller.

    Returns:
        The seconds from the first write to the last start, and the inspect of a container.
    """
    host = stage.new_host()
    host.up()
    host.await_ready()
    started = starts(stage.bare.socket)
    missing = {f"s{number}" for number in range(services)}
    began = monotonic()
    for service in sorted(missing):
        host.write(f"{service}.yaml", document(service, spec))
    while missing:
        missing.discard(next(started))
    took_s = monotonic() - began
    like = host.containers("s0")[0]
    host.stop()
    stage.bare.clear()
    host.close()
    return took_s, like


def _compare(spec: str, *, rounds: int, goal: float) -> list[Figure]:
    """Measure a kind of services on a separate engine."""
    with Stage(rounds=rounds) as stage:
        # Not counted: the first container after the engine's start.
        _, like = _converge(stage, spec, services=1)

        def bare(workers: int) -> float:
            took_s = stage.bare.time_many(like, SERVICES, workers=workers)
            stage.bare.clear()
            return took_s

        def compose(_round: int) -> float:
            stage.compose.declare(like, SERVICES)
            took_s = stage.compose.up()
            stage.bare.clear()
            return took_s

        best = min(_PARALLEL, key=bare)
        seconds = interleave(
            {
                "trimtab": lambda _round: _converge(stage, spec)[0],
                "bare engine": lambda _round: bare(best),
                "compose": compose,
            },
            rounds,
        )
    ours, floor, peer = seconds.values()
    return [
        Figure(name="trimtab / bare engine", unit="x", values=ratios(ours, floor), goal=goal),
        Figure(name="trimtab / compose up -d", unit="x", values=ratios(ours, peer), goal=1.0),
        *(
            Figure(name=name, unit="ms", values=milliseconds(values))
            for name, values in seconds.items()
        ),
        Figure(name="creates in flight of the bare client", unit="", values=(float(best),)),
    ]


def _measure_plain(stage: Stage) -> list[Figure]:
    return _compare(PLAIN, rounds=stage.rounds, goal=1.10)


def _measure_isolated(stage: Stage) -> list[Figure]:
    return _compare(ISOLATED, rounds=stage.rounds, goal=1.15)


PLAIN_LINE: Final = Line(
    name="converge",
    title="Cold convergence of 50 services without a network",
    how="A controller runs with an empty directory. The time runs from the first written file until"
    " the engine's event of the last start. The bare client creates and starts 50 containers with"
    " the same settings, with the number in flight that was fastest of 2, 3 and 4 before the rounds."
    " The peer is a whole `docker compose up -d` of 50 services with the same settings. All"
    " containers are removed in between.",
    run=_measure_plain,
    parts=("trimtab", "bare engine"),
)
ISOLATED_LINE: Final = Line(
    name="isolated",
    title="Cold convergence of 50 services with an isolated network and a health check each",
    how="As `converge`. The network is created within the measured time, by each contestant.",
    run=_measure_isolated,
    parts=("trimtab", "bare engine"),
)
