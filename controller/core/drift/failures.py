"""Failures of containers: exits told apart from stops, their causes, kept failed runs, and backoff.

Exits: how a container's own failures are told apart from stops, and their causes.

The engine does not report why a container is down. With a restart policy, the engine restarts every
exited container. So a container that is down under ``always`` was stopped from outside: drift, not
a failure. A deliberate stop by trimtab sets the policy to ``no`` first.

A cause names ports, bind sources and users, but never words of a command or a variable: those can
be secret.

Failed runs of containers: their detection, and the limits on kept runs.

A run is kept with its cause and the last lines of its output, because its container is soon
replaced. Everything is bounded: lines, their length, and runs per slot, per service and in total.
The lines are the container's own output. They never go into the journal, a label or a log.

Backoff: how long a slot with a failing container waits before the next attempt.

A failure is a container's own exit, a failed start, or a container that the broker ended for a
violation. A stop or removal from outside is drift, and ``core.drift.contention`` paces its repair.
Instants are seconds since the epoch, given by the caller. Histories outlive the controller, so no
clock that restarts can serve. After a clock that jumped back, no wait is longer than the longest
pause.
"""

from __future__ import annotations

import math
import re
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from controller.core.encoding.stored_form import StoredForm
from controller.core.encoding.text import shorten
from controller.core.engine_api.streams import nanoseconds
from controller.core.engine_api.translate import timestamp_seconds
from controller.core.records import container_effects
from controller.model.container_output import FailedRun, LogLine, StreamName
from controller.model.desired.desired import Service
from controller.model.desired.spec.service import RestartPolicy
from controller.model.observed import Container, ContainerState
from controller.model.quantities import format_bytes
from controller.model.records import ViewerScope

#: The longest part of an engine's error that is read, and the longest part that is repeated.
_TEXT_MAX = 4000
_TAIL_MAX = 160
#: What happened to a container that a client of the engine, past the gate, stopped or killed.
STOPPED_OUTSIDE = "was stopped on the engine's own socket"
_KILLED = 128 + signal.SIGKILL
_CRASHES = frozenset(
    {
        signal.SIGABRT,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGSEGV,
        signal.SIGSYS,
        signal.SIGTRAP,
    }
)
_NOT_EXECUTABLE, _NOT_FOUND = "its command can't be executed", "its command wasn't found"
#: By convention of shells. A program can exit with these codes for another reason.
_CODES = {
    125: "the code for a failure of the program that starts the command",
    126: "the code for a command that can't be executed",
    127: "the code for a command that wasn't found",
}
#: Errors of dockerd and runc for a failed start. In order; the first match wins.
_START_ERRORS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.DOTALL), meaning)
    for pattern, meaning in (
        # First, because the name of a command can match the later patterns.
        (r"exec: .*: (?:no such file or directory|executable file not found)", _NOT_FOUND),
        (r"exec: .*: (?:permission denied|is a directory)", _NOT_EXECUTABLE),
        (r"exec: .*: exec format error", "its command is for another kind of machine"),
        (r"OOM-killed", "out of memory at once; raise spec.resources.memory"),
        (r"unable to set memory limit", "its memory limit is below what it needs to start"),
        (r"cannot start a stopped process", "it ended while it was started"),
        (
            # Since Docker 28 with the container's address behind the host's.
            r"(?:listen \w+|failed to bind host port(?: for)?) \S*?:(\d+)(?:: bind|[:/]\S+): address already in use",
            "port {} is taken by another program",
        ),
        (r"Bind for \S*:(\d+) failed: port is already", "port {} is taken by another container"),
        (r"bind source path does not exist: (\S+)", "its bind source {} is missing"),
        (
            r'error mounting "([^"]+)" to rootfs .*not a directory',
            "its mount of {} is of another type",
        ),
        (r'error mounting "([^"]+)" to rootfs', "{} can't be mounted"),
        (r"unable to find user (\S+): no matching", "its image has no user {}"),
        (r"unable to find group (\S+): no matching", "its image has no group {}"),
        (r"network (\S+) not found", "its network {} is gone"),
        (r"Address already in use$", "another container has its address"),
    )
)


