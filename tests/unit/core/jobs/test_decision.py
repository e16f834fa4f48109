"""When a run is due: once for each revision, again after failures, and by request."""

from __future__ import annotations

from typing import Any, cast

from controller.core.jobs import memory as jobs
from controller.core.jobs.decision import (
    FIRST_PAUSE_S,
    LAST_PAUSE_S,
    JobDecision,
    JobTime,
    JobWord,
    decide,
    next_look_s,
    pause_after,
    seconds,
)
from controller.model.desired.spec.service import Interrupted, JobSpec, Trigger
from controller.model.observed import NO_RUNS, JobMemory, JobRun
from controller.model.quantities import format_instant

ONE, TWO = f"v2:{'1' * 64}", f"v2:{'2' * 64}"
AT = "2026-03-01T12:00:00.000Z"
START = seconds(AT)
IMAGE = "ghcr.io/platformnetwork/web:1"


def spec(**members: object) -> JobSpec:
    return JobSpec.model_construct(**cast("Any", {"image": IMAGE, **members}))


def ran(
    *outcomes: jobs.Outcome | None, occasion: str = jobs.ON_CHANGE, memory: JobMemory = NO_RUNS
) -> JobMemory:
    """Return the memory after runs with these outcomes; None for a run that goes on."""
    for outcome in outcomes:
        number = memory.last + 1
        memory = jobs.create(memory, JobRun(number, ONE, occasion, f"c{number}", AT))
        memory = jobs.start(memory, f"c{number}", AT)
        if outcome is not None:
            memory = jobs.end(memory, f"c{number}", time=AT, outcome=outcome, why="exited")
    return memory


def at(later_s: float, *, jump_s: float = 0.0) -> JobTime:
    return JobTime(START + later_s + jump_s, START + later_s)


def decided(memory: JobMemory, later_s: float = 0.0, **members: object) -> JobDecision:
    return decide(spec(**members), ONE, memory, at(later_s))


def test_a_revision_runs_once() -> None:
    first = decided(NO_RUNS)
    assert first.runs
    assert (first.runs[0].number, first.runs[0].occasion) == (1, jobs.ON_CHANGE)
    assert decided(ran(None)).word is JobWord.RUNNING
    done = decided(ran("succeeded"))
    assert (done.word, done.runs) == (JobWord.COMPLETE, ())
    changed = decide(spec(), TWO, ran("succeeded"), at(0))
    assert changed.runs
    assert changed.runs[0].number == 2


def test_a_run_that_was_stopped_at_its_deadline_says_so() -> None:
    def stopped(at_s: float, why: str = "was stopped by trimtab, and exited with 137") -> str:
        memory = jobs.start(
            jobs.create(NO_RUNS, JobRun(1, ONE, jobs.ON_CHANGE, "c1", AT)), "c1", AT
        )
        end = format_instant(START + at_s)
        memory = jobs.end(memory, "c1", time=end, outcome="failed", why=why)
        return decided(memory, 100, active_deadline=60_000, backoff_limit=0).message

    said = "run 1 was stopped by trimtab, and exited with 137"
    limit = "; 1 run failed, and spec.backoffLimit is 0"
    assert stopped(61) == f"{said}, beyond activeDeadline 1m{limit}"
    assert stopped(30) == f"{said}{limit}", "it was replaced by another run"
    assert stopped(61, "exited with 3") == f"run 1 exited with 3{limit}"


def test_a_failed_run_is_followed_by_another_after_a_growing_pause() -> None:
    waiting = decided(ran("failed"), 1.0)
    assert (waiting.word, waiting.until) == (JobWord.WAITING, START + FIRST_PAUSE_S)
    again = decided(ran("failed"), FIRST_PAUSE_S)
    assert again.runs
    assert again.runs[0].number == 2
    assert decided(ran("failed", "failed"), FIRST_PAUSE_S).word is JobWord.WAITING
    assert decided(ran("failed", "failed"), 2 * FIRST_PAUSE_S).runs
    assert pause_after(20) == LAST_PAUSE_S


def test_a_run_that_never_started_is_followed_at_once() -> None:
    again = decided(ran("unstarted"), backoff_limit=0, interrupted=Interrupted.FAIL)
    assert again.word is JobWord.DUE
    assert [(run.number, run.cause) for run in again.runs] == [(2, "run 1 exited")]
    assert decided(ran("failed", "unstarted"), backoff_limit=1).word is JobWord.DUE


