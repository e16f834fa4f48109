"""The controller's own share: the fourth waits, until one of the three has run for a while."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from controller.core import disruption
from controller.core.engine_api.translate import timestamp_seconds
from controller.core.service.prune_guard import DesiredView, PruneDecision, PruneMemory
from controller.loop.executor import never
from controller.loop.full_plan import FullPlan, PlanExecutor
from controller.loop.state.disruption_budget import (
    LATER_S,
    REPLACING_S,
    SOON_S,
    STEADY_S,
    DisruptionBudget,
    running_keys,
)
from controller.loop.state.store import StateStore
from controller.model.desired.plan import DisconnectNetwork, Plan
from controller.model.errors import Act
from controller.model.names import Key, service_key
from controller.model.observed import ContainerState, Observed
from controller.model.records import UNMET, Precondition
from tests import worlds
from tests.unit.loop.toy import House
from tests.worlds import container

KEYS = [service_key("default", f"s{number}") for number in range(10)]
ALL = frozenset(KEYS)
old, new = (
    replace(container("s0"), id=each, key=KEYS[0], started_at="2026-01-01T00:00:00Z")
    for each in ("old", "new")
)


class Time:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def three_down(time: Time) -> DisruptionBudget:
    share = DisruptionBudget(StateStore(Path("unused")), time)
    assert [share.take(key, ALL) for key in KEYS[:3]] == [None] * 3
    return share


def test_the_fourth_waits_and_says_for_what() -> None:
    share = three_down(Time())
    error = share.take(KEYS[3], ALL)
    assert error is not None
    assert (error.code, error.act) == ("blast.radius", Act.WAITING)
    assert error.message == (
        "the disruption budget is used up: default/s3 would be one more of 10 services that are "
        "down because of the controller (default/s0, default/s1, default/s2), and at most 3 may be"
    )


def test_one_that_is_down_already_isnt_counted_twice() -> None:
    assert three_down(Time()).take(KEYS[0], ALL) is None


def test_one_that_has_run_for_a_while_makes_room() -> None:
    time = Time()
    share = three_down(time)
    time.now += 1.0
    share.record_observation(KEYS[0], [new])
    time.now += STEADY_S - 0.1
    assert share.take(KEYS[3], ALL) is not None
    time.now += 0.1
    assert share.take(KEYS[3], ALL) is None


def test_the_container_that_goes_makes_no_room() -> None:
    time = Time()
    share = DisruptionBudget(StateStore(Path("unused")), time)
    for key in KEYS[:3]:
        share.record_observation(key, [old])
    time.now += 60.0
    assert [share.take(key, ALL) for key in KEYS[:3]] == [None] * 3
    assert share.take(KEYS[3], ALL) is not None


def test_a_successor_that_ran_before_its_predecessor_went_makes_room() -> None:
    # StartFirst with a minHealthy below STEADY_S: the predecessor goes before the successor is steady.
    time = Time()
    share = DisruptionBudget(StateStore(Path("unused")), time)
    share.record_observation(KEYS[0], [old, new])
    time.now += 1.0
    assert [share.take(key, ALL) for key in KEYS[:3]] == [None] * 3
    time.now += 1.0
    share.record_observation(KEYS[0], [new])
    time.now += STEADY_S - 2.1
    assert share.take(KEYS[3], ALL) is not None
    time.now += 0.1
    assert share.take(KEYS[3], ALL) is None


@pytest.mark.parametrize("again", ["another run", "an alteration", "an end"])
def test_the_time_of_a_slot_begins_again(again: str) -> None:
    time = Time()
    share = DisruptionBudget(StateStore(Path("unused")), time)
    share.record_observation(KEYS[0], [new])
    time.now += STEADY_S
    assert share.steady(KEYS[0]) == {new.id}
    if again == "an alteration":
        share.record_alterations(KEYS[0], [new.id], Observed(""))
        assert share.steady(KEYS[0]) == frozenset()
    if again == "an end":
        share.record_observation(KEYS[0], [replace(new, state=ContainerState.EXITED)])
    started_at = "2026-01-02T00:00:00Z" if again == "another run" else new.started_at
    share.record_observation(KEYS[0], [replace(new, started_at=started_at)])
    time.now += STEADY_S - 0.1
    assert share.steady(KEYS[0]) == frozenset()
    time.now += 0.1
    assert share.steady(KEYS[0]) == {new.id}


def test_a_service_is_up_once_it_has_run_for_five_seconds() -> None:
    started = timestamp_seconds(new.started_at)
    assert started is not None
    other = replace(new, key=KEYS[1])
    known, observed = Observed("i1", containers=(other,)), Observed("i1", containers=(new,))
    for passed_s, up in ((4.9, frozenset()), (5.0, frozenset({KEYS[0], KEYS[1]}))):
        assert running_keys(known, observed, KEYS[0], wall=started + passed_s) == up
    assert running_keys(None, observed, KEYS[0], wall=started + 5.0) == {KEYS[0]}


def test_after_the_window_there_is_room() -> None:
    time = Time()
    share = three_down(time)
    time.now += disruption.WINDOW_S
    assert share.take(KEYS[3], ALL) is None


def test_it_looks_again_soon_and_later_less_often() -> None:
    time = Time()
    share = three_down(time)
    assert share.wait_s() == SOON_S
    time.now += REPLACING_S
    assert share.wait_s() == LATER_S


LAN = Key("Network", "default", "lan")
LATER = 1_800_000_000.0


def remake_of(count: int) -> tuple[Plan, Observed]:
    """The disconnects of a remake of a network with services, and what is observed."""
    there = tuple(replace(new, id=f"c{number}", key=KEYS[number]) for number in range(count))
    leaves = tuple(
        DisconnectNetwork(
            object=LAN, target=c.name, cause="", network="lan", precondition=Precondition(id=c.id)
        )
        for c in there
    )
    return Plan(leaves), Observed("", containers=there)


def test_a_remake_counts_all_services_of_its_network_or_none() -> None:
    share = DisruptionBudget(StateStore(Path("unused")), Time())
    plan, observed = remake_of(4)
    taken = [share.take_for(LAN, a, plan, observed, lambda: ALL) for a in plan.actions]
    assert [error is None for error in taken] == [False] * 4
    # None of them counts.
    assert [share.take(key, ALL) for key in KEYS[4:7]] == [None] * 3
    share = DisruptionBudget(StateStore(Path("unused")), Time())
    plan, observed = remake_of(3)
    taken = [share.take_for(LAN, a, plan, observed, lambda: ALL) for a in plan.actions]
    assert taken == [None] * 3
    assert share.take(KEYS[3], ALL) is not None


def plan_executor(house: House, plan: Plan, observed: Observed, *, approved: bool) -> PlanExecutor:
    decision = PruneDecision(frozenset(), (), PruneMemory())
    desired = worlds.declared()
    full_plan = FullPlan(DesiredView(desired), observed, decision, house.rules(), plan, desired)
    loop = house.controller.reconciler
    return PlanExecutor(
        loop,
        full_plan,
        plan.digest,
        approved=approved,
        requested_by="uid:0",
        stopping=never,
        clock=house.watch,
    )


def test_an_exact_plan_begins_no_remake_beyond_the_budget(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.watch.time = LATER
    plan, observed = remake_of(4)
    since = "2026-01-01T00:00:00Z"
    up = replace(
        observed, containers=tuple(replace(c, started_at=since) for c in observed.containers)
    )
    for approved, code in ((False, "blast.radius"), (True, UNMET)):
        error = plan_executor(house, plan, up, approved=approved).execute(plan.actions).error
        assert error is not None and error.code == code
    assert house.engine.done == []
    plan, observed = remake_of(3)
    assert not plan_executor(house, plan, observed, approved=False).is_deferred(plan.actions[0])
