"""A service is down from the intent until a slot of it has run, unaltered, for five seconds."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf

import pytest

from controller.core import disruption
from controller.core.disruption import (
    RULE,
    WINDOW_S,
    Begun,
    Budget,
    BudgetDecision,
    Call,
    Changed,
    Closed,
    Created,
    Gone,
    Halted,
    Joined,
    Look,
    Ran,
    free_in_s,
    judge_service,
    max_unavailable,
)
from controller.core.engine_api.requests import Finding
from controller.model.inventory import TAKEN_MAX, Capacity, RecordTime, Replica, TakenDown
from controller.model.mutations import Mutation
from controller.model.observed import Settings

FULL = Capacity(memory=1000, nano_cpus=1000, pids=100, cpu_shares=1024)
STOP, KILL = Mutation.CONTAINER_STOP, Mutation.CONTAINER_KILL
UPDATE, LEAVE = Mutation.CONTAINER_UPDATE, Mutation.NETWORK_DISCONNECT


@dataclass
class Gate:
    """The state, a clock, and the containers that the engine shows."""

    budget: Budget = field(default_factory=Budget)
    now: float = 0.0
    running: set[str] = field(default_factory=set)
    count: int = 0

    @property
    def stamp(self) -> RecordTime:
        return RecordTime(time=repr(self.now))

    def age_s(self, stamp: RecordTime) -> float:
        return self.now - float(stamp.time)

    def fold(self, event: disruption.Event) -> None:
        self.budget = disruption.fold(self.budget, event, self.stamp)

    def run(self, container: str, service: str, *, since: float = -1000.0) -> None:
        up = RecordTime(time=repr(since))
        self.fold(Created(Replica(container, service, ("net",), FULL, FULL, up)))
        self.running.add(container)

    def judge(
        self,
        container: str,
        route: Mutation = STOP,
        *,
        approved: bool = False,
        target_runs: bool = True,
        age_s: float = 0.0,
        network: str = "net",
        capacity: Capacity = FULL,
    ) -> BudgetDecision:
        call = Call(container, route, network, capacity)
        look = Look(frozenset(self.running), target_runs=target_runs, age_s=age_s)
        return disruption.admit(self.budget, call, look, self.age_s, approved=approved)

    def begin(
        self, container: str, route: Mutation = STOP, *, approved: bool = False, network: str = ""
    ) -> str:
        self.count += 1
        intent = f"i{self.count}"
        service = self.budget.replicas[container].service
        self.fold(
            Begun(
                TakenDown(
                    container,
                    service,
                    route,
                    intent,
                    self.count,
                    repr(self.now),
                    network,
                    approved,
                )
            )
        )
        return intent

    def stop(self, container: str) -> None:
        self.fold(Closed(self.begin(container), "down"))
        self.fold(Halted(container))
        self.running.discard(container)

    def start(self, container: str) -> None:
        self.count += 1
        self.fold(Ran(container, self.count))
        self.running.add(container)

    def down(self) -> set[str]:
        """The services that count as down, as the next refusal would name them."""
        outstanding = [
            each
            for each in self.budget.taken.values()
            if disruption.expires_in_s(each, self.age_s) > 0
        ]
        look = Look(frozenset(self.running))
        up = disruption._up(self.budget, outstanding, look, self.age_s)
        return {*disruption.down_services(outstanding, frozenset(up.values()), self.age_s)}


def ten(*stopped: str) -> Gate:
    """Ten services of one container each, some of them stopped."""
    gate = Gate()
    for number in range(10):
        gate.run(f"c{number}", f"s{number}")
    for container in stopped:
        gate.stop(container)
    return gate


@pytest.mark.parametrize(
    ("total", "allowed"), [(0, 3), (1, 3), (10, 3), (13, 3), (14, 4), (100, 30), (101, 30)]
)
def test_three_or_three_in_ten_may_be_down(total: int, allowed: int) -> None:
    assert max_unavailable(total) == allowed


def test_the_fourth_of_ten_is_refused_with_numbers_names_and_ways_out() -> None:
    gate = ten("c0", "c1")
    assert gate.judge("c2") == BudgetDecision("service")
    gate.stop("c2")
    gate.now = 60.0
    assert gate.judge("c3") == BudgetDecision(
        "service",
        Finding(
            RULE,
            "",
            "the disruption budget is used up: s3 would be one more of 10 services that are down "
            "because of the controller (s0, s1, s2), and at most 3 may be",
            "wait until one of them has run for 5 s; or wait 540 s; or look at `trimtab plan` and "
            "approve it with `trimtab approve`",
        ),
    )


def test_a_refusal_names_five_and_no_time_that_is_unknown() -> None:
    finding = judge_service("g", down=dict.fromkeys("abcdef", inf), available="ghijk")
    assert finding is not None
    assert "(a, b, c, d, e and 1 more), and at most 3 may be" in finding.reason
    assert finding.remedy == (
        "wait until one of them has run for 5 s; or look at `trimtab plan` and approve it with "
        "`trimtab approve`"
    )


def test_it_is_told_when_one_more_may_go() -> None:
    # Of ten, three may be down: with one more, two of these must count no more.
    left = {"a": 590.0, "b": 580.0, "c": 10.0, "d": 300.0}
    assert free_in_s(left, total=10) == 300.0
    assert free_in_s({**left, "d": 5.0}, total=10) == 10.0
    assert free_in_s({}, total=1) == 0.0


def test_what_does_not_run_and_what_is_not_the_last_slot_is_free() -> None:
    gate = ten("c0", "c1", "c2")
    assert gate.judge("c9", target_runs=False) == BudgetDecision("")
    gate.run("c9b", "s9")
    assert gate.judge("c9") == BudgetDecision("slot")
    assert gate.judge("unknown") == BudgetDecision("")
    assert gate.judge("c9", Mutation.CONTAINER_START) == BudgetDecision("")


def test_a_look_of_more_than_five_seconds_ago_frees_nothing() -> None:
    gate = ten("c0", "c1", "c2")
    assert gate.judge("c3", target_runs=False, age_s=4.9) == BudgetDecision("")
    assert gate.judge("c3", target_runs=False, age_s=5.0).finding is not None


def test_what_goes_down_while_the_engine_lists_what_runs_counts() -> None:
    """The list still shows it: that doesn't mean that it was started again."""
    gate = ten("c0", "c1", "c2")
    gate.running |= {"c0", "c1", "c2"}
    assert gate.judge("c3").finding is not None


