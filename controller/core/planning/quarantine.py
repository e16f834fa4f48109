"""Quarantine: what was pruned is kept for a while, stopped, so that a mistake can be taken back.

The time is counted while the container is seen down, by the monotonic clock of one boot of the
host after another: no clock that is set, forward or back, makes it shorter. What can't be known
(how long the host was down) isn't counted, so that it is rather kept too long. What is declared
again meanwhile isn't pruned any more: the ordinary rules start it (``core.planning.rollout``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from controller.core.drift.actions import (
    ContainerHandle,
    Judge,
    stop_and_remove,
    stop_for_good,
    until_denied,
    with_verdicts,
)
from controller.core.drift.drift import ALIVE, ReplicaState, cause_of
from controller.model.desired.desired import Service
from controller.model.desired.plan import AnyAction, Precondition, QuarantineWait
from controller.model.desired.spec import RestartPolicy, RunState
from controller.model.names import Key
from controller.model.observed import Container, ContainerState
from controller.model.quantities import format_duration_ms, format_instant

#: Nobody needs to be told of differences below this, or to have them written down.
GRAIN_S = 60.0


@dataclass(frozen=True, slots=True)
class QuarantineRules:
    """How long what was pruned is kept (0: it is removed at once), and this boot of the host."""

    keep_s: float = 0.0
    boot: str = ""


#: Unless somebody says otherwise.
AT_ONCE = QuarantineRules()


@dataclass(frozen=True, slots=True)
class Moment:
    """Now: by the wall clock, for people, and by the monotonic clock of this boot."""

    wall_s: float
    monotonic_s: float
    boot: str


@dataclass(frozen=True, slots=True)
class QuarantinedContainer:
    """A container in quarantine: how long it was seen down, and when that was counted last.

    ``at_s`` is of the monotonic clock, and means nothing in another boot than ``boot``.
    ``until_s`` is of the wall clock, and only for people.
    """

    counted_s: float
    at_s: float
    boot: str
    until_s: float


@dataclass(frozen=True, slots=True)
class QuarantineLeft:
    """What is left of a container's quarantine, and its end as it is told."""

    seconds: float
    until: str


@dataclass(frozen=True, slots=True)
class Quarantine:
    """What a plan needs to know of it, by the containers' ids."""

    keep_s: float = 0.0
    left: Mapping[str, QuarantineLeft] = field(default_factory=dict)


NO_QUARANTINE = Quarantine()


def quarantine_at(
    kept: Mapping[str, QuarantinedContainer], *, keep_s: float, now: Moment
) -> Quarantine:
    """Return what is left of each quarantine now."""
    return Quarantine(
        keep_s,
        {
            identifier: QuarantineLeft(
                max(0.0, keep_s - counted_s(each, now)), format_instant(each.until_s)
            )
            for identifier, each in kept.items()
        },
    )


def counted_s(kept: QuarantinedContainer, now: Moment) -> float:
    """Return how long a container was seen down."""
    if kept.boot != now.boot:
        return kept.counted_s
    return kept.counted_s + max(0.0, now.monotonic_s - kept.at_s)


def watched(
    kept: Mapping[str, QuarantinedContainer],
    containers: Iterable[Container],
    *,
    pruned: frozenset[Key],
    keep_s: float,
    now: Moment,
) -> dict[str, QuarantinedContainer]:
    """Return what is kept after one more look at *containers*.

    Those of *pruned* services that are down begin to be counted; what runs again, or is gone from
    the look's services, isn't counted any more.
    """
    if keep_s <= 0:
        return {}
    found = dict(kept)
    for container in containers:
        before = kept.get(container.id)
        if container.state is not ContainerState.EXITED:
            found.pop(container.id, None)
        elif before is not None:
            found[container.id] = _counted(before, keep_s=keep_s, now=now)
        elif container.key in pruned:
            until_s = now.wall_s + keep_s
            found[container.id] = QuarantinedContainer(0.0, now.monotonic_s, now.boot, until_s)
    return found