def test_beyond_backoff_limit_the_job_has_failed() -> None:
    assert decided(ran("failed", "failed"), 1e6, backoff_limit=1).word is JobWord.FAILED
    assert decided(ran("failed"), 1e6, backoff_limit=0).word is JobWord.FAILED
    assert decided(ran("failed", "succeeded"), backoff_limit=1).word is JobWord.COMPLETE


def test_an_interrupted_run_fails_the_job_only_if_the_document_says_so() -> None:
    assert decided(ran("cut"), FIRST_PAUSE_S).runs
    failed = decided(ran("cut"), FIRST_PAUSE_S, interrupted=Interrupted.FAIL)
    assert failed.word is JobWord.FAILED
    retried = decided(ran("failed"), FIRST_PAUSE_S, interrupted=Interrupted.FAIL)
    assert retried.runs


def test_a_clock_that_was_set_back_delays_nothing() -> None:
    assert decided(ran("failed"), -7200.0).runs


def test_a_run_beyond_its_deadline_is_overdue() -> None:
    before, after = (decided(ran(None), s, active_deadline=60_000) for s in (59.0, 60.0))
    assert (before.overdue, before.until) == ((), START + 60)
    assert (after.overdue, after.until) == ((1,), None)


def test_a_jump_of_the_wall_clock_ends_no_run() -> None:
    now = at(1.0, jump_s=7200.0)
    decision = decide(spec(active_deadline=60_000), ONE, ran(None), now)
    assert (decision.overdue, decision.until) == ((), now.wall_s + 59)


def test_a_request_comes_before_the_trigger_and_is_carried_out_once() -> None:
    asked = jobs.request(ran("succeeded"), "a")
    first = decided(asked)
    assert first.runs
    assert first.runs[0].occasion == "manual:a"
    done = ran("succeeded", occasion="manual:a", memory=asked)
    assert decided(done).word is JobWord.COMPLETE
    failing = ran("failed", occasion="manual:a", memory=asked)
    retried = decided(failing, FIRST_PAUSE_S)
    assert retried.runs
    assert retried.runs[0].occasion == "manual:a"
    # Of another revision, the request is over: the gate would refuse a second run of it.
    assert decide(spec(), TWO, failing, at(0)).word is JobWord.DUE


def test_a_successful_run_by_request_completes_a_failed_job() -> None:
    failed = ran("failed")
    assert decided(failed, backoff_limit=0).word is JobWord.FAILED
    done = ran("succeeded", occasion="manual:a", memory=jobs.request(failed, "a"))
    assert decided(done, backoff_limit=0).word is JobWord.COMPLETE


def test_a_manual_job_runs_by_request_alone() -> None:
    assert decided(NO_RUNS, trigger=Trigger.MANUAL).word is JobWord.IDLE
    assert decided(jobs.request(NO_RUNS, "a"), trigger=Trigger.MANUAL).runs


def test_a_suspended_job_begins_no_run() -> None:
    assert decided(NO_RUNS, suspend=True).word is JobWord.SUSPENDED
    assert decided(ran("failed"), 1.0, suspend=True).word is JobWord.SUSPENDED
    assert decided(ran(None), suspend=True).word is JobWord.RUNNING
    assert decided(ran("succeeded"), suspend=True).word is JobWord.COMPLETE


def test_the_next_look_is_when_time_alone_changes_something() -> None:
    now = at(1.0)
    assert next_look_s(spec(), ONE, ran("succeeded"), now) is None
    assert next_look_s(spec(), ONE, ran("failed"), now) == FIRST_PAUSE_S - 1
    kept = frozenset({"c1"})
    assert next_look_s(spec(ttl=60_000), ONE, ran("succeeded"), now, containers=kept) == 59
    assert next_look_s(spec(ttl=60_000), ONE, ran("succeeded"), now) is None


def test_a_held_revision_runs_by_request_alone() -> None:
    held = jobs.hold(NO_RUNS, ONE, time=AT, why="is held")
    for suspend in (False, True):
        decision = decided(held, suspend=suspend)
        assert (decision.word, decision.message, decision.runs) == (JobWord.HELD, "is held", ())
    assert decide(spec(), TWO, held, at(0)).word is JobWord.DUE
    asked = jobs.request(held, "r1")
    (run,) = decided(asked).runs
    assert run.occasion == "manual:r1"
    done = ran("succeeded", occasion="manual:r1", memory=asked)
    assert decided(done).word is JobWord.COMPLETE
