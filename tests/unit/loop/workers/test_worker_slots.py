"""Lanes: who works, who pulls beside, and how the end waits for the one and not for the other."""

from __future__ import annotations

from contextlib import ExitStack

from controller.loop.workers.worker_slots import WorkerSlots
from tests.unit.loop.toy import Watch

WATCH = Watch()


def finishes(slots: WorkerSlots) -> bool:
    return slots.finish(within_s=0.0, monotonic=WATCH.monotonic)


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
