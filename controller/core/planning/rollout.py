"""Rollouts: the actions that bring a service's slots to what is declared, in waves.

Slots are replaced in waves, of at most ``parallelism`` slots with StartFirst and ``maxUnavailable``
with StopFirst, and no wave begins while a slot that isn't serving as declared needs the room. One that
is stuck holds up what serves well, and not the mending of others. What a single slot gets is
``core.planning.slot``' to say, and what its predecessor gets meanwhile ``core.planning.predecessor``'.

A plan goes on to convergence: behind a gate stands what follows once it is open.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from controller.core.drift.actions import (
    delay,
    denied,
    judged,
    stop_and_remove,
    stop_for_good,
    until_denied,
)
from controller.core.drift.availability import AvailabilityWord
from controller.core.drift.drift import (
    ALIVE,
    ReplicaState,
    SlotState,
    slot_of,
    why,
)
from controller.core.planning.ordering import Blocker
from controller.core.planning.predecessor import keep_alive_actions, plan_slot
from controller.core.planning.slot import (
    ServiceContext,
    SlotPlan,
    container_name_in,
    has_process,
    is_finished_task,
    needs_health_restart,
)
from controller.core.planning.successor import order_of
from controller.model.desired.plan import AnyAction
from controller.model.desired.spec import Order, RunState
from controller.model.errors import Problem
from controller.model.observed import Container, ContainerState


@dataclass(slots=True)
class RolloutPlan:
    """The actions for a service, and what a person must know."""

    actions: list[AnyAction] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    kept_alive: list[AnyAction] = field(default_factory=list)  # of actions, what is done but once


def plan_service(context: ServiceContext) -> RolloutPlan:
    """Return the actions for one declared service, in order.

    Slots in which nothing is interrupted come first, then those whose container is replaced, then
    those that are too many.
    """
    outcome = RolloutPlan()
    service = context.service
    if service.spec.state is RunState.STOPPED:
        _stop(context, outcome)
    else:
        _run(context, outcome)
    # Down to nothing is a removal of the service, which the prune guard has its say on.
    if service.spec.replicas > 0 or context.prunable:
        for container in context.containers:
            replica = ReplicaState(container, service)
            if replica.spare:
                actions = stop_and_remove(container, service, why(replica))
                outcome.actions += until_denied(judged(actions, context.judge))
    return outcome


def _stop(context: ServiceContext, outcome: RolloutPlan) -> None:
    for container in context.containers:
        replica = ReplicaState(container, context.service)
        dead = container.state in (ContainerState.REMOVING, ContainerState.DEAD)
        if replica.spare or dead:
            continue
        alive = container.state in ALIVE
        # One that isn't running is only kept from coming back when the engine restarts.
        if alive and not context.prunable:
            continue
        cause = why(replica) if alive else f"{container.name} is down, state Stopped is declared"
        started = container.state is not ContainerState.CREATED
        actions = stop_for_good(container, context.service, cause) if started else []
        outcome.actions += until_denied(judged(actions, context.judge))


# Waves


def _run(context: ServiceContext, outcome: RolloutPlan) -> None:
    before: list[SlotPlan] = []
    for blocker, slots in _groups(context):
        if blocker is not None:
            # Order is for starting: what serves meanwhile is kept as it should be.
            kept_alive = [action for slot in slots for action in keep_alive_actions(slot, context)]
            _emit(kept_alive, context, outcome)
            outcome.kept_alive += kept_alive
        if blocker is not None and blocker.code:
            for slot in slots:
                name = container_name_in(slot, context)
                outcome.actions.append(blocker.wait(context.key, target=name, slot=slot.number))
                before.append(SlotPlan(slot.number, [], blocked=True))
            continue
        if blocker is not None:
            outcome.actions.append(blocker.barrier(context.key))
        before = _bring(slots, before, context, outcome)


def _groups(context: ServiceContext) -> list[tuple[Blocker | None, list[SlotState]]]:
    """Return the slots by what other services keep them from, those that nothing does first."""
    start, replaced = context.blockers.start, context.blockers.replace
    groups: dict[Blocker | None, list[SlotState]] = {None: [], start: [], replaced: []}
    for slot in _slots(context):
        groups[_kept_from(slot, context)].append(slot)
    return [(blocker, slots) for blocker, slots in groups.items() if slots]


def _kept_from(slot: SlotState, context: ServiceContext) -> Blocker | None:
    """Return what keeps a slot's container from being started or replaced, if it needs to be."""
    current, blockers = slot.current, context.blockers
    controller_restarts = context.is_restarted_by_controller(slot.number)
    if current is not None and has_process(current):
        return blockers.start if needs_health_restart(current, context) else None
    if current is not None and current.state is ContainerState.RESTARTING:
        return None
    if current is not None and is_finished_task(
        current, context.service, controller_restarts=controller_restarts
    ):
        return None
    return blockers.replace if slot.alive else blockers.start


