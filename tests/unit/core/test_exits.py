"""Exits: whose fault it is that a container is down."""

from __future__ import annotations

import pytest

from controller.core import exits
from controller.core.exits import Mark
from tests.worlds import container, service

DOWN = "2026-01-01T00:00:10Z"


def check(
    *,
    policy: str,
    restart: str,
    own: bool,
    exit_code: int = 1,
    restarts: int = 0,
    taken_over: bool = False,
) -> None:
    down = container(
        state="exited",
        exit_code=exit_code,
        finished_at=DOWN,
        restart_count=restarts,
        settings={"restart": restart, "restart_max": 10 if restart == "on-failure" else 0},
    )
    wanted = service(restart={"policy": policy})
    assert exits.own_exit(down, wanted, taken_over=taken_over) is own


def test_the_engine_restarts_what_exits_under_always_so_that_one_is_down_from_outside() -> None:
    check(policy="Always", restart="always", own=False)


def test_a_stop_of_ours_set_the_policy_to_no_and_is_no_failure() -> None:
    check(policy="Always", restart="no", own=False)


def test_what_the_controller_restarts_itself_failed_when_it_is_down() -> None:
    check(policy="Always", restart="no", taken_over=True, own=True)
    check(policy="OnFailure", restart="no", taken_over=True, own=True)


def test_a_task_that_ended_well_did_not_fail() -> None:
    check(policy="OnFailure", restart="on-failure", exit_code=0, own=False)
    check(policy="OnFailure", restart="no", exit_code=0, taken_over=True, own=False)
    check(policy="Never", restart="no", exit_code=1, own=False)


def test_a_task_failed_once_the_engine_has_no_tries_left() -> None:
    check(policy="OnFailure", restart="on-failure", restarts=10, own=True)
    check(policy="OnFailure", restart="on-failure", restarts=3, exit_code=143, own=False)


def test_the_same_exit_is_counted_once() -> None:
    wanted = service(restart={"policy": "OnFailure"})
    down = container(
        state="exited",
        exit_code=1,
        finished_at=DOWN,
        restart_count=10,
        settings={"restart": "on-failure", "restart_max": 10},
    )
    assert exits.failures(down, wanted, None, taken_over=False) == 1
    assert exits.failures(down, wanted, exits.mark_of(down), taken_over=False) == 0


@pytest.mark.parametrize(
    ("mark", "count"),
    [
        (None, 0),
        (Mark("another", 1), 0),
        (Mark("id:web.1-bbbbbbbb", 1), 3),
        (Mark("id:web.1-bbbbbbbb", 9), 0),
    ],
)
def test_restarts_of_the_engines_count_from_the_last_look_on(mark: Mark | None, count: int) -> None:
    running = container(restart_count=4)
    assert exits.failures(running, service(), mark, taken_over=False) == count


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("1970-01-01T00:00:01Z", 1.0),
        ("1970-01-01T00:00:01.5Z", 1.5),
        ("1970-01-01T00:00:01.123456789Z", 1.123456),
        ("1970-01-01T01:00:01.000000001+01:00", 1.0),
        ("", None),
        ("yesterday", None),
    ],
)
def test_instants_are_read_as_the_engine_writes_them(written: str, seconds: float | None) -> None:
    assert exits.seconds(written) == seconds


def test_how_long_it_ran_is_told_by_start_and_end() -> None:
    ran = container(state="exited", started_at="2026-01-01T00:00:00Z", finished_at=DOWN)
    assert exits.up_s(ran, now=0.0) == 10.0
    running = container(started_at="1970-01-01T00:01:00Z")
    assert exits.up_s(running, now=100.0) == 40.0
    assert exits.up_s(container(state="created"), now=100.0) == 0.0


def test_a_mark_is_read_back_as_it_was_written() -> None:
    mark = Mark("c1", 3, DOWN)
    assert exits.from_json(exits.to_json(mark)) == mark
    with pytest.raises(ValueError, match="not a mark"):
        exits.from_json({"id": 3})
