"""The predecessor: a slot's older container, kept alive until its replacement is available.

A running predecessor is healed, or restarted if it keeps failing. If none runs, the last good one
is started again. A replacement that is available at once needs no predecessor: then
``core.planning.slot_plan`` alone plans the slot.
"""

from __future__ import annotations

from dataclasses import replace

from controller.core.drift.actions import ContainerHandle, is_denied, with_verdicts
from controller.core.drift.availability import AvailabilityWord
from controller.core.drift.classify import (
    ALIVE,
    ReplicaState,
    SlotState,
    alterations,
    is_healable,
    restart_of,
    unhealthy_cause,
)
from controller.core.drift.contention import ENDED
from controller.core.planning import serving_container
from controller.core.planning import slot_plan as slots
from controller.core.planning.context import ServiceContext
from controller.core.planning.rollout_order_and_pace import order_of
from controller.core.planning.slot_plan import SlotPlan
from controller.model.desired.plan import AnyAction, Barrier, PullImage
from controller.model.desired.spec.rollout import Order
from controller.model.names import FOREIGN
from controller.model.observed import Container, ContainerState


def plan_slot(slot: SlotState, context: ServiceContext) -> SlotPlan:
    """Plan one slot, and keep its predecessor alive until the slot serves as declared."""
    current, plan = slot.current, slots.plan_current(slot, context)
    if current is not None and not plan.pending:
        return plan
    settling = current is not None and slots.has_process(current)
    if not settling and not _takes_long(plan, context):
        return plan
    alive = [*slot.alive, *([current] if current is not None and current.state in ALIVE else [])]
    restart = [] if settling else _restart_failing(slot, context, plan)
    if any(not _is_given_up(container, context) for container in alive):
        keep_alive = keep_alive_actions(slot, context)
        return replace(plan, before=[*keep_alive, *restart, *plan.before])
    return _plan_fallback(slot, context) or replace(plan, before=[*restart, *plan.before])


def _is_given_up(container: Container, context: ServiceContext) -> bool:
    """Return True if a container of a paused rollout is unhealthy and another can run next to it."""
    paused = context.key in context.plan_context.paused
    overlaps = order_of(context.service) is Order.START_FIRST
    unhealthy = context.availability_of(container) is AvailabilityWord.UNHEALTHY
    return paused and overlaps and unhealthy


def _takes_long(plan: SlotPlan, context: ServiceContext) -> bool:
    """Return True if a slot's replacement will not be available at once, as far as is known."""
    pulls = any(isinstance(action, PullImage) for action in plan.before)
    failed = context.key in context.plan_context.last_pass_failed
    return plan.blocked or pulls or failed or context.key in context.plan_context.paused


def _restart_failing(slot: SlotState, context: ServiceContext, plan: SlotPlan) -> list[AnyAction]:
    """Return the restart of an unhealthy predecessor, if its replacement makes no progress."""
    failed = context.key in context.plan_context.last_pass_failed
    if not (plan.blocked or failed) or not slot.alive:
        return []
    predecessor = slots.by_rank(slot, context)[0]
    failing = predecessor.id in context.plan_context.failing_predecessors and all(
        context.availability_of(extra) is AvailabilityWord.UNHEALTHY for extra in slot.alive
    )
    if not failing or not serving_container.needs_health_restart(predecessor, context):
        return []
    actions = serving_container.restart_actions(predecessor, context, unhealthy_cause(predecessor))
    # The policy may deny the start. A container that it denies is not stopped.
    refused = any(is_denied(action) for action in (*actions, *plan.before))
    return [] if refused else actions


def keep_alive_actions(slot: SlotState, context: ServiceContext) -> list[AnyAction]:
    """Return the actions to heal the serving container until its replacement serves."""
    predecessors = slots.by_rank(slot, context)[:1]  # the others are removed as soon as possible
    deferred = context.deferred_repairs(slot.number)
    if not predecessors or not is_healable(predecessors[0], deferred):
        return []
    # Some container must answer to the service's name. A cut-off one has lost the alias.
    alive = [*slot.alive, *([slot.current] if slot.current is not None else [])]
    named = any(context.key.name in aliases for c in alive for _, aliases in c.aliases)
    healing, _ = serving_container.healing_actions(predecessors[0], context, with_alias=not named)
    return [action for action in with_verdicts(healing, context.judge) if not is_denied(action)]


def has_fallback(slot: SlotState, context: ServiceContext) -> bool:
    """Return True if nothing runs in a slot, and a stopped predecessor can be started again."""
    is_down = slot.current is None and not slot.alive
    return is_down and _startable_predecessor(slot, context) is not None


def _plan_fallback(slot: SlotState, context: ServiceContext) -> SlotPlan | None:
    """Return a plan to start the predecessor and then go on; None without a startable one.

    Actions behind its barrier are planned as if the predecessor ran already.
    """
    predecessor = _startable_predecessor(slot, context)
    contended = ENDED & set(context.deferred_repairs(slot.number))
    if predecessor is None or contended:
        return None
    handle, policy = ContainerHandle.of(predecessor), restart_of(context.service)
    healing, _ = serving_container.healing_actions(predecessor, context, with_alias=True)
    next_name = slots.container_name_in(slot, context)
    start: list[AnyAction] = [*healing, handle.start(f"it serves until {next_name} can")]
    start += handle.correct_restart_policy(predecessor.settings.restart, policy)
    start = with_verdicts(start, context.judge)
    if any(is_denied(action) for action in start):
        return None
    running = replace(predecessor, state=ContainerState.RUNNING)
    extra = tuple(running if each is predecessor else each for each in slot.extra)
    if paused := context.plan_context.paused.get(context.key):
        blocked = slots.blocked_plan(slot, context, paused, next_name)
        return replace(blocked, before=[*start, *blocked.before])
    plan = slots.plan_current(replace(slot, extra=extra), context)
    cause = "must be up first"
    up = Barrier(object=context.key, target=predecessor.name, slot=slot.number, cause=cause)
    return replace(plan, before=[*start, *([] if plan.blocked else [up]), *plan.before])


def _startable_predecessor(slot: SlotState, context: ServiceContext) -> Container | None:
    """Return the stopped container of an older revision to start again; None without any.

    The last good revision is preferred, then the container that was started last.
    """
    if context.resource_conflict is not None and context.resource_conflict.code == FOREIGN:
        return None
    service, last_good = context.service, context.plan_context.last_good.get(context.key, "")
    candidates = [
        extra
        for extra in slot.extra
        if extra.state is ContainerState.EXITED
        and extra.revision != service.revision
        and extra.id not in context.volume_lost
        and not _has_lost_namespaces(extra, context)
        and not (extra.violation or ReplicaState(extra, service).is_finished)
        # A container that was altered while it was down is healed before its start.
        and all(each.in_place or each.what in slots.RESTARTS for each in alterations(extra))
    ]
    candidates.sort(key=lambda extra: (extra.revision == last_good, extra.started_at, extra.id))
    return candidates[-1] if candidates else None


def _has_lost_namespaces(container: Container, context: ServiceContext) -> bool:
    """Return True if the container whose namespaces a container shares doesn't run, as far as is known."""
    shared = context.service.spec.shares is not None and container.slot not in context.unshared
    is_lost = not shared or container.id in context.plan_context.replace_reasons
    return container.shares != () and is_lost
