"""Bugs planted in the disruption budget: each must be found by some story of its model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from controller.core import disruption
from controller.core.disruption import Budget, Look
from controller.model.inventory import Capacity, RecordTime, TakenDown
from controller.model.mutations import Mutation
from tests.sim.budget_model import Box, World
from tests.sim.planted import Plant, always

#: The invariant of the disruption budget, as the worlds count it (``checkers``).
SHARE = 5


def _believes_the_look(original: Any) -> Any:
    """Take a container that is down and still shown for one that was started again."""

    def admit(
        budget: Budget, call: Any, look: Look, age_s: Callable[[RecordTime], float], **named: Any
    ) -> Any:
        shown = look.running
        taken = {
            key: each
            for key, each in budget.taken.items()
            if not (each.down_since is not None and each.container in shown)
        }
        replicas = {
            key: replace(each, up=each.up or RecordTime(time="-1000000")) if key in shown else each
            for key, each in budget.replicas.items()
        }
        return original(Budget(replicas, taken), call, look, age_s, **named)

    return admit


def _ends_at_once(original: Any) -> Any:
    """Count a service no more as soon as its container was started again."""

    def end(budget: Budget, *args: Any, **named: Any) -> Budget:
        folded: Budget = original(budget, *args, **named)
        kept = {key: each for key, each in folded.taken.items() if not each.ended}
        return replace(folded, taken=kept)

    return end


def _from_the_intent(_original: Any) -> Any:
    """Count the ten minutes from the intent on."""

    def expires_in_s(taken: TakenDown, age_s: Callable[[RecordTime], float]) -> float:
        return max(0.0, disruption.WINDOW_S - age_s(RecordTime(taken.intent, taken.time)))

    return expires_in_s


def _deaf_to(route: Mutation) -> Callable[[Any], Any]:
    """Take a mutation for harmless."""

    def wrong(original: Any) -> Any:
        return lambda budget, call: call.route != route and original(budget, call)

    return wrong


def _overtakes(_original: Any) -> Any:
    """Let no repair wait for a takedown that is in progress."""

    def is_overtaking(_self: World, _verb: str, _box: Box) -> bool:
        return False

    return is_overtaking


def _without_sets(original: Any) -> Any:
    """Compare the limits without the number of CPUs."""

    def is_below_half_of(mine: Capacity, other: Capacity, *, host_cpus: int = 0) -> bool:
        del host_cpus
        below: bool = original(replace(mine, cpus=0), replace(other, cpus=0))
        return below

    return is_below_half_of


BUDGET_PLANTS: tuple[Plant, ...] = (
    Plant(
        SHARE,
        "budget-believes-the-look",
        "a container that went down while the engine listed it counts as started again",
        ((disruption, "admit", _believes_the_look),),
    ),
    Plant(
        SHARE,
        "budget-counts-young-slots",
        "a slot that was started just now keeps its service up",
        ((disruption, "RUN_S", always(0.0)),),
    ),
    Plant(
        SHARE,
        "budget-ends-at-the-start",
        "a service counts no more once its container was restarted, although it ends at once",
        ((disruption, "_end", _ends_at_once),),
    ),
    Plant(
        SHARE,
        "budget-from-the-intent",
        "a stop counts for ten minutes from its intent on, however long it takes",
        ((disruption, "expires_in_s", _from_the_intent),),
    ),
    Plant(
        SHARE,
        "budget-blind-to-updates",
        "an update to next to nothing takes nothing down",
        ((disruption, "can_take_down", _deaf_to(Mutation.CONTAINER_UPDATE)),),
    ),
    Plant(
        SHARE,
        "budget-blind-to-sets-of-cpus",
        "an update to one CPU takes nothing down",
        ((Capacity, "is_below_half_of", _without_sets),),
    ),
    Plant(
        SHARE,
        "budget-blind-to-disconnects",
        "a disconnect takes nothing down",
        ((disruption, "can_take_down", _deaf_to(Mutation.NETWORK_DISCONNECT)),),
    ),
    Plant(
        SHARE,
        "budget-blind-to-restarts",
        "a restart takes nothing down",
        ((disruption, "can_take_down", _deaf_to(Mutation.CONTAINER_RESTART)),),
    ),
    Plant(
        SHARE,
        "budget-repairs-overtake",
        "a repair is carried out, and recorded, beside a takedown that is in progress",
        ((World, "_is_overtaking", _overtakes),),
    ),
)
