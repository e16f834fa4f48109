"""Slots: the actions that bring one place of a service to run, and what they wait for.

What serves in a slot is stopped for a successor only, and then as late as can be: its image is there,
it is admitted and created and, with StartFirst, available (``core.drift.availability``); until then no name
leads to it. An action that policy denies is shown, and nothing that depends on it is done.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from controller.core.drift import host_ports
from controller.core.drift.actions import (
    ContainerHandle,
    Judge,
    attach_service_alias,
    barrier,
    delay,
    denied,
    judged,
    stop_and_remove,
    stop_for_good,
    until_denied,
)
from controller.core.drift.availability import AvailabilityWord, at_first_sight
from controller.core.drift.drift import (
    Drift,
    ReplicaState,
    SlotState,
    alterations,
    drift_of,
    restart_of,
    why,
)
from controller.core.drift.failures import explain
from controller.core.drift.repair import heal
from controller.core.engine_api.translate import RESTART, joined_networks
from controller.core.planning.context import NOTHING, PlanContext
from controller.core.planning.ordering import NONE, Blocker, Blockers
from controller.core.planning.prerequisites import Prerequisites
from controller.core.planning.successor import at_once, create_of, next_name, order_of
from controller.model.desired.desired import Service
from controller.model.desired.plan import AnyAction, Barrier, ConnectNetwork
from controller.model.desired.spec import Order, RestartPolicy
from controller.model.errors import Problem
from controller.model.names import Key
from controller.model.observed import Container, ContainerState, HostPort
from controller.model.quantities import format_duration_ms

#: What is set anew at each stop and start.
RESTARTS = frozenset({"restart", "restart_max"})


@dataclass(frozen=True, slots=True)
class ServiceContext:
    """The inputs of the plan of one service."""

    service: Service
    containers: tuple[Container, ...]  # all of the service's, by slot and name
    prerequisites: Prerequisites
    judge: Judge
    prunable: bool
    plan_context: PlanContext = NOTHING
    blockers: Blockers = NONE
    listening: frozenset[HostPort] = frozenset()
    resource_conflict: Blocker | None = None  # others hold what only one container can have
    volume_lost: frozenset[str] = (
        frozenset()
    )  # ids of those whose volume another service has by now

    @property
    def key(self) -> Key:
        """The service's key."""
        return self.service.key

    @property
    def parallelism(self) -> int:
        """How many slots may be on their way at a time."""
        return at_once(self.service)

    def availability_of(self, container: Container) -> AvailabilityWord:
        """Return how far a container is."""
        return (self.plan_context.availability.get(container.id) or at_first_sight(container)).word

    def backoff_reason(self, slot: int) -> str | None:
        """Return why a slot isn't tried now, if so."""
        return self.plan_context.backoff.get((self.key, slot))

    def deferred_repairs(self, slot: int) -> Mapping[str, str]:
        """Return which alterations in a slot aren't healed now, and why."""
        return self.plan_context.contended.get((self.key, slot), {})

    def is_restarted_by_controller(self, slot: int) -> bool:
        """Tell whether the controller restarts a slot's containers, and not the engine."""
        return (self.key, slot) in self.plan_context.controller_restarts


@dataclass(frozen=True, slots=True)
class SlotPlan:
    """The actions for one slot: what begins it and, once its gate is open, what ends it.

    ``blocked``: it can't be brought to run by them.
    """

    slot: int
    before: list[AnyAction]
    barrier: Barrier | None = None
    after: list[AnyAction] = field(default_factory=list)
    problems: tuple[Problem, ...] = ()
    blocked: bool = False

    @property
    def pending(self) -> bool:
        """Tell whether its slot needs room: it doesn't serve as declared yet."""
        return self.blocked or self.barrier is not None


