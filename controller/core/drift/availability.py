"""Readiness: whether a container may take over what another one serves.

A container is available when it runs, its health check (if it has one) says so, and it has been
so for ``minHealthy``. For how long is told from what was seen of it: the first look at it credits
what the engine says of its start, every later change of its run or of its health begins anew, and
durations run on a clock that doesn't jump. Pure; instants are monotonic seconds but where said.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from controller.core.drift import failures
from controller.model.desired.spec import ServiceSpec
from controller.model.observed import Container
from controller.model.quantities import format_duration_ms


class AvailabilityWord(StrEnum):
    """How far a container is."""

    AVAILABLE = "available"
    SETTLING = "settling"  # runs, and isn't healthy (for long enough) yet
    UNHEALTHY = "unhealthy"  # its check failed too often
    DOWN = "down"  # its process doesn't run


@dataclass(frozen=True, slots=True)
class Availability:
    """The word for one container, why (in words that follow its name), and when time alone makes it available (None: unknown)."""

    word: AvailabilityWord
    why: str = ""
    until: float | None = None


@dataclass(frozen=True, slots=True)
class GoodSince:
    """Since when one run of a container is seen as good; None: its check didn't pass yet."""

    started_at: str  # as the engine writes it: another one is another run
    since: float | None


def update_good_since(
    before: Mapping[str, GoodSince],
    containers: Iterable[Container],
    *,
    now: float,
    wall: float,
    unseen_s: float,
) -> dict[str, GoodSince]:
    """Return what is known after a look at *containers*; of others nothing is kept.

    Args:
        before: what was known, by the containers' ids.
        containers: what the look showed.
        now: its instant.
        wall: the same in seconds since the epoch, which the engine's own instants are in.
        unseen_s: how long nobody looked; what wasn't seen before can't be up for longer. Without an
            earlier look it is infinite: what the engine says of its start is believed.
    """
    return {
        c.id: _sighting(before.get(c.id), c, now, min(unseen_s, failures.up_s(c, wall)))
        for c in containers
        if c.running
    }


def _sighting(
    before: GoodSince | None, container: Container, now: float, credit_s: float
) -> GoodSince:
    if not _is_good(container):
        return GoodSince(container.started_at, None)
    if before is not None and before.started_at == container.started_at:
        since = now if before.since is None else before.since
        return GoodSince(container.started_at, since)
    return GoodSince(container.started_at, now - credit_s)


def _is_good(container: Container) -> bool:
    return container.running and container.health in ("", "healthy")


def availability_of(
    container: Container, spec: ServiceSpec, sighting: GoodSince | None, *, now: float
) -> Availability:
    """Return how far a container is, as *spec* asks for it. Without a sighting it begins now."""
    if not container.running:
        return Availability(AvailabilityWord.DOWN, f"is {container.state.value}")
    if container.health == "unhealthy":
        return Availability(AvailabilityWord.UNHEALTHY, "is unhealthy")
    needed = format_duration_ms(spec.rollout.min_healthy)
    if not _is_good(container):
        return Availability(AvailabilityWord.SETTLING, "isn't healthy yet")
    since = now if sighting is None or sighting.since is None else sighting.since
    until = since + spec.rollout.min_healthy / 1000
    if until <= now:
        return Availability(AvailabilityWord.AVAILABLE)
    word = "healthy" if container.health else "up"
    return Availability(AvailabilityWord.SETTLING, f"must be {word} for {needed}", until)


def at_first_sight(container: Container) -> Availability:
    """Return how far a container is as a look by itself shows it: whoever is good is available."""
    if not container.running:
        return Availability(AvailabilityWord.DOWN, f"is {container.state.value}")
    if container.health == "unhealthy":
        return Availability(AvailabilityWord.UNHEALTHY, "is unhealthy")
    if not _is_good(container):
        return Availability(AvailabilityWord.SETTLING, "isn't healthy yet")
    return Availability(AvailabilityWord.AVAILABLE)
