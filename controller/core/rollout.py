"""Rollouts: the actions that bring one service's slots to what is declared.

What serves is never stopped before its successor is admitted, its image there and the container
created; with StartFirst, before it is started. A service's slots are replaced one at a time, and
not at all while another of its slots can't go on. An action that policy denies is shown, and
nothing that depends on it is done.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain

from controller.core.diff import ALIVE, Drift, Replica, Slot, drift_of, restart_of, slot_of, why
from controller.core.exits import explain
from controller.core.moves import Handle, Judge, denied, halt, judged, retire, until_denied, wait
from controller.core.supplies import Supplies
from controller.core.translate import RESTART
from controller.model.desired import Service
from controller.model.errors import Problem
from controller.model.names import CONTAINER_NAME_MAX, Key, container_name
from controller.model.observed import Container, ContainerState
from controller.model.plan import AnyAction, CreateContainer, Precondition
from controller.model.spec import Order, RestartPolicy, RunState, VolumeMount


def order_of(service: Service) -> Order:
    """Return whether a successor starts before or after its predecessor stops."""
    spec = service.spec
    if spec.rollout.order is not None:
        return spec.rollout.order
    # Two containers can't bind one port, and mustn't write to one volume that isn't shared.
    published = any(port.host is not None for port in spec.ports)
    exclusive = any(
        isinstance(mount, VolumeMount) and not mount.read_only and not mount.shared
        for mount in spec.mounts
    )
    return Order.STOP_FIRST if published or exclusive else Order.START_FIRST


def next_name(service: Service, slot: int, containers: Iterable[Container]) -> str:
    """Return the name of the next container of a slot.

    It follows the highest attempt of that slot and revision among *containers*, a service's, so
    that a stale snapshot leads to a conflict instead of a double.
    """
    everyone = tuple(containers)
    stem = container_name(
        service.key.namespace, service.key.name, slot=slot, revision=service.revision
    )
    taken = {name for container in everyone for name in _names_of(container)}
    mine = [c for c in everyone if c.slot == slot and c.revision == service.revision]
    attempts = [_attempt(name, stem) for container in mine for name in _names_of(container)]
    first = max([len(mine), *attempts]) + 1
    # Only where the numbers don't fit any more do they begin again.
    for attempt in chain(range(first, first + len(taken) + 1), range(1, len(taken) + 2)):
        name = stem if attempt == 1 else f"{stem}.{attempt}"
        if name not in taken and len(name) <= CONTAINER_NAME_MAX:
            return name
    raise AssertionError(f"no name is left for slot {slot} of {service.key}")


def _names_of(container: Container) -> set[str]:
    # A renamed container has two: the one that it holds, and the one that it was given.
    return {container.name, *([container.admitted.name] if container.admitted else [])}


def _attempt(name: str, stem: str) -> int:
    if name == stem:
        return 1
    digits = name.removeprefix(f"{stem}.")
    return int(digits) if digits != name and digits.isascii() and digits.isdigit() else 0


def hypothetical_create(service: Service, supplies: Supplies, *, slot: int = 1) -> CreateContainer:
    """Return the create of a slot's first container: what a policy is asked about a service."""
    return _create(service, supplies, slot=slot, containers=(), cause="as declared")


def _create(
    service: Service,
    supplies: Supplies,
    *,
    slot: int,
    containers: Iterable[Container],
    cause: str,
) -> CreateContainer:
    name = next_name(service, slot, containers)
    return CreateContainer(
        object=service.key,
        target=name,
        cause=cause,
        slot=slot,
        precondition=Precondition(absent=name),
        service=service,
        image=supplies.images.of(service),
    )


@dataclass(frozen=True, slots=True)
class Situation:
    """What is around one service in one plan."""

    service: Service
    containers: tuple[Container, ...]  # all of the service's, by slot and name
    supplies: Supplies
    judge: Judge
    held: Mapping[tuple[Key, int], str]
    taken_over: frozenset[tuple[Key, int]]
    prunable: bool

    @property
    def key(self) -> Key:
        """The service's key."""
        return self.service.key


