"""Drift: how a container differs from the desired state, as one word with a cause; and what a pass healed.

``DRIFT_RULES`` is an ordered table; the first match wins. This module does not decide on actions
(``core.planning.slot_plan`` does), and reads no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType

from controller.core.drift.failures import (
    STOPPED_OUTSIDE,
    explain,
    is_stopped_from_outside,
    why_unhealthy,
)
from controller.core.engine_api.comparable_fields import (
    LIMITS,
    MEMBERS_OF,
    SETTINGS,
    describe_difference,
    describe_limits,
    differing_settings,
    is_ignored,
)
from controller.core.engine_api.create_body import engine_restart
from controller.core.records import container_effects
from controller.model.desired.desired import Service
from controller.model.desired.plan import IN_PLACE, AnyAction, StartContainer
from controller.model.desired.spec.service import Boot, RestartPolicy, RunState
from controller.model.names import REVISION_DIGITS, revision_digits
from controller.model.observed import Container, ContainerState, LimitValue

#: The alteration of a container that hasn't the address of its slot.
ADDRESSES = "addresses"
#: Exit codes of programs that ended on a stop signal or were killed.
_STOPPED = frozenset({0, *(128 + number for number in (2, 9, 15))})
#: What an exit can mean if the engine doesn't restart a container, and no event shows who ended it.
_UNCLEAR = (
    ": it ended by itself, or was stopped with docker or the engine (trimtab can't tell which)"
)
#: States with a process: the container must be stopped before its removal.
ALIVE = frozenset({ContainerState.RUNNING, ContainerState.PAUSED, ContainerState.RESTARTING})
_DOWN = frozenset({ContainerState.CREATED, ContainerState.EXITED})


class Drift(StrEnum):
    """The difference between a container, or an empty slot, and the desired state."""

    #: The slot has no container.
    MISSING = "missing"
    #: The container has another revision, or is to be replaced by one of the same revision.
    STALE = "stale"
    #: Something outside trimtab changed the container.
    ALTERED = "altered"
    #: The container is down, but is declared to run.
    STOPPED = "stopped"
    #: The health check fails.
    UNHEALTHY = "unhealthy"
    #: No document declares the container.
    ORPHAN = "orphan"
    #: The document that could declare the container is unreadable.
    BLIND = "blind"
    #: The document declares other limits than the admitted ones.
    LIMITS = "limits"
    IN_SYNC = "in-sync"


@dataclass(frozen=True)
class ReplicaState:
    """A container with its declaration. A plan asks for the drift of each container several times."""

    container: Container
    #: None if no readable document declares the service.
    service: Service | None
    #: True if an unreadable document could declare the container.
    blind: bool = False
    #: Why the container is to be replaced although its revision is current.
    replace_reason: str = ""

    @property
    def is_surplus(self) -> bool:
        """Return True if no document declares the container's slot."""
        return self.service is None or not 1 <= self.container.slot <= self.service.spec.replicas

    @property
    def is_stale(self) -> bool:
        """Return True if the container's revision is not the declared one."""
        return self.service is not None and self.container.revision != self.service.revision

    @cached_property
    def drift(self) -> Drift:
        """The drift of the container: the first match in ``DRIFT_RULES``."""
        return drift_of(self)

    @cached_property
    def other_limits(self) -> Mapping[str, LimitValue]:
        """Declared limits with another value than at admission, by name in ``Settings``."""
        return {} if self.service is None else other_limits(self.container, self.service)

    @property
    def is_restart_requested(self) -> bool:
        """Return True if a person asked for the container's replacement."""
        restarting = None if self.service is None else self.service.restarting
        return restarting is not None and self.container.id in restarting.ids

    @property
    def is_declared_stopped(self) -> bool:
        """Return True if the service is declared Stopped."""
        return self.service is not None and self.service.spec.state is RunState.STOPPED

    @property
    def is_finished(self) -> bool:
        """Return True if the container ended, and the restart policy allows no restart."""
        return self.service is not None and is_finished(self.container, self.service)


def other_limits(container: Container, service: Service) -> Mapping[str, LimitValue]:
    """Return the declared limits that differ from the admitted ones, of a current container."""
    admitted = container.admitted
    if admitted is None or container.revision != service.revision:
        return {}
    others = service.limits.differing_from(admitted)
    return {name: v for name, v in others.items() if LIMITS[name] not in container.ignored}


