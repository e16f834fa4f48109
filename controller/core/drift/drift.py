"""Drift: one word for how a replica differs from what is declared, and why.

Classification is an ordered table, first match wins. Nothing here decides what to do about it
(``core.planning.rollout``), and nothing here looks at a clock.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from controller.core.drift.failures import explain, is_stopped_from_outside
from controller.core.engine_api.comparable_fields import describe_difference, differing_settings
from controller.core.engine_api.translate import RESTART
from controller.model.desired.desired import Service
from controller.model.desired.spec import RestartPolicy, RunState
from controller.model.names import REVISION_DIGITS
from controller.model.observed import Container, ContainerState

#: Exit codes of programs that are asked to end, or killed.
_STOPPED = frozenset({0, *(128 + number for number in (2, 9, 15))})
#: Its process is there, so it must be stopped before it is removed.
ALIVE = frozenset({ContainerState.RUNNING, ContainerState.PAUSED, ContainerState.RESTARTING})


class Drift(StrEnum):
    """How something observed differs from what is declared."""

    MISSING = "missing"  # a slot without a container
    STALE = "stale"  # of another revision, or to be replaced by one of the same
    ALTERED = "altered"  # changed from outside
    STOPPED = "stopped"  # not running, and should
    UNHEALTHY = "unhealthy"  # its check fails
    ORPHAN = "orphan"  # no longer declared
    BLIND = "blind"  # what declares it couldn't be read
    IN_SYNC = "in-sync"


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """A container beside what is declared for it.

    ``service`` is None when none is declared; ``blind`` says that a document that couldn't be
    read may declare it; ``replace_reason`` why it must be replaced though its revision is right.
    """

    container: Container
    service: Service | None
    blind: bool = False
    replace_reason: str = ""

    @property
    def spare(self) -> bool:
        """Tell whether nothing declares its slot."""
        return self.service is None or not 1 <= self.container.slot <= self.service.spec.replicas

    @property
    def stale(self) -> bool:
        """Tell whether it is of another revision than the declared one."""
        return self.service is not None and self.container.revision != self.service.revision

    @property
    def leaving(self) -> bool:
        """Tell whether somebody asked for it to be replaced."""
        restarting = None if self.service is None else self.service.restarting
        return restarting is not None and self.container.id in restarting.ids

    @property
    def resting(self) -> bool:
        """Tell whether its service is declared not to run."""
        return self.service is not None and self.service.spec.state is RunState.STOPPED

    @property
    def is_finished(self) -> bool:
        """Tell whether it ran, and by its restart policy isn't started again."""
        return self.service is not None and is_finished(self.container, self.service)


#: In order, first match wins.
DRIFT_RULES: tuple[tuple[Drift, Callable[[ReplicaState], bool]], ...] = (
    # Never call a replica an orphan, or anything else, while its document can't be read.
    (Drift.BLIND, lambda r: r.blind),
    (Drift.ORPHAN, lambda r: r.spare),
    # A stopped service's replicas are only asked to be down; what else differs waits for a start.
    (Drift.ALTERED, lambda r: r.resting and r.container.state in ALIVE),
    (Drift.IN_SYNC, lambda r: r.resting),
    (Drift.STALE, lambda r: r.stale or bool(r.replace_reason)),
    # Before finished: who asks for a restart wants a task to run again, too.
    (Drift.STALE, lambda r: r.leaving),
    # A task that is done stays done, whatever happens to its remains.
    (Drift.IN_SYNC, lambda r: r.is_finished),
    # Before stopped: a changed container must not be started again as it is.
    (Drift.ALTERED, lambda r: bool(alterations(r.container))),
    (Drift.STOPPED, lambda r: not r.container.running),
    (Drift.UNHEALTHY, lambda r: r.container.health == "unhealthy"),
    (Drift.IN_SYNC, lambda _: True),
)


def drift_of(replica: ReplicaState) -> Drift:
    """Return the word for one replica: that of the first rule that matches."""
    return next(drift for drift, matches in DRIFT_RULES if matches(replica))


def is_finished(container: Container, service: Service) -> bool:
    """Tell whether a container ran to its end, so that its restart policy leaves it.

    A stop of ours isn't an end: it set the restart policy to `no`, which OnFailure's own isn't.
    """
    if container.state is not ContainerState.EXITED:
        return False
    match service.spec.restart.policy:
        case RestartPolicy.ALWAYS:
            return False
        case RestartPolicy.ON_FAILURE:
            return container.exit_code == 0 and container.settings.restart != "no"
        case RestartPolicy.NEVER:
            return True


