"""Whole commands: a no-op plan and apply, `--help` and `status`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

from tests.instance import TRIMTAB
from tools.benches.measure import taken
from tools.suite.figures import Figure, milliseconds, ratios
from tools.suite.line import Line
from tools.suite.rounds import Contestant, interleave
from tools.suite.stage import Stage


def _timed(act: Callable[[], object]) -> Contestant:
    return lambda _round: taken(act)


def _measure_noop(stage: Stage) -> list[Figure]:
    host, peer = stage.running, stage.peer
    seconds = interleave(
        {
            "plan": _timed(lambda: host.cli("plan")),
            "apply": _timed(lambda: host.cli("apply")),
            "compose": lambda _round: peer.up(),
            "docker ps": _timed(lambda: stage.engine.docker("ps", "--all", "--quiet")),
        },
        stage.rounds,
    )
    return [
        *(
            Figure(
                name=f"{command} / compose up -d",
                unit="x",
                values=ratios(seconds[command], seconds["compose"]),
                goal=1.2,
            )
            for command in ("plan", "apply")
        ),
        *(
            Figure(name=name, unit="ms", values=milliseconds(values))
            for name, values in seconds.items()
        ),
    ]


def _measure_commands(stage: Stage) -> list[Figure]:
    host, engine = stage.running, stage.engine
    seconds = interleave(
        {
            "--help": _timed(lambda: engine.run_inside([TRIMTAB, "--help"])),
            "status": _timed(lambda: host.cli("status")),
            "python -c pass": _timed(lambda: engine.run_inside([sys.executable, "-c", "pass"])),
            "docker ps": _timed(lambda: engine.docker("ps", "--all", "--quiet")),
        },
        stage.rounds,
    )
    return [
        Figure(name="--help", unit="ms", values=milliseconds(seconds["--help"]), goal=80),
        Figure(name="status", unit="ms", values=milliseconds(seconds["status"]), goal=120),
        *(
            Figure(name=name, unit="ms", values=milliseconds(seconds[name]))
            for name in ("python -c pass", "docker ps")
        ),
    ]


NOOP: Final = Line(
    name="noop",
    title="Commands with nothing to do, 50 services",
    how="`trimtab plan` and `trimtab apply` of a running instance with 50 converged services, beside"
    " `docker compose up -d` of 50 services with the same settings on the same engine, and"
    " `docker ps`. Each is a whole command: a process from start to exit.",
    run=_measure_noop,
    parts=("plan", "docker ps"),
)
COMMANDS: Final = Line(
    name="commands",
    title="`--help` and `status`",
    how="Whole commands, from the start of the process to its exit, with 50 services, beside an"
    " empty Python program and `docker ps`.",
    run=_measure_commands,
    parts=("status", "python -c pass"),
)
