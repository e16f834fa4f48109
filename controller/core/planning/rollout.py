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
    denied,
    halt,
    judged,
    retire,
    until_denied,
    wait,
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
from controller.core.planning.predecessor import tended_steps, tending
from controller.core.planning.slot import (
    ServiceContext,
    SlotPlan,
    is_done,
    is_there,
    is_to_be_revived,
    name_in,
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
    tended: list[AnyAction] = field(default_factory=list)  # of actions, what is done but once


def service_actions(situation: ServiceContext) -> RolloutPlan:
    """Return the actions for one declared service, in order.

    Slots in which nothing is interrupted come first, then those whose container is replaced, then
    those that are too many.
    """
    outcome = RolloutPlan()
    service = situation.service
    if service.spec.state is RunState.STOPPED:
        _stop(situation, outcome)
    else:
        _run(situation, outcome)
    # Down to nothing is a removal of the service, which the prune guard has its say on.
    if service.spec.replicas > 0 or situation.prunable:
        for container in situation.containers:
            replica = ReplicaState(container, service)
            if replica.spare:
                actions = retire(container, service, why(replica))
                outcome.actions += until_denied(judged(actions, situation.judge))
    return outcome


def _stop(situation: ServiceContext, outcome: RolloutPlan) -> None:
    for container in situation.containers:
        replica = ReplicaState(container, situation.service)
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


# Waves


def _run(situation: ServiceContext, outcome: RolloutPlan) -> None:
    before: list[SlotPlan] = []
    for hindrance, slots in _groups(situation):
        if hindrance is not None:
            # Order is for starting: what serves meanwhile is kept as it should be.
            tended = [action for slot in slots for action in tending(slot, situation)]
            _emit(tended, situation, outcome)
            outcome.tended += tended
        if hindrance is not None and hindrance.code:
            for slot in slots:
                name = name_in(slot, situation)
                outcome.actions.append(hindrance.wait(situation.key, target=name, slot=slot.number))
                before.append(SlotPlan(slot.number, [], stuck=True))
            continue
        if hindrance is not None:
            outcome.actions.append(hindrance.gate(situation.key))
        before = _bring(slots, before, situation, outcome)


def _groups(situation: ServiceContext) -> list[tuple[Blocker | None, list[SlotState]]]:
    """Return the slots by what other services keep them from, those that nothing does first."""
    start, replaced = situation.hindrances.start, situation.hindrances.replace
    groups: dict[Blocker | None, list[SlotState]] = {None: [], start: [], replaced: []}
    for slot in _slots(situation):
        groups[_kept_from(slot, situation)].append(slot)
    return [(hindrance, slots) for hindrance, slots in groups.items() if slots]


def _kept_from(slot: SlotState, situation: ServiceContext) -> Blocker | None:
    """Return what keeps a slot's container from being started or replaced, if it needs to be."""
    keep, hindrances = slot.keep, situation.hindrances
    taken_over = situation.is_taken_over(slot.number)
    if keep is not None and is_there(keep):
        return hindrances.start if is_to_be_revived(keep, situation) else None
    if keep is not None and keep.state is ContainerState.RESTARTING:
        return None
    if keep is not None and is_done(keep, situation.service, taken_over=taken_over):
        return None
    return hindrances.replace if slot.alive else hindrances.start


def _bring(
    slots: list[SlotState], before: list[SlotPlan], situation: ServiceContext, outcome: RolloutPlan
) -> list[SlotPlan]:
    """Bring slots to run; *before* are others that are on their way, and so are those returned."""
    interrupting = [slot for slot in slots if _interrupts(slot, situation)]
    # What serves badly goes before what serves well.
    interrupting.sort(key=lambda slot: (slot.keep is None, slot.number))
    wave = [_begin(slot, situation, outcome) for slot in slots if slot not in interrupting]
    wave = [*before, *wave]
    paused = situation.past.paused.get(situation.key, "")
    put_off = [slot for slot in interrupting if paused and not _is_running(slot.keep)]
    interrupting = [slot for slot in interrupting if slot not in put_off]
    while True:
        while begun := _fitting(interrupting, wave, situation):
            interrupting = [slot for slot in interrupting if slot not in begun]
            wave += [_begin(slot, situation, outcome) for slot in begun]
        stuck = _stuck(wave)
        _finish(wave, situation, outcome, more=bool(interrupting) and stuck == "")
        if stuck != "" or not interrupting:
            break
        wave = []
    for slot in interrupting:
        _put_off(slot, (_serves_badly(slot) and _busy(wave)) or stuck, situation, outcome)
    for slot in put_off:
        _put_off(slot, paused, situation, outcome)
    # What stands behind a gate that was emitted isn't on its way any more.
    left = (s for s in wave if s.stuck or (s.gate is not None and not s.finish))
    return [replace(steps, begin=[], finish=[]) for steps in left]


def _fitting(
    slots: list[SlotState], wave: list[SlotPlan], situation: ServiceContext
) -> list[SlotState]:
    """Return which of these slots, all of which need room, are begun with a wave.

    While one is stuck nothing that serves well is interrupted. What serves badly isn't held up by
    it, or one bad slot would keep all others from being mended: it waits for those alone that are
    on their way.
    """
    if _stuck(wave):
        slots = [slot for slot in slots if _serves_badly(slot)]
        wave = [steps for steps in wave if not steps.stuck]
    return slots[: max(0, situation.limit - sum(steps.pending for steps in wave))]


def _serves_badly(slot: SlotState) -> bool:
    """Tell of a slot that needs room whether that is since its container is to be revived."""
    return slot.keep is not None and is_there(slot.keep)


def _stuck(wave: list[SlotPlan]) -> str:
    """Return why nothing that serves is interrupted after a wave, if so."""
    return _first(steps.number for steps in wave if steps.stuck)


def _busy(wave: list[SlotPlan]) -> str:
    """Return why nothing that serves badly is restarted after a wave, if so."""
    return _first(steps.number for steps in wave if steps.pending and not steps.stuck)


def _first(numbers: Iterable[int]) -> str:
    first = min(numbers, default=None)
    return "" if first is None else f"slot {first} goes first"


def _is_running(container: Container | None) -> bool:
    return container is not None and container.running


def _slots(situation: ServiceContext) -> list[SlotState]:
    by_slot: dict[int, list[Container]] = {}
    for container in situation.containers:
        by_slot.setdefault(container.slot, []).append(container)
    numbers = range(1, situation.service.spec.replicas + 1)
    return [
        slot_of(
            n,
            tuple(by_slot.get(n, ())),
            situation.service,
            situation.past.superseded,
            situation.spared(n),
            situation.past.gone.get((situation.key, n), ""),
        )
        for n in numbers
    ]


def _interrupts(slot: SlotState, situation: ServiceContext) -> bool:
    """Tell whether bringing a slot to run interrupts something that serves, so that it needs room."""
    keep = slot.keep
    if keep is not None and is_there(keep):
        return is_to_be_revived(keep, situation)
    serves = any(
        o.running and situation.ready(o) is not AvailabilityWord.UNHEALTHY for o in slot.alive
    )
    if keep is None:
        return serves
    if ReplicaState(keep, situation.service).finished:
        return False
    return serves and order_of(situation.service) is Order.STOP_FIRST


def _put_off(slot: SlotState, cause: str, situation: ServiceContext, outcome: RolloutPlan) -> None:
    steps = tended_steps(slot, situation)
    if not steps.stuck:
        name = (slot.keep or slot.alive[0]).name
        put_off = wait(situation.key, target=name, slot=slot.number, cause=cause)
        steps = SlotPlan(slot.number, [*tending(slot, situation), put_off])
    _emit(steps.begin, situation, outcome)
    outcome.problems += steps.problems


def _begin(slot: SlotState, situation: ServiceContext, outcome: RolloutPlan) -> SlotPlan:
    steps = tended_steps(slot, situation)
    _emit(steps.begin, situation, outcome)
    outcome.problems += steps.problems
    return steps


def _finish(
    wave: list[SlotPlan], situation: ServiceContext, outcome: RolloutPlan, *, more: bool
) -> None:
    """Emit what ends the slots of a wave; *more*: another wave waits for all of them."""
    for steps in sorted(wave, key=lambda steps: steps.gate is not None):
        if steps.gate is not None and (steps.finish or more):
            outcome.actions.append(steps.gate)
        _emit(steps.finish, situation, outcome)


def _emit(actions: list[AnyAction], situation: ServiceContext, outcome: RolloutPlan) -> None:
    shown = {(a.verb, a.target) for a in outcome.actions if denied(a)}
    for action in actions:
        if denied(action) and (action.verb, action.target) in shown:
            continue
        if action in outcome.tended:
            continue
        if not denied(action):
            situation.supplies.note(action)
        outcome.actions.append(action)