def restart_of(service: Service, *, controller_restarts: bool = False) -> tuple[str, int]:
    """Return the engine's restart policy that a slot's container should have now.

    A slot that was taken over is restarted by the controller, with its backoff, and so not by
    the engine.
    """
    return ("no", 0) if controller_restarts else RESTART[service.spec.restart.policy]


@dataclass(frozen=True, slots=True)
class Alteration:
    """One thing that isn't as admitted: which (a field of ``Settings``, or its own word), and why.

    ``in_place``: it can be put back where it stands, by ``core.drift.repair``.
    """

    what: str
    why: str
    in_place: bool = False


def alterations(container: Container) -> tuple[Alteration, ...]:
    """Return every way in which a container isn't what was admitted."""
    if container.violation:
        # The broker has it started no more.
        why = explain(container) or "is ended by the broker"
        return (Alteration("violation", f"{container.name} {why}"),)
    if container.state is ContainerState.DEAD:
        return (Alteration("dead", "it is dead"),)
    paused = container.state is ContainerState.PAUSED
    found = [Alteration("paused", "it is paused", in_place=True)] if paused else []
    now, admitted = container.settings, container.admitted
    if admitted is None:
        return (
            *found,
            Alteration("admitted", "the inventory doesn't know with what it was admitted"),
        )
    for setting in differing_settings(now, admitted):
        in_place = setting.in_place(now, admitted)
        found.append(
            Alteration(setting.name, describe_difference(setting, now, admitted), in_place=in_place)
        )
    if container.cut_off:
        # Not to be joined again: what the engine left of its place is in the way.
        why = f"the engine has no place for it on {' and '.join(container.cut_off)}"
        found.append(Alteration("endpoints", why))
    for network, names in foreign_aliases(container):
        why = f"it answers to {' and '.join(names)} on {network}"
        found.append(Alteration("aliases", why, in_place=True))
    return tuple(found)


def foreign_aliases(container: Container) -> Iterable[tuple[str, tuple[str, ...]]]:
    """Yield the names that a container answers to and shouldn't, by network.

    That it doesn't answer to its service's name (yet) is no alteration.
    """
    networks = () if container.admitted is None else container.admitted.networks
    for network, asked in container.aliases:
        names = tuple(sorted(set(asked) - {container.key.name}))
        if names and network in networks:
            yield network, names


def is_healable(container: Container, deferred: Collection[str] = ()) -> bool:
    """Tell whether a container is altered, and can be put back in place while it serves.

    Alterations that are *deferred* (by their words) keep it where it is: they are left for now.

    One that is down is made anew: nothing is lost by that. What the broker stopped for a violation
    isn't changed any more.
    """
    altered = alterations(container)
    there = container.state in (ContainerState.RUNNING, ContainerState.PAUSED)
    return (
        bool(altered)
        and there
        and not container.violation
        and all(a.in_place or a.what in deferred for a in altered)
    )


def short_revision(revision: str) -> str:
    """Return the digits of a revision that names carry."""
    return revision.removeprefix("v1:")[:REVISION_DIGITS]


def why_stopped(container: Container, service: Service) -> str:
    """Return why a container of the wanted revision that doesn't run should be started."""
    name = container.name
    if container.state is ContainerState.RESTARTING:
        return f"the engine is restarting {name}, which {explain(container)}"
    if container.state is ContainerState.REMOVING:
        return f"{name} is being removed"
    if container.state is ContainerState.CREATED:
        return f"{name} {explain(container) or 'was never started'}"
    if container.settings.restart == "no" and restart_of(service)[0] != "no":
        on_purpose = "was stopped on purpose" if _was_stopped(container) else explain(container)
        return f"{name} {on_purpose}, and should run"
    if container.ending is None and is_stopped_from_outside(
        container, service, controller_restarts=False
    ):
        return f"{name} was stopped from outside: it {explain(container)}"
    policy = service.spec.restart.policy.value
    return f"{name} {explain(container)}, restart policy is {policy}"


def _was_stopped(container: Container) -> bool:
    """Return True if trimtab stopped a container, as far as the broker knows or its exit shows."""
    if container.ending is not None:
        return container.ending.role == "controller"
    return container.exit_code in _STOPPED and not container.oom_killed


def _why_stale(container: Container, service: Service) -> str:
    if container.revision != service.revision:
        why = f": {service.because}" if service.because else ""
        return f"revision is {short_revision(container.revision)}, want {short_revision(service.revision)}{why}"
    assert service.restarting is not None, f"{container.name} isn't stale"
    return f"restart asked by {service.restarting.by}"


def unhealthy_cause(container: Container) -> str:
    """Return one sentence on a container that is unhealthy."""
    why = f": {container.complaint}" if container.complaint else ""
    return f"{container.name} is unhealthy{why}"


