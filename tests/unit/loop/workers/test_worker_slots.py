"""Lanes: who works, who pulls beside, and how the end waits for the one and not for the other."""

from __future__ import annotations

from contextlib import ExitStack

from controller.loop.workers.worker_slots import WorkerSlots
from tests.unit.loop.toy import Watch

WATCH = Watch()


def finishes(lanes: WorkerSlots) -> bool:
    return lanes.finish(within_s=0.0, monotonic=WATCH.monotonic)


def test_the_end_waits_for_whoever_works() -> None:
    lanes = WorkerSlots(workers=2, aside=1)
    with lanes.working():
        assert not finishes(lanes)
    assert finishes(lanes)


def test_the_end_does_not_wait_for_a_pull() -> None:
    lanes = WorkerSlots(workers=1, aside=1)
    with lanes.working(), lanes.aside() as begun:
        assert begun
        assert finishes(lanes)


def test_the_end_keeps_no_place_so_that_who_has_a_key_learns_of_it() -> None:
    lanes = WorkerSlots(workers=2, aside=1)
    for _ in range(2):
        with lanes.working():
            assert not finishes(lanes)
        assert finishes(lanes)
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(lanes.working())


def test_there_are_so_many_pulls_beside_and_no_more() -> None:
    lanes = WorkerSlots(workers=1, aside=1)
    with lanes.working(), lanes.aside() as first, lanes.working(), lanes.aside() as second:
        assert (first, second) == (True, False)
