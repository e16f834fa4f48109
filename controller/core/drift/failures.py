"""Exits: how a container's own failures are told apart from stops, and their causes.

The engine does not report why a container is down. With a restart policy, the engine restarts every
exited container. So a container that is down under ``always`` was stopped from outside: drift, not
a failure. A deliberate stop by trimtab sets the policy to ``no`` first.

A cause names ports, bind sources and users, but never words of a command or a variable: those can
be secret.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass

from controller.core.encoding.stored_form import StoredForm
from controller.core.engine_api.timestamps import seconds
from controller.core.records import endings
from controller.model.desired.desired import Service
from controller.model.desired.spec.rollout import RestartPolicy
from controller.model.observed import Container, ContainerState
from controller.model.quantities import format_bytes

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


FORM = StoredForm(ExitCursor)


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
        return endings.describe(ending)
    if container.violation:
        return "was ended by the broker, since it didn't run as admitted"
    if ending is not None and ending.role == endings.OUTSIDE:
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
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
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
    started = seconds(container.started_at)
    if started is None:
        return 0.0
    ended = now if container.running else seconds(container.finished_at)
    return 0.0 if ended is None else max(0.0, ended - started)


def why_unhealthy(container: Container) -> str:
    """Return the state of an unhealthy container with its cause: a probe, or a hook, that failed."""
    return f"is unhealthy{_because(container)}"


def _because(container: Container) -> str:
    return f": {container.complaint}" if container.complaint else ""
