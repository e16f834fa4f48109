"""Faults without an end: what is done about one service within a time is bounded.

Each bug that is planted here is found by the bound, in one world that is named with it.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from controller.core.drift import contention, failures
from controller.loop.state import service_tracker
from tests.sim.everlasting import BOUNDED, FAULTS, LIFE_S, EverlastingWorld, bound
from tests.sim.parallel import mapped
from tests.sim.planted import Plant, always
from tests.sim.violation import Violation


def endured(name: str) -> str:
    """Live with a fault; return how much was done about it, or what went wrong."""
    try:
        return f"{EverlastingWorld(FAULTS[name]).endure():5} acts"
    except Violation as violation:
        return str(violation)


@pytest.mark.timeout(600)
def test_what_is_done_about_a_fault_without_an_end_is_bounded(
    record_property: Callable[[str, object], None],
) -> None:
    found = dict(zip(FAULTS, mapped(endured, [*FAULTS], chunk=1), strict=True))
    lines = [f"{said}  {name}" for name, said in found.items()]
    record_property(f"faults without an end: at most {bound(LIFE_S)} acts", lines)
    failed = {name: said for name, said in found.items() if not said.endswith(" acts")}
    assert failed == {}


def _counts_once(original: Callable[..., object]) -> Callable[..., object]:
    """What is altered beside something that is altered already isn't noticed."""

    def wrong(fight: contention.Contention, altered: set[str], now: float) -> object:
        return original(fight, fight.altered or altered, now)

    return wrong


#: Each with the world that finds it.
PLANTED: tuple[tuple[Plant, str], ...] = (
    (
        Plant(
            BOUNDED,
            "violations-uncounted",
            "no backoff after a violation",
            ((service_tracker.ServiceTracker, "_count_violations", always(lambda *_: None)),),
        ),
        "the broker ends it at each start",
    ),
    (
        Plant(
            BOUNDED,
            "removals-unpaced",
            "what somebody removes again and again is created at once for ever",
            ((service_tracker, "_describe_removal", always(lambda *_: "")),),
        ),
        "somebody removes it",
    ),
    (
        Plant(
            BOUNDED,
            "stops-unpaced",
            "what somebody stops again and again is started at once for ever",
            ((failures, "is_stopped_from_outside", always(lambda *_, **_named: False)),),
        ),
        "somebody stops it",
    ),
    (
        Plant(
            BOUNDED,
            "successors-unnoticed",
            "an alteration of a successor isn't counted while the altered predecessor is there",
            ((contention, "update", _counts_once),),
        ),
        "somebody alters what no engine takes back",
    ),
    (
        Plant(
            BOUNDED,
            "no-pause",
            "a slot that fails is tried again at once",
            ((failures, "pause_s", always(lambda _history: 0)),),
        ),
        "it crashes at each start",
    ),
)


@pytest.mark.parametrize(
    ("plant", "world"), PLANTED, ids=[plant.patch for plant, _world in PLANTED]
)
def test_a_bug_that_lets_something_be_done_for_ever_is_found(plant: Plant, world: str) -> None:
    with plant.growing(), pytest.raises(Violation, match=f"invariant {BOUNDED}:") as found:
        EverlastingWorld(FAULTS[world]).endure()
    assert found.value.invariant == plant.invariant
