"""The share: whatever the controller asks for, in whatever order, not more of what runs is down."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.core.enforcement import disruption_budget
from controller.core.enforcement.disruption_budget import (
    RULE,
    WINDOW_S,
    BudgetDecision,
    PlannedRemoval,
    RecentRemoval,
    RunningReplica,
    judge,
    max_unavailable,
)
from controller.core.engine_api.requests import Finding
from controller.model.desired.plan import (
    AnyAction,
    Blocked,
    Plan,
    Precondition,
    RemoveContainer,
    StartContainer,
    StopContainer,
    UnpauseContainer,
    UpdateContainer,
    Verdict,
)
from controller.model.inventory import TAKEN_MAX, Approval
from controller.model.names import service_key
from controller.model.observed import Container, ContainerState, Observed, Settings

PLAN = "ab" * 32


def slots(count: int, *, replicas: int = 1) -> list[RunningReplica]:
    return [
        RunningReplica(f"{n}.{r}", f"default/s{n}") for n in range(count) for r in range(replicas)
    ]


def gone(*numbers: int, age_s: float = 1.0, last: bool = True) -> list[RecentRemoval]:
    return [RecentRemoval(f"{n}.0", f"default/s{n}", last, age_s) for n in numbers]


def word(
    target: RunningReplica,
    running: list[RunningReplica],
    recent: list[RecentRemoval],
    *,
    starting: bool = False,
) -> BudgetDecision:
    return judge(target, starting=starting, running=running, recent=recent)


@pytest.mark.parametrize(
    ("total", "allowed"), [(0, 3), (1, 3), (10, 3), (13, 3), (14, 4), (100, 30), (101, 30)]
)
def test_three_or_three_in_ten_may_be_down(total: int, allowed: int) -> None:
    assert max_unavailable(total) == allowed


def test_the_fourth_of_ten_is_refused_with_numbers_names_and_a_way_out() -> None:
    running = slots(10)
    assert word(running[2], running[2:], gone(0, 1)) == BudgetDecision("service")
    refused = word(running[3], running[3:], [*gone(0, 1, age_s=5.0), *gone(2, age_s=60.0)])
    assert refused.takes == "service"
    assert refused.finding is not None
    assert (refused.finding.rule, refused.finding.reason, refused.finding.remedy) == (
        RULE,
        (
            "default/s3 would be one more of 10 services without a running slot: the controller took "
            "down default/s0, default/s1, default/s2 within 10 minutes, and may at most 3"
        ),
        (
            "look at 'trimtab plan' and approve it with 'trimtab approve', let one of them run again, "
            "or wait 540 s"
        ),
    )


def test_it_is_told_when_one_more_may_go() -> None:
    ages = {"a": 10.0, "b": 20.0, "c": 590.0, "d": 300.0}
    # Of ten, three may be down: with one more, two of these must be ten minutes ago.
    assert disruption_budget.free_in_s(ages, total=10) == 300.0
    assert disruption_budget.free_in_s({**ages, "d": 700.0}, total=10) == 10.0
    assert disruption_budget.free_in_s(dict.fromkeys("abc", 600.5), total=10) == 0.0
    assert disruption_budget.free_in_s({}, total=1) == 0.0
    assert disruption_budget.judge_service(
        "e", down=dict.fromkeys("abcdef", 599.9), running="efghijk"
    ) == Finding(
        RULE,
        "",
        "e would be one more of 11 services without a running slot: the controller took down "
        "a, b, c, d, f within 10 minutes, and may at most 3",
        "look at 'trimtab plan' and approve it with 'trimtab approve', let one of them run again, "
        "or wait 1 s",
    )


def test_what_does_not_run_and_what_is_not_the_last_slot_is_free() -> None:
    running = slots(10)
    down = gone(0, 1, 2)
    assert word(RunningReplica("9.1", "default/s9"), running[3:], down) == BudgetDecision("")
    twice = [*running[3:], RunningReplica("9.1", "default/s9")]
    assert word(RunningReplica("9.1", "default/s9"), twice, down) == BudgetDecision("slot")


def test_what_is_just_being_started_is_not_free() -> None:
    running = slots(10)
    assert word(running[3], running[4:], gone(0, 1, 2), starting=True).finding is not None


def test_a_slot_that_is_going_keeps_no_service_up() -> None:
    running = [*slots(10)[3:], RunningReplica("9.1", "default/s9")]
    going = [RecentRemoval("9.1", "default/s9", last=False, age_s=0.1), *gone(0, 1, 2)]
    assert word(RunningReplica("9.0", "default/s9"), running, going).finding is not None
    assert word(RunningReplica("9.1", "default/s9"), running, going) == BudgetDecision("slot")


def test_what_was_signalled_counts_also_while_it_still_shows_as_running() -> None:
    running = slots(10)
    assert word(running[3], running, gone(0, 1, 2)).finding is not None


def test_what_runs_again_is_not_counted() -> None:
    running = slots(10)
    down = [replace(each, down=True) for each in gone(0, 1, 2)]
    assert word(running[3], running, down) == BudgetDecision("service")
    successor = [RunningReplica("new", "default/s0"), *running[3:]]
    assert word(running[3], successor, gone(0, 1, 2)) == BudgetDecision("service")


def test_after_ten_minutes_it_is_not_counted() -> None:
    running = slots(10)
    assert word(running[3], running[3:], gone(0, 1, 2, age_s=WINDOW_S)) == BudgetDecision("service")


def test_what_was_approved_is_not_counted() -> None:
    running = slots(10)
    assert word(running[9], running[9:], gone(*range(9), last=False)) == BudgetDecision("service")


def test_more_than_can_be_kept_is_refused() -> None:
    many = [
        RecentRemoval(f"x{n}", f"default/x{n}", last=False, age_s=1.0) for n in range(TAKEN_MAX)
    ]
    refused = word(slots(1)[0], slots(1), many)
    assert refused.takes == "service"
    assert refused.finding is not None


MOVES = st.lists(
    st.tuples(st.sampled_from(("stop", "signal", "start", "wait")), st.integers(0, 15)),
    max_size=80,
)


@settings(max_examples=300)
@given(count=st.integers(1, 14), replicas=st.integers(1, 2), moves=MOVES)
def test_never_more_than_the_share_is_down(
    count: int, replicas: int, moves: list[tuple[str, int]]
) -> None:
    everything = slots(count, replicas=replicas)
    up = set(everything)  # what really goes on running
    shown = set(everything)  # what the engine shows: a signal takes its time
    taken: dict[str, tuple[RunningReplica, bool, float]] = {}
    now = 0.0
    for verb, number in moves:
        slot = everything[number % len(everything)]
        match verb:
            case "wait":
                now += 50.0 * number
                shown &= up
            case "start":
                if slot not in up:
                    up.add(slot)
                    shown.add(slot)
                    taken.pop(slot.container, None)
            case _:
                recent = [
                    RecentRemoval(each.container, each.service, last, now - at)
                    for each, last, at in taken.values()
                ]
                told = judge(slot, starting=False, running=shown, recent=recent)
                if told.finding is None and told.takes:
                    taken[slot.container] = (slot, told.takes == "service", now)
                    up.discard(slot)
                    shown -= {slot} if verb == "stop" else set()
        services = {each.service for each in everything}
        serving = {each.service for each in up}
        fresh = {each.service for each, last, at in taken.values() if last and now - at < WINDOW_S}
        ran = serving | fresh
        assert len((services - serving) & fresh) <= max_unavailable(len(ran))


# What the loop asks in advance


def container(identifier: str, state: ContainerState = ContainerState.RUNNING) -> Container:
    return Container(
        id=identifier,
        key=service_key("default", "web"),
        slot=1,
        revision="v1:0",
        owner="team",
        origin="controller",
        intent="",
        image="",
        image_id="",
        state=state,
        settings=Settings(name=identifier),
        admitted=None,
    )


WEB = service_key("default", "web")


Kind = StartContainer | StopContainer | RemoveContainer | UnpauseContainer


def act(kind: type[Kind], target: str) -> AnyAction:
    return kind(object=WEB, target=target, cause="", precondition=Precondition(id=target))


def policy(target: str, restart: str) -> AnyAction:
    at = Precondition(id=target)
    return UpdateContainer(object=WEB, target=target, cause="", precondition=at, restart=restart)


def test_only_the_stop_that_leaves_nothing_running_takes_the_service_down() -> None:
    old, two = container("old"), container("two")
    stop, start = act(StopContainer, "old"), act(StartContainer, "new")
    assert disruption_budget.last_slots([stop, start], [old]) == {"old"}
    assert disruption_budget.last_slots([start, stop], [old]) == frozenset()
    assert disruption_budget.last_slots([stop, act(StopContainer, "two")], [old, two]) == {"two"}
    assert (
        disruption_budget.last_slots([stop], [container("old", ContainerState.EXITED)])
        == frozenset()
    )


def test_a_container_that_is_unpaused_counts_as_running() -> None:
    two = container("two")
    stop = act(StopContainer, "two")
    thaw = act(UnpauseContainer, "old")
    assert disruption_budget.last_slots(
        [thaw, stop], [container("old", ContainerState.PAUSED), two]
    ) == (frozenset())
    assert not disruption_budget.takes_down(thaw, frozenset({"old"}))


def test_the_policy_that_goes_before_a_stop_belongs_to_it() -> None:
    last = frozenset({"old"})
    assert disruption_budget.takes_down(policy("old", "no"), last)
    assert disruption_budget.takes_down(act(StopContainer, "old"), last)
    assert disruption_budget.takes_down(act(RemoveContainer, "old"), last)
    assert not disruption_budget.takes_down(policy("old", "always"), last)
    assert not disruption_budget.takes_down(act(StopContainer, "other"), last)


# Approvals


def test_an_approval_is_about_what_goes_and_what_is_held_back() -> None:
    """Each container once, by service and name; what is denied anyway isn't asked for."""

    def at(identifier: str) -> dict[str, Any]:
        return {"object": WEB, "cause": "scaled down", "precondition": Precondition(id=identifier)}

    api = replace(container("a1"), key=service_key("default", "api"))
    blocked = Blocked(api.key, "PrunePending", "it isn't declared any more", "")
    theirs = replace(container("b1"), key=api.key, origin="client")
    made = Plan(
        (
            StopContainer(target="gone", **at("x2")),
            StopContainer(target="x1", **at("x1")),
            RemoveContainer(target="x1", **{**at("x1"), "cause": "later"}),
            StopContainer(target="x3", **at("x3"), verdict=Verdict("deny")),
            StartContainer(target="x4", **at("x4")),
        ),
        blocked=(blocked,),
    )
    named = replace(container("x1"), settings=Settings(name="web.1-0"))
    assert disruption_budget.planned_removals(
        made, Observed("i1", containers=(named, theirs, api))
    ) == (
        PlannedRemoval("Service/default/api", "a1", "a1", "it isn't declared any more"),
        PlannedRemoval("Service/default/web", "gone", "x2", "scaled down"),
        PlannedRemoval("Service/default/web", "web.1-0", "x1", "scaled down"),
    )


