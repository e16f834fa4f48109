"""Availability: whether a container can take over from the serving container.

A container is available when it runs, its health check (if any) passes, and both have held for
``minHealthy``. The first observation of a container credits the time since its start, as the engine
reports it. Every later change of its run or its health, and a lower memory limit, restart the time. Durations use a clock
without jumps. Pure: instants are monotonic seconds unless noted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from controller.core.drift import failures
from controller.model.desired.spec.service import ServiceSpec
from controller.model.observed import Container
from controller.model.quantities import format_duration_ms


class AvailabilityWord(StrEnum):
    """The availability of a container."""

    AVAILABLE = "available"
    #: The container runs, but is not healthy yet, or not for long enough.
    SETTLING = "settling"
    #: The health check failed too often.
    UNHEALTHY = "unhealthy"
    #: The container has no running process.
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Availability:
    """The availability of a container, and the cause."""

    word: AvailabilityWord
    #: The cause, in words that follow the container's name.
    why: str = ""
    #: The instant at which time alone makes the container available; None if unknown.
    until: float | None = None


@dataclass(frozen=True, slots=True)
class GoodSince:
    """The start of the good time in one run of a container."""

    #: The engine's start time. Another value means another run.
    started_at: str
    #: None if the health check has not passed yet.
    since: float | None
    #: The admitted memory, in bytes. Less memory is a new start of the good time.
    memory: int = 0


def update_good_since(
    before: Mapping[str, GoodSince],
    containers: Iterable[Container],
    *,
    now: float,
    wall: float,
    unseen_s: float,
) -> dict[str, GoodSince]:
    """Return the good times after an observation. Containers outside *containers* are dropped.

    Args:
        before: the good times so far, by container id.
        containers: the observed containers.
        now: the instant of the observation.
        wall: the same instant in seconds since the epoch, as in the engine's timestamps.
        unseen_s: the time since the last observation. A new container gets credit for at most this
            long. Infinite without an earlier observation: then the engine's start time counts.
    """
    return {
        c.id: _sighting(before.get(c.id), c, now, wall, unseen_s) for c in containers if c.running
    }


def _sighting(
    before: GoodSince | None, container: Container, now: float, wall: float, unseen_s: float
) -> GoodSince:
    memory = 0 if container.admitted is None else container.admitted.memory
    if not _is_good(container):
        return GoodSince(container.started_at, None, memory)
    if before is None or before.started_at != container.started_at:
        credit_s = min(unseen_s, failures.up_s(container, wall))
        return GoodSince(container.started_at, now - credit_s, memory)
    begins = before.since is None or 0 < memory < before.memory
    return GoodSince(container.started_at, now if begins else before.since, memory)


def _is_good(container: Container) -> bool:
    return container.running and container.health in ("", "healthy")


def availability_of(
    container: Container, spec: ServiceSpec, sighting: GoodSince | None, *, now: float
) -> Availability:
    """Return the availability of a container under *spec*. Without a sighting its good time begins
    now.
    """
    at_once = at_first_sight(container)
    if at_once.word is not AvailabilityWord.AVAILABLE:
        return at_once
    since = now if sighting is None or sighting.since is None else sighting.since
    until = since + spec.rollout.min_healthy / 1000
    if until <= now:
        return at_once
    needed = format_duration_ms(spec.rollout.min_healthy)
    word = "healthy" if container.health else "up"
    return Availability(AvailabilityWord.SETTLING, f"must be {word} for {needed}", until)


def at_first_sight(container: Container) -> Availability:
    """Return the availability of a container from one snapshot: a good container is available."""
    if not container.running:
        return Availability(AvailabilityWord.DOWN, f"is {container.state.value}")
    if container.health == "unhealthy":
        return Availability(AvailabilityWord.UNHEALTHY, failures.why_unhealthy(container))
    if not _is_good(container):
        return Availability(AvailabilityWord.SETTLING, "isn't healthy yet")
    return Availability(AvailabilityWord.AVAILABLE)
