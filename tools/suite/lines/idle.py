"""Idleness: the cost of 50 unchanged services."""

from __future__ import annotations

import time
from typing import Final

from tools.suite.figures import Figure
from tools.suite.line import Line
from tools.suite.processes import cpu_seconds, family, pss_mb
from tools.suite.stage import Stage

#: The length of one round; ten rounds contain several resyncs and chores.
ROUND_S: Final = 8.0
#: A service is watched for a minute after its rollout, and at rest afterwards.
WATCHED_S: Final = 75.0


def _measure(stage: Stage) -> list[Figure]:
    host = stage.running
    assert host.process is not None, "the instance runs"
    up = host.process.pid
    time.sleep(WATCHED_S)
    before = _intents(stage)
    shares = [_share(up) for _ in range(stage.rounds)]
    later = _intents(stage) - before
    memory = sum(pss_mb(host.pid_of(role)) for role in ("broker", "controller"))
    return [
        # The mean, too: a median of rounds hides a chore that runs in one round of three.
        Figure(name="processor time, median", unit="%", values=tuple(shares), goal=0.3),
        Figure(
            name="processor time, mean", unit="%", values=(sum(shares) / len(shares),), goal=0.3
        ),
        Figure(name="PSS of broker and controller", unit="MB", values=(memory,), goal=130),
        Figure(name="PSS of all processes", unit="MB", values=(sum(map(pss_mb, family(up))),)),
        Figure(name="changes", unit="", values=(float(later),), goal=0),
    ]


def _share(up: int) -> float:
    """Return the percentage of a processor that all processes below *up* use for a round."""
    pids = family(up)
    began, used = time.monotonic(), sum(map(cpu_seconds, pids))
    time.sleep(ROUND_S)
    used = sum(map(cpu_seconds, pids)) - used
    return 100 * used / (time.monotonic() - began)


def _intents(stage: Stage) -> int:
    """Return the number of recorded intents; each later one is a change of nothing."""
    return len(stage.running.records("intent"))


LINE: Final = Line(
    name="idle",
    title="Processor time and memory at 50 unchanged services",
    how=f"The processor time of `trimtab up` and all its children, in rounds of {ROUND_S:g} s, as a"
    " share of one processor, once the services' rollouts have been watched to their end. Memory is the proportional set size (PSS) of /proc/PID/smaps_rollup"
    " after the rounds. Changes are intents in the journal meanwhile; nothing changes, so there"
    " should be none.",
    run=_measure,
)