APPROVAL = Approval("r1", PLAN, ("c1", "volume:data"), "", used=("c2",))


@pytest.mark.parametrize(
    ("subject", "plan", "age_s", "fits"),
    [
        ("c1", PLAN, 0.0, True),
        ("volume:data", PLAN, 3599.0, True),
        ("c1", PLAN, 3600.0, False),
        ("c1", PLAN, -1.0, False),
        ("c1", "cd" * 32, 0.0, False),
        ("c1", "", 0.0, False),
        ("c3", PLAN, 0.0, False),
    ],
)
def test_an_approval_is_for_its_objects_its_plan_and_an_hour(
    subject: str, plan: str, age_s: float, *, fits: bool
) -> None:
    found = disruption_budget.approval_for(subject, plan=plan, approvals=[(APPROVAL, age_s)])
    assert found == (APPROVAL if fits else None)


def test_an_approval_is_used_once_for_each_object() -> None:
    spent = replace(APPROVAL, used=("c1",))
    assert disruption_budget.approval_for("c1", plan=PLAN, approvals=[(spent, 0.0)]) is None
    again = replace(APPROVAL, id="r2")
    found = disruption_budget.approval_for("c1", plan=PLAN, approvals=[(spent, 0.0), (again, 0.0)])
    assert found == again