#: In order; the first match wins.
DRIFT_RULES: tuple[tuple[Drift, Callable[[ReplicaState], bool]], ...] = (
    # First: while its document is unreadable, nothing else is known of a container.
    (Drift.BLIND, lambda r: r.blind),
    (Drift.ORPHAN, lambda r: r.is_surplus),
    # Containers of a stopped service only have to be down. Other differences matter at the start.
    (Drift.ALTERED, lambda r: r.is_declared_stopped and r.container.state in ALIVE),
    (Drift.IN_SYNC, lambda r: r.is_declared_stopped),
    (Drift.STALE, lambda r: r.is_stale or bool(r.replace_reason)),
    # Before finished: a restart by a person runs a finished task again.
    (Drift.STALE, lambda r: r.is_restart_requested),
    # A finished task stays finished, even if its container is altered.
    (Drift.IN_SYNC, lambda r: r.is_finished),
    # Before stopped: an altered container must not be started again as it is.
    (Drift.ALTERED, lambda r: bool(alterations(r.container))),
    (Drift.STOPPED, lambda r: not r.container.running),
    (Drift.UNHEALTHY, lambda r: r.container.health == "unhealthy"),
    # Last: an update in place interrupts nothing. A stopped container is updated before its start.
    (Drift.LIMITS, lambda r: bool(r.other_limits)),
    (Drift.IN_SYNC, lambda _: True),
)


def drift_of(replica: ReplicaState) -> Drift:
    """Return the drift of one container: the first match in ``DRIFT_RULES``."""
    return next(drift for drift, matches in DRIFT_RULES if matches(replica))


def is_finished(
    container: Container, service: Service, *, controller_restarts: bool = False
) -> bool:
    """Return True if a container ended, and the restart policy allows no restart.

    A stop by trimtab is no end: such a stop sets the restart policy to ``no``, and OnFailure is
    ``no`` only if the controller restarts the container itself. Then the broker's record of the stop
    counts.
    """
    if container.state is not ContainerState.EXITED:
        return False
    controller_restarts = controller_restarts or service.is_boot_ordered
    match service.spec.restart.policy:
        case RestartPolicy.ALWAYS:
            return False
        case RestartPolicy.ON_FAILURE:
            ours = (
                container.ending is not None and container.ending.role == "controller"
                if controller_restarts
                else container.settings.restart == "no"
            )
            return container.exit_code == 0 and not ours
        case RestartPolicy.NEVER:
            return True


def restart_of(service: Service, *, controller_restarts: bool = False) -> tuple[str, int]:
    """Return the restart policy, and its retries, for the engine to use on a slot's container.

    The policy is ``no`` if the controller restarts the slot's containers itself, with its own
    backoff.
    """
    return ("no", 0) if controller_restarts else engine_restart(service)


@dataclass(frozen=True, slots=True)
class Alteration:
    """A difference between a container and the admitted settings."""

    #: A field of ``Settings``, or a word such as ``paused``, ``aliases`` or ``violation``.
    what: str
    why: str
    #: True if ``core.drift.actions`` can undo the alteration while the container runs.
    in_place: bool = False


def alterations(container: Container) -> tuple[Alteration, ...]:
    """Return all differences between a container and its admitted settings."""
    if container.violation:
        # The broker refuses to start such a container again.
        why = explain(container) or "is ended by the broker"
        return (Alteration("violation", f"{container.name} {why}"),)
    if container.state is ContainerState.DEAD:
        return (Alteration("dead", "it is dead"),)
    paused = container.state is ContainerState.PAUSED
    differences = [Alteration("paused", "it is paused", in_place=True)] if paused else []
    now, admitted = container.settings, container.admitted
    if admitted is None:
        return (
            *differences,
            Alteration("admitted", "the inventory lacks its admitted settings"),
        )
    # A stop for good takes the policy. The start of the container brings it back.
    is_stopped = container.state is ContainerState.EXITED and now.restart == "no"
    for setting in differing_settings(now, admitted):
        if is_ignored(setting, now, container.ignored):
            continue
        if is_stopped and setting.name in ("restart", "restart_max"):
            continue
        in_place = setting.in_place(now, admitted)
        differences.append(
            Alteration(setting.name, describe_difference(setting, now, admitted), in_place=in_place)
        )
    if container.cut_off:
        # No rejoin is possible: the engine keeps a stale endpoint of the container.
        why = f"the engine has no place for it on {' and '.join(container.cut_off)}"
        differences.append(Alteration("endpoints", why))
    for network, names in foreign_aliases(container):
        why = f"it answers to {' and '.join(names)} on {network}"
        differences.append(Alteration("aliases", why, in_place=True))
    return (*differences, *_address_alterations(container))


def _address_alterations(container: Container) -> Iterable[Alteration]:
    for network, address in misplaced(container):
        why = f"it isn't at {address}, its address on {network}"
        yield Alteration(ADDRESSES, why, in_place=True)
    for network, address, holder in container.holders if container.state in _DOWN else ():
        if (network, address) in container.chosen:
            # No start is possible. The next container gets an address of the engine's choice.
            why = f"its address {address} on {network} is taken by the container {holder}"
            yield Alteration(ADDRESSES, why)