def _counted(kept: QuarantinedContainer, *, keep_s: float, now: Moment) -> QuarantinedContainer:
    counted = counted_s(kept, now)
    until_s = now.wall_s + max(0.0, keep_s - counted)
    if abs(until_s - kept.until_s) > GRAIN_S:
        kept = replace(kept, until_s=until_s)
    if kept.boot == now.boot and counted - kept.counted_s < GRAIN_S:
        return kept
    return replace(kept, counted_s=counted, at_s=now.monotonic_s, boot=now.boot)


# What is planned


def removal_actions(
    containers: Iterable[Container], judge: Judge, quarantine: Quarantine = NO_QUARANTINE
) -> list[AnyAction]:
    """Return what removes the containers of a service that is no longer declared, in the end."""
    actions: list[AnyAction] = []
    for container in containers:
        cause = cause_of(ReplicaState(container, None))
        actions += until_denied(with_verdicts(_removal(container, cause, quarantine), judge))
    return actions


def _removal(container: Container, cause: str, quarantine: Quarantine) -> list[AnyAction]:
    kept = container.state in ALIVE or container.state is ContainerState.EXITED
    left = quarantine.left.get(container.id)
    if not kept or quarantine.keep_s <= 0:
        return stop_and_remove(container, None, cause)
    if container.state not in ALIVE and left is not None and left.seconds <= 0:
        return [ContainerHandle.of(container).remove(f"{cause}, and its quarantine is over")]
    # An engine that restarts must not revive what was put away.
    return [*stop_for_good(container, None, cause), _rest(container, quarantine.keep_s, left)]


def _rest(container: Container, keep_s: float, left: QuarantineLeft | None) -> QuarantineWait:
    told = f"for {format_duration_ms(round(keep_s * 1000))}"
    if container.state not in ALIVE and left is not None:
        told = f"until {left.until}"
    return QuarantineWait(
        object=container.key,
        target=container.name,
        cause=f"quarantined {told}, then removed",
        slot=container.slot,
        precondition=Precondition(id=container.id, revision=container.revision),
    )


def expired_tasks(
    service: Service, containers: Iterable[Container], quarantine: Quarantine
) -> tuple[Container, ...]:
    """Return what was put away of a task that is declared again, and runs only anew.

    With the restart policy Never a container that was stopped can't be told from one that ended.
    """
    never = service.spec.restart.policy is RestartPolicy.NEVER
    if not never or service.spec.state is not RunState.RUNNING:
        return ()
    put_away = quarantine.left.keys()
    return tuple(c for c in containers if c.id in put_away and c.state is ContainerState.EXITED)


def renewal_actions(put_away: Iterable[Container], judge: Judge) -> list[AnyAction]:
    """Return what makes room for a task that runs anew."""
    removals = [
        ContainerHandle.of(each).remove(f"{each.name} was put away, and a task runs only anew")
        for each in put_away
    ]
    return with_verdicts(removals, judge)


# The memory's form


def to_json(kept: QuarantinedContainer) -> dict[str, object]:
    """Return it as JSON, in whole milliseconds."""
    return {
        "countedMs": round(kept.counted_s * 1000),
        "atMs": round(kept.at_s * 1000),
        "boot": kept.boot,
        "untilMs": round(kept.until_s * 1000),
    }


def from_json(value: Mapping[str, object]) -> QuarantinedContainer:
    """Read back what ``to_json`` wrote.

    Raises:
        ValueError: *value* isn't that.
    """
    match value:
        case {
            "countedMs": int(counted),
            "atMs": int(at),
            "boot": str(boot),
            "untilMs": int(until),
        }:
            return QuarantinedContainer(counted / 1000, at / 1000, boot, until / 1000)
        case _:
            raise ValueError(f"not a container in quarantine: {value!r}")