def plan_current(slot: SlotState, context: ServiceContext) -> SlotPlan:
    """Return what brings one slot to run, and then clears away what isn't needed any more."""
    current, service = slot.current, context.service
    if current is None:
        for other in slot.extra:
            # Its name, port and addresses aren't free yet.
            if other.state is ContainerState.REMOVING and other.revision == service.revision:
                return blocked_plan(slot, context, f"{other.name} is being removed", other.name)
        return replace_slot(slot, context)
    controller_restarts = context.is_restarted_by_controller(slot.number)
    if current.running and needs_health_restart(current, context):
        return _restart_unhealthy(slot, current, context)
    if has_process(current):
        return _plan_running(slot, current, context)
    if is_finished_task(current, service, controller_restarts=controller_restarts):
        # A finished task isn't the controller's to restart; what we changed is given back.
        before = judged(_restart_policy_actions(current, restart_of(service)), context.judge)
        return SlotPlan(slot.number, until_denied(before), after=_cleanup_actions(slot, context))
    if current.state is ContainerState.RESTARTING:
        policy = restart_of(service, controller_restarts=controller_restarts)
        steps = until_denied(judged(_restart_policy_actions(current, policy), context.judge))
        held = context.backoff_reason(slot.number) or slot.why
        waiting = blocked_plan(slot, context, held, current.name)
        return replace(waiting, before=[*steps, *waiting.before])
    return replace_slot(slot, context)


def has_process(container: Container) -> bool:
    """Tell whether it has a process that serves, or will once it is thawed."""
    return container.running or container.state is ContainerState.PAUSED


def _plan_running(slot: SlotState, current: Container, context: ServiceContext) -> SlotPlan:
    """Return what gives a slot to the container that runs in it, put back in place if need be."""
    service, judge = context.service, context.judge
    policy = restart_of(
        service, controller_restarts=context.is_restarted_by_controller(slot.number)
    )
    # Nothing else serves: better one that isn't ready than none.
    alone = not any(other.running for other in slot.alive)
    available = context.availability_of(current) is AvailabilityWord.AVAILABLE
    healing, problems = healing_of(current, context, announced=alone or available)
    before = _restart_policy_actions(current, policy, context.deferred_repairs(slot.number))
    rejoined = {a.network for a in healing if isinstance(a, ConnectNetwork) and a.aliases}
    nameless = [n for n in _unannounced(current, context) if n not in rejoined]
    naming = attach_service_alias(ContainerHandle.seen(current), service, nameless)
    before += naming if alone else []
    after = [] if alone else judged(naming, judge)
    return SlotPlan(
        slot.number,
        # Each by itself: one that policy denies keeps no other from being put back.
        [*judged(healing, judge), *until_denied(judged(before, judge))],
        barrier=None if available else _available_barrier(slot, current.name, context),
        after=until_denied([*after, *_cleanup_actions(slot, context)]),
        problems=problems,
    )


def healing_of(
    container: Container, context: ServiceContext, *, announced: bool
) -> tuple[list[AnyAction], tuple[Problem, ...]]:
    """Return what puts a container that serves back in place, and why a network can't be joined."""
    prerequisites, service = context.prerequisites, context.service
    admitted = container.admitted.networks if container.admitted else ()
    missing = not set(admitted) <= set(container.settings.networks)
    problems = prerequisites.problems(service, creating=False) if missing else ()
    spared = context.deferred_repairs(container.slot)
    actions = list(heal(container, announced=announced, joining=not problems, spared=spared))
    joins = (i for i, action in enumerate(actions) if isinstance(action, ConnectNetwork))
    at = next(joins, len(actions))
    # What isolates it doesn't wait for what must be made first.
    joined = missing and not problems and "networks" not in spared
    made = prerequisites.missing(service, creating=False) if joined else ()
    left = {spared[each.what]: None for each in alterations(container) if each.what in spared}
    waits = [
        delay(service.key, target=container.name, slot=container.slot, cause=why) for why in left
    ]
    return [*actions[:at], *made, *actions[at:], *waits], problems


def _unannounced(container: Container, context: ServiceContext) -> tuple[str, ...]:
    """Return the networks on which a container doesn't answer to its service's name."""
    known = dict(container.aliases)
    wanted = joined_networks(context.service, context.prerequisites.names)
    return tuple(n for n in wanted if n in known and context.key.name not in known[n])