def still_ignored(container: Container) -> tuple[str, ...]:
    """Return the members that the engine dropped and still doesn't show, sorted."""
    if not container.ignored:
        return ()
    now, admitted = container.settings, container.admitted or container.settings
    compared = {MEMBERS_OF[each.name] for each in SETTINGS if each.name in MEMBERS_OF}
    differing = {MEMBERS_OF.get(each.name) for each in differing_settings(now, admitted)}
    return tuple(name for name in container.ignored if name not in compared or name in differing)


def misplaced(container: Container) -> Iterable[tuple[str, str]]:
    """Yield the networks in which a container answers to its service's name at another address than
    its slot's, with that address. A container without the name has no need of the address, and one
    of others may have it.
    """
    if container.state not in (ContainerState.RUNNING, ContainerState.PAUSED):
        return
    now, names = dict(container.addresses), dict(container.aliases)
    unable = {*container.cut_off, *(network for network, _, _ in container.holders)}
    for network, address in container.slot_addresses:
        named = container.key.name in names.get(network, ())
        if named and now.get(network, address) != address and network not in unable:
            yield network, address


def foreign_aliases(container: Container) -> Iterable[tuple[str, tuple[str, ...]]]:
    """Yield the names, by network, to which a container answers without being admitted to.

    A missing alias with the service's name is no alteration: the plan may add the name later.
    """
    networks = () if container.admitted is None else container.admitted.networks
    admitted = dict(container.admitted_aliases)
    for network, asked in container.aliases:
        own = {container.key.name, *admitted.get(network, ())}
        names = tuple(sorted(set(asked) - own))
        if names and network in networks:
            yield network, names


def is_healable(container: Container, deferred: Collection[str] = ()) -> bool:
    """Return True if a running or paused container is altered, and can be healed without a restart.

    Alterations whose ``what`` is in *deferred* don't count: their repair waits. A stopped container
    is replaced instead, at no loss. A container that the broker ended for a violation is never
    healed.
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
    """Return the digits of a revision that container names carry."""
    return revision_digits(revision)[:REVISION_DIGITS]


def why_stopped(container: Container, service: Service) -> str:
    """Return why a stopped container of the current revision is to be started."""
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
    if container.ending is not None and container.ending.role == container_effects.OUTSIDE:
        return f"{name} {explain(container)}"
    if service.is_boot_ordered:
        is_unclear = container.ending is None and container.exit_code in _STOPPED
        how = f"{explain(container)}{_UNCLEAR if is_unclear else ''}"
        return (
            f"{name} {how}; trimtab starts it again, as the engine doesn't ({why_ordered(service)})"
        )
    if container.ending is None and is_stopped_from_outside(
        container, service, controller_restarts=False
    ):
        return f"{name} {STOPPED_OUTSIDE}: it {explain(container)}"
    policy = service.spec.restart.policy.value
    return f"{name} {explain(container)}, restart policy is {policy}"


def why_ordered(service: Service) -> str:
    """Return why the controller, and not the engine, starts a service's containers."""
    if service.spec.restart.boot is Boot.ORDERED:
        return "restart.boot is Ordered"
    return "its Secrets must be there first"


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


def _why_orphan(container: Container, service: Service | None) -> str:
    if service is None:
        return f"{container.key.name} is no longer declared"
    return f"slot {container.slot} is beyond replicas {service.spec.replicas}"


def unhealthy_cause(container: Container) -> str:
    """Return the cause for an unhealthy container."""
    return f"{container.name} {why_unhealthy(container)}"


def cause_of(replica: ReplicaState) -> str:
    """Return the cause of a container's drift, as a plan shows it."""
    container, service = replica.container, replica.service
    match replica.drift:
        case Drift.BLIND:
            return f"{container.name} is left as it is: its document can't be read"
        case Drift.ORPHAN:
            return _why_orphan(container, service)
        case Drift.STALE:
            assert service is not None
            return replica.replace_reason or _why_stale(container, service)
        case Drift.ALTERED if replica.is_declared_stopped:
            return f"{container.name} is {container.state.value}, state Stopped is declared"
        case Drift.ALTERED:
            return "; ".join(each.why for each in alterations(container))
        case Drift.STOPPED:
            assert service is not None
            return why_stopped(container, service)
        case Drift.UNHEALTHY:
            return unhealthy_cause(container)
        case Drift.LIMITS:
            assert container.admitted is not None
            return describe_limits(container.admitted, replica.other_limits)
        case Drift.IN_SYNC | Drift.MISSING:
            return f"{container.name} is as declared"


def by_slot(containers: Iterable[Container]) -> dict[int, tuple[Container, ...]]:
    """Return the containers of a service by slot."""
    slots: dict[int, tuple[Container, ...]] = {}
    for container in containers:
        slots[container.slot] = (*slots.get(container.slot, ()), container)
    return slots


