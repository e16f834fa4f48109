"""The plan of one service: bring its slots to the declared state, in waves.

A wave has at most ``parallelism`` slots with StartFirst, and ``maxUnavailable`` with StopFirst. No
wave begins while a slot of the wave before does not serve as declared. A blocked slot keeps serving
slots from being replaced, but not unhealthy ones from being restarted.

``core.planning.slot_plan`` plans a single slot. ``core.planning.slot_plan`` keeps the slot's older
container alive meanwhile. The plan is complete: behind each barrier are the actions that follow.
"""

from dataclasses import dataclass, field, replace
from itertools import takewhile

from controller.core.drift.actions import (
    is_denied,
    judged_sequence,
    stop_and_remove,
    stop_for_good,
)
from controller.core.drift.availability import AvailabilityWord
from controller.core.drift.classify import (
    ALIVE,
    ReplicaState,
    SlotState,
    by_slot,
    cause_of,
    is_finished,
    slot_of,
)
from controller.core.planning.context import ServiceContext, order_of
from controller.core.planning.service_order import Blocker
from controller.core.planning.serving_container import needs_health_restart, takes_memory
from controller.core.planning.slot_plan import (
    SlotPlan,
    container_name_in,
    has_fallback,
    has_process,
    is_as_declared,
    keep_alive_actions,
    plan_slot,
)
from controller.model.desired.plan import (
    AnyAction,
    AnyWait,
    CreateContainer,
    CreateNetwork,
    CreateVolume,
    Delay,
    DeliverFiles,
    PullImage,
)
from controller.model.desired.spec.service import Order, RunState
from controller.model.errors import Problem
from controller.model.observed import ContainerState


@dataclass(slots=True)
class RolloutPlan:
    """The actions and the problems of one service."""

    actions: list[AnyAction] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    #: Those of ``actions`` that are emitted once, although several waves ask for them.
    kept_alive: list[AnyAction] = field(default_factory=list)


def plan_service(context: ServiceContext) -> RolloutPlan:
    """Return the actions for one declared service, in order.

    First come the slots without an interruption, then the slots with a replacement, then the
    containers of slots beyond ``replicas``.
    """
    plan = RolloutPlan()
    service = context.service
    if service.spec.state is RunState.STOPPED:
        _stop(context, plan)
    else:
        _run(context, plan)
    # Scaling to 0 removes the service, so it needs the prune guard's permission.
    if service.spec.replicas > 0 or context.prunable:
        for container in context.containers:
            replica = ReplicaState(container, service)
            if replica.is_surplus:
                actions = stop_and_remove(container, service, cause_of(replica))
                plan.actions += judged_sequence(actions, context.judge)
    return plan


def _stop(context: ServiceContext, plan: RolloutPlan) -> None:
    for container in context.containers:
        replica = ReplicaState(container, context.service)
        dead = container.state in (ContainerState.REMOVING, ContainerState.DEAD)
        if replica.is_surplus or dead:
            continue
        alive = container.state in ALIVE
        if alive and not context.prunable:
            continue
        # A stopped container loses its restart policy, or a restart of the engine would start it.
        down = f"{container.name} is down, state Stopped is declared"
        cause = cause_of(replica) if alive else down
        started = container.state is not ContainerState.CREATED
        actions = stop_for_good(container, context.service, cause) if started else []
        plan.actions += judged_sequence(actions, context.judge)


# Waves


def _run(context: ServiceContext, plan: RolloutPlan) -> None:
    pending: list[SlotPlan] = []
    every = _slots(context)
    if all(is_as_declared(slot, context) for slot in every):
        return  # nearly all services of a plan of everything
    for blocker, slots in _slots_by_blocker(every, context):
        if blocker is None:
            pending = _plan_waves(slots, pending, context, plan)
            continue
        if blocker is context.blockers.hook and not blocker.code:
            pending = _plan_behind_job(slots, pending, context, plan)
            continue
        # A dependency delays starts and replacements. Serving containers are healed meanwhile.
        kept_alive = [action for slot in slots for action in keep_alive_actions(slot, context)]
        _emit(kept_alive, context, plan)
        plan.kept_alive += kept_alive
        if not blocker.code:
            plan.actions.append(blocker.barrier(context.key))
            pending = _plan_waves(slots, pending, context, plan)
            continue
        for slot in slots:
            name = container_name_in(slot, context)
            plan.actions.append(blocker.wait(context.key, target=name, slot=slot.number))
            pending.append(SlotPlan(slot.number, [], blocked=True))


#: What is done before a job of ``rollout.before`` runs: the policy admits the first container, and
#: its image is here.
_PREPARING = (PullImage, CreateNetwork, CreateVolume, DeliverFiles, CreateContainer)