@pytest.mark.parametrize("age_s", [0.0, 3.0, 4.9])
def test_a_slot_that_was_started_just_now_keeps_no_service_up(age_s: float) -> None:
    gate = ten("c0", "c1", "c2")
    gate.run("helper", "s3", since=0.0)
    gate.now = age_s
    assert gate.judge("c3").finding is not None
    gate.now = 5.0
    assert gate.judge("c3") == BudgetDecision("slot")


def test_a_slot_that_the_engine_started_again_just_now_keeps_no_service_up() -> None:
    gate = ten("c0", "c1", "c2")
    gate.run("helper", "s3")
    gate.running.discard("helper")  # the engine shows it as younger than 5 s
    assert gate.judge("c3").finding is not None


def test_a_list_that_is_older_than_a_restart_shows_the_run_before() -> None:
    gate = ten("c0", "c1", "c2")
    gate.run("c3b", "s3", since=-5.0)
    assert gate.judge("c3", age_s=0.0) == BudgetDecision("slot")
    assert gate.judge("c3", age_s=0.1).finding is not None


def test_a_slot_that_anybody_stopped_keeps_no_service_up_though_the_list_shows_it() -> None:
    """A list of the engine may be older than the stop."""
    gate = ten("c0", "c1", "c2")
    gate.run("helper", "s3")
    assert gate.judge("c3") == BudgetDecision("slot")
    gate.fold(Halted("helper"))
    assert gate.judge("c3").finding is not None


def test_what_was_stopped_as_one_of_two_counts_once_the_other_ends() -> None:
    gate = ten("c0", "c1")
    gate.run("helper", "s2")
    gate.stop("c2")
    assert gate.down() == {"s0", "s1"}
    gate.running.discard("helper")
    assert gate.down() == {"s0", "s1", "s2"}


def test_a_service_counts_until_it_has_run_for_five_seconds() -> None:
    gate = ten("c0", "c1", "c2")
    gate.now = 10.0
    gate.start("c0")
    gate.now = 14.9
    assert gate.down() == {"s0", "s1", "s2"}
    gate.now = 15.0
    assert gate.down() == {"s1", "s2"}