def cause_of(replica: ReplicaState) -> str:
    """Return one sentence on why a replica has its word."""
    container, service = replica.container, replica.service
    match drift_of(replica):
        case Drift.BLIND:
            return f"{container.name} is left as it is: what declares it can't be read"
        case Drift.ORPHAN if service is None:
            return f"{replica.container.key.name} is no longer declared"
        case Drift.ORPHAN:
            assert service is not None
            return f"slot {container.slot} is beyond replicas {service.spec.replicas}"
        case Drift.STALE:
            assert service is not None
            return replica.replace_reason or _why_stale(container, service)
        case Drift.ALTERED if replica.resting:
            return f"{container.name} is {container.state.value}, state Stopped is declared"
        case Drift.ALTERED:
            return "; ".join(each.why for each in alterations(container))
        case Drift.STOPPED:
            assert service is not None
            return why_stopped(container, service)
        case Drift.UNHEALTHY:
            return unhealthy_cause(container)
        case Drift.IN_SYNC | Drift.MISSING:
            return f"{container.name} is as declared"


@dataclass(frozen=True, slots=True)
class SlotState:
    """A numbered place of a service that should run, and the containers in it.

    ``keep`` is the one that fills it, or can by being started: of the wanted revision, and not
    altered beyond what can be healed where it stands. ``extra`` are to go, once something runs in their place.
    """

    number: int
    current: Container | None
    extra: tuple[Container, ...]
    drift: Drift
    why: str

    @property
    def alive(self) -> tuple[Container, ...]:
        """The others whose process is there."""
        return tuple(other for other in self.extra if other.state in ALIVE)


#: Which of several candidates to keep: the one that runs, else the one that is nearest to it.
_RANK = {
    state: rank
    for rank, state in enumerate(
        (
            ContainerState.RUNNING,
            ContainerState.PAUSED,
            ContainerState.RESTARTING,
            ContainerState.EXITED,
            ContainerState.CREATED,
        )
    )
}
_KEPT = frozenset({Drift.IN_SYNC, Drift.UNHEALTHY, Drift.STOPPED})


def slot_of(
    number: int,
    containers: tuple[Container, ...],
    service: Service,
    replace_reasons: Mapping[str, str] = MappingProxyType({}),
    deferred: Collection[str] = (),
    missing_cause: str = "",
) -> SlotState:
    """Return one slot of a running service, with the word for it.

    *containers* are those of that slot, *replace_reason* why some must be replaced, by id, *deferred*
    which alterations are left for now, and *missing_cause* what became of its last container. Of several
    of the wanted revision the best is kept: one that runs before one that doesn't, what is as
    admitted before what must be healed, and of those the one that was started first.
    """
    replicas = [
        ReplicaState(c, service, replace_reason=replace_reasons.get(c.id, "")) for c in containers
    ]
    # What had its turn before one that must be replaced isn't started again in its place: the two
    # would take turns for ever.
    replaced = any(r.replace_reason for r in replicas)
    fit = [
        r
        for r in replicas
        if _fits(r, deferred) and r.container.state in _RANK and not (replaced and _had_its_turn(r))
    ]
    if not fit:
        others = tuple(sorted(containers, key=_age))
        if not others:
            why = f": {missing_cause}" if missing_cause else ""
            missing = f"slot {number} is missing{why}"
            return SlotState(number, None, (), Drift.MISSING, missing)
        worst = min(replicas, key=_by_prominence)
        return SlotState(number, None, others, drift_of(worst), cause_of(worst))
    best = min(fit, key=_rank)
    others = tuple(sorted((c for c in containers if c is not best.container), key=_age))
    return SlotState(number, best.container, others, drift_of(best), cause_of(best))


def _fits(replica: ReplicaState, deferred: Collection[str]) -> bool:
    drift = drift_of(replica)
    return drift in _KEPT or (drift is Drift.ALTERED and is_healable(replica.container, deferred))


def _had_its_turn(replica: ReplicaState) -> bool:
    exited = replica.container.state is ContainerState.EXITED
    return exited and drift_of(replica) is Drift.STOPPED


def _rank(replica: ReplicaState) -> tuple[int, bool, tuple[bool, str, str, str]]:
    container, altered = replica.container, drift_of(replica) is Drift.ALTERED
    return (_RANK[container.state], altered, _age(container))


def _age(container: Container) -> tuple[bool, str, str, str]:
    # RFC 3339 in UTC sorts as text; what was never started comes last.
    return (not container.started_at, container.started_at, container.name, container.id)


def _by_prominence(replica: ReplicaState) -> tuple[bool, bool, str]:
    # The cause names what serves now, and of those what is of the wanted revision.
    container = replica.container
    return (container.state not in ALIVE, replica.stale, container.name)