@dataclass(slots=True)
class Outcome:
    """The actions for a service, and what a person must know."""

    actions: list[AnyAction] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Steps:
    """The actions for one slot. ``stuck``: it can't be brought to run by them."""

    actions: list[AnyAction]
    problems: tuple[Problem, ...] = ()
    stuck: bool = False


def service_actions(situation: Situation) -> Outcome:
    """Return the actions for one declared service, in order.

    Slots in which nothing is interrupted come first, then those whose container is replaced, then
    those that are too many.
    """
    outcome = Outcome()
    service = situation.service
    if service.spec.state is RunState.STOPPED:
        _stop(situation, outcome)
    else:
        _run(situation, outcome)
    # Down to nothing is a removal of the service, which the prune guard has its say on.
    if service.spec.replicas > 0 or situation.prunable:
        for container in situation.containers:
            replica = Replica(container, service)
            if replica.spare:
                actions = retire(container, service, why(replica))
                outcome.actions += until_denied(judged(actions, situation.judge))
    return outcome


def _stop(situation: Situation, outcome: Outcome) -> None:
    for container in situation.containers:
        replica = Replica(container, situation.service)
        dead = container.state in (ContainerState.REMOVING, ContainerState.DEAD)
        if replica.spare or dead:
            continue
        alive = container.state in ALIVE
        # One that isn't running is only kept from coming back when the engine restarts.
        if alive and not situation.prunable:
            continue
        cause = why(replica) if alive else f"{container.name} is down, state Stopped is declared"
        started = container.state is not ContainerState.CREATED
        actions = halt(container, situation.service, cause) if started else []
        outcome.actions += until_denied(judged(actions, situation.judge))


def _run(situation: Situation, outcome: Outcome) -> None:
    by_slot: dict[int, list[Container]] = {}
    for container in situation.containers:
        by_slot.setdefault(container.slot, []).append(container)
    service = situation.service
    slots = [
        slot_of(number, tuple(by_slot.get(number, ())), service)
        for number in range(1, service.spec.replicas + 1)
    ]
    stuck = 0
    for slot in sorted(slots, key=lambda slot: (_interrupts(slot, service), slot.number)):
        steps = _slot_steps(slot, situation)
        if stuck and _interrupts(slot, service) and not steps.stuck:
            cause = f"slot {stuck} goes first"
            name = slot.alive[0].name
            steps = Steps([wait(service.key, target=name, slot=slot.number, cause=cause)])
        if steps.stuck and not stuck:
            stuck = slot.number
        _emit(steps, situation, outcome)


def _emit(steps: Steps, situation: Situation, outcome: Outcome) -> None:
    shown = {(a.verb, a.target) for a in outcome.actions if denied(a)}
    for action in steps.actions:
        if denied(action) and (action.verb, action.target) in shown:
            continue
        if not denied(action):
            situation.supplies.note(action)
        outcome.actions.append(action)
    outcome.problems += steps.problems


def _interrupts(slot: Slot, service: Service) -> bool:
    """Tell whether bringing a slot to run stops something that serves."""
    if slot.keep is not None and (slot.keep.running or Replica(slot.keep, service).finished):
        return False
    return bool(slot.alive)


def _slot_steps(slot: Slot, situation: Situation) -> Steps:
    """Return what brings one slot to run, and then clears away what isn't needed any more."""
    keep = slot.keep
    if keep is None:
        going = [o for o in slot.others if o.state is ContainerState.REMOVING]
        for other in going:
            # Its name, port and addresses aren't free yet.
            if other.revision == situation.service.revision:
                return _waiting(slot, situation, f"{other.name} is being removed", other.name)
        return _succeed(slot, situation)
    taken_over = (situation.key, slot.number) in situation.taken_over
    if keep.running or _done(keep, situation.service, taken_over=taken_over):
        # A finished task isn't the controller's to restart; what we changed is given back.
        policy = restart_of(situation.service, taken_over=taken_over and keep.running)
        steps = _policy_steps(keep, policy)
        return Steps(until_denied(judged(steps, situation.judge)) + _clear(slot, situation))
    if keep.state is ContainerState.RESTARTING:
        policy = restart_of(situation.service, taken_over=taken_over)
        steps = until_denied(judged(_policy_steps(keep, policy), situation.judge))
        held = situation.held.get((situation.key, slot.number), slot.why)
        waiting = _waiting(slot, situation, held, keep.name)
        return replace(waiting, actions=[*steps, *waiting.actions])
    return _succeed(slot, situation)