@dataclass(frozen=True, slots=True)
class ExitCursor:
    """The exits of a slot's container counted so far."""

    id: str
    #: The engine's restart count.
    restarts: int = 0
    #: The last exit.
    finished_at: str = ""
    #: The start of the run that was counted as unhealthy.
    unhealthy: str = ""
    name: str = ""
    #: Record ids of violations, for containers that existed at the last observation.
    violations: tuple[str, ...] = ()


def cursor_of(container: Container, before: ExitCursor | None = None) -> ExitCursor:
    """Return the cursor after an observation of a container; *before* is the former cursor."""
    unhealthy = before.unhealthy if before is not None and before.id == container.id else ""
    if _is_unhealthy(container):
        unhealthy = container.started_at
    return ExitCursor(
        container.id,
        container.restart_count,
        container.finished_at,
        unhealthy,
        container.name,
        () if before is None else before.violations,
    )


def _is_unhealthy(container: Container) -> bool:
    return container.running and container.health == "unhealthy"


def count_failures(
    container: Container, service: Service, cursor: ExitCursor | None, *, controller_restarts: bool
) -> int:
    """Return how often a container failed on its own since *cursor*: exits, and a run turned
    unhealthy.

    Without a cursor, or with another container's, earlier restarts by the engine don't count, as
    their times are unknown. *controller_restarts*: the controller, and not the engine, restarts the
    container.
    """
    known = cursor if cursor is not None and cursor.id == container.id else None
    restarts = 0 if known is None else max(0, container.restart_count - known.restarts)
    counted = known is not None and known.finished_at == container.finished_at
    exited = (
        is_own_exit(container, service, controller_restarts=controller_restarts) and not counted
    )
    is_counted_unhealthy = known is not None and known.unhealthy == container.started_at
    ill = _is_unhealthy(container) and service.spec.restart.policy is not RestartPolicy.NEVER
    return restarts + exited + (ill and not is_counted_unhealthy)


def is_own_exit(container: Container, service: Service, *, controller_restarts: bool) -> bool:
    """Return True if a container is down because it failed, and not because of a stop."""
    if container.state is not ContainerState.EXITED or not container.finished_at:
        return False
    match container.settings.restart:
        case "no":
            # With the engine's restarts, `no` means a stop by trimtab, or a finished task.
            task_done = (
                service.spec.restart.policy is RestartPolicy.ON_FAILURE and container.exit_code == 0
            )
            return controller_restarts and not task_done and container.ending is None
        case "on-failure":
            # The engine restarts the container until its retries are used up.
            tried = container.settings.restart_max or 1
            return container.exit_code != 0 and container.restart_count >= tried
        case _:
            return False


def is_stopped_from_outside(
    container: Container, service: Service, *, controller_restarts: bool
) -> bool:
    """Return True if a container is down, and neither failed nor was stopped by trimtab.

    The engine restarts an exited container by itself, and a stop by trimtab removes the restart
    policy first.
    """
    if container.state is not ContainerState.EXITED or container.violation or container.error:
        return False
    admitted, ending = container.admitted, container.ending
    ours = (
        container.settings.restart == "no"
        and (admitted is None or admitted.restart == "no")
        and not service.is_boot_ordered
    )
    if ours or (ending is not None and ending.role in {"controller", "broker"}):
        return False
    policy = service.spec.restart.policy
    done = policy is RestartPolicy.ON_FAILURE and container.exit_code == 0
    if policy is RestartPolicy.NEVER or done:
        return False
    return not is_own_exit(container, service, controller_restarts=controller_restarts)


def explain(container: Container) -> str:
    """Return why a container is down, in words to follow its name; '' for a running one."""
    if _is_unhealthy(container):
        return f"was unhealthy{_because(container)}"
    if container.error:
        return f"failed to start: {start_failure(container.error)}"
    if container.state not in {ContainerState.EXITED, ContainerState.RESTARTING}:
        return ""
    ending = container.ending
    if ending is not None and (ending.reason or ending.role in {"operator", "client"}):
        return container_effects.describe_ending(ending)
    if container.violation:
        return "was ended by the broker, since it didn't run as admitted"
    if ending is not None and ending.role == container_effects.OUTSIDE:
        return f"{STOPPED_OUTSIDE}: it {_describe_exit(container)}"
    return _describe_exit(container)


