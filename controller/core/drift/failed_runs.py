"""Failed runs of containers: their detection, and the limits on kept runs.

A run is kept with its cause and the last lines of its output, because its container is soon
replaced. Everything is bounded: lines, their length, and runs per slot, per service and in total.
The lines are the container's own output. They never go into the journal, a label or a log.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from controller.core.drift import failures
from controller.core.encoding.quoting import shorten
from controller.core.encoding.stored_form import StoredForm
from controller.core.engine_api.streams.log_stream import nanoseconds
from controller.model.container_output import FailedRun, LogLine, StreamName
from controller.model.desired.desired import Service
from controller.model.desired.spec.rollout import RestartPolicy
from controller.model.observed import Container, ContainerState

LINES_MAX = 20
TEXT_MAX = 512
#: Runs kept per slot and revision: a crash loop must not displace earlier failures.
OF_A_SLOT = 2
OF_A_SERVICE = 10
OF_ALL = 200
#: The engine stamps lines when it reads them, sometimes after the run's end. The engine
#: restarts a container after 100 ms at the earliest.
LATE_NS = 50_000_000
#: The run of a container whose only failure is the failure of its rollout.
REJECTED = "rejected"
_SIGNALS = range(129, 193)
_STREAMS: dict[str, StreamName] = {"stdout": "stdout", "stderr": "stderr"}


@dataclass(frozen=True, slots=True)
class Readers:
    """The users who are allowed to read output, by the policy."""

    operators: frozenset[int] = frozenset({0})
    #: Owners by uid.
    owners: Mapping[int, str] = field(default_factory=dict)

    def may_read(self, uid: int, owner: str) -> bool:
        """Return True if the user is allowed to read the output of that owner's services."""
        return uid in self.operators or (owner != "" and self.owners.get(uid) == owner)


def failed_run(
    container: Container, service: Service, *, controller_restarts: bool, rejected: str = ""
) -> FailedRun | None:
    """Return the failed run of a container, without its lines; None without a failure.

    *controller_restarts*: the controller, and not the engine, restarts the container. *rejected*: why
    the rollout of the container's revision failed; '' if it did not.
    """
    cause, run = _failure(container, service, controller_restarts=controller_restarts)
    if not cause and rejected and container.running:
        cause, run = f"was replaced, since its rollout failed: {rejected}", REJECTED
    if not cause:
        return None
    ended = container.state in {ContainerState.EXITED, ContainerState.RESTARTING}
    code = container.exit_code if ended and not container.error else None
    return FailedRun(
        key=container.key,
        slot=container.slot,
        container=container.name,
        id=container.id,
        run=run,
        revision=container.revision,
        owner=container.owner,
        at=container.finished_at if run.startswith("ended") else "",
        cause=cause,
        exit_code=code,
        signal=_signal(code),
        oom=container.oom_killed,
        check=container.check_output,
    )


def _failure(
    container: Container, service: Service, *, controller_restarts: bool
) -> tuple[str, str]:
    """Return why a container failed, in words to follow its name, and the run; '' without a
    failure.
    """
    ended = f"ended {container.finished_at}"
    if container.violation and container.state is ContainerState.EXITED:
        return failures.explain(container), ended
    if container.running and container.health == "unhealthy":
        return failures.explain(container), f"unhealthy {container.started_at}"
    if container.running and container.restart_count and container.finished_at:
        return "exited, and was restarted by the engine", ended
    failed = (
        container.state is ContainerState.RESTARTING
        or failures.is_own_exit(container, service, controller_restarts=controller_restarts)
        or _failed_for_good(container, service)
        or (container.error != "" and not container.running)
    )
    return (failures.explain(container), ended) if failed else ("", "")


def _failed_for_good(container: Container, service: Service) -> bool:
    """Return True if a container is a task that failed and is not started again."""
    return (
        container.state is ContainerState.EXITED
        and container.exit_code != 0
        and container.ending is None  # nobody stopped it
        and service.spec.restart.policy is RestartPolicy.NEVER
    )


