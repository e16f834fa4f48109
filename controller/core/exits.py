"""Exits: which of them are a container's own failures, told from what two looks show.

The engine doesn't say why a container is down. It restarts by itself whatever exits under its
restart policy, so that one which is down under `always` was stopped from outside: that is drift,
and no failure. A deliberate stop of ours sets the policy to `no` before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from controller.model.desired import Service
from controller.model.observed import Container, ContainerState
from controller.model.spec import RestartPolicy


@dataclass(frozen=True, slots=True)
class Mark:
    """What was counted of a container already: the engine's restarts, and its last exit."""

    id: str
    restarts: int = 0
    finished_at: str = ""


def mark_of(container: Container) -> Mark:
    """Return the mark after a look at a container."""
    return Mark(container.id, container.restart_count, container.finished_at)


def failures(container: Container, service: Service, mark: Mark | None, *, taken_over: bool) -> int:
    """Return how often a container failed on its own since it was marked.

    Without a mark, or with another container's, the engine's earlier restarts don't count: nobody
    knows when they were. *taken_over*: the controller restarts it, and not the engine.
    """
    known = mark if mark is not None and mark.id == container.id else None
    restarts = 0 if known is None else max(0, container.restart_count - known.restarts)
    counted = known is not None and known.finished_at == container.finished_at
    return restarts + (own_exit(container, service, taken_over=taken_over) and not counted)


def own_exit(container: Container, service: Service, *, taken_over: bool) -> bool:
    """Tell whether a container is down because it failed, and not because somebody stopped it."""
    if container.state is not ContainerState.EXITED or not container.finished_at:
        return False
    match container.settings.restart:
        case "no":
            # Without a take-over it is a stop of ours, or a task that ended as it may.
            task_done = (
                service.spec.restart.policy is RestartPolicy.ON_FAILURE and container.exit_code == 0
            )
            return taken_over and not task_done
        case "on-failure":
            # The engine would go on restarting it, had it any tries left.
            tried = container.settings.restart_max or 1
            return container.exit_code != 0 and container.restart_count >= tried
        case _:
            return False


def up_s(container: Container, now: float) -> float:
    """Return how long a container runs, or ran the last time; 0 where nothing says it."""
    started = seconds(container.started_at)
    if started is None:
        return 0.0
    ended = now if container.running else seconds(container.finished_at)
    return 0.0 if ended is None else max(0.0, ended - started)


def seconds(instant: str) -> float | None:
    """Return the seconds since the epoch of an instant as the engine writes it (RFC 3339)."""
    head, dot, tail = instant.partition(".")
    # datetime reads six digits of a second at most; the engine writes up to nine.
    digits = len(tail) - len(tail.lstrip("0123456789"))
    text = f"{head}.{tail[:digits][:6]}{tail[digits:]}" if dot else instant
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def to_json(mark: Mark) -> dict[str, object]:
    """Return a mark as JSON."""
    return {"id": mark.id, "restarts": mark.restarts, "finishedAt": mark.finished_at}


def from_json(value: Mapping[str, object]) -> Mark:
    """Read back what ``to_json`` wrote.

    Raises:
        ValueError: *value* isn't a mark.
    """
    match value:
        case {"id": str(container), "restarts": int(restarts), "finishedAt": str(finished_at)}:
            return Mark(container, restarts, finished_at)
        case _:
            raise ValueError(f"not a mark: {value!r}")