def _available_barrier(slot: SlotState, target: str, context: ServiceContext) -> Barrier:
    seen = None if slot.current is None else context.plan_context.availability.get(slot.current.id)
    spec = context.service.spec
    if seen is not None and seen.why:
        cause = seen.why
    else:
        word = "healthy" if spec.healthcheck is not None else "up"
        needed = spec.rollout.min_healthy
        cause = f"must be {word}" + (f" for {format_duration_ms(needed)}" if needed else "")
    return barrier(context.key, target=target, slot=slot.number, cause=cause)


def needs_health_restart(container: Container, context: ServiceContext) -> bool:
    """Tell whether a container that runs is restarted since it is unhealthy.

    One that is joined to a network again isn't: what was cut off is asked anew before it is judged.
    """
    restarts = context.service.spec.restart.policy is not RestartPolicy.NEVER
    unhealthy = context.availability_of(container) is AvailabilityWord.UNHEALTHY
    return restarts and unhealthy and not _is_joined_again(container, context)


def _is_joined_again(container: Container, context: ServiceContext) -> bool:
    """Tell whether a container is to be joined to a network that it isn't in."""
    healing, _ = healing_of(container, context, announced=True)
    joins = [a for a in judged(healing, context.judge) if isinstance(a, ConnectNetwork)]
    return any(not denied(action) for action in joins)


def _restart_unhealthy(slot: SlotState, current: Container, context: ServiceContext) -> SlotPlan:
    """Return what restarts a container that is unhealthy."""
    held = context.backoff_reason(slot.number)
    if held is not None:
        return blocked_plan(slot, context, held, current.name)
    actions = restart_actions(current, context, why(ReplicaState(current, context.service)))
    if any(denied(action) for action in actions):
        return SlotPlan(slot.number, [a for a in actions if denied(a)], blocked=True)
    # It isn't started again as somebody altered it.
    healing, _ = healing_of(current, context, announced=True)
    actions = [*judged(healing, context.judge), *actions]
    waits = _available_barrier(replace(slot, current=None), current.name, context)
    return SlotPlan(slot.number, actions, barrier=waits, after=_cleanup_actions(slot, context))


def restart_actions(container: Container, context: ServiceContext, cause: str) -> list[AnyAction]:
    """Return what stops a container and starts it again, as policy judges it."""
    handle = ContainerHandle.seen(container)
    policy = restart_of(
        context.service, controller_restarts=context.is_restarted_by_controller(container.slot)
    )
    actions = [*stop_for_good(container, context.service, cause), handle.start(cause)]
    if policy[0] != "no":
        actions.append(handle.restart(policy, f"restart policy is no, want {policy[0]}"))
    return judged(actions, context.judge)


def is_finished_task(container: Container, service: Service, *, controller_restarts: bool) -> bool:
    """Tell whether a task has ended, also one whose restart policy we took to ourselves."""
    ended = container.state is ContainerState.EXITED and container.exit_code == 0
    task = service.spec.restart.policy is RestartPolicy.ON_FAILURE
    return ReplicaState(container, service).finished or (controller_restarts and task and ended)


def _restart_policy_actions(
    container: Container, policy: tuple[str, int], spared: Collection[str] = ()
) -> list[AnyAction]:
    # Compared by name: the count comes with it, and engines differ in how they show it.
    altered = any(each.what in RESTARTS for each in alterations(container))
    if altered and RESTARTS & set(spared):
        return []
    if container.settings.restart == policy[0] and not altered:
        return []
    cause = f"restart policy is {container.settings.restart}, want {policy[0]}"
    return [ContainerHandle.seen(container).restart(policy, cause)]


def blocked_plan(slot: SlotState, context: ServiceContext, cause: str, target: str) -> SlotPlan:
    """Return the steps of a slot in which nothing is done for now, and why."""
    action = delay(context.key, target=target, slot=slot.number, cause=cause)
    return SlotPlan(slot.number, [action], blocked=True)