def _describe_exit(container: Container) -> str:
    code, exited = container.exit_code, f"exited with {container.exit_code}"
    if container.oom_killed:
        limit = container.settings.memory
        where = f"limit {format_bytes(limit)}" if limit else "the host's: it has no limit"
        remedy = "raise spec.resources.memory" if limit else "set spec.resources.memory"
        if code == _KILLED:
            return f"was killed: out of memory ({where}); {remedy}"
        return f"{exited} after it ran out of memory ({where}); {remedy}"
    if code in _CODES:
        return f"{exited}, {_CODES[code]}"
    return f"{exited}: {_by_signal(code - 128)}" if 128 < code <= 192 else exited


def _by_signal(number: int) -> str:
    name = _signal(number + 128) or f"signal {number}"
    if number == signal.SIGKILL:
        return "killed by SIGKILL (not for its memory)"
    return f"{'crashed' if number in _CRASHES else 'ended'} by {name}"


def start_failure(error: str) -> str:
    """Return the meaning of an engine's error for a failed start."""
    text = error[:_TEXT_MAX]
    for pattern, meaning in _START_ERRORS:
        if match := pattern.search(text):
            return meaning.format(*match.groups())
    # The last part is the system's error. Quoted parts before it can have secrets.
    words = [part for part in re.sub(r'"[^"]*"', '"…"', text).split(": ") if part != "unknown"]
    return words[-1][:_TAIL_MAX] if words else "no reason is known"


def up_s(container: Container, now: float) -> float:
    """Return for how long a container runs, or ran the last time, in seconds; 0 if unknown."""
    started = timestamp_seconds(container.started_at)
    if started is None:
        return 0.0
    ended = now if container.running else timestamp_seconds(container.finished_at)
    return 0.0 if ended is None else max(0.0, ended - started)


def why_unhealthy(container: Container) -> str:
    """Return the state of an unhealthy container with its cause: a probe, or a hook, that failed."""
    return f"is unhealthy{_because(container)}"


def _because(container: Container) -> str:
    return f": {container.complaint}" if container.complaint else ""


LINES_MAX = 20
TEXT_MAX = 512
#: Runs kept per slot and revision: a crash loop must not displace earlier failures.
OF_A_SLOT = 2
OF_A_SERVICE = 10
KEPT_OF_ALL = 200
#: The engine stamps lines when it reads them, sometimes after the run's end. The engine
#: restarts a container after 100 ms at the earliest.
LATE_NS = 50_000_000
#: The run of a container whose only failure is the failure of its rollout.
REJECTED = "rejected"
_SIGNALS = range(129, 193)
_STREAMS: dict[str, StreamName] = {"stdout": "stdout", "stderr": "stderr"}


@dataclass(frozen=True, slots=True)
class Readers:
    """The users who are allowed to read output, and the viewers, by the policy."""

    operators: frozenset[int] = frozenset({0})
    #: Owners by uid.
    owners: Mapping[int, str] = field(default_factory=dict)
    #: Viewers by uid; they read no output here.
    viewers: Mapping[int, ViewerScope] = field(default_factory=dict)

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
        return explain(container), ended
    if container.running and container.health == "unhealthy":
        return explain(container), f"unhealthy {container.started_at}"
    if container.running and container.restart_count and container.finished_at:
        return "exited, and was restarted by the engine", ended
    failed = (
        container.state is ContainerState.RESTARTING
        or is_own_exit(container, service, controller_restarts=controller_restarts)
        or _failed_for_good(container, service)
        or (container.error != "" and not container.running)
    )
    return (explain(container), ended) if failed else ("", "")


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


def keep_runs(kept: tuple[FailedRun, ...], run: FailedRun) -> tuple[FailedRun, ...]:
    """Return the kept runs with *run* added, oldest first. The oldest runs beyond a bound are
    dropped.
    """
    runs = (*(each for each in kept if not is_same(each, run)), run)
    runs = _newest(runs, [(each.key, each.slot, each.revision) for each in runs], OF_A_SLOT)
    runs = _newest(runs, [each.key for each in runs], OF_A_SERVICE)
    return runs[-KEPT_OF_ALL:]


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


