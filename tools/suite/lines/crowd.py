"""Large hosts: a full pass, one change, and a storm of events."""

from __future__ import annotations

import os
import threading
from functools import partial
from time import monotonic
from typing import Final

from tests.instance import eventually
from tools.benches.engine_api import ask, connection
from tools.benches.measure import percentile, taken
from tools.suite.crowd import Crowd
from tools.suite.figures import Figure, milliseconds
from tools.suite.line import Line
from tools.suite.processes import peak_mb
from tools.suite.rounds import interleave
from tools.suite.stage import Stage

#: The scale of a host, and smaller ones.
_SCALES: Final = (50, 500, 2_000)
_MEMORY_MB: Final = 120
STORM_CONTAINERS: Final = 2_000
STORM_RATE: Final = 10_000
#: 60 s is the promise; the default keeps the whole suite short.
STORM_S: Final = float(os.environ.get("SECONDS") or 60)
#: Containers removed in the last second of the storm.
_REMOVED: Final = 20
_SETTLE_S: Final = 60.0
_PING_S: Final = 0.02


def _measure_scale(containers: int, stage: Stage) -> list[Figure]:
    with Crowd(containers) as crowd:
        listed = ask(crowd.socket, "GET", "/containers/json?all=1")
        victims = [each["Id"] for each in listed if ".1-" not in each["Names"][0]]
        first = taken(lambda: crowd.ask("plan"))
        seconds = interleave(
            {
                "full pass": lambda _round: taken(lambda: crowd.ask("plan")),
                "one change": lambda n: _react(crowd, victims[n]),
                "bare list": lambda _round: taken(
                    lambda: ask(crowd.socket, "GET", "/containers/json?all=1")
                ),
            },
            stage.rounds,
        )
        memory = {role: peak_mb(crowd.host.pid_of(role)) for role in ("controller", "broker")}
    goals = {"one change": 20.0, "full pass": 300.0}
    return [
        *(
            Figure(name=name, unit="ms", values=milliseconds(values), goal=goals.get(name))
            for name, values in seconds.items()
        ),
        Figure(name="first full pass", unit="ms", values=milliseconds([first])),
        *(
            Figure(
                name=f"peak RSS, {role}",
                unit="MB",
                values=(value,),
                goal=_MEMORY_MB,
            )
            for role, value in memory.items()
        ),
    ]


def _react(crowd: Crowd, container: str) -> float:
    """Remove a container; return the seconds until the create of its successor arrives."""
    reacted_s = crowd.bench("remove", id=container)["reacted_s"]
    assert reacted_s is not None, f"no reaction to a removal: {crowd.unready()}"
    eventually(crowd.is_whole, within_s=_SETTLE_S, what="every slot has a container")
    return float(reacted_s)


def measure_storm(containers: int) -> list[Figure]:
    with Crowd(containers, has_health=True) as crowd:
        pings: list[float] = []
        over = threading.Event()
        pinging = threading.Thread(target=lambda: _ping_until(crowd, over, pings))
        pinging.start()
        try:
            storm = crowd.bench("storm", rate=STORM_RATE, seconds=STORM_S, removed=_REMOVED)
            ended = monotonic()
            eventually(crowd.is_whole, within_s=_SETTLE_S, what="every slot has a container")
            whole_s = monotonic() - ended
        finally:
            over.set()
            pinging.join()
        memory = {role: peak_mb(crowd.host.pid_of(role)) for role in ("controller", "broker")}
    p99 = percentile(sorted(pings), 0.99)
    return [
        Figure(name="state equals the world after the storm", unit="s", values=(whole_s,), goal=2),
        Figure(name="an operator's ping, p99", unit="ms", values=milliseconds([p99]), goal=200),
        *(
            Figure(name=f"peak RSS, {role}", unit="MB", values=(value,), goal=_MEMORY_MB)
            for role, value in memory.items()
        ),
        Figure(name="events a second", unit="", values=(storm["rate"],)),
        Figure(name="events dropped for slow readers", unit="", values=(storm["lost"],)),
        Figure(name="the generator's share of its core", unit="%", values=(100 * storm["cpu"],)),
    ]


def _ping_until(crowd: Crowd, over: threading.Event, found: list[float]) -> None:
    while not over.wait(_PING_S):
        found.append(taken(lambda: _ping(crowd)))


def _ping(crowd: Crowd) -> None:
    asked = connection(crowd.host.broker_socket)
    asked.request("GET", "/v1.45/_ping")
    answer = asked.getresponse()
    assert answer.status == 200, answer.read()
    asked.close()


def _scale(containers: int) -> Line:
    return Line(
        name=f"crowd-{containers}",
        title=f"A full pass and one change at {containers:,} containers, simulated",
        how="Real processes over the simulated engine behind a Unix socket, with services of 10"
        " replicas each. A full pass is a plan of everything by the running controller: policy,"
        " files, observation, plan. The first one after the start inspects what later ones know."
        " One change is a container that was removed by force: from its"
        " removal until the create of its successor arrives at the engine. The floor is a list of"
        " all containers on the engine's own socket. The instance has the other processors, the"
        " engine one of its own.",
        run=partial(_measure_scale, containers),
        parts=("full pass", "bare list"),
    )


SCALES: Final = tuple(_scale(containers) for containers in _SCALES)
STORM: Final = Line(
    name="storm",
    title=f"{STORM_RATE:,} events a second at 10,000 containers for {STORM_S:g} s, simulated",
    how=f"The simulated engine emits health events of random containers, on a processor of its own:"
    f" each says that a healthy container is healthy. It also removes {_REMOVED} containers by"
    " force in the last second. The state equals the world once each slot has a running container again. Meanwhile root pings the broker, over a new"
    " connection each time.",
    run=lambda _stage: measure_storm(STORM_CONTAINERS),
)
