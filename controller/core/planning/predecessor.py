"""Predecessors: what served in a slot before, looked after while its successor can't be had.

Whoever is up is put back in place; where nobody is, the last good one is started again. A successor
that is there at once, as most are, needs none of that, and gets what ``core.planning.slot`` says alone.
"""

from __future__ import annotations

from dataclasses import replace

from controller.core.drift.actions import ContainerHandle, barrier, denied, judged
from controller.core.drift.availability import AvailabilityWord
from controller.core.drift.contention import ENDED
from controller.core.drift.drift import (
    ALIVE,
    ReplicaState,
    SlotState,
    ailment,
    alterations,
    is_healable,
    restart_of,
)
from controller.core.planning import slot as slots
from controller.core.planning.slot import ServiceContext, SlotPlan
from controller.core.planning.successor import order_of
from controller.model.desired.plan import AnyAction, PullImage
from controller.model.desired.spec import Order
from controller.model.observed import Container, ContainerState


def plan_slot(slot: SlotState, context: ServiceContext) -> SlotPlan:
    """Return what brings one slot to run, and what looks after its predecessor until then."""
    current, plan = slot.current, slots.plan_current(slot, context)
    if current is not None and not plan.pending:
        return plan  # it has come
    settles = current is not None and slots.has_process(current)
    if not settles and not _takes_long(plan, context):
        return plan
    up = [*slot.alive, *([current] if current is not None and current.state in ALIVE else [])]
    cure = [] if settles else _restart_failing(slot, context, plan)
    if any(not _is_in_vain(container, context) for container in up):
        return replace(plan, before=[*keep_alive_actions(slot, context), *cure, *plan.before])
    return _plan_fallback(slot, context) or replace(plan, before=[*cure, *plan.before])


def _is_in_vain(container: Container, context: ServiceContext) -> bool:
    """Tell whether a container runs that nothing is waited for any more, and needs no other's room."""
    paused = context.key in context.plan_context.paused
    beside = order_of(context.service) is Order.START_FIRST
    return paused and beside and context.availability_of(container) is AvailabilityWord.UNHEALTHY


def _takes_long(plan: SlotPlan, context: ServiceContext) -> bool:
    """Tell whether what is to come in a slot won't be there at once, as far as can be foreseen."""
    pulls = any(isinstance(action, PullImage) for action in plan.before)
    hindered = context.key in context.plan_context.last_pass_failed
    return plan.blocked or pulls or hindered or context.key in context.plan_context.paused


def _restart_failing(slot: SlotState, context: ServiceContext, plan: SlotPlan) -> list[AnyAction]:
    """Return what restarts a predecessor that is unhealthy, where nothing that comes would end that."""
    if not (plan.blocked or context.key in context.plan_context.last_pass_failed) or not slot.alive:
        return []
    predecessor = slots.by_rank(slot, context)[0]
    ill = all(context.availability_of(each) is AvailabilityWord.UNHEALTHY for each in slot.alive)
    ailing = ill and predecessor.id in context.plan_context.failing_predecessors
    if not ailing or not slots.needs_health_restart(predecessor, context):
        return []
    actions = slots.restart_actions(predecessor, context, ailment(predecessor))
    # What policy wouldn't have any more may not be let start again.
    refused = any(denied(action) for action in (*actions, *plan.before))
    return [] if refused else actions


def keep_alive_actions(slot: SlotState, context: ServiceContext) -> list[AnyAction]:
    """Return what puts back in place what serves in a slot until its successor does."""
    others = slots.by_rank(slot, context)[:1]  # what else there is goes as soon as can be
    if not others or not is_healable(others[0], context.deferred_repairs(slot.number)):
        return []
    # Somebody must answer to the service's name: whoever was cut off has lost it.
    up = [*slot.alive, *([slot.current] if slot.current is not None else [])]
    named = any(context.key.name in asked for each in up for _, asked in each.aliases)
    healing, _ = slots.healing_of(others[0], context, announced=not named)
    return [action for action in judged(healing, context.judge) if not denied(action)]


def _plan_fallback(slot: SlotState, context: ServiceContext) -> SlotPlan | None:
    """Return the steps that start what served in a slot before, and then go on; None: it can't be.

    What is behind the gate is planned as if it ran already.
    """
    predecessor = _predecessor(slot, context)
    contended = ENDED & set(context.deferred_repairs(slot.number))
    if predecessor is None or contended:
        return None
    handle, policy = ContainerHandle.seen(predecessor), restart_of(context.service)
    healing, _ = slots.healing_of(predecessor, context, announced=True)
    cause = f"it serves until {slots.container_name_in(slot, context)} can"
    back: list[AnyAction] = [*healing, handle.start(cause)]
    has = predecessor.settings.restart
    if has != policy[0]:
        back.append(handle.restart(policy, f"restart policy is {has}, want {policy[0]}"))
    back = judged(back, context.judge)
    if any(denied(action) for action in back):
        return None
    running = replace(predecessor, state=ContainerState.RUNNING)
    others = tuple(running if other is predecessor else other for other in slot.extra)
    paused = context.plan_context.paused.get(context.key)
    if paused:
        waiting = slots.blocked_plan(slot, context, paused, slots.container_name_in(slot, context))
        return replace(waiting, before=[*back, *waiting.before])
    plan = slots.plan_current(replace(slot, extra=others), context)
    up = barrier(context.key, target=predecessor.name, slot=slot.number, cause="must be up first")
    between = [] if plan.blocked else [up]
    return replace(plan, before=[*back, *between, *plan.before])


def _predecessor(slot: SlotState, context: ServiceContext) -> Container | None:
    """Return what of other revisions may serve in a slot again: the last good one, or the latest."""
    service, good = context.service, context.plan_context.last_good.get(context.key, "")
    down = [
        other
        for other in slot.extra
        if other.state is ContainerState.EXITED
        and other.revision != service.revision
        and other.id not in context.volume_lost
        and not (other.violation or ReplicaState(other, service).finished)
        # What was altered while it was down isn't started as it is, but put back before.
        and all(each.in_place or each.what in slots.RESTARTS for each in alterations(other))
    ]
    down.sort(key=lambda other: (other.revision == good, other.started_at, other.id))
    return down[-1] if down else None