def is_known_run(kept: Iterable[FailedRun], run: FailedRun) -> bool:
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


#: The pause after each failure in a row, in seconds. The last value repeats.
PAUSES_S = (1, 5, 10, 20, 40, 80, 160, 300)
#: A run this long, in seconds, clears the history.
RESET_AFTER_S = 600
#: This many failures within ``RESET_AFTER_S`` are a crash loop.
LOOP_FAILURES = 5
#: A bound for counts in a state file, above any useful value.
_COUNT_MAX = 1_000_000
_CAUSE_MAX = 300
_Cause = Annotated[str, AfterValidator(lambda cause: cause[:_CAUSE_MAX])]
_Instant = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, slots=True)
class SlotHistory:
    """The failures of one slot."""

    #: Failures in a row.
    count: Annotated[int, Field(ge=0, le=_COUNT_MAX)] = 0
    #: The instants of the last failures, at most ``LOOP_FAILURES``, oldest first.
    recent: Annotated[tuple[_Instant, ...], Field(max_length=LOOP_FAILURES)] = ()
    #: True once a crash loop was detected, until ten minutes pass in a run or without a
    #: failure. Pauses of five minutes would hide the loop otherwise: ten minutes have no room
    #: for five failures.
    crash_looping: bool = False
    #: The cause of the last failure, if known.
    cause: _Cause = ""
    #: The id of the broker's record if the last failure was a violation.
    violation: _Cause = ""


CLEAN = SlotHistory()


def record_failure(
    history: SlotHistory, now: float, *, up_s: float = 0.0, cause: str = "", violation: str = ""
) -> SlotHistory:
    """Return the history after a failure at *now* of a container with a run of *up_s* seconds.

    A failure without a known cause keeps the cause before. *violation* is the id of the broker's
    record if the broker ended the container.
    """
    before = reset_after_run(history, up_s)
    recent = (*_recent(before, now), now)[-LOOP_FAILURES:]
    return SlotHistory(
        count=min(before.count + 1, _COUNT_MAX),
        recent=recent,
        crash_looping=before.crash_looping or len(recent) >= LOOP_FAILURES,
        cause=(cause or before.cause)[:_CAUSE_MAX],
        violation=violation,
    )


def reset_after_run(history: SlotHistory, up_s: float) -> SlotHistory:
    """Return the history of a slot whose container has run for *up_s* seconds."""
    return CLEAN if up_s >= RESET_AFTER_S else history


def without_future(history: SlotHistory, now: float) -> SlotHistory:
    """Return the history with instants in the future set to *now*.

    Such an instant is from before the clock was set back. Store the result: otherwise the pause
    would restart at each observation, until the clock reaches the former time.
    """
    if all(at <= now for at in history.recent):
        return history
    return replace(history, recent=tuple(min(at, now) for at in history.recent))


def pause_s(history: SlotHistory) -> int:
    """Return the pause after the last failure, in seconds; 0 without a failure."""
    return PAUSES_S[min(history.count, len(PAUSES_S)) - 1] if history.count else 0


def retry_not_before(history: SlotHistory, now: float) -> float:
    """Return the instant of the next attempt: at most *now* plus the pause."""
    if not history.recent:
        return 0.0
    return min(history.recent[-1], now) + pause_s(history)


def frequency(history: SlotHistory, now: float) -> str:
    """Return how often a slot failed: ``5 times in 10 min``, or ``8 times in a row`` for more."""
    if history.count == len(_recent(history, now)):
        return f"{history.count} times in {RESET_AFTER_S // 60} min"
    return f"{history.count} times in a row"


def is_crash_looping(history: SlotHistory, now: float) -> bool:
    """Return True if a slot is in a crash loop."""
    return history.crash_looping and bool(_recent(history, now))


def _recent(history: SlotHistory, now: float) -> tuple[float, ...]:
    # An instant in the future is from before the clock was set back: it counts as now.
    return tuple(min(at, now) for at in history.recent if now - at < RESET_AFTER_S)