def test_a_restart_that_ends_at_once_counts() -> None:
    gate = ten("c0", "c1")
    restart = gate.begin("c2", Mutation.CONTAINER_RESTART)
    assert gate.down() == {"s0", "s1", "s2"}
    gate.fold(Closed(restart, "unknown"))
    gate.fold(Ran("c2", gate.count))
    gate.running.discard("c2")
    gate.now = 100.0
    assert gate.down() == {"s0", "s1", "s2"}
    gate.running.add("c2")
    assert gate.down() == {"s0", "s1"}


def test_a_stop_counts_for_as_long_as_it_takes_and_ten_minutes_more() -> None:
    gate = ten("c0", "c1")
    slow = gate.begin("c2")
    gate.now = 300.0
    gate.fold(Closed(slow, "down"))
    gate.fold(Halted("c2"))
    gate.running.discard("c2")
    gate.now = WINDOW_S
    assert gate.down() == {"s2"}
    gate.now = 300.0 + WINDOW_S
    assert gate.down() == set()


def test_a_signal_counts_for_as_long_as_it_can_end_the_container() -> None:
    gate = ten()
    gate.fold(Closed(gate.begin("c0", KILL), "unknown"))
    gate.now = 10 * WINDOW_S
    assert gate.down() == {"s0"}
    gate.start("c0")
    gate.now += 5.0
    assert gate.down() == set()


def test_a_start_ends_no_later_takedown_and_none_in_progress() -> None:
    gate = ten()
    later = gate.begin("c0", KILL)
    gate.fold(Closed(later, "unknown"))
    gate.fold(Ran("c0", 0))
    gate.begin("c1")
    gate.start("c1")
    gate.now = 60.0
    assert gate.down() == {"s0", "s1"}


def test_an_unpause_ends_a_pause_and_nothing_else() -> None:
    gate = ten()
    gate.fold(Closed(gate.begin("c0", Mutation.CONTAINER_PAUSE), "down"))
    gate.fold(Closed(gate.begin("c1", KILL), "unknown"))
    for container in ("c0", "c1"):
        gate.fold(Ran(container, 99, unpaused=True))
    gate.now = 5.0
    assert gate.down() == {"s1"}


def test_what_the_engine_refused_does_not_count() -> None:
    gate = ten()
    gate.fold(Closed(gate.begin("c0"), "nothing"))
    assert gate.down() == set()


def test_a_removed_service_counts_for_ten_minutes() -> None:
    gate = ten("c0")
    gate.fold(Closed(gate.begin("c1", KILL), "unknown"))
    gate.now = 100.0
    gate.fold(Gone("c0"))
    gate.fold(Gone("c1"))
    assert gate.down() == {"s0", "s1"}
    gate.now = WINDOW_S
    assert gate.down() == {"s1"}
    gate.now = WINDOW_S + 100.0
    assert gate.down() == set()


@pytest.mark.parametrize(
    ("before", "after", "host_cpus", "counts"),
    [
        ("", "0", 8, True),
        ("", "0-2", 8, True),
        ("", "0-3", 8, False),
        ("", "0", 2, False),
        ("0-3", "0", 8, True),
        ("0-3", "4-5", 8, False),
        ("0", "7", 8, False),
        ("0", "0-3", 8, False),
        # What the host has is unknown: fewer than all of them count.
        ("", "0-3", 0, True),
    ],
)
def test_an_update_to_few_cpus_counts(
    before: str, after: str, host_cpus: int, *, counts: bool
) -> None:
    """All services pinned to one CPU would stand still, whatever their other limits are."""
    had, gets = (Capacity.of(Settings("x", cpuset=cpuset)) for cpuset in (before, after))
    state = Budget({"c": Replica("c", "shop/web", (), had, had)})
    call = Call("c", UPDATE, capacity=gets, host_cpus=host_cpus)
    assert disruption.can_take_down(state, call) is counts


