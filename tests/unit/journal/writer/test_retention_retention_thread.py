"""A wrong clock makes nothing old; a right one is believed in the end, whatever came before."""

from __future__ import annotations

from math import inf

import pytest

from controller.journal.writer.retention import ClockGuard

DAY_S = 86_400.0
#: In days: a host that ran for a month, looked at each day.
MONTH = tuple(range(31))
AGO = -20_000  # 1970, as a clock without a battery has it


def made_of(*days: float) -> ClockGuard:
    belief = ClockGuard()
    for day in days:
        belief = belief.observe(day * DAY_S)
    return belief


@pytest.mark.parametrize(
    ("days", "now"),
    [
        (MONTH, 30),
        ((*MONTH, 37), 37),
        ((*MONTH, 130), 30),
        ((*MONTH, 130, 130.01), 30),
        ((*MONTH, 130, 136), 30),
        ((*MONTH, 130, 230), 30),
        ((*MONTH, 130, *range(230, 237)), 30),
        ((*MONTH, 130, 30.1), 30.1),
        ((*MONTH, 130, 30.1, 131, 31, 132), 31),
        ((*MONTH, *range(130, 138)), 137),
        ((*MONTH, AGO, 30.1), 30.1),
        ((*MONTH, AGO), AGO),
        (range(7), -inf),
        (range(8), 7),
        ((0, 100), -inf),
        ((100, *range(8), 107), 7),
        (range(0, 80, 8), -inf),
    ],
    ids=[
        "as it should be",
        "off for a week",
        "ahead, or off for long",
        "ahead, and started again",
        "ahead for less than a week",
        "ahead, and further ahead",
        "further ahead for less than a week",
        "ahead, and set right",
        "ahead at each of several starts",
        "off for long, and on for a week",
        "without a battery, and set right",
        "without a battery",
        "nothing proven yet",
        "proven by a week",
        "ahead before anything is proven",
        "ahead at the very first",
        "never two times within a week",
    ],
)
def test_a_time_far_ahead_is_believed_once_it_ran_on_for_a_week(
    days: tuple[float, ...], now: float
) -> None:
    assert made_of(*days).now == pytest.approx(now * DAY_S)


@pytest.mark.parametrize(
    ("days", "doubted"),
    [
        ((0,), False),
        (range(3), False),
        (MONTH, False),
        ((0, 100), True),
        ((*MONTH, 130), True),
        ((*MONTH, 130, 131), True),
        ((*MONTH, 130, 30.1), False),
        ((0, 100, 0.1), False),
        ((*MONTH, *range(130, 138)), False),
        ((*MONTH, AGO, 30.1), False),
    ],
)
def test_only_what_jumped_ahead_is_told_as_doubted(
    days: tuple[float, ...], *, doubted: bool
) -> None:
    assert made_of(*days).doubted is doubted
