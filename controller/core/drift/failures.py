"""Exits: which of them are a container's own failures, told from what two looks show, and why.

The engine doesn't say why a container is down. It restarts by itself whatever exits under its
restart policy, so that one which is down under `always` was stopped from outside: that is drift,
and no failure. A deliberate stop of ours sets the policy to `no` before.

What is said of a cause names ports, bind sources and users, never a command's words or a
variable: those may be secret.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass

from controller.core.engine_api.timestamps import seconds
from controller.core.records import endings
from controller.model.desired.desired import Service
from controller.model.desired.spec import RestartPolicy
from controller.model.observed import Container, ContainerState
from controller.model.quantities import format_bytes

#: As much of what an engine says is read, and as much of it repeated where nothing else is known.
_TEXT_MAX = 4000
_TAIL_MAX = 160
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
#: Exit codes that shells and their like have for what isn't the program's own failure.
_CODES = {
    125: "what should run its command failed",
    126: "its command can't be executed",
    127: "its command wasn't found",
}
#: What dockerd and runc say of a start that failed, in order: first match wins.
_START_ERRORS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.DOTALL), meaning)
    for pattern, meaning in (
        # Before what follows, since a command may have any name.
        (r"exec: .*: (?:no such file or directory|executable file not found)", _CODES[127]),
        (r"exec: .*: (?:permission denied|is a directory)", _CODES[126]),
        (r"exec: .*: exec format error", "its command is for another kind of machine"),
        (r"OOM-killed", "out of memory at once; raise spec.resources.memory"),
        (r"unable to set memory limit", "its memory limit is below what it needs to start"),
        (r"cannot start a stopped process", "it ended while it was started"),
        (
            r"listen \w+ \S*:(\d+): bind: address already in use",
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
    )
)


@dataclass(frozen=True, slots=True)
class ExitCursor:
    """What was counted of a slot's container: the engine's restarts, its last exit, which run of it
    (by its start) was unhealthy, and the violations for which containers of the slot were ended.
    """

    id: str
    restarts: int = 0
    finished_at: str = ""
    unhealthy: str = ""
    name: str = ""
    violations: tuple[str, ...] = ()  # records, of containers that were there at the last look


def cursor_of(container: Container, before: ExitCursor | None = None) -> ExitCursor:
    """Return the mark after a look at a container; *before* is the one that it replaces."""
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
    """Return how often a container failed on its own since it was marked: exits, and a run that
    turned unhealthy.

    Without a mark, or with another container's, the engine's earlier restarts don't count: nobody
    knows when they were. *controller_restarts*: the controller restarts it, and not the engine.
    """
    known = cursor if cursor is not None and cursor.id == container.id else None
    restarts = 0 if known is None else max(0, container.restart_count - known.restarts)
    counted = known is not None and known.finished_at == container.finished_at
    exited = (
        is_own_exit(container, service, controller_restarts=controller_restarts) and not counted
    )
    told = known is not None and known.unhealthy == container.started_at
    ill = _is_unhealthy(container) and service.spec.restart.policy is not RestartPolicy.NEVER
    return restarts + exited + (ill and not told)


def is_own_exit(container: Container, service: Service, *, controller_restarts: bool) -> bool:
    """Tell whether a container is down because it failed, and not because somebody stopped it."""
    if container.state is not ContainerState.EXITED or not container.finished_at:
        return False
    match container.settings.restart:
        case "no":
            # Without a take-over it is a stop of ours, or a task that ended as it may.
            task_done = (
                service.spec.restart.policy is RestartPolicy.ON_FAILURE and container.exit_code == 0
            )
            return controller_restarts and not task_done
        case "on-failure":
            # The engine would go on restarting it, had it any tries left.
            tried = container.settings.restart_max or 1
            return container.exit_code != 0 and container.restart_count >= tried
        case _:
            return False


def is_stopped_from_outside(
    container: Container, service: Service, *, controller_restarts: bool
) -> bool:
    """Return True if a container is down, and neither failed nor was stopped by trimtab.

    The engine restarts what exits by itself, and a stop of ours takes the restart policy away before.
    """
    if container.state is not ContainerState.EXITED or container.violation or container.error:
        return False
    admitted, ending = container.admitted, container.ending
    ours = container.settings.restart == "no" and (admitted is None or admitted.restart == "no")
    if ours or (ending is not None and ending.role in {"controller", "broker"}):
        return False
    policy = service.spec.restart.policy
    done = policy is RestartPolicy.ON_FAILURE and container.exit_code == 0
    if policy is RestartPolicy.NEVER or done:
        return False
    return not is_own_exit(container, service, controller_restarts=controller_restarts)


def explain(container: Container) -> str:
    """Return why a container is down, in words that follow its name; '' where it isn't."""
    if _is_unhealthy(container):
        return "was unhealthy"
    if container.error:
        return f"failed to start: {start_failure(container.error)}"
    if container.state not in {ContainerState.EXITED, ContainerState.RESTARTING}:
        return ""
    ending = container.ending
    if ending is not None and (ending.reason or ending.role in {"operator", "client"}):
        return endings.describe(ending)
    if container.violation:
        return "was ended by the broker, since it didn't run as admitted"
    code, exited = container.exit_code, f"exited with {container.exit_code}"
    if container.oom_killed:
        limit = container.settings.memory
        where = f"limit {format_bytes(limit)}" if limit else "the host's: it has no limit"
        remedy = "raise spec.resources.memory" if limit else "set spec.resources.memory"
        if code == _KILLED:
            return f"was killed: out of memory ({where}); {remedy}"
        return f"{exited} after it ran out of memory ({where}); {remedy}"
    if code in _CODES:
        return f"{exited}: {_CODES[code]}"
    return f"{exited}: {_by_signal(code - 128)}" if 128 < code <= 192 else exited