@pytest.mark.parametrize(
    ("capacity", "counts"),
    [
        (Capacity(500, 1000, 100, 1024), False),
        (Capacity(499, 1000, 100, 1024), True),
        (Capacity(1000, 10, 100, 1024), True),
        (Capacity(1000, 1000, 1, 1024), True),
        (Capacity(1000, 1000, 100, 2), True),
        (Capacity(2000, 0, 0, 1024), False),
    ],
)
def test_an_update_counts_below_half_of_a_limit(capacity: Capacity, *, counts: bool) -> None:
    gate = ten("c0", "c1", "c2")
    assert (gate.judge("c3", UPDATE, capacity=capacity).finding is not None) is counts


def test_limits_and_networks_of_what_is_down_count_too() -> None:
    """They last beyond the next start."""
    gate = ten("c0", "c1", "c2")
    less = Capacity(6, 1, 1, 1024)
    assert gate.judge("c0", UPDATE, capacity=less, target_runs=False) == BudgetDecision("service")
    assert gate.judge("c3", UPDATE, capacity=less, target_runs=False).finding is not None
    assert gate.judge("c3", LEAVE, target_runs=False).finding is not None


def test_limits_are_compared_with_the_largest_so_far() -> None:
    gate = ten("c0", "c1", "c2")
    gate.fold(Changed("c3", 99, Capacity(600, 1000, 100, 1024)))
    less = Capacity(400, 1000, 100, 1024)
    assert gate.judge("c3", UPDATE, capacity=less).finding is not None
    # What changes nothing counts too: it may be carried out after the limits are back.
    gate.fold(Changed("c3", 99, less))
    assert gate.judge("c3", UPDATE, capacity=less).finding is not None


def test_only_the_controller_grants_limits() -> None:
    """It puts back what others raised, as a repair: that needs no budget."""
    gate = ten("c0", "c1", "c2")
    more = Capacity(4000, 1000, 100, 1024)
    gate.fold(Changed("c3", 99, more, is_granted=False))
    assert gate.judge("c3", UPDATE) == BudgetDecision("")
    gate.fold(Changed("c3", 99, more))
    assert gate.judge("c3", UPDATE).finding is not None


def test_a_starved_service_counts_until_its_limits_are_back() -> None:
    gate = ten()
    floor = Capacity(6, 1, 1, 1024)
    gate.fold(Closed(gate.begin("c0", UPDATE), "down"))
    gate.fold(Changed("c0", 99, floor))
    gate.fold(Changed("c0", 99, floor))
    gate.start("c0")  # a restart doesn't help
    gate.now = 10.0
    assert gate.down() == {"s0"}
    gate.fold(Changed("c0", 99, FULL))
    gate.now = 14.9
    assert gate.down() == {"s0"}
    gate.now = 15.0
    assert gate.down() == set()


def test_a_disconnect_from_an_admitted_network_counts_until_the_connect() -> None:
    gate = ten("c0", "c1", "c2")
    assert gate.judge("c3", LEAVE, network="another") == BudgetDecision("")
    assert gate.judge("c3", LEAVE).finding is not None
    gate = ten()
    gate.fold(Closed(gate.begin("c0", LEAVE, network="net"), "down"))
    gate.fold(Joined("c0", 99, "another"))
    gate.now = 10.0
    assert gate.down() == {"s0"}
    gate.fold(Joined("c0", 99, "net"))
    gate.now = 15.0
    assert gate.down() == set()


def test_a_connect_ends_no_later_disconnect() -> None:
    gate = ten()
    gate.fold(Closed(gate.begin("c0", LEAVE, network="net"), "down"))
    gate.fold(Joined("c0", 0, "net"))
    gate.now = 60.0
    assert gate.down() == {"s0"}


def test_what_was_approved_is_admitted_and_not_counted() -> None:
    gate = ten("c0", "c1", "c2")
    assert gate.judge("c3", approved=True) == BudgetDecision("service")
    gate.fold(Closed(gate.begin("c3", approved=True), "down"))
    assert gate.down() == {"s0", "s1", "s2"}
    gate.fold(Gone("c3"))
    assert len(gate.budget.taken) == 3


def test_a_clock_that_was_set_back_ends_nothing() -> None:
    gate = ten("c0")
    gate.now = -1000.0
    assert gate.down() == {"s0"}