def replace_slot(slot: SlotState, context: ServiceContext) -> SlotPlan:
    """Return the steps in which a successor takes a slot over: created if need be, and started."""
    service, current = context.service, slot.current
    problems = context.prerequisites.problems(service, creating=current is None)
    if problems:
        return SlotPlan(slot.number, [], problems=problems, blocked=True)
    held = context.backoff_reason(slot.number)
    if held is not None:
        return blocked_plan(slot, context, held, container_name_in(slot, context))

    if (resource_conflict := context.resource_conflict) is not None:
        name = container_name_in(slot, context)
        return SlotPlan(
            slot.number,
            [resource_conflict.wait(context.key, target=name, slot=slot.number)],
            blocked=True,
        )

    port = host_ports.taken(service, context.containers, context.listening)
    if port is not None and slot.alive:
        name = current.name if current else next_name(service, slot.number, context.containers)
        cause = f"port {port.port} on {port.address} is taken by another program"
        return blocked_plan(slot, context, cause, name)

    stopped = _containers_to_stop_first(slot, context)
    beside = len(stopped) < len(slot.alive)
    prepare: list[AnyAction] = list(
        context.prerequisites.missing(service, creating=current is None)
    )
    naming: list[AnyAction] = []
    if current is None:
        create = create_of(
            service,
            context.prerequisites,
            slot=slot.number,
            containers=context.containers,
            cause=slot.why,
            announced=not beside,
        )
        prepare.append(create)
        handle, has = ContainerHandle.planned(create), RESTART[service.spec.restart.policy][0]
        if beside:
            wanted = joined_networks(service, context.prerequisites.names)
            naming = attach_service_alias(handle, service, wanted)
    else:
        handle, has = ContainerHandle.seen(current), current.settings.restart
        naming = attach_service_alias(handle, service, _unannounced(current, context))
    stops = [
        a for o in stopped for a in stop_for_good(o, service, _removal_cause(o, slot, context))
    ]
    surplus = _surplus_replacements(slot, context, stopped)
    stops += [
        a for o in surplus for a in stop_and_remove(o, service, _removal_cause(o, slot, context))
    ]
    start = _start_actions(slot, context, handle, has)
    remains = _leftovers(slot, service)
    prepare += [ContainerHandle.seen(o).remove(_removal_cause(o, slot, context)) for o in remains]
    gone = (*remains, *surplus)
    # It is named only when it runs: one that is down and off its network couldn't be put back.
    actions = judged([*prepare, *stops, *start, *([] if beside else naming)], context.judge)
    after = judged(naming if beside else [], context.judge)
    refused = [action for action in (*actions, *after) if denied(action)]
    if refused:
        # Nothing is pulled, made or stopped for a successor that won't be.
        return SlotPlan(slot.number, refused, blocked=True)
    if current is None and beside and service.image_volumes is None:
        # A volume that the image declares may not be written to by two containers at once.
        missing = [action for action in actions if action.slot == 0]
        cause = f"which volumes {service.spec.image} declares is known once it is here"
        unknown = delay(context.key, target=handle.name, slot=slot.number, cause=cause)
        return SlotPlan(slot.number, [*missing, unknown], blocked=True)
    return SlotPlan(
        slot.number,
        actions,
        barrier=_available_barrier(replace(slot, current=None), handle.name, context),
        after=[*after, *_cleanup_actions(slot, context, stopped=stopped, gone=gone)],
    )


def container_name_in(slot: SlotState, context: ServiceContext) -> str:
    """Return the name of the container that a slot gets, or has."""
    if slot.current is not None:
        return slot.current.name
    return next_name(context.service, slot.number, context.containers)


def _containers_to_stop_first(slot: SlotState, context: ServiceContext) -> tuple[Container, ...]:
    """Return what is stopped before a successor starts: with StartFirst what doesn't serve well."""
    if order_of(context.service) is Order.STOP_FIRST:
        return slot.alive
    return tuple(
        other
        for other in slot.alive
        if _is_in_the_way(other, slot)
        or (
            context.availability_of(other) is AvailabilityWord.UNHEALTHY
            # What was cut off is asked anew before it is judged.
            and not _is_joined_again(other, context)
        )
    )


