"""How often one new service is planned and judged, counted over the real loop and gate."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FrameType

from controller.core.admission.create import judge_create
from controller.core.planning import planner
from controller.core.rules.context import Case
from controller.model.names import service_key
from tests.sim.faults import Faults
from tests.sim.stories import WEB, Tale, service
from tests.sim.world import World

NEW = service_key("default", "new")


class CalmWorld(World):
    """A world without faults, of one service."""

    def __init__(self) -> None:
        super().__init__(0, story=Tale(frozenset(), (service(WEB),)), faults=Faults.none())

    def _ask_for_a_plan(self) -> None:
        """Ask for none: only the controller's own plans are counted."""


def _caller(code: CodeType, frame: FrameType) -> str:
    if code is planner.plan.__code__:
        return "plan of everything" if frame.f_locals["only"] is None else "plan of one"
    case: Case = frame.f_locals["case"]
    how = "text" if case.facts is None else "facts"
    process = "controller" if case.actor.uid < 0 else "broker"
    assert case.by_controller
    return f"{process} judges by {how}"


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count plans and judgements of creates until the block ends."""
    codes = {planner.plan.__code__, judge_create.__code__}
    counts: Counter[str] = Counter()

    def profile(frame: FrameType, event: str, _value: object) -> None:
        if event == "call" and frame.f_code in codes:
            counts[_caller(frame.f_code, frame)] += 1

    sys.setprofile(profile)
    try:
        yield counts
    finally:
        sys.setprofile(None)
    for kind in ("plan of one", "plan of everything"):
        counts[kind] //= 2  # the simulation plans twice


def test_a_new_service_is_planned_and_judged_a_bounded_number_of_times() -> None:
    world = CalmWorld()
    with world.begun():
        world.live(60.0)
        with counted() as counts:
            world.files.put(service(NEW))
            world.files_changed()
            world.live(25.0)
        assert world.controller is not None
        observed = world.controller.loop.shared.observed
        assert observed is not None
        assert [c.running for c in observed.of(NEW)] == [True]
    # One of these is another service's, by the clock.
    assert counts["plan of one"] <= 5
    assert counts["plan of everything"] == 0
    judged = {kind: count for kind, count in counts.items() if " judges by " in kind}
    assert judged == {
        "controller judges by text": 1,
        "broker judges by text": 1,
        "broker judges by facts": 1,
    }