def _done(container: Container, service: Service, *, taken_over: bool) -> bool:
    """Tell whether a task has ended, also one whose restart policy we took to ourselves."""
    ended = container.state is ContainerState.EXITED and container.exit_code == 0
    task = service.spec.restart.policy is RestartPolicy.ON_FAILURE
    return Replica(container, service).finished or (taken_over and task and ended)


def _policy_steps(container: Container, policy: tuple[str, int]) -> list[AnyAction]:
    # Compared by name: the count comes with it, and engines differ in how they show it.
    if container.settings.restart == policy[0]:
        return []
    cause = f"restart policy is {container.settings.restart}, want {policy[0]}"
    return [Handle.seen(container).restart(policy, cause)]


def _waiting(slot: Slot, situation: Situation, cause: str, target: str) -> Steps:
    action = wait(situation.key, target=target, slot=slot.number, cause=cause)
    return Steps([action], stuck=True)


def _succeed(slot: Slot, situation: Situation) -> Steps:
    """Return the steps in which a successor takes a slot over: created if need be, and started."""
    service, keep = situation.service, slot.keep
    problems = situation.supplies.problems(service, creating=keep is None)
    if problems:
        return Steps([], problems, stuck=True)
    held = situation.held.get((service.key, slot.number))
    if held is not None:
        name = keep.name if keep else next_name(service, slot.number, situation.containers)
        return _waiting(slot, situation, held, name)

    prepare: list[AnyAction] = list(situation.supplies.missing(service, creating=keep is None))
    taken_over = (service.key, slot.number) in situation.taken_over
    policy = restart_of(service, taken_over=taken_over)
    if keep is None:
        create = _create(
            service,
            situation.supplies,
            slot=slot.number,
            containers=situation.containers,
            cause=slot.why,
        )
        prepare.append(create)
        handle, has = Handle.planned(create), RESTART[service.spec.restart.policy][0]
    else:
        handle, has = Handle.seen(keep), keep.settings.restart
    stops_first = order_of(service) is Order.STOP_FIRST
    stopped = slot.alive if stops_first else ()
    stops = [a for other in stopped for a in halt(other, service, _why_other(other, slot, service))]
    cause = slot.why
    if keep is not None and taken_over and keep.state is ContainerState.EXITED:
        cause = f"{keep.name} {explain(keep)}, and the controller restarts it"
    start: list[AnyAction] = [handle.start(cause)]
    if has != policy[0]:
        # After the start: a task that we stopped with exit 0 would pass for finished otherwise.
        start.append(handle.restart(policy, f"restart policy is {has}, want {policy[0]}"))

    actions = judged([*prepare, *stops, *start], situation.judge)
    refused = [action for action in actions if denied(action)]
    if refused:
        # Nothing is pulled, made or stopped for a successor that won't be.
        return Steps(refused, stuck=True)
    return Steps(actions + _clear(slot, situation, stopped=stopped))


def _clear(
    slot: Slot, situation: Situation, *, stopped: tuple[Container, ...] = ()
) -> list[AnyAction]:
    """Return what removes a slot's other containers; those in *stopped* are down already."""
    actions: list[AnyAction] = []
    for other in slot.others:
        cause = _why_other(other, slot, situation.service)
        if other in stopped:
            steps: list[AnyAction] = [Handle.seen(other).remove(cause)]
        else:
            steps = retire(other, situation.service, cause)
        actions += until_denied(judged(steps, situation.judge))
    return actions


def _why_other(other: Container, slot: Slot, service: Service) -> str:
    replica = Replica(other, service)
    if drift_of(replica) in (Drift.STALE, Drift.ALTERED):
        return why(replica)
    assert slot.keep is not None, f"{other.name} would be kept, had slot {slot.number} no other"
    return f"slot {slot.number} is filled by {slot.keep.name}"