def _bring(
    slots: list[SlotState], before: list[SlotPlan], context: ServiceContext, outcome: RolloutPlan
) -> list[SlotPlan]:
    """Bring slots to run; *before* are others that are on their way, and so are those returned."""
    interrupting = [slot for slot in slots if _interrupts(slot, context)]
    # What serves badly goes before what serves well.
    interrupting.sort(key=lambda slot: (slot.current is None, slot.number))
    wave = [_begin(slot, context, outcome) for slot in slots if slot not in interrupting]
    wave = [*before, *wave]
    paused = context.plan_context.paused.get(context.key, "")
    put_off = [slot for slot in interrupting if paused and not _is_running(slot.current)]
    interrupting = [slot for slot in interrupting if slot not in put_off]
    while True:
        while begun := _fitting(interrupting, wave, context):
            interrupting = [slot for slot in interrupting if slot not in begun]
            wave += [_begin(slot, context, outcome) for slot in begun]
        stuck = _stuck(wave)
        _finish(wave, context, outcome, more=bool(interrupting) and stuck == "")
        if stuck != "" or not interrupting:
            break
        wave = []
    for slot in interrupting:
        _put_off(slot, (_serves_badly(slot) and _busy(wave)) or stuck, context, outcome)
    for slot in put_off:
        _put_off(slot, paused, context, outcome)
    # What stands behind a gate that was emitted isn't on its way any more.
    left = (s for s in wave if s.blocked or (s.barrier is not None and not s.after))
    return [replace(plan, before=[], after=[]) for plan in left]


def _fitting(
    slots: list[SlotState], wave: list[SlotPlan], context: ServiceContext
) -> list[SlotState]:
    """Return which of these slots, all of which need room, are begun with a wave.

    While one is stuck nothing that serves well is interrupted. What serves badly isn't held up by
    it, or one bad slot would keep all others from being mended: it waits for those alone that are
    on their way.
    """
    if _stuck(wave):
        slots = [slot for slot in slots if _serves_badly(slot)]
        wave = [plan for plan in wave if not plan.blocked]
    return slots[: max(0, context.parallelism - sum(plan.pending for plan in wave))]


def _serves_badly(slot: SlotState) -> bool:
    """Tell of a slot that needs room whether that is since its container is to be revived."""
    return slot.current is not None and has_process(slot.current)


def _stuck(wave: list[SlotPlan]) -> str:
    """Return why nothing that serves is interrupted after a wave, if so."""
    return _first(plan.slot for plan in wave if plan.blocked)


def _busy(wave: list[SlotPlan]) -> str:
    """Return why nothing that serves badly is restarted after a wave, if so."""
    return _first(plan.slot for plan in wave if plan.pending and not plan.blocked)


def _first(numbers: Iterable[int]) -> str:
    first = min(numbers, default=None)
    return "" if first is None else f"slot {first} goes first"


def _is_running(container: Container | None) -> bool:
    return container is not None and container.running


def _slots(context: ServiceContext) -> list[SlotState]:
    by_slot: dict[int, list[Container]] = {}
    for container in context.containers:
        by_slot.setdefault(container.slot, []).append(container)
    numbers = range(1, context.service.spec.replicas + 1)
    return [
        slot_of(
            n,
            tuple(by_slot.get(n, ())),
            context.service,
            context.plan_context.replace_reasons,
            context.deferred_repairs(n),
            context.plan_context.removed_from_outside.get((context.key, n), ""),
        )
        for n in numbers
    ]


def _interrupts(slot: SlotState, context: ServiceContext) -> bool:
    """Tell whether bringing a slot to run interrupts something that serves, so that it needs room."""
    current = slot.current
    if current is not None and has_process(current):
        return needs_health_restart(current, context)
    serves = any(
        o.running and context.availability_of(o) is not AvailabilityWord.UNHEALTHY
        for o in slot.alive
    )
    if current is None:
        return serves
    if ReplicaState(current, context.service).finished:
        return False
    return serves and order_of(context.service) is Order.STOP_FIRST


def _put_off(slot: SlotState, cause: str, context: ServiceContext, outcome: RolloutPlan) -> None:
    plan = plan_slot(slot, context)
    if not plan.blocked:
        name = (slot.current or slot.alive[0]).name
        put_off = delay(context.key, target=name, slot=slot.number, cause=cause)
        plan = SlotPlan(slot.number, [*keep_alive_actions(slot, context), put_off])
    _emit(plan.before, context, outcome)
    outcome.problems += plan.problems


def _begin(slot: SlotState, context: ServiceContext, outcome: RolloutPlan) -> SlotPlan:
    plan = plan_slot(slot, context)
    _emit(plan.before, context, outcome)
    outcome.problems += plan.problems
    return plan


def _finish(
    wave: list[SlotPlan], context: ServiceContext, outcome: RolloutPlan, *, more: bool
) -> None:
    """Emit what ends the slots of a wave; *more*: another wave waits for all of them."""
    for plan in sorted(wave, key=lambda plan: plan.barrier is not None):
        if plan.barrier is not None and (plan.after or more):
            outcome.actions.append(plan.barrier)
        _emit(plan.after, context, outcome)


def _emit(actions: list[AnyAction], context: ServiceContext, outcome: RolloutPlan) -> None:
    shown = {(a.verb, a.target) for a in outcome.actions if denied(a)}
    for action in actions:
        if denied(action) and (action.verb, action.target) in shown:
            continue
        if action in outcome.kept_alive:
            continue
        if not denied(action):
            context.prerequisites.note(action)
        outcome.actions.append(action)
