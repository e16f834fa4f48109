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
    announce,
    denied,
    gate,
    halt,
    judged,
    retire,
    until_denied,
    wait,
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
from controller.model.desired.plan import AnyAction, ConnectNetwork, Wait
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
    supplies: Prerequisites
    judge: Judge
    prunable: bool
    past: PlanContext = NOTHING
    hindrances: Blockers = NONE
    listening: frozenset[HostPort] = frozenset()
    contested: Blocker | None = None  # others hold what only one container can have
    kept: frozenset[str] = frozenset()  # ids of those whose volume another service has by now

    @property
    def key(self) -> Key:
        """The service's key."""
        return self.service.key

    @property
    def limit(self) -> int:
        """How many slots may be on their way at a time."""
        return at_once(self.service)

    def ready(self, container: Container) -> AvailabilityWord:
        """Return how far a container is."""
        return (self.past.readiness.get(container.id) or at_first_sight(container)).word

    def held(self, slot: int) -> str | None:
        """Return why a slot isn't tried now, if so."""
        return self.past.held.get((self.key, slot))

    def spared(self, slot: int) -> Mapping[str, str]:
        """Return which alterations in a slot aren't healed now, and why."""
        return self.past.contended.get((self.key, slot), {})

    def is_taken_over(self, slot: int) -> bool:
        """Tell whether the controller restarts a slot's containers, and not the engine."""
        return (self.key, slot) in self.past.taken_over


@dataclass(frozen=True, slots=True)
class SlotPlan:
    """The actions for one slot: what begins it and, once its gate is open, what ends it.

    ``stuck``: it can't be brought to run by them.
    """

    number: int
    begin: list[AnyAction]
    gate: Wait | None = None
    finish: list[AnyAction] = field(default_factory=list)
    problems: tuple[Problem, ...] = ()
    stuck: bool = False

    @property
    def pending(self) -> bool:
        """Tell whether its slot needs room: it doesn't serve as declared yet."""
        return self.stuck or self.gate is not None


def steps_of(slot: SlotState, situation: ServiceContext) -> SlotPlan:
    """Return what brings one slot to run, and then clears away what isn't needed any more."""
    keep, service = slot.keep, situation.service
    if keep is None:
        for other in slot.others:
            # Its name, port and addresses aren't free yet.
            if other.state is ContainerState.REMOVING and other.revision == service.revision:
                return waiting_for(slot, situation, f"{other.name} is being removed", other.name)
        return _succeed(slot, situation)
    taken_over = situation.is_taken_over(slot.number)
    if keep.running and is_to_be_revived(keep, situation):
        return _revive(slot, keep, situation)
    if is_there(keep):
        return _hand_over(slot, keep, situation)
    if is_done(keep, service, taken_over=taken_over):
        # A finished task isn't the controller's to restart; what we changed is given back.
        begin = judged(_policy_steps(keep, restart_of(service)), situation.judge)
        return SlotPlan(slot.number, until_denied(begin), finish=_clear(slot, situation))
    if keep.state is ContainerState.RESTARTING:
        policy = restart_of(service, taken_over=taken_over)
        steps = until_denied(judged(_policy_steps(keep, policy), situation.judge))
        held = situation.held(slot.number) or slot.why
        waiting = waiting_for(slot, situation, held, keep.name)
        return replace(waiting, begin=[*steps, *waiting.begin])
    return _succeed(slot, situation)


def is_there(container: Container) -> bool:
    """Tell whether it has a process that serves, or will once it is thawed."""
    return container.running or container.state is ContainerState.PAUSED


def _hand_over(slot: SlotState, keep: Container, situation: ServiceContext) -> SlotPlan:
    """Return what gives a slot to the container that runs in it, put back in place if need be."""
    service, judge = situation.service, situation.judge
    policy = restart_of(service, taken_over=situation.is_taken_over(slot.number))
    # Nothing else serves: better one that isn't ready than none.
    alone = not any(other.running for other in slot.alive)
    available = situation.ready(keep) is AvailabilityWord.AVAILABLE
    healing, problems = healing_of(keep, situation, announced=alone or available)
    begin = _policy_steps(keep, policy, situation.spared(slot.number))
    rejoined = {a.network for a in healing if isinstance(a, ConnectNetwork) and a.aliases}
    nameless = [n for n in _unannounced(keep, situation) if n not in rejoined]
    naming = announce(ContainerHandle.seen(keep), service, nameless)
    begin += naming if alone else []
    finish = [] if alone else judged(naming, judge)
    return SlotPlan(
        slot.number,
        # Each by itself: one that policy denies keeps no other from being put back.
        [*judged(healing, judge), *until_denied(judged(begin, judge))],
        gate=None if available else _gate(slot, keep.name, situation),
        finish=until_denied([*finish, *_clear(slot, situation)]),
        problems=problems,
    )