@dataclass(frozen=True, slots=True)
class SlotState:
    """A numbered slot of a service, and its containers."""

    number: int
    #: The container that fills the slot, or does once it is started. Its revision is current,
    #: and its alterations can be healed in place.
    current: Container | None
    #: Containers to remove once another container serves in the slot.
    extra: tuple[Container, ...]
    drift: Drift
    why: str

    @property
    def alive(self) -> tuple[Container, ...]:
        """The extra containers with a process."""
        return tuple(other for other in self.extra if other.state in ALIVE)


#: The preference among candidates: running first, then those closest to running.
_PREFERENCE = (
    *(ContainerState.RUNNING, ContainerState.PAUSED, ContainerState.RESTARTING),
    *(ContainerState.EXITED, ContainerState.CREATED),
)
_KEPT = frozenset({Drift.IN_SYNC, Drift.UNHEALTHY, Drift.STOPPED, Drift.LIMITS})


def slot_of(
    number: int,
    containers: tuple[Container, ...],
    service: Service,
    replace_reasons: Mapping[str, str] = MappingProxyType({}),
    deferred: Collection[str] = (),
    missing_cause: str = "",
) -> SlotState:
    """Return the state of one slot of a running service.

    Among containers of the current revision, a running one is preferred, then one without
    alterations, then the oldest start.

    *replace_reasons*: why containers are to be replaced, by id. *deferred*: alterations whose
    repair waits, by ``Alteration.what``. *missing_cause*: how the last container disappeared.
    """
    replicas = [
        ReplicaState(c, service, replace_reason=replace_reasons.get(c.id, "")) for c in containers
    ]
    # A stopped older attempt is not restarted in place of a container to be replaced: the two
    # would replace each other forever.
    replaced = any(r.replace_reason for r in replicas)
    fit = [
        r
        for r in replicas
        if _fits(r, deferred)
        and r.container.state in _PREFERENCE
        and not (replaced and _had_its_turn(r))
    ]
    if not fit:
        others = tuple(sorted(containers, key=_age))
        if not others:
            why = f": {missing_cause}" if missing_cause else ""
            missing = f"slot {number} is missing{why}"
            return SlotState(number, None, (), Drift.MISSING, missing)
        worst = min(replicas, key=_by_prominence)
        return SlotState(number, None, others, worst.drift, cause_of(worst))
    best = min(fit, key=_rank)
    others = tuple(sorted((c for c in containers if c is not best.container), key=_age))
    return SlotState(number, best.container, others, best.drift, cause_of(best))


def _fits(replica: ReplicaState, deferred: Collection[str]) -> bool:
    drift = replica.drift
    return drift in _KEPT or (drift is Drift.ALTERED and is_healable(replica.container, deferred))


def _had_its_turn(replica: ReplicaState) -> bool:
    exited = replica.container.state is ContainerState.EXITED
    return exited and replica.drift is Drift.STOPPED


def _rank(replica: ReplicaState) -> tuple[int, bool, tuple[bool, str, str, str]]:
    container, altered = replica.container, replica.drift is Drift.ALTERED
    return (_PREFERENCE.index(container.state), altered, _age(container))


def _age(container: Container) -> tuple[bool, str, str, str]:
    # RFC 3339 in UTC sorts as text. Containers without a start come last.
    return (not container.started_at, container.started_at, container.name, container.id)


def _by_prominence(replica: ReplicaState) -> tuple[bool, bool, str]:
    # The cause names a serving container, preferably one of the current revision.
    container = replica.container
    return (container.state not in ALIVE, replica.is_stale, container.name)


#: What is put back. Other differences are rollouts: of a changed document, or by a person.
_HEALED = frozenset({Drift.ALTERED, Drift.STOPPED, Drift.UNHEALTHY})


def heals(
    service: Service, containers: Iterable[Container], done: Collection[AnyAction], *, is_good: bool
) -> Iterator[Drift]:
    """Yield the drift of each slot that a pass put back.

    *containers* are those before the pass, *done* the actions of the pass. *is_good*: the service's
    revision served before, so that a missing container was lost and isn't new.
    """
    ended = {action.slot for action in done if isinstance(action, (StartContainer, *IN_PLACE))}
    found: dict[int, list[Drift]] = {slot: [] for slot in sorted(ended)}
    for container in containers:
        if container.slot in found:
            found[container.slot].append(ReplicaState(container, service).drift)
    for drifts in found.values():
        if not is_good or any(drift in {Drift.STALE, Drift.LIMITS} for drift in drifts):
            continue
        yield from [each for each in drifts if each in _HEALED][:1] or (
            [] if drifts else [Drift.MISSING]
        )
