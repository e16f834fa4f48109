"""Jobs with several completions: how many runs go on, what follows an end, and when the job fails."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core.jobs import memory as jobs
from controller.core.jobs.decision import (
    FIRST_PAUSE_S,
    JobDecision,
    JobTime,
    JobWord,
    decide,
    decide_occasion,
    next_look_s,
    seconds,
)
from controller.model.desired.spec.service import ConcurrencyPolicy, Interrupted, Trigger
from controller.model.names import completions_label, completions_of
from controller.model.observed import NO_RUNS, JobMemory, JobRun
from tests.unit.core.jobs.test_decision import ONE, START, TWO, spec
from tests.unit.core.jobs.test_memory_run_rules import refused


def text(second: float) -> str:
    return datetime.fromtimestamp(START + second, UTC).isoformat(timespec="milliseconds")


def begun(
    memory: JobMemory,
    *,
    at: float = 0.0,
    completions: int,
    parallelism: int = 1,
    occasion: str = "",
) -> JobMemory:
    """Return the memory with one more run, which was started."""
    number = memory.last + 1
    run = JobRun(number, ONE, occasion or jobs.ON_CHANGE, f"c{number}", text(at))
    memory = jobs.create(memory, run, completions_label(completions, parallelism))
    return jobs.start(memory, run.container, text(at))


def ended(memory: JobMemory, number: int, outcome: jobs.Outcome, at: float = 0.0) -> JobMemory:
    return jobs.end(memory, f"c{number}", time=text(at), outcome=outcome, why=f"said {outcome}")


def three(*outcomes: jobs.Outcome | None, parallelism: int = 2, at: float = 0.0) -> JobMemory:
    """Return the memory of a job with three completions; None for a run that goes on."""
    memory = NO_RUNS
    for number, outcome in enumerate(outcomes, 1):
        memory = begun(memory, completions=3, parallelism=parallelism)
        if outcome is not None:
            memory = ended(memory, number, outcome, at)
    return memory


def decided(
    memory: JobMemory, later_s: float = 0.0, *, parallelism: int = 2, **members: object
) -> JobDecision:
    job = spec(completions=3, parallelism=parallelism, **members)
    return decide(job, ONE, memory, JobTime(START + later_s, START + later_s))


def numbers(decision: JobDecision) -> list[int]:
    return [run.number for run in decision.runs]


def test_as_many_runs_begin_as_may_go_on_at_a_time() -> None:
    assert numbers(decided(NO_RUNS)) == [1, 2]
    assert numbers(decided(NO_RUNS, parallelism=3)) == [1, 2, 3]
    assert numbers(decided(three(None))) == [2]
    assert numbers(decided(three(None, None))) == []


def test_a_success_is_followed_by_a_run_until_all_have_succeeded() -> None:
    one = decided(three("succeeded", None))
    assert (one.word, one.message, numbers(one)) == (
        JobWord.RUNNING,
        "1/3 completed; run 2 in progress",
        [3],
    )
    two = decided(three("succeeded", "succeeded"))
    assert (two.word, two.message, numbers(two)) == (JobWord.DUE, "2/3 completed", [3])
    # No more runs than successes are missing.
    assert numbers(decided(three("succeeded", "succeeded", None))) == []
    done = decided(three("succeeded", "succeeded", "succeeded"))
    assert (done.word, done.message, done.runs) == (JobWord.COMPLETE, "3/3 completed", ())


def test_a_failed_run_is_repeated_after_its_pause_while_others_go_on() -> None:
    failed = three("failed", None)
    paused = decided(failed, 1.0)
    assert (paused.word, numbers(paused), paused.until) == (
        JobWord.RUNNING,
        [],
        START + FIRST_PAUSE_S,
    )
    assert numbers(decided(failed, FIRST_PAUSE_S)) == [3]
    alone = decided(three("failed"), 1.0)
    assert (alone.word, alone.message) == (
        JobWord.WAITING,
        "0/3 completed; run 1 said failed, next run at 2026-03-01T12:00:10Z",
    )
    # A success shows that runs can succeed again.
    assert numbers(decided(ended(three(None, "failed"), 1, "succeeded"), 1.0)) == [3, 4]


def test_failures_of_the_occasion_count_together() -> None:
    memory = three("failed", "succeeded", "failed")
    assert decided(memory, backoff_limit=2).word is JobWord.WAITING
    failed = decided(memory, backoff_limit=1)
    assert (failed.word, failed.message) == (
        JobWord.FAILED,
        "1/3 completed; run 3 said failed; 2 runs failed, and spec.backoffLimit is 1",
    )


def test_the_runs_of_an_occasion_that_has_failed_are_stopped() -> None:
    over = decided(three("failed", None), backoff_limit=0)
    assert (over.word, over.overdue, over.runs) == (JobWord.RUNNING, (2,), ())
    after = decided(ended(three("failed", None), 2, "failed"), backoff_limit=0)
    assert (after.word, after.overdue) == (JobWord.FAILED, ())


def test_a_cut_run_fails_the_occasion_only_if_the_document_says_so() -> None:
    memory = three("cut", "succeeded")
    assert numbers(decided(memory)) == [3, 4]
    assert decided(memory, interrupted=Interrupted.FAIL).word is JobWord.FAILED


def test_the_deadline_counts_for_the_whole_occasion() -> None:
    memory = begun(three("succeeded"), at=50.0, completions=3, parallelism=2)
    before, after = (decided(memory, s, active_deadline=60_000) for s in (59.0, 60.0))
    assert (before.overdue, before.until) == ((), START + 60)
    assert (after.overdue, after.runs) == ((2,), ())
    over = decided(ended(memory, 2, "failed", 60.0), 100.0, active_deadline=60_000)
    assert (over.word, over.message) == (
        JobWord.FAILED,
        "1/3 completed; beyond activeDeadline 1m",
    )
    # A later try of a rollout has all its time again.
    tried = three("failed", "failed")
    again = begun(tried, at=100.0, completions=3)
    excused = decide_excused(again, 2, 120.0)
    assert (excused.word, excused.overdue) == (JobWord.RUNNING, ())


def decide_excused(memory: JobMemory, excused: int, later_s: float) -> JobDecision:
    job = spec(completions=3, parallelism=1, active_deadline=60_000, backoff_limit=1)
    now = JobTime(START + later_s, START + later_s)
    known = memory.occasion(ONE, jobs.ON_CHANGE)
    return decide_occasion(job, memory, known, jobs.ON_CHANGE, now, excused=excused)


def test_the_numbers_with_which_an_occasion_began_count_to_its_end() -> None:
    memory = three("succeeded", None, parallelism=1)
    raised = decide(spec(completions=9, parallelism=9), ONE, memory, JobTime(START, START))
    assert (raised.message, raised.runs) == ("1/3 completed; run 2 in progress", ())
    done = three("succeeded", "succeeded", "succeeded")
    assert decide(spec(completions=9), ONE, done, JobTime(START, START)).word is JobWord.COMPLETE
    # Fewer at a time is what somebody asks for because of too much load now.
    lowered = decide(spec(completions=3), ONE, three(None), JobTime(START, START))
    assert lowered.runs == ()


def test_a_request_and_a_suspension_wait_for_the_right_moment() -> None:
    asked = jobs.request(three("succeeded"), "a")
    assert {run.occasion for run in decided(asked).runs} == {jobs.ON_CHANGE}
    asked = jobs.request(three("succeeded", "succeeded", "succeeded"), "a")
    assert [run.occasion for run in decided(asked).runs] == ["manual:a"] * 2
    held = decided(three("succeeded", None), suspend=True)
    assert (held.word, held.runs) == (JobWord.RUNNING, ())
    assert decided(three("succeeded"), suspend=True).word is JobWord.SUSPENDED
    changed = decide(spec(completions=3), TWO, three("succeeded"), JobTime(START, START))
    assert (changed.word, numbers(changed)) == (JobWord.DUE, [2])
    manual = decided(three("succeeded"), trigger=Trigger.MANUAL)
    assert manual.word is JobWord.IDLE


MINUTELY = "* * * * *"


def scheduled(memory: JobMemory, later_s: float, policy: ConcurrencyPolicy) -> JobDecision:
    job = spec(schedule=MINUTELY, completions=3, parallelism=1, concurrency_policy=policy)
    now = JobTime(START + later_s, START + later_s, since_s=START - 1)
    return decide(job, ONE, memory, now)


def at_noon(*outcomes: jobs.Outcome | None) -> JobMemory:
    memory, occasion = NO_RUNS, f"{jobs.SCHEDULE}2026-03-01T12:00:00Z"
    for number, outcome in enumerate(outcomes, 1):
        memory = begun(memory, completions=3, occasion=occasion)
        if outcome is not None:
            memory = ended(memory, number, outcome)
    return memory


@pytest.mark.parametrize(
    ("policy", "occasions", "overdue"),
    [
        (ConcurrencyPolicy.FORBID, ["12:00"], ()),
        (ConcurrencyPolicy.ALLOW, ["12:00", "12:01"], ()),
        (ConcurrencyPolicy.REPLACE, ["12:01"], ()),
    ],
)
def test_an_instant_comes_between_two_runs_of_the_one_before(
    policy: ConcurrencyPolicy, occasions: list[str], overdue: tuple[int, ...]
) -> None:
    decision = scheduled(at_noon("succeeded"), 60.0, policy)
    assert [run.occasion[-9:-4] for run in decision.runs] == occasions
    assert numbers(decision) == list(range(2, 2 + len(occasions)))
    assert decision.overdue == overdue


def test_an_instant_comes_while_a_run_goes_on() -> None:
    memory = at_noon("succeeded", None)
    replaced = scheduled(memory, 60.0, ConcurrencyPolicy.REPLACE)
    assert (replaced.runs, replaced.overdue) == ((), (2,))
    waits = scheduled(memory, 60.0, ConcurrencyPolicy.FORBID)
    assert (waits.runs, waits.overdue) == ((), ())
    beside = scheduled(memory, 60.0, ConcurrencyPolicy.ALLOW)
    assert [run.occasion[-9:-4] for run in beside.runs] == ["12:01"]


def test_with_allow_each_of_several_occasions_goes_on_to_its_end() -> None:
    memory = at_noon("succeeded")
    later = f"{jobs.SCHEDULE}2026-03-01T12:01:00Z"
    memory = ended(begun(memory, at=60, completions=3, occasion=later), 2, "failed", 60.0)
    decision = scheduled(memory, 61.0, ConcurrencyPolicy.ALLOW)
    assert [(run.number, run.occasion[-9:-4]) for run in decision.runs] == [(3, "12:00")]
    # With Forbid the failed run alone is repeated: the one before was given up.
    assert scheduled(memory, 61.0, ConcurrencyPolicy.FORBID).word is JobWord.WAITING


def test_a_failed_run_of_a_schedule_gives_way_to_the_next_instant() -> None:
    decision = scheduled(at_noon("succeeded", "failed"), 60.0, ConcurrencyPolicy.FORBID)
    assert [run.occasion[-9:-4] for run in decision.runs] == ["12:01"]


@pytest.mark.parametrize(
    ("label", "found"),
    [
        ("", (1, 1)),
        ("3/2", (3, 2)),
        ("50/10", (50, 10)),
        ("1/1", None),
        ("2/3", None),
        ("51/1", None),
        ("50/11", None),
        ("03/1", None),
        ("3", None),
        ("3/0", None),
        ("٣/٢", None),
    ],
)
def test_a_label_of_completions_is_read_within_its_limits(
    label: str, found: tuple[int, int] | None
) -> None:
    assert completions_of(label) == found


@given(
    st.integers(1, 12),
    st.integers(1, 4),
    st.lists(st.tuples(st.sampled_from(["succeeded", "failed", "cut"]), st.integers(0, 3))),
)
def test_no_success_is_surplus_and_what_is_decided_is_admitted(
    completions: int, parallelism: int, ends: list[tuple[jobs.Outcome, int]]
) -> None:
    parallelism = min(parallelism, completions)
    job = spec(completions=completions, parallelism=parallelism, backoff_limit=20)
    label = completions_label(completions, parallelism)
    memory, now = NO_RUNS, 0.0
    for outcome, which in ends:
        now += 400.0  # beyond each pause
        decision = decide(
            job.model_copy(update={"active_deadline": 10**12}),
            ONE,
            memory,
            JobTime(START + now, START + now),
        )
        for run in decision.runs:
            assert run.number == memory.last + 1
            assert refused(run.number, known=memory, revision=ONE, completions=label) == ()
            memory = begun(memory, at=now, completions=completions, parallelism=parallelism)
        going = memory.open_runs
        occasion = memory.occasion(ONE, jobs.ON_CHANGE)
        assert occasion is not None
        assert len(going) <= parallelism
        assert occasion.succeeded + len(going) <= completions
        if not going:
            assert decision.word in (JobWord.COMPLETE, JobWord.FAILED)
            break
        surplus = refused(memory.last + 1, known=memory, revision=ONE, completions=label)
        assert surplus == ("job.running",)
        memory = ended(memory, going[which % len(going)].number, outcome, now)


def test_an_inventory_of_an_earlier_broker_knows_what_succeeded() -> None:
    memory = ended(begun(NO_RUNS, completions=1), 1, "succeeded")
    (occasion,) = memory.occasions
    earlier = replace(memory, occasions=(replace(occasion, succeeded=0),))
    assert decide(spec(), ONE, earlier, JobTime(START, START)).word is JobWord.COMPLETE
    assert occasion.progress == "1/1 completed"


def test_all_runs_of_the_longest_occasion_are_remembered() -> None:
    memory = NO_RUNS
    for number in range(1, 72):
        memory = begun(memory, completions=50, parallelism=10)
        memory = ended(memory, number, "failed" if number <= 21 else "succeeded")
    assert len(memory.runs) == 71
    assert next_look_s(spec(completions=50), ONE, memory, JobTime(START, START)) is None
    assert seconds(memory.runs[0].created) == START


def instant(minute: int) -> str:
    return f"{jobs.SCHEDULE}2026-03-01T12:{minute:02}:00Z"


def test_a_long_run_completes_its_occasion_after_many_short_occasions() -> None:
    memory = begun(NO_RUNS, completions=2, occasion=instant(0))
    for minute in range(1, 20):
        for _ in range(2):
            memory = begun(memory, at=60.0 * minute, completions=2, occasion=instant(minute))
            memory = ended(memory, memory.last, "succeeded", 60.0 * minute)
    memory = ended(memory, 1, "succeeded", 1190.0)
    decision = scheduled(memory, 1195.0, ConcurrencyPolicy.ALLOW)
    assert [(run.number, run.occasion) for run in decision.runs] == [(40, instant(0))]


def test_occasions_of_one_run_shorten_no_occasion_of_several_runs() -> None:
    memory = ended(begun(NO_RUNS, completions=3, occasion=instant(0)), 1, "succeeded")
    memory = begun(memory, at=10.0, completions=3, occasion=instant(0))
    for minute in range(1, 12):
        memory = begun(memory, at=60.0 * minute, completions=1, occasion=instant(minute))
        memory = ended(memory, memory.last, "succeeded", 60.0 * minute)
    job = spec(
        schedule=MINUTELY, concurrency_policy=ConcurrencyPolicy.ALLOW, active_deadline=700_000
    )
    known = memory.occasion(ONE, instant(0))
    assert known is not None
    decision = decide_occasion(job, memory, known, known.name, JobTime(START + 705, START + 705))
    assert decision.overdue == (2,), "its time began with its first run"


def test_a_rollout_with_all_its_runs_has_no_further_run() -> None:
    occasion = f"{jobs.ROLLOUT}web@{'a' * 64}"
    memory = NO_RUNS
    for number in (1, 2):
        memory = ended(begun(memory, completions=2, occasion=occasion), number, "succeeded")
    assert refused(3, occasion, known=memory, revision=ONE, completions="2/1") == ("job.done",)


def test_a_run_that_never_started_ends_no_pause_of_an_earlier_failure() -> None:
    failed = ended(three(None, None), 1, "failed")
    both = ended(failed, 2, "unstarted", at=1.0)
    waiting = decided(both, 2.0)
    assert (waiting.word, waiting.until) == (JobWord.WAITING, START + FIRST_PAUSE_S)
    assert waiting.message.startswith("0/3 completed; run 1 said failed, next run at")
    first = decided(ended(three(None), 1, "unstarted"))
    assert (first.word, first.message) == (JobWord.DUE, "0/3 completed; run 1 said unstarted")


def test_no_time_limit_counts_from_a_run_that_never_started() -> None:
    hour = {"active_deadline": 3_600_000}
    assert decided(three("unstarted", "unstarted"), 7200.0, **hour).word is JobWord.DUE
    assert decided(three("unstarted", "failed"), 7200.0, **hour).word is JobWord.FAILED