def healing_of(
    container: Container, situation: ServiceContext, *, announced: bool
) -> tuple[list[AnyAction], tuple[Problem, ...]]:
    """Return what puts a container that serves back in place, and why a network can't be joined."""
    supplies, service = situation.supplies, situation.service
    admitted = container.admitted.networks if container.admitted else ()
    missing = not set(admitted) <= set(container.settings.networks)
    problems = supplies.problems(service, creating=False) if missing else ()
    spared = situation.spared(container.slot)
    actions = list(heal(container, announced=announced, joining=not problems, spared=spared))
    joins = (i for i, action in enumerate(actions) if isinstance(action, ConnectNetwork))
    at = next(joins, len(actions))
    # What isolates it doesn't wait for what must be made first.
    joined = missing and not problems and "networks" not in spared
    made = supplies.missing(service, creating=False) if joined else ()
    left = {spared[each.what]: None for each in alterations(container) if each.what in spared}
    waits = [
        wait(service.key, target=container.name, slot=container.slot, cause=why) for why in left
    ]
    return [*actions[:at], *made, *actions[at:], *waits], problems


def _unannounced(container: Container, situation: ServiceContext) -> tuple[str, ...]:
    """Return the networks on which a container doesn't answer to its service's name."""
    known = dict(container.aliases)
    wanted = joined_networks(situation.service, situation.supplies.names)
    return tuple(n for n in wanted if n in known and situation.key.name not in known[n])


def _gate(slot: SlotState, target: str, situation: ServiceContext) -> Wait:
    seen = None if slot.keep is None else situation.past.readiness.get(slot.keep.id)
    spec = situation.service.spec
    if seen is not None and seen.why:
        cause = seen.why
    else:
        word = "healthy" if spec.healthcheck is not None else "up"
        needed = spec.rollout.min_healthy
        cause = f"must be {word}" + (f" for {format_duration_ms(needed)}" if needed else "")
    return gate(situation.key, target=target, slot=slot.number, cause=cause)


def is_to_be_revived(container: Container, situation: ServiceContext) -> bool:
    """Tell whether a container that runs is restarted since it is unhealthy.

    One that is joined to a network again isn't: what was cut off is asked anew before it is judged.
    """
    restarts = situation.service.spec.restart.policy is not RestartPolicy.NEVER
    unhealthy = situation.ready(container) is AvailabilityWord.UNHEALTHY
    return restarts and unhealthy and not _is_joined_again(container, situation)


def _is_joined_again(container: Container, situation: ServiceContext) -> bool:
    """Tell whether a container is to be joined to a network that it isn't in."""
    healing, _ = healing_of(container, situation, announced=True)
    joins = [a for a in judged(healing, situation.judge) if isinstance(a, ConnectNetwork)]
    return any(not denied(action) for action in joins)


def _revive(slot: SlotState, keep: Container, situation: ServiceContext) -> SlotPlan:
    """Return what restarts a container that is unhealthy."""
    held = situation.held(slot.number)
    if held is not None:
        return waiting_for(slot, situation, held, keep.name)
    actions = revival(keep, situation, why(ReplicaState(keep, situation.service)))
    if any(denied(action) for action in actions):
        return SlotPlan(slot.number, [a for a in actions if denied(a)], stuck=True)
    # It isn't started again as somebody altered it.
    healing, _ = healing_of(keep, situation, announced=True)
    actions = [*judged(healing, situation.judge), *actions]
    waits = _gate(replace(slot, keep=None), keep.name, situation)
    return SlotPlan(slot.number, actions, gate=waits, finish=_clear(slot, situation))


def revival(container: Container, situation: ServiceContext, cause: str) -> list[AnyAction]:
    """Return what stops a container and starts it again, as policy judges it."""
    handle = ContainerHandle.seen(container)
    policy = restart_of(situation.service, taken_over=situation.is_taken_over(container.slot))
    actions = [*halt(container, situation.service, cause), handle.start(cause)]
    if policy[0] != "no":
        actions.append(handle.restart(policy, f"restart policy is no, want {policy[0]}"))
    return judged(actions, situation.judge)