def _by_signal(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    if number == signal.SIGKILL:
        return "killed by SIGKILL (not for its memory)"
    return f"{'crashed' if number in _CRASHES else 'ended'} by {name}"


def start_failure(said: str) -> str:
    """Return what an engine means by what it says of a start that failed."""
    text = said[:_TEXT_MAX]
    for pattern, meaning in _START_ERRORS:
        if match := pattern.search(text):
            return meaning.format(*match.groups())
    # The last words are the system's; what is quoted before them may be anything.
    words = [part for part in re.sub(r'"[^"]*"', '"…"', text).split(": ") if part != "unknown"]
    return words[-1][:_TAIL_MAX] if words else "nobody says why"


def up_s(container: Container, now: float) -> float:
    """Return how long a container runs, or ran the last time; 0 where nothing says it."""
    started = seconds(container.started_at)
    if started is None:
        return 0.0
    ended = now if container.running else seconds(container.finished_at)
    return 0.0 if ended is None else max(0.0, ended - started)


def to_json(cursor: ExitCursor) -> dict[str, object]:
    """Return a mark as JSON."""
    return {
        "id": cursor.id,
        "restarts": cursor.restarts,
        "finishedAt": cursor.finished_at,
        "unhealthy": cursor.unhealthy,
        **({"name": cursor.name} if cursor.name else {}),
        **({"violations": list(cursor.violations)} if cursor.violations else {}),
    }


def from_json(value: Mapping[str, object]) -> ExitCursor:
    """Read back what ``to_json`` wrote.

    Raises:
        ValueError: *value* isn't a mark.
    """
    match value:
        case {"id": str(container), "restarts": int(restarts), "finishedAt": str(finished_at)}:
            # Older files lack the rest.
            counted = value.get("violations", [])
            violations = tuple(map(str, counted)) if isinstance(counted, list) else ()
            unhealthy, name = str(value.get("unhealthy", "")), str(value.get("name", ""))
            return ExitCursor(container, restarts, finished_at, unhealthy, name, violations)
        case _:
            raise ValueError(f"not a mark: {value!r}")
