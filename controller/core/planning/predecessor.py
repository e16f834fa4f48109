"""Predecessors: what served in a slot before, looked after while its successor can't be had.

Whoever is up is put back in place; where nobody is, the last good one is started again. A successor
that is there at once, as most are, needs none of that, and gets what ``core.planning.slot`` says alone.
"""

from __future__ import annotations

from dataclasses import replace

from controller.core.drift.actions import ContainerHandle, denied, gate, judged
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


def tended_steps(slot: SlotState, situation: ServiceContext) -> SlotPlan:
    """Return what brings one slot to run, and what looks after its predecessor until then."""
    keep, steps = slot.keep, slots.steps_of(slot, situation)
    if keep is not None and not steps.pending:
        return steps  # it has come
    settles = keep is not None and slots.is_there(keep)
    if not settles and not _takes_long(steps, situation):
        return steps
    up = [*slot.alive, *([keep] if keep is not None and keep.state in ALIVE else [])]
    cure = [] if settles else _cure(slot, situation, steps)
    if any(not _is_in_vain(container, situation) for container in up):
        return replace(steps, begin=[*tending(slot, situation), *cure, *steps.begin])
    return _stand_in(slot, situation) or replace(steps, begin=[*cure, *steps.begin])


def _is_in_vain(container: Container, situation: ServiceContext) -> bool:
    """Tell whether a container runs that nothing is waited for any more, and needs no other's room."""
    paused = situation.key in situation.past.paused
    beside = order_of(situation.service) is Order.START_FIRST
    return paused and beside and situation.ready(container) is AvailabilityWord.UNHEALTHY


def _takes_long(steps: SlotPlan, situation: ServiceContext) -> bool:
    """Tell whether what is to come in a slot won't be there at once, as far as can be foreseen."""
    pulls = any(isinstance(action, PullImage) for action in steps.begin)
    hindered = situation.key in situation.past.hindered
    return steps.stuck or pulls or hindered or situation.key in situation.past.paused


def _cure(slot: SlotState, situation: ServiceContext, steps: SlotPlan) -> list[AnyAction]:
    """Return what restarts a predecessor that is unhealthy, where nothing that comes would end that."""
    if not (steps.stuck or situation.key in situation.past.hindered) or not slot.alive:
        return []
    predecessor = slots.by_merit(slot, situation)[0]
    ill = all(situation.ready(each) is AvailabilityWord.UNHEALTHY for each in slot.alive)
    ailing = ill and predecessor.id in situation.past.ailing
    if not ailing or not slots.is_to_be_revived(predecessor, situation):
        return []
    actions = slots.revival(predecessor, situation, ailment(predecessor))
    # What policy wouldn't have any more may not be let start again.
    refused = any(denied(action) for action in (*actions, *steps.begin))
    return [] if refused else actions


def tending(slot: SlotState, situation: ServiceContext) -> list[AnyAction]:
    """Return what puts back in place what serves in a slot until its successor does."""
    others = slots.by_merit(slot, situation)[:1]  # what else there is goes as soon as can be
    if not others or not is_healable(others[0], situation.spared(slot.number)):
        return []
    # Somebody must answer to the service's name: whoever was cut off has lost it.
    up = [*slot.alive, *([slot.keep] if slot.keep is not None else [])]
    named = any(situation.key.name in asked for each in up for _, asked in each.aliases)
    healing, _ = slots.healing_of(others[0], situation, announced=not named)
    return [action for action in judged(healing, situation.judge) if not denied(action)]


def _stand_in(slot: SlotState, situation: ServiceContext) -> SlotPlan | None:
    """Return the steps that start what served in a slot before, and then go on; None: it can't be.

    What is behind the gate is planned as if it ran already.
    """
    predecessor = _predecessor(slot, situation)
    contended = ENDED & set(situation.spared(slot.number))
    if predecessor is None or contended:
        return None
    handle, policy = ContainerHandle.seen(predecessor), restart_of(situation.service)
    healing, _ = slots.healing_of(predecessor, situation, announced=True)
    cause = f"it serves until {slots.name_in(slot, situation)} can"
    back: list[AnyAction] = [*healing, handle.start(cause)]
    has = predecessor.settings.restart
    if has != policy[0]:
        back.append(handle.restart(policy, f"restart policy is {has}, want {policy[0]}"))
    back = judged(back, situation.judge)
    if any(denied(action) for action in back):
        return None
    running = replace(predecessor, state=ContainerState.RUNNING)
    others = tuple(running if other is predecessor else other for other in slot.others)
    paused = situation.past.paused.get(situation.key)
    if paused:
        waiting = slots.waiting_for(slot, situation, paused, slots.name_in(slot, situation))
        return replace(waiting, begin=[*back, *waiting.begin])
    steps = slots.steps_of(replace(slot, others=others), situation)
    up = gate(situation.key, target=predecessor.name, slot=slot.number, cause="must be up first")
    between = [] if steps.stuck else [up]
    return replace(steps, begin=[*back, *between, *steps.begin])


def _predecessor(slot: SlotState, situation: ServiceContext) -> Container | None:
    """Return what of other revisions may serve in a slot again: the last good one, or the latest."""
    service, good = situation.service, situation.past.good.get(situation.key, "")
    down = [
        other
        for other in slot.others
        if other.state is ContainerState.EXITED
        and other.revision != service.revision
        and other.id not in situation.kept
        and not (other.violation or ReplicaState(other, service).finished)
        # What was altered while it was down isn't started as it is, but put back before.
        and all(each.in_place or each.what in slots.RESTARTS for each in alterations(other))
    ]
    down.sort(key=lambda other: (other.revision == good, other.started_at, other.id))
    return down[-1] if down else None