def _signal(code: int | None) -> str:
    if code is None or code not in _SIGNALS:
        return ""
    try:
        return signal.Signals(code - 128).name
    except ValueError:
        return ""


def with_output(
    run: FailedRun, lines: Iterable[LogLine], *, previous_end: str = "", restarted: bool = False
) -> FailedRun:
    """Return a run with its last lines.

    *lines* are the last lines of all runs of the container, oldest first. *previous_end* is the end
    of its failed run before; '' if there was none. *restarted*: the container runs again, so lines
    of the next run can follow.
    """
    since = _end_ns(previous_end, 0)
    until = _end_ns(run.at, math.inf) if restarted else math.inf
    mine = [line for line in lines if not line.time or since < nanoseconds(line.time) <= until]
    last = (replace(line, text=shorten(line.text, TEXT_MAX)) for line in mine[-LINES_MAX:])
    return replace(run, lines=tuple(last))


def _end_ns(time: str, default: float) -> float:
    """Return the instant, in nanoseconds, at which the output of a run with the end *time* is
    complete.
    """
    try:
        return nanoseconds(time) + LATE_NS
    except ValueError:
        return default


def keep(kept: tuple[FailedRun, ...], run: FailedRun) -> tuple[FailedRun, ...]:
    """Return the kept runs with *run* added, oldest first. The oldest runs beyond a bound are
    dropped.
    """
    runs = (*(each for each in kept if not is_same(each, run)), run)
    runs = _newest(runs, [(each.key, each.slot, each.revision) for each in runs], OF_A_SLOT)
    runs = _newest(runs, [each.key for each in runs], OF_A_SERVICE)
    return runs[-OF_ALL:]


def _newest(runs: tuple[FailedRun, ...], groups: list[Any], most: int) -> tuple[FailedRun, ...]:
    """Return the newest runs, at most *most* of each group."""
    counts: dict[Any, int] = {}
    chosen = []
    for run, group in zip(reversed(runs), reversed(groups), strict=True):
        counts[group] = counts.get(group, 0) + 1
        if counts[group] <= most:
            chosen.append(run)
    return tuple(reversed(chosen))


def is_same(one: FailedRun, other: FailedRun) -> bool:
    """Return True if both are the same run of the same container."""
    return (one.id, one.run) == (other.id, other.run)


def is_known(kept: Iterable[FailedRun], run: FailedRun) -> bool:
    """Return True if a run is kept already, or a failure of its own of the same replaced container."""
    return any(is_same(e, run) or (run.run == REJECTED and e.id == run.id) for e in kept)


def latest_by_slot(runs: Iterable[FailedRun]) -> list[FailedRun]:
    """Return the last failed run of each slot."""
    latest = {(run.key, run.slot): run for run in runs}
    return [latest[place] for place in sorted(latest)]


# JSON


def run_json(run: FailedRun) -> dict[str, object]:
    """Return a run in the shape of ``lastFailure`` in ``status --json``."""
    return {
        "container": run.container,
        "slot": run.slot,
        "revision": run.revision,
        "at": run.at,
        "cause": run.cause,
        "exit": run.exit_code,
        "signal": run.signal,
        "oom": run.oom,
        "line": last_line(run),
        "lines": [
            {"time": line.time, "stream": line.stream, "line": line.text} for line in run.lines
        ],
        **({"check": run.check} if run.check else {}),
        **({"unread": run.unread} if run.unread else {}),
    }


def last_line(run: FailedRun) -> str:
    """Return the last line with visible text, of the failed check if there is one; '' without any."""
    texts = [*(line.text for line in run.lines), *run.check.splitlines()]
    return next((text for text in reversed(texts) if text.strip()), "")


#: A run in the state folder.
FORM = StoredForm(FailedRun)