NO_PLAN = "plan isn't the digest of a plan: 64 hex digits"
NO_LIST = "objects isn't a list of 1 to 1000"
NO_OBJECT = "an object is a container's full id, or volume:NAME"
NO_NOTE = "note isn't a text of at most 512 characters"


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({"plan": "ab"}, NO_PLAN),
        ({"plan": PLAN.upper()}, NO_PLAN),
        ({"objects": []}, NO_LIST),
        ({"objects": ["a" * 64] * 1001}, NO_LIST),
        ({"objects": ["a" * 64, "a" * 64]}, "an object is named twice"),
        ({"objects": ["web"]}, NO_OBJECT),
        ({"objects": ["volume:../x"]}, NO_OBJECT),
        ({"objects": [1]}, NO_OBJECT),
        ({"objects": "a" * 64}, NO_LIST),
        ({"note": 1}, NO_NOTE),
        ({"note": "x" * 513}, NO_NOTE),
        ({"more": 1, "other": 2}, "it has no member 'more'"),
    ],
)
def test_an_approval_of_another_shape_is_none(body: dict[str, object], wrong: str) -> None:
    good: dict[str, object] = {"act": "approve", "plan": PLAN, "objects": ["a" * 64], "note": "n"}
    assert disruption_budget.read_approval(good) == (PLAN, ("a" * 64,), "n")
    assert disruption_budget.read_approval({**good, **body}) == wrong


def test_an_approval_needs_no_note_and_may_name_as_much_as_it_can_hold() -> None:
    objects = [*(f"volume:v{number}" for number in range(999)), "a" * 64]
    asked: dict[str, object] = {"plan": PLAN, "objects": objects}
    assert disruption_budget.read_approval(asked) == (PLAN, tuple(objects), "")
    assert disruption_budget.read_approval({**asked, "note": "x" * 512}) == (
        PLAN,
        tuple(objects),
        "x" * 512,
    )