def test_repeated_takedowns_of_a_container_are_kept_once() -> None:
    gate = ten()
    for _ in range(5):
        gate.fold(Closed(gate.begin("c0", KILL), "unknown"))
    assert len(gate.budget.taken) == 1


def test_takedowns_of_containers_that_are_gone_are_kept_once() -> None:
    gate = ten("c0")
    gate.fold(Gone("c1"))
    for number in range(5):
        gate.now += 100.0
        key = f"x{number}"
        gate.run(key, "s1")
        gate.fold(Closed(gate.begin(key, KILL), "down"))
        gate.fold(Closed(gate.begin(key, LEAVE, network="net"), "down"))
        gate.fold(Gone(key))
    assert {each.container for each in gate.budget.taken.values()} == {"c0", "x4"}
    gate.now += WINDOW_S - 0.1
    assert gate.down() == {"s1"}
    # One that is in progress, or is approved, supersedes nothing.
    gate.run("y", "s1")
    gate.begin("y")
    gate.fold(Closed(gate.begin("y", KILL, approved=True), "down"))
    assert {each.container for each in gate.budget.taken.values()} == {"c0", "x4", "y"}


def test_more_than_can_be_kept_is_refused_and_the_first_is_dropped() -> None:
    gate = ten()
    gate.run("x", "x0")
    begun = [gate.begin("x") for _ in range(TAKEN_MAX)]
    assert gate.judge("c3").finding is not None
    last = gate.begin("x")
    assert set(gate.budget.taken) == {*begun[1:], last}


def test_of_more_than_can_be_kept_the_one_that_was_down_first_is_dropped() -> None:
    gate = ten()
    begun = []
    for number in range(TAKEN_MAX):
        gate.run(f"x{number}", f"x{number}")
        begun.append(gate.begin(f"x{number}"))
    for number, intent in enumerate((begun[1], begun[0], begun[2])):
        gate.now = float(number)
        gate.fold(Closed(intent, "down"))
    last = gate.begin("c3")
    assert {*begun, last} - {*gate.budget.taken} == {begun[1]}


def test_no_takedown_of_a_slot_drops_one_that_counts() -> None:
    """Takedowns of a service that stays up aren't limited, and each takes a place."""
    gate = ten("c0", "c1", "c2")
    gate.run("x", "s9")
    taken = gate.budget.taken["i1"]
    for number in range(TAKEN_MAX - 3):
        gate.now += 0.01
        key, since = f"x{number}", gate.stamp
        filler = replace(taken, container=key, service="s9", intent=key, down_since=since)
        gate.fold(Begun(replace(filler, closed=True)))
    for route in (STOP, LEAVE, Mutation.CONTAINER_PAUSE):
        assert gate.judge("x", route).finding is not None
    assert {"s0", "s1", "s2"} <= gate.down()
    gate.now = WINDOW_S
    assert gate.judge("x") == BudgetDecision("slot")


@pytest.mark.parametrize(
    ("settings", "capacity"),
    [
        (Settings("x", memory=5, nano_cpus=7, pids=9), Capacity(5, 7, 9, 1024)),
        (Settings("x", cpu_quota=50_000), Capacity(0, 500_000_000, 0, 1024)),
        (
            Settings("x", cpu_quota=1000, cpu_period=2000, cpu_shares=2),
            Capacity(0, 5 * 10**8, 0, 2),
        ),
        (Settings("x", pids=-1), Capacity(cpu_shares=1024)),
        (Settings("x", cpuset="0"), Capacity(cpu_shares=1024, cpus=1)),
        (Settings("x", cpuset="0-2,2,5"), Capacity(cpu_shares=1024, cpus=4)),
        (Settings("x", cpuset="3-1"), Capacity(cpu_shares=1024, cpus=1)),
    ],
)
def test_a_capacity_is_read_of_settings(settings: Settings, capacity: Capacity) -> None:
    assert Capacity.of(settings) == capacity


def test_a_container_that_ended_has_no_time_of_its_start() -> None:
    gate = ten()
    before = gate.budget
    assert before.replicas["c3"].up is not None
    gate.fold(Halted("c3"))
    assert gate.budget.replicas == {
        **before.replicas,
        "c3": replace(before.replicas["c3"], up=None),
    }
    gate.fold(Halted("nobody"))
    assert set(gate.budget.replicas) == set(before.replicas)
