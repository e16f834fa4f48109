"""Lanes: who works, who pulls beside, and how the end waits for the one and not for the other."""

from __future__ import annotations

import threading
from contextlib import ExitStack

from controller.loop.workqueue import WorkerSlots
from tests.instance import eventually
from tests.switches import only_when_blocked

PATIENCE_S = 20.0


def finishes(slots: WorkerSlots) -> bool:
    return slots.finish(within_s=0.0)


def test_the_end_waits_for_whoever_works() -> None:
    slots = WorkerSlots(workers=2, outside=1)
    with slots.working():
        assert not finishes(slots)
    assert finishes(slots)


def test_the_end_does_not_wait_for_a_pull() -> None:
    slots = WorkerSlots(workers=1, outside=1)
    with slots.working(), slots.outside_slot() as begun:
        assert begun
        assert finishes(slots)


def test_the_end_keeps_no_place_so_that_who_has_a_key_learns_of_it() -> None:
    slots = WorkerSlots(workers=2, outside=1)
    for _ in range(2):
        with slots.working():
            assert not finishes(slots)
        assert finishes(slots)
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(slots.working())


def test_there_are_so_many_pulls_beside_and_no_more() -> None:
    slots = WorkerSlots(workers=1, outside=1)
    with (
        slots.working(),
        slots.outside_slot() as first,
        slots.working(),
        slots.outside_slot() as second,
    ):
        assert (first, second) == (True, False)


def test_who_comes_back_from_a_pull_precedes_who_has_not_begun() -> None:
    slots = WorkerSlots(workers=1, outside=1)
    begun: list[str] = []
    pulled, waits = threading.Event(), threading.Event()

    def pull() -> None:
        with slots.working():
            with slots.outside_slot():
                waits.set()
                pulled.wait(PATIENCE_S)
            begun.append("the pull's pass")

    def work() -> None:
        with slots.working():
            begun.append("another pass")

    with ExitStack() as stack:
        threads = [
            threading.Thread(target=pull),
            *(threading.Thread(target=work) for _ in range(3)),
        ]
        threads[0].start()
        assert waits.wait(PATIENCE_S)
        stack.enter_context(slots.working())
        for thread in threads[1:]:
            thread.start()
        pulled.set()
        eventually(lambda: slots.returning == 1, what="the pull's pass waits for a slot")
        stack.close()
        for thread in threads:
            thread.join(PATIENCE_S)
    assert begun == ["the pull's pass", *["another pass"] * 3]


def test_a_slot_is_held_from_step_to_step_until_none_is_left() -> None:
    slots = WorkerSlots(workers=1, outside=1)
    steps: list[bool] = []

    def step() -> bool:
        assert not finishes(slots), "the slot was released between two steps"
        steps.append(len(steps) < 2)
        return steps[-1]

    slots.hold_while(step)
    assert steps == [True, True, False]
    assert finishes(slots)


def test_a_held_slot_goes_to_who_comes_back_from_a_pull() -> None:
    slots = WorkerSlots(workers=1, outside=1)
    begun: list[str] = []
    pulled, waits = threading.Event(), threading.Event()

    def pull() -> None:
        with slots.working():
            with slots.outside_slot():
                waits.set()
                pulled.wait(PATIENCE_S)
            begun.append("the pull's pass")

    def step() -> bool:
        pulled.set()
        eventually(lambda: slots.returning == 1, what="the pull's pass waits for a slot")
        begun.append("a step")
        return True

    puller = threading.Thread(target=pull)
    puller.start()
    assert waits.wait(PATIENCE_S)
    slots.hold_while(step)
    puller.join(PATIENCE_S)
    assert begun == ["a step", "the pull's pass"]


def test_two_slots_freed_at_once_go_to_the_returning_pass_and_to_another() -> None:
    slots = WorkerSlots(workers=2, outside=3)
    pulls, pulled, returns, worked, end = (threading.Event() for _ in range(5))

    def pull() -> None:
        with slots.working():
            with slots.outside_slot():
                pulls.set()
                pulled.wait(PATIENCE_S)
                returns.set()
            end.wait(PATIENCE_S)

    def work() -> None:
        with slots.working():
            worked.set()

    returning, waiting = threading.Thread(target=pull), threading.Thread(target=work)
    with only_when_blocked(), ExitStack() as stack:
        returning.start()
        assert pulls.wait(PATIENCE_S)
        stack.enter_context(slots.working())
        stack.enter_context(slots.working())
        pulled.set()
        assert returns.wait(PATIENCE_S)
        waiting.start()
        assert (slots.returning, worked.is_set()) == (1, False)
        # Both slots are free before the first of the two waiting threads runs.
        stack.enter_context(slots.outside_slot())
        stack.enter_context(slots.outside_slot())
        stack.callback(end.set)
        assert worked.wait(PATIENCE_S), "a slot is free, and the pass that waits for it sleeps"
    for thread in (returning, waiting):
        thread.join(PATIENCE_S)
    assert finishes(slots)
