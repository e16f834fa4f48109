"""The controller's own share: the fourth waits, until one of the three runs again."""

from __future__ import annotations

from controller.core.enforcement import disruption_budget
from controller.loop.state.disruption_budget import LATER_S, REPLACING_S, SOON_S, DisruptionBudget
from controller.model.errors import Act
from controller.model.names import service_key

KEYS = [service_key("default", f"s{number}") for number in range(10)]
ALL = frozenset(KEYS)


class Time:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def three_down(time: Time) -> DisruptionBudget:
    share = DisruptionBudget(time)
    assert [share.take(key, ALL) for key in KEYS[:3]] == [None] * 3
    return share


def test_the_fourth_waits_and_says_for_what() -> None:
    share = three_down(Time())
    error = share.take(KEYS[3], ALL)
    assert error is not None
    assert (error.code, error.act) == ("blast.radius", Act.WAITING)
    assert error.message == (
        "default/s3 would be one more of 10 services without a running slot: the controller took "
        "down default/s0, default/s1, default/s2 within 10 minutes, and may at most 3"
    )


def test_one_that_is_down_already_isnt_counted_twice() -> None:
    assert three_down(Time()).take(KEYS[0], ALL) is None


def test_one_that_runs_again_makes_room() -> None:
    share = three_down(Time())
    share.record_observation(KEYS[0], running=False)
    assert share.take(KEYS[3], ALL) is not None
    share.record_observation(KEYS[0], running=True)
    assert share.take(KEYS[3], ALL) is None


def test_after_the_window_there_is_room() -> None:
    time = Time()
    share = three_down(time)
    time.now += disruption_budget.WINDOW_S
    assert share.take(KEYS[3], ALL) is None


def test_it_looks_again_soon_and_later_less_often() -> None:
    time = Time()
    share = three_down(time)
    assert share.wait_s() == SOON_S
    time.now += REPLACING_S
    assert share.wait_s() == LATER_S
