"""Quarantine: a pruned container is stopped and kept for a while, so a mistake can be undone.

Quarantine time counts while the container is observed down, on the monotonic clock of each boot.
Setting the wall clock therefore never shortens a quarantine. Unknown time, such as host downtime,
does not count: a container is kept too long rather than too short. If the service is declared
again, the ordinary rules apply (``core.planning.rollout_waves``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from controller.core.drift.actions import (
    ContainerHandle,
    Judge,
    judged_sequence,
    stop_and_remove,
    stop_for_good,
    with_verdicts,
)
from controller.core.drift.classify import ALIVE, ReplicaState, cause_of
from controller.model.desired.desired import Service
from controller.model.desired.plan import AnyAction, QuarantineWait
from controller.model.desired.spec.service import RestartPolicy, RunState
from controller.model.names import Key
from controller.model.observed import Container, ContainerState
from controller.model.quantities import format_duration_ms, format_instant
from controller.model.records import Precondition

#: Smaller changes of a quarantine are neither shown nor stored.
GRAIN_S = 60.0


@dataclass(frozen=True, slots=True)
class QuarantineRules:
    """The length of a quarantine, and the current boot of the host."""

    #: 0: pruned containers are removed at once.
    keep_s: float = 0.0
    boot: str = ""


#: The default: no quarantine.
AT_ONCE = QuarantineRules()


@dataclass(frozen=True, slots=True)
class Moment:
    """The current time on two clocks."""

    #: Wall clock, for people.
    wall_s: float
    #: Monotonic clock of ``boot``.
    monotonic_s: float
    boot: str


@dataclass(frozen=True, slots=True)
class QuarantinedContainer:
    """The progress of one container's quarantine."""

    #: Seconds for which the container was observed down.
    counted_s: float
    #: Monotonic time of the last count. Meaningless in any boot but ``boot``.
    at_s: float
    boot: str
    #: Wall clock time of the end, only for people.
    until_s: float


@dataclass(frozen=True, slots=True)
class QuarantineLeft:
    """The rest of a container's quarantine."""

    seconds: float
    #: The end as text.
    until: str


@dataclass(frozen=True, slots=True)
class Quarantine:
    """The quarantines, as input for a plan."""

    keep_s: float = 0.0
    #: By container id.
    left: Mapping[str, QuarantineLeft] = field(default_factory=dict)


NO_QUARANTINE = Quarantine()


def quarantine_at(
    kept: Mapping[str, QuarantinedContainer], *, keep_s: float, now: Moment
) -> Quarantine:
    """Return the rest of each quarantine at *now*."""
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
    """Return for how long a container was observed down, in seconds."""
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
    """Return the quarantines after an observation of *containers*.

    Stopped containers of *pruned* services enter quarantine. Running and missing containers leave.
    """
    if keep_s <= 0:
        return {}
    quarantines = dict(kept)
    for container in containers:
        before = kept.get(container.id)
        if container.state is not ContainerState.EXITED:
            quarantines.pop(container.id, None)
        elif before is not None:
            quarantines[container.id] = _counted(before, keep_s=keep_s, now=now)
        elif container.key in pruned:
            until_s = now.wall_s + keep_s
            quarantines[container.id] = QuarantinedContainer(
                0.0, now.monotonic_s, now.boot, until_s
            )
    return quarantines


def _counted(kept: QuarantinedContainer, *, keep_s: float, now: Moment) -> QuarantinedContainer:
    counted = counted_s(kept, now)
    until_s = now.wall_s + max(0.0, keep_s - counted)
    if abs(until_s - kept.until_s) > GRAIN_S:
        kept = replace(kept, until_s=until_s)
    if kept.boot == now.boot and counted - kept.counted_s < GRAIN_S:
        return kept
    return replace(kept, counted_s=counted, at_s=now.monotonic_s, boot=now.boot)


# Actions


def removal_actions(
    containers: Iterable[Container], judge: Judge, quarantine: Quarantine = NO_QUARANTINE
) -> list[AnyAction]:
    """Return the actions to remove the containers of an undeclared service, after their quarantine."""
    actions: list[AnyAction] = []
    for container in containers:
        cause = cause_of(ReplicaState(container, None))
        actions += judged_sequence(_removal(container, cause, quarantine), judge)
    return actions


def _removal(container: Container, cause: str, quarantine: Quarantine) -> list[AnyAction]:
    kept = container.state in ALIVE or container.state is ContainerState.EXITED
    left = quarantine.left.get(container.id)
    if not kept or quarantine.keep_s <= 0:
        return stop_and_remove(container, None, cause)
    if container.state not in ALIVE and left is not None and left.seconds <= 0:
        return [ContainerHandle.of(container).remove(f"{cause}, and its quarantine is over")]
    # A restart of the engine must not start a quarantined container.
    return [*stop_for_good(container, None, cause), _rest(container, quarantine.keep_s, left)]


def _rest(container: Container, keep_s: float, left: QuarantineLeft | None) -> QuarantineWait:
    duration = f"for {format_duration_ms(round(keep_s * 1000))}"
    if container.state not in ALIVE and left is not None:
        duration = f"until {left.until}"
    return QuarantineWait(
        object=container.key,
        target=container.name,
        cause=f"quarantined {duration}, then removed",
        slot=container.slot,
        precondition=Precondition(id=container.id, revision=container.revision),
    )


def expired_tasks(
    service: Service, containers: Iterable[Container], quarantine: Quarantine
) -> tuple[Container, ...]:
    """Return the quarantined containers of a task that is declared again.

    With the restart policy Never, a stopped container looks like a finished one. A new container
    runs the task again.
    """
    never = service.spec.restart.policy is RestartPolicy.NEVER
    if not never or service.spec.state is not RunState.RUNNING:
        return ()
    expired = quarantine.left.keys()
    return tuple(c for c in containers if c.id in expired and c.state is ContainerState.EXITED)


def renewal_actions(expired: Iterable[Container], judge: Judge) -> list[AnyAction]:
    """Return the removals of expired task containers."""
    removals = [
        ContainerHandle.of(each).remove(
            f"{each.name} was quarantined; a task needs a new container"
        )
        for each in expired
    ]
    return with_verdicts(removals, judge)