def _plan_behind_job(
    slots: list[SlotState], pending: list[SlotPlan], context: ServiceContext, plan: RolloutPlan
) -> list[SlotPlan]:
    """Add the actions of slots that start, or are replaced, after a job of the rollout."""
    blocker = context.blockers.hook
    assert blocker is not None, "only slots behind a job are passed"
    kept_alive = [action for slot in slots for action in keep_alive_actions(slot, context)]
    _emit(kept_alive, context, plan)
    plan.kept_alive += kept_alive
    part = RolloutPlan(kept_alive=plan.kept_alive)
    pending = _plan_waves(slots, pending, context, part)
    prepared = list(takewhile(lambda action: isinstance(action, _PREPARING), part.actions))
    others = part.actions[len(prepared) :]
    plan.actions += prepared
    if any(not isinstance(action, AnyWait) for action in others):
        plan.actions.append(blocker.barrier(context.key))
    plan.actions += others
    plan.problems += part.problems
    return pending


def _slots_by_blocker(
    every: list[SlotState], context: ServiceContext
) -> list[tuple[Blocker | None, list[SlotState]]]:
    """Return the slots grouped by their blocking dependency, the unblocked ones first."""
    start, replacement = context.blockers.start, context.blockers.replace
    hook = context.blockers.hook
    groups: dict[Blocker | None, list[SlotState]] = {
        None: [],
        start: [],
        replacement: [],
        hook: [],
    }
    for slot in every:
        groups[_blocker_of(slot, context)].append(slot)
    return [(blocker, slots) for blocker, slots in groups.items() if slots]


def _blocker_of(slot: SlotState, context: ServiceContext) -> Blocker | None:
    """Return the dependency in the way of a slot's start or replacement; None if neither is due."""
    current, blockers = slot.current, context.blockers
    controller_restarts = context.is_restarted_by_controller(slot.number)
    if current is not None and has_process(current):
        return blockers.start if needs_health_restart(current, context) else None
    if current is not None and (
        current.state is ContainerState.RESTARTING
        or is_finished(current, context.service, controller_restarts=controller_restarts)
    ):
        return None
    return (blockers.replace if slot.alive else blockers.start) or blockers.hook


def _plan_waves(
    slots: list[SlotState], pending: list[SlotPlan], context: ServiceContext, plan: RolloutPlan
) -> list[SlotPlan]:
    """Add the actions of *slots* to *plan*, wave by wave.

    *pending* are slots of earlier groups that do not serve as declared yet. Returns all such slots.
    """
    interrupting = [slot for slot in slots if _interrupts(slot, context)]
    # Restarts of unhealthy containers come before replacements of healthy ones.
    interrupting.sort(key=lambda slot: (slot.current is None, slot.number))
    steady = [slot for slot in slots if slot not in interrupting]
    # A pull can fail, and ends the pass. A container that can serve meanwhile is started before.
    steady.sort(key=lambda slot: not has_fallback(slot, context))
    wave = [*pending, *(_begin(slot, context, plan) for slot in steady)]
    paused = context.plan_context.paused.get(context.key, "")
    postponed = [slot for slot in interrupting if paused and not _is_restarted(slot, context)]
    interrupting = [slot for slot in interrupting if slot not in postponed]
    while True:
        while begun := _fitting(interrupting, wave, context):
            interrupting = [slot for slot in interrupting if slot not in begun]
            wave += [_begin(slot, context, plan) for slot in begun]
        blocked = _blocked_cause(wave)
        _finish(wave, context, plan, more=bool(interrupting) and blocked == "")
        if blocked != "" or not interrupting:
            break
        wave = []
    for slot in interrupting:
        cause = (_is_serving(slot) and _busy_cause(wave)) or blocked
        _postpone(slot, cause, context, plan)
    for slot in postponed:
        _postpone(slot, paused, context, plan)
    # A slot with actions behind its barrier is settled by the time that the next group begins.
    unsettled = (s for s in wave if s.blocked or (s.barrier is not None and not s.after))
    return [replace(slot_plan, before=[], after=[]) for slot_plan in unsettled]


def _fitting(
    slots: list[SlotState], wave: list[SlotPlan], context: ServiceContext
) -> list[SlotState]:
    """Return the next slots of a wave. Each of them uses up parallelism.

    While a slot of the wave is blocked, no serving container is replaced. Restarts of unhealthy
    containers wait only for pending slots, not for blocked ones: otherwise a bad slot would keep
    all others unhealthy.
    """
    if _blocked_cause(wave):
        slots = [slot for slot in slots if _is_restarted(slot, context)]
        wave = [slot_plan for slot_plan in wave if not slot_plan.blocked]
    # Memory is taken from one container at a time.
    at_once = 1 if any(_loses_memory(slot, context) for slot in slots) else context.parallelism
    return slots[: max(0, at_once - sum(each.pending for each in wave))]