def _is_in_the_way(container: Container, slot: SlotState) -> bool:
    """Tell whether a container is cut off from its networks and isn't needed on the others.

    It still holds the addresses that it had there, which the engine gives to the next one.
    """
    nowhere = set(container.cut_off) >= set(container.settings.networks)
    needed = not any(other.running and not other.cut_off for other in slot.alive)
    return bool(container.cut_off) and (nowhere or not needed)


def _surplus_replacements(
    slot: SlotState, context: ServiceContext, stopped: tuple[Container, ...]
) -> tuple[Container, ...]:
    """Return what goes before a successor starts, since another serves in its slot until then.

    A successor that was overtaken before it took over is such: edits in a row would have more and
    more of them run. While what it was to succeed is frozen, it may be all that serves.
    """
    up = [other for other in by_rank(slot, context) if other not in stopped]
    spare = up[1:]
    if up and not up[0].running:
        spare = [other for other in spare if not other.running]
    return tuple(spare)


def by_rank(slot: SlotState, context: ServiceContext) -> list[Container]:
    """Return what is up in a slot beside what is kept, what serves best first."""
    wanted = set(joined_networks(context.service, context.prerequisites.names))

    def rank(other: Container) -> tuple[bool, bool, bool, bool, str, str]:
        cut_off = not wanted <= set(other.settings.networks)
        nameless = bool(_unannounced(other, context))
        unready = context.availability_of(other) is not AvailabilityWord.AVAILABLE
        return (cut_off, nameless, unready, not other.running, other.started_at, other.id)

    return sorted(slot.alive, key=rank)


def _leftovers(slot: SlotState, service: Service) -> tuple[Container, ...]:
    """Return what is left of earlier tries: of the wanted revision, down, and not to be started."""
    down = (ContainerState.CREATED, ContainerState.EXITED, ContainerState.DEAD)
    return tuple(o for o in slot.extra if o.revision == service.revision and o.state in down)


def _start_actions(
    slot: SlotState, context: ServiceContext, handle: ContainerHandle, has: str
) -> list[AnyAction]:
    current, controller_restarts = slot.current, context.is_restarted_by_controller(slot.number)
    policy = restart_of(context.service, controller_restarts=controller_restarts)
    cause = slot.why
    if current is not None and controller_restarts and current.state is ContainerState.EXITED:
        cause = f"{current.name} {explain(current)}, and the controller restarts it"
    start: list[AnyAction] = [handle.start(cause)]
    if has != policy[0]:
        # After the start: a task that we stopped with exit 0 would pass for finished otherwise.
        start.append(handle.restart(policy, f"restart policy is {has}, want {policy[0]}"))
    return start


def _cleanup_actions(
    slot: SlotState,
    context: ServiceContext,
    *,
    stopped: tuple[Container, ...] = (),
    gone: tuple[Container, ...] = (),
) -> list[AnyAction]:
    """Return what removes a slot's others: *stopped* are down by then, *gone* removed."""
    actions: list[AnyAction] = []
    for other in slot.extra:
        if other in gone:
            continue
        cause = _removal_cause(other, slot, context)
        if other in stopped:
            steps: list[AnyAction] = [ContainerHandle.seen(other).remove(cause)]
        else:
            steps = stop_and_remove(other, context.service, cause)
        actions += until_denied(judged(steps, context.judge))
    return actions


def _removal_cause(other: Container, slot: SlotState, context: ServiceContext) -> str:
    superseded = context.plan_context.replace_reasons.get(other.id, "")
    replica = ReplicaState(other, context.service, superseded=superseded)
    if drift_of(replica) in (Drift.STALE, Drift.ALTERED):
        return why(replica)
    return f"slot {slot.number} is filled by {slot.current.name}" if slot.current else slot.why
