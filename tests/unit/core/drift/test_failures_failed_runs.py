"""Failed runs: which runs count as failed, what is kept of them, and for whom."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core.drift.failures import (
    FORM,
    KEPT_OF_ALL,
    LINES_MAX,
    OF_A_SERVICE,
    OF_A_SLOT,
    TEXT_MAX,
    Readers,
    failed_run,
    is_known_run,
    keep_runs,
    last_line,
    latest_by_slot,
    with_output,
)
from controller.model.container_output import FailedRun, LogLine
from controller.model.names import service_key
from tests.worlds import WEB, container, service

AT = "2026-03-01T12:00:00.5Z"


def run_of(number: int = 0, **changes: Any) -> FailedRun:
    run = FailedRun(
        key=WEB,
        slot=1,
        container="web.1-bbbbbbbb",
        id="c1",
        run=f"ended {number}",
        revision="v2:b",
        owner="team",
        at=AT,
        cause="exited with 1",
        exit_code=1,
    )
    return replace(run, **changes)


def line(text: str, time: str = "2026-03-01T12:00:00.000000000Z") -> LogLine:
    return LogLine(time, "stderr", text)


@pytest.mark.parametrize(
    ("changes", "restart", "expected"),
    [
        ({"state": "restarting", "exit_code": 1}, "Always", ("exited with 1", 1, "")),
        (
            {"state": "restarting", "exit_code": 139},
            "Always",
            ("exited with 139: crashed by SIGSEGV", 139, "SIGSEGV"),
        ),
        ({"state": "exited", "exit_code": 3}, "Never", ("exited with 3", 3, "")),
        (
            {"restart_count": 2, "finished_at": AT},
            "Always",
            ("exited, and was restarted by the engine", None, ""),
        ),
        ({"health": "unhealthy"}, "Always", ("was unhealthy", None, "")),
        (
            {"health": "unhealthy", "complaint": "its check exited with 22"},
            "Always",
            ("was unhealthy: its check exited with 22", None, ""),
        ),
        (
            {"state": "exited", "exit_code": 137, "violation": "01a2"},
            "Always",
            ("was ended by the broker, since it didn't run as admitted", 137, "SIGKILL"),
        ),
        (
            {"state": "created", "error": "unable to find user x: no matching entries"},
            "Always",
            ("failed to start: its image has no user x", None, ""),
        ),
    ],
)
def test_a_run_that_failed_has_its_cause(
    changes: dict[str, Any], restart: str, expected: tuple[str, int | None, str]
) -> None:
    there = container(**{"finished_at": AT, **changes})
    run = failed_run(there, service(restart={"policy": restart}), controller_restarts=False)
    assert run is not None
    assert (run.cause, run.exit_code, run.signal) == expected


@pytest.mark.parametrize(
    ("changes", "restart"),
    [
        ({}, "Always"),
        ({"state": "exited", "exit_code": 143}, "Always"),  # somebody stopped it
        ({"state": "exited", "exit_code": 0}, "Never"),  # a task that is done
        ({"state": "created"}, "Always"),
        ({"state": "paused"}, "Always"),
    ],
)
def test_what_runs_is_done_or_was_stopped_did_not_fail(
    changes: dict[str, Any], restart: str
) -> None:
    there = container(**{"finished_at": AT, **changes})
    assert (
        failed_run(there, service(restart={"policy": restart}), controller_restarts=False) is None
    )


def test_what_the_controller_restarts_in_a_crash_loop_failed_when_it_exited() -> None:
    there = container(state="exited", exit_code=1, finished_at=AT, settings={"restart": "no"})
    assert failed_run(there, service(), controller_restarts=False) is None
    run = failed_run(there, service(), controller_restarts=True)
    assert run is not None
    assert (run.cause, run.at) == ("exited with 1", AT)


def test_a_replica_of_a_rejected_revision_failed_though_it_runs() -> None:
    run = failed_run(
        container("a"), service(), controller_restarts=False, rejected="it was too slow"
    )
    assert run is not None
    assert run.cause == "was replaced, since its rollout failed: it was too slow"
    down = container("a", state="exited", exit_code=143)
    assert (
        failed_run(down, service(), controller_restarts=False, rejected="it was too slow") is None
    )
    assert not is_known_run([run_of(id="another")], run)
    assert is_known_run([run_of(id=run.id)], run), "its own failures say more"


def test_the_last_lines_are_kept_and_cut() -> None:
    lines = [*(line(str(number)) for number in range(30)), line("x" * 1000)]
    kept = with_output(run_of(), lines).lines
    assert [each.text for each in kept[:-1]] == [str(number) for number in range(11, 30)]
    assert (len(kept), len(kept[-1].text)) == (LINES_MAX, TEXT_MAX)


def test_lines_of_the_runs_before_and_after_are_left_out() -> None:
    lines = [
        line("before", "2026-03-01T11:59:59.000000000Z"),
        line("late, before", "2026-03-01T11:59:59.040000000Z"),
        line("mine", "2026-03-01T11:59:59.200000000Z"),
        line("mine, late", "2026-03-01T12:00:00.540000000Z"),
        line("after", "2026-03-01T12:00:00.600000000Z"),
    ]

    def kept(**bounds: Any) -> list[str]:
        return [each.text for each in with_output(run_of(), lines, **bounds).lines]

    end = "2026-03-01T11:59:59Z"
    assert kept(previous_end=end, restarted=True) == ["mine", "mine, late"]
    assert kept(previous_end=end) == ["mine", "mine, late", "after"]
    assert kept(restarted=True)[0] == "before"


def test_an_unhealthy_run_ends_with_what_its_check_said_also_after_a_restart() -> None:
    there = container(health="unhealthy", check_output="connecting\ncurl: (22) 500\n")
    run = failed_run(there, service(), controller_restarts=False)
    assert run is not None
    run = with_output(run, [line("Booting worker")])
    assert last_line(run) == "curl: (22) 500"
    assert FORM.from_json(FORM.to_json(run)) == run


def test_the_last_line_is_the_last_that_says_something() -> None:
    assert last_line(run_of(lines=(line("one"), line("two"), line("  ")))) == "two"
    assert last_line(run_of()) == ""


def test_a_crash_loop_does_not_push_out_what_failed_before() -> None:
    kept: tuple[FailedRun, ...] = (run_of(revision="v2:a", id="c0"),)
    for number in range(50):
        kept = keep_runs(kept, run_of(number))
    assert [(each.revision, each.run) for each in kept] == [
        ("v2:a", "ended 0"),
        ("v2:b", "ended 48"),
        ("v2:b", "ended 49"),
    ]


def test_the_same_run_is_kept_once() -> None:
    kept = keep_runs(keep_runs((), run_of(1)), run_of(1, lines=(line("read later"),)))
    assert [last_line(each) for each in kept] == ["read later"]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 8), st.sampled_from("abc"))))
def test_whatever_fails_all_bounds_hold(failures: list[tuple[int, int, str]]) -> None:
    kept: tuple[FailedRun, ...] = ()
    for number, (name, slot, revision) in enumerate(failures):
        key = service_key("default", f"s{name}")
        kept = keep_runs(kept, run_of(number, key=key, slot=slot, revision=revision))
    assert len(kept) <= KEPT_OF_ALL
    for run in kept:
        of_it = [each for each in kept if each.key == run.key]
        places = [(each.slot, each.revision) for each in of_it]
        assert len(of_it) <= OF_A_SERVICE
        assert places.count((run.slot, run.revision)) <= OF_A_SLOT
    assert bool(kept) == bool(failures)


def test_the_latest_of_each_slot() -> None:
    runs = [run_of(1), run_of(2), run_of(1, slot=2)]
    assert latest_by_slot(runs) == [run_of(2), run_of(1, slot=2)]


def test_what_is_written_is_read_back() -> None:
    run = run_of(7, signal="SIGKILL", oom=True, lines=(line("a"), line("b")), unread="why")
    assert FORM.from_json(FORM.to_json(run)) == run
    for broken in ({}, {**FORM.to_json(run), "slot": "x"}, {**FORM.to_json(run), "lines": [{}]}):
        with pytest.raises(ValueError, match=r"^(key|slot|lines)"):
            FORM.from_json(broken)


def test_operators_read_all_and_owners_what_is_theirs() -> None:
    readers = Readers(operators=frozenset({0, 7}), owners={8: "team", 9: ""})
    assert readers.may_read(7, "team")
    assert readers.may_read(8, "team")
    assert not readers.may_read(8, "others")
    assert not readers.may_read(9, "")
    assert not readers.may_read(10, "team")