def is_done(container: Container, service: Service, *, taken_over: bool) -> bool:
    """Tell whether a task has ended, also one whose restart policy we took to ourselves."""
    ended = container.state is ContainerState.EXITED and container.exit_code == 0
    task = service.spec.restart.policy is RestartPolicy.ON_FAILURE
    return ReplicaState(container, service).finished or (taken_over and task and ended)


def _policy_steps(
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


def waiting_for(slot: SlotState, situation: ServiceContext, cause: str, target: str) -> SlotPlan:
    """Return the steps of a slot in which nothing is done for now, and why."""
    action = wait(situation.key, target=target, slot=slot.number, cause=cause)
    return SlotPlan(slot.number, [action], stuck=True)


def _succeed(slot: SlotState, situation: ServiceContext) -> SlotPlan:
    """Return the steps in which a successor takes a slot over: created if need be, and started."""
    service, keep = situation.service, slot.keep
    problems = situation.supplies.problems(service, creating=keep is None)
    if problems:
        return SlotPlan(slot.number, [], problems=problems, stuck=True)
    held = situation.held(slot.number)
    if held is not None:
        return waiting_for(slot, situation, held, name_in(slot, situation))

    if (contested := situation.contested) is not None:
        name = name_in(slot, situation)
        return SlotPlan(
            slot.number,
            [contested.wait(situation.key, target=name, slot=slot.number)],
            stuck=True,
        )

    port = host_ports.taken(service, situation.containers, situation.listening)
    if port is not None and slot.alive:
        name = keep.name if keep else next_name(service, slot.number, situation.containers)
        cause = f"port {port.port} on {port.address} is taken by another program"
        return waiting_for(slot, situation, cause, name)

    stopped = _stopped_first(slot, situation)
    beside = len(stopped) < len(slot.alive)
    prepare: list[AnyAction] = list(situation.supplies.missing(service, creating=keep is None))
    naming: list[AnyAction] = []
    if keep is None:
        create = create_of(
            service,
            situation.supplies,
            slot=slot.number,
            containers=situation.containers,
            cause=slot.why,
            announced=not beside,
        )
        prepare.append(create)
        handle, has = ContainerHandle.planned(create), RESTART[service.spec.restart.policy][0]
        if beside:
            wanted = joined_networks(service, situation.supplies.names)
            naming = announce(handle, service, wanted)
    else:
        handle, has = ContainerHandle.seen(keep), keep.settings.restart
        naming = announce(handle, service, _unannounced(keep, situation))
    stops = [a for o in stopped for a in halt(o, service, _why_other(o, slot, situation))]
    surplus = _surplus(slot, situation, stopped)
    stops += [a for o in surplus for a in retire(o, service, _why_other(o, slot, situation))]
    start = _start(slot, situation, handle, has)
    remains = _remains(slot, service)
    prepare += [ContainerHandle.seen(o).remove(_why_other(o, slot, situation)) for o in remains]
    gone = (*remains, *surplus)
    # It is named only when it runs: one that is down and off its network couldn't be put back.
    actions = judged([*prepare, *stops, *start, *([] if beside else naming)], situation.judge)
    finish = judged(naming if beside else [], situation.judge)
    refused = [action for action in (*actions, *finish) if denied(action)]
    if refused:
        # Nothing is pulled, made or stopped for a successor that won't be.
        return SlotPlan(slot.number, refused, stuck=True)
    if keep is None and beside and service.image_volumes is None:
        # A volume that the image declares may not be written to by two containers at once.
        missing = [action for action in actions if action.slot == 0]
        cause = f"which volumes {service.spec.image} declares is known once it is here"
        unknown = wait(situation.key, target=handle.name, slot=slot.number, cause=cause)
        return SlotPlan(slot.number, [*missing, unknown], stuck=True)
    return SlotPlan(
        slot.number,
        actions,
        gate=_gate(replace(slot, keep=None), handle.name, situation),
        finish=[*finish, *_clear(slot, situation, stopped=stopped, gone=gone)],
    )


def name_in(slot: SlotState, situation: ServiceContext) -> str:
    """Return the name of the container that a slot gets, or has."""
    if slot.keep is not None:
        return slot.keep.name
    return next_name(situation.service, slot.number, situation.containers)


def _stopped_first(slot: SlotState, situation: ServiceContext) -> tuple[Container, ...]:
    """Return what is stopped before a successor starts: with StartFirst what doesn't serve well."""
    if order_of(situation.service) is Order.STOP_FIRST:
        return slot.alive
    return tuple(
        other
        for other in slot.alive
        if _is_in_the_way(other, slot)
        or (
            situation.ready(other) is AvailabilityWord.UNHEALTHY
            # What was cut off is asked anew before it is judged.
            and not _is_joined_again(other, situation)
        )
    )


def _is_in_the_way(container: Container, slot: SlotState) -> bool:
    """Tell whether a container is cut off from its networks and isn't needed on the others.

    It still holds the addresses that it had there, which the engine gives to the next one.
    """
    nowhere = set(container.cut_off) >= set(container.settings.networks)
    needed = not any(other.running and not other.cut_off for other in slot.alive)
    return bool(container.cut_off) and (nowhere or not needed)


def _surplus(
    slot: SlotState, situation: ServiceContext, stopped: tuple[Container, ...]
) -> tuple[Container, ...]:
    """Return what goes before a successor starts, since another serves in its slot until then.

    A successor that was overtaken before it took over is such: edits in a row would have more and
    more of them run. While what it was to succeed is frozen, it may be all that serves.
    """
    up = [other for other in by_merit(slot, situation) if other not in stopped]
    spare = up[1:]
    if up and not up[0].running:
        spare = [other for other in spare if not other.running]
    return tuple(spare)


def by_merit(slot: SlotState, situation: ServiceContext) -> list[Container]:
    """Return what is up in a slot beside what is kept, what serves best first."""
    wanted = set(joined_networks(situation.service, situation.supplies.names))

    def merit(other: Container) -> tuple[bool, bool, bool, bool, str, str]:
        cut_off = not wanted <= set(other.settings.networks)
        nameless = bool(_unannounced(other, situation))
        unready = situation.ready(other) is not AvailabilityWord.AVAILABLE
        return (cut_off, nameless, unready, not other.running, other.started_at, other.id)

    return sorted(slot.alive, key=merit)


def _remains(slot: SlotState, service: Service) -> tuple[Container, ...]:
    """Return what is left of earlier tries: of the wanted revision, down, and not to be started."""
    down = (ContainerState.CREATED, ContainerState.EXITED, ContainerState.DEAD)
    return tuple(o for o in slot.others if o.revision == service.revision and o.state in down)


def _start(
    slot: SlotState, situation: ServiceContext, handle: ContainerHandle, has: str
) -> list[AnyAction]:
    keep, taken_over = slot.keep, situation.is_taken_over(slot.number)
    policy = restart_of(situation.service, taken_over=taken_over)
    cause = slot.why
    if keep is not None and taken_over and keep.state is ContainerState.EXITED:
        cause = f"{keep.name} {explain(keep)}, and the controller restarts it"
    start: list[AnyAction] = [handle.start(cause)]
    if has != policy[0]:
        # After the start: a task that we stopped with exit 0 would pass for finished otherwise.
        start.append(handle.restart(policy, f"restart policy is {has}, want {policy[0]}"))
    return start


def _clear(
    slot: SlotState,
    situation: ServiceContext,
    *,
    stopped: tuple[Container, ...] = (),
    gone: tuple[Container, ...] = (),
) -> list[AnyAction]:
    """Return what removes a slot's others: *stopped* are down by then, *gone* removed."""
    actions: list[AnyAction] = []
    for other in slot.others:
        if other in gone:
            continue
        cause = _why_other(other, slot, situation)
        if other in stopped:
            steps: list[AnyAction] = [ContainerHandle.seen(other).remove(cause)]
        else:
            steps = retire(other, situation.service, cause)
        actions += until_denied(judged(steps, situation.judge))
    return actions


def _why_other(other: Container, slot: SlotState, situation: ServiceContext) -> str:
    superseded = situation.past.superseded.get(other.id, "")
    replica = ReplicaState(other, situation.service, superseded=superseded)
    if drift_of(replica) in (Drift.STALE, Drift.ALTERED):
        return why(replica)
    return f"slot {slot.number} is filled by {slot.keep.name}" if slot.keep else slot.why