def _is_restarted(slot: SlotState, context: ServiceContext) -> bool:
    """Return True if an interrupting slot restarts its container instead of replacing it."""
    current = slot.current
    return current is not None and has_process(current) and needs_health_restart(current, context)


def _loses_memory(slot: SlotState, context: ServiceContext) -> bool:
    """Return True if the memory limit of a slot's running container is lowered."""
    current = slot.current
    return current is not None and takes_memory(current, context)


def _blocked_cause(wave: list[SlotPlan]) -> str:
    """Return why no serving container is replaced after a wave; '' if some may be."""
    blocked = sorted(each.slot for each in wave if each.blocked)
    return f"slot {blocked[0]} goes first" if blocked else ""


def _busy_cause(wave: list[SlotPlan]) -> str:
    """Return why no unhealthy container is restarted after a wave; '' if some may be."""
    busy = sorted(each.slot for each in wave if each.pending and not each.blocked)
    return f"slot {busy[0]} goes first" if busy else ""


def _is_serving(slot: SlotState) -> bool:
    return slot.current is not None and has_process(slot.current)


def _slots(context: ServiceContext) -> list[SlotState]:
    containers = by_slot(context.containers)
    numbers = range(1, context.service.spec.replicas + 1)
    return [
        slot_of(
            n,
            containers.get(n, ()),
            context.service,
            context.plan_context.replace_reasons,
            context.deferred_repairs(n),
            context.plan_context.removed_from_outside.get((context.key, n), ""),
        )
        for n in numbers
    ]


def _interrupts(slot: SlotState, context: ServiceContext) -> bool:
    """Return True if the slot's actions stop a serving container, and so use up parallelism."""
    current = slot.current
    if current is not None and has_process(current):
        return needs_health_restart(current, context) or takes_memory(current, context)
    serves = any(
        extra.running and context.availability_of(extra) is not AvailabilityWord.UNHEALTHY
        for extra in slot.alive
    )
    if current is None:
        return serves
    if ReplicaState(current, context.service).is_finished:
        return False
    return serves and order_of(context.service) is Order.STOP_FIRST


def _postpone(slot: SlotState, cause: str, context: ServiceContext, plan: RolloutPlan) -> None:
    if slot.current is not None and takes_memory(slot.current, context):
        held = replace(context, kept_memory=frozenset({slot.number}))
        kept = plan_slot(slot, held)
        postponed = Delay(
            object=context.key, target=slot.current.name, slot=slot.number, cause=cause
        )
        _emit([*kept.before, postponed], context, plan)
        plan.problems += kept.problems
        return
    slot_plan = plan_slot(slot, context)
    if not slot_plan.blocked:
        name = (slot.current or slot.alive[0]).name
        postponed = Delay(object=context.key, target=name, slot=slot.number, cause=cause)
        slot_plan = SlotPlan(slot.number, [*keep_alive_actions(slot, context), postponed])
    _emit(slot_plan.before, context, plan)
    plan.problems += slot_plan.problems


def _begin(slot: SlotState, context: ServiceContext, plan: RolloutPlan) -> SlotPlan:
    slot_plan = plan_slot(slot, context)
    _emit(slot_plan.before, context, plan)
    plan.problems += slot_plan.problems
    return slot_plan


def _finish(
    wave: list[SlotPlan], context: ServiceContext, plan: RolloutPlan, *, more: bool
) -> None:
    """Emit the barriers of a wave and the actions behind them.

    *more*: another wave follows, so every pending slot needs a barrier.
    """
    for slot_plan in sorted(wave, key=lambda each: each.barrier is not None):
        if slot_plan.barrier is not None and (slot_plan.after or more):
            plan.actions.append(slot_plan.barrier)
        _emit(slot_plan.after, context, plan)


def _emit(actions: list[AnyAction], context: ServiceContext, plan: RolloutPlan) -> None:
    shown: set[tuple[str, str]] = set()
    if any(map(is_denied, actions)):
        shown = {(a.verb, a.target) for a in plan.actions if is_denied(a)}
    for action in actions:
        if is_denied(action) and (action.verb, action.target) in shown:
            continue
        if action in plan.kept_alive:
            continue
        if not is_denied(action):
            context.prerequisites.record_created(action)
        plan.actions.append(action)
