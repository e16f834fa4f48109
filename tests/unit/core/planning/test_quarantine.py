"""What was pruned is kept for a while, whatever the clocks do, and started again if declared."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core.encoding.stored_form import StoredForm
from controller.core.planning.quarantine import (
    Moment,
    Quarantine,
    QuarantinedContainer,
    QuarantineLeft,
    quarantine_at,
    watched,
)
from controller.model.desired.desired import Service
from controller.model.observed import Container
from tests.worlds import WEB, container, declared, deny, engine, plan, service

FORM = StoredForm(QuarantinedContainer)

DAY = 86_400.0
DOWN = container(state="exited", admitted={"restart": "no"})
START = Moment(1_772_323_200.0, 500.0, "boot-1")
KEPT = QuarantinedContainer(0.0, 500.0, "boot-1", START.wall_s + DAY)


def planned(
    *there: Container, left: dict[str, QuarantineLeft] | None = None, wanted: Service | None = None
) -> list[str]:
    """What is done with the containers, and why."""
    desired = declared(*([wanted] if wanted else []))
    made = plan(desired, engine(*there), quarantine=Quarantine(DAY, left or {}))
    return [f"{a.verb.removesuffix('-container')}: {a.cause}" for a in made.of(WEB)]


def later(seconds: float, *, jump: float = 0.0, boot: str = "boot-1") -> Moment:
    return Moment(START.wall_s + seconds + jump, START.monotonic_s + seconds, boot)


def left_s(kept: dict[str, QuarantinedContainer], now: Moment) -> float:
    return quarantine_at(kept, keep_s=DAY, now=now).left[DOWN.id].seconds


def look(
    kept: dict[str, QuarantinedContainer], now: Moment, *there: Container, pruned=(WEB,), keep_s=DAY
):
    return watched(kept, there or (DOWN,), pruned=frozenset(pruned), keep_s=keep_s, now=now)


# What is planned


def test_what_runs_is_stopped_for_good_and_then_kept():
    assert planned(container()) == [
        "update: web is no longer declared",
        "stop: web is no longer declared",
        "wait: quarantined for 24h, then removed",
    ]


def test_what_is_down_waits_for_its_time_and_is_removed_then():
    kept = {DOWN.id: QuarantineLeft(60.0, "2026-03-02T00:00:00Z")}
    assert planned(DOWN, left=kept) == [
        "wait: quarantined until 2026-03-02T00:00:00Z, then removed"
    ]
    over = {DOWN.id: QuarantineLeft(0.0, "2026-03-02T00:00:00Z")}
    assert planned(DOWN, left=over) == [
        "remove: web is no longer declared, and its quarantine is over"
    ]


def test_an_engine_that_restarts_revives_nothing_that_is_kept():
    assert planned(container(state="exited"), left={DOWN.id: QuarantineLeft(9.0, "T")}) == [
        "update: web is no longer declared",
        "wait: quarantined until T, then removed",
    ]


def test_what_was_started_by_hand_is_put_away_again_whatever_its_time():
    started = container(admitted={"restart": "no"})
    assert planned(started, left={DOWN.id: QuarantineLeft(0.0, "T")}) == [
        "stop: web is no longer declared",
        "wait: quarantined for 24h, then removed",
    ]


@pytest.mark.parametrize("state", ["created", "dead"])
def test_what_never_ran_or_never_will_is_not_kept(state: str):
    assert planned(container(state=state)) == ["remove: web is no longer declared"]


def test_without_a_quarantine_all_goes_at_once():
    made = plan(declared(), engine(container(), DOWN))
    assert "wait" not in [action.verb for action in made.actions]


def test_nothing_is_kept_of_a_slot_too_many_or_of_an_older_revision():
    for other in (container(slot=2), container(rev="a")):
        told = planned(container(), other, wanted=service())
        assert [line.partition(":")[0] for line in told] == ["update", "stop", "remove"]


def test_a_stop_that_is_denied_keeps_nothing_waiting():
    made = plan(
        declared(), engine(container()), quarantine=Quarantine(DAY), judge=deny("stop-container")
    )
    assert [a.verb for a in made.actions] == ["update-container", "stop-container"]


def test_what_waits_is_not_pending():
    kept = Quarantine(DAY, {DOWN.id: QuarantineLeft(60.0, "T")})
    made = plan(declared(), engine(DOWN), quarantine=kept)
    assert (len(made.actions), made.pending) == (1, ())
    assert (
        made.digest
        == plan(
            declared(),
            engine(DOWN),
            quarantine=Quarantine(DAY, {DOWN.id: QuarantineLeft(5.0, "U")}),
        ).digest
    ), "the time isn't part of the digest"


def test_what_is_declared_again_is_started_and_not_created():
    assert planned(DOWN, left={DOWN.id: QuarantineLeft(60.0, "T")}, wanted=service()) == [
        "start: web.1-bbbbbbbb was stopped on purpose, and should run",
        "update: restart policy is no, want always",
    ]


def test_a_task_that_is_declared_again_runs_anew():
    task = service(restart={"policy": "Never"})
    assert planned(DOWN, left={DOWN.id: QuarantineLeft(60.0, "T")}, wanted=task) == [
        "remove: web.1-bbbbbbbb was quarantined; a task needs a new container",
        "create: slot 1 is missing",
        "start: slot 1 is missing",
    ]
    assert planned(DOWN, wanted=task) == [], "one that ended by itself stays"
    stopped = service(restart={"policy": "Never"}, state="Stopped")
    assert planned(DOWN, left={DOWN.id: QuarantineLeft(60.0, "T")}, wanted=stopped) == []


# What is counted


def test_it_begins_at_the_first_look_that_sees_it_down():
    assert look({}, START) == {DOWN.id: KEPT}
    assert look({}, START, container()) == {}
    assert look({}, START, pruned=()) == {}, "nobody pruned it"
    assert look({}, START, keep_s=0.0) == {}


def test_what_runs_again_or_is_gone_is_forgotten():
    kept = look({}, START)
    assert look(kept, later(60), container()) == {}


def test_what_is_declared_again_is_known_to_be_put_away_until_it_runs():
    kept = look({}, START)
    assert left_s(look(kept, later(3600), pruned=()), later(3600)) == DAY - 3600


def test_the_monotonic_clock_counts_and_nothing_else():
    kept = look({}, START)
    for jump in (-7 * DAY, 7 * DAY):
        assert left_s(kept, later(60, jump=jump)) == DAY - 60
        assert left_s(look(kept, later(60, jump=jump)), later(120, jump=jump)) == DAY - 120
    assert left_s(kept, later(DAY)) == 0.0


def test_what_is_told_follows_a_clock_that_was_set():
    kept = look({}, START)
    same = quarantine_at(look(kept, later(30)), keep_s=DAY, now=later(30)).left[DOWN.id]
    assert same.until == "2026-03-02T00:00:00Z"
    moved = look(kept, later(30, jump=3600))
    assert quarantine_at(moved, keep_s=DAY, now=later(30)).left[DOWN.id].until == (
        "2026-03-02T01:00:00Z"
    )


def test_while_the_host_was_down_nothing_is_counted():
    kept = look(look({}, START), later(3600))
    again = Moment(START.wall_s + 2 * DAY, 10.0, "boot-2")
    assert left_s(kept, again) == DAY - 3600
    kept = look(kept, again)
    assert kept[DOWN.id].boot == "boot-2"
    assert left_s(kept, replace(again, monotonic_s=70.0)) == DAY - 3660


def test_little_is_written_down():
    kept = look({}, START)
    assert look(kept, later(59)) == kept
    assert look(kept, later(61)) != kept


def test_a_longer_quarantine_holds_for_what_is_kept_already():
    kept = look({}, START)
    now = later(60)
    assert quarantine_at(kept, keep_s=2 * DAY, now=now).left[DOWN.id].seconds == 2 * DAY - 60
    assert quarantine_at(kept, keep_s=30.0, now=now).left[DOWN.id].seconds == 0.0


@given(
    st.lists(
        st.tuples(
            st.floats(0, 3000),  # how long until the next look
            st.floats(-DAY, DAY),  # how far the wall clock is set then
            st.booleans(),  # whether the host was started anew before it
        ),
        max_size=30,
    )
)
def test_it_is_never_shorter_than_it_was_seen_to_last(looks: list[tuple[float, float, bool]]):
    kept, now, seen = look({}, START), START, 0.0
    for passed, jump, rebooted in looks:
        seen += 0.0 if rebooted else passed
        wall, boot = now.wall_s + passed + jump, now.boot
        now = Moment(wall, now.monotonic_s + passed, boot)
        if rebooted:
            now = Moment(wall, passed, f"{boot}+")
        assert left_s(kept, now) >= DAY - seen - 1e-3
        kept = look(kept, now)
        # What wasn't written down before a restart of the host counts anew.
        assert left_s(kept, now) >= DAY - seen - 1e-3


def test_the_memorys_form_is_read_back():
    odd = QuarantinedContainer(1.25, 500.001, "b", 1_772_323_200.5)
    assert FORM.from_json(json.loads(json.dumps(FORM.to_json(odd)))) == odd
    with pytest.raises(ValueError, match="at_s: Field required"):
        FORM.from_json({"counted_s": 1})
