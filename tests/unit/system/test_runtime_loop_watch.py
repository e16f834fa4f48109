"""How long an event loop keeps its connections waiting."""

from __future__ import annotations

import asyncio
from functools import partial

from controller.system.runtime import PERIOD_S, StallMeter, WatchedSelector


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.time = 1000.0

    def monotonic(self) -> float:
        return self.time


def stall(clock: Clock, meter: StallMeter, seconds: float) -> None:
    """Let the loop work for a time, after it waited for an hour's tenth."""
    meter.begin_turn()
    clock.time += seconds
    meter.end_turn()


def test_the_longest_turn_is_reported_and_forgotten_after_two_periods() -> None:
    clock = Clock()
    meter = StallMeter(clock.monotonic)
    assert meter.longest_s() == 0.0
    stall(clock, meter, 0.25)
    stall(clock, meter, 0.125)
    assert meter.longest_s() == 0.25
    clock.time += PERIOD_S
    stall(clock, meter, 0.125)
    assert meter.longest_s() == 0.25
    clock.time += PERIOD_S
    assert meter.longest_s() == 0.125
    clock.time += 3 * PERIOD_S
    assert meter.longest_s() == 0.0


def test_time_that_the_loop_waits_is_no_stall() -> None:
    clock = Clock()
    meter = StallMeter(clock.monotonic)
    meter.begin_turn()
    meter.end_turn()
    clock.time += 30.0
    meter.begin_turn()
    meter.end_turn()
    assert meter.longest_s() == 0.0


def test_a_callback_that_takes_long_is_a_stall_of_its_loop() -> None:
    clock = Clock()
    meter = StallMeter(clock.monotonic)

    async def work() -> None:
        clock.time += 2.0
        await asyncio.sleep(0)

    selector = partial(WatchedSelector, meter)
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector())) as runner:
        runner.run(work())
    assert meter.longest_s() == 2.0
