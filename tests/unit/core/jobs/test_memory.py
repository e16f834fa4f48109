"""The broker's memory of runs: numbers grow, ends count once, and the memory stays small."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from controller.core.jobs import memory as jobs
from controller.core.records.inventory_json import mapping_from_json, mapping_to_json
from controller.model.inventory import JOBS_MAX
from controller.model.names import job_key
from controller.model.observed import NO_RUNS, JobMemory, JobRun

ONE, TWO = f"v2:{'1' * 64}", f"v2:{'2' * 64}"
AT = "2026-03-01T12:00:00.000Z"


def run(number: int, *, revision: str = ONE, occasion: str = jobs.ON_CHANGE) -> JobRun:
    return JobRun(number, revision, occasion, f"c{number}", AT)


def ended(memory: JobMemory, number: int, outcome: jobs.Outcome = "failed") -> JobMemory:
    return jobs.end(memory, f"c{number}", time=AT, outcome=outcome, why=outcome)


def test_a_run_is_remembered_from_its_create_to_its_end() -> None:
    memory = jobs.create(NO_RUNS, run(1))
    assert memory.last == 1
    assert [each.number for each in memory.open_runs] == [1]
    memory = jobs.start(memory, "c1", AT)
    assert memory.runs[0].started == AT
    memory = ended(memory, 1, "succeeded")
    assert memory.open_runs == ()
    occasion = memory.occasion(ONE, jobs.ON_CHANGE)
    assert occasion is not None
    assert (occasion.runs, occasion.failed, occasion.outcome) == (1, 0, "succeeded")


def test_the_first_end_of_a_run_counts() -> None:
    memory = ended(ended(jobs.create(NO_RUNS, run(1)), 1, "succeeded"), 1, "cut")
    occasion = memory.occasion(ONE, jobs.ON_CHANGE)
    assert occasion is not None
    assert (occasion.outcome, occasion.failed) == ("succeeded", 0)


def test_failures_count_for_their_revision_and_occasion() -> None:
    memory = NO_RUNS
    for number, revision in enumerate((ONE, ONE, TWO), 1):
        memory = ended(jobs.create(memory, run(number, revision=revision)), number, "cut")
    one, two = (memory.occasion(each, jobs.ON_CHANGE) for each in (ONE, TWO))
    assert one is not None
    assert two is not None
    assert (one.failed, one.cut, two.failed) == (2, 2, 1)


def test_a_run_that_never_started_is_no_failure() -> None:
    memory = jobs.create(NO_RUNS, run(1))
    memory = jobs.end(memory, "c1", time=AT, outcome="unstarted", why="was never started")
    occasion = memory.occasion(ONE, jobs.ON_CHANGE)
    assert occasion is not None
    assert (occasion.runs, occasion.failed, occasion.cut, occasion.succeeded) == (1, 0, 0, 0)
    assert memory.open_runs == ()


def test_a_request_waits_for_its_run_alone() -> None:
    memory = jobs.request(jobs.request(NO_RUNS, "a"), "b")
    assert jobs.create(memory, run(1)).requests == ("a", "b")
    assert jobs.create(memory, run(1, occasion=f"{jobs.MANUAL}a")).requests == ("b",)


def test_a_known_number_changes_nothing() -> None:
    memory = jobs.create(NO_RUNS, run(1))
    assert jobs.create(memory, run(1, revision=TWO)) == memory


@given(st.lists(st.tuples(st.integers(0, 70), st.booleans()), max_size=150))
def test_the_memory_is_bounded_and_keeps_runs_that_go_on(steps: list[tuple[int, bool]]) -> None:
    memory, going = NO_RUNS, set[int]()
    for number, (at, ends) in enumerate(steps, 1):
        occasion = f"{jobs.SCHEDULE}{at:04}-01-01T00:00:00Z" if at % 2 else f"{jobs.MANUAL}{at}"
        memory = jobs.create(memory, run(number, occasion=occasion))
        going.add(number)
        if ends:
            memory = ended(memory, number)
            going.discard(number)
    assert {each.number for each in memory.open_runs} == going
    assert len([each for each in memory.runs if each.ended]) <= jobs.RUNS_KEPT
    assert len(memory.occasions) <= jobs.OCCASIONS_KEPT
    assert memory.last == len(steps)
    texts = json.loads(json.dumps(mapping_to_json("jobs", {job_key("a", "b"): memory})))
    assert mapping_from_json("jobs", texts) == {job_key("a", "b"): memory}


def test_a_run_that_ends_after_many_later_ones_is_remembered() -> None:
    memory = jobs.create(NO_RUNS, run(1, occasion=f"{jobs.MANUAL}a"))
    for number in range(2, 30):
        memory = ended(jobs.create(memory, run(number)), number)
    last = "2026-03-01T13:00:00.000Z"
    memory = jobs.end(memory, "c1", time=last, outcome="succeeded", why="exited with 0")
    memory = jobs.create(memory, run(30))
    assert [each.number for each in memory.runs] == [1, *range(22, 31)]


def test_the_job_that_ran_least_recently_is_forgotten_first() -> None:
    known: jobs.Jobs = {}
    going = jobs.create(NO_RUNS, run(1))
    known = jobs.with_job(known, job_key("a", "going"), going)
    for number in range(JOBS_MAX):
        known = jobs.with_job(known, job_key("a", f"j{number}"), ended(going, 1))
    assert len(known) == JOBS_MAX
    assert job_key("a", "going") in known
    assert job_key("a", "j0") not in known


def test_a_run_elsewhere_counts_once_and_a_revision_is_held_only_without_a_run() -> None:
    adopted = jobs.adopt(NO_RUNS, ONE, "c0", time=AT, why="exited with 0")
    known = adopted.occasion(ONE, jobs.ON_CHANGE)
    assert known is not None
    assert (known.is_complete, known.why, adopted.last) == (True, "exited with 0", 1)
    assert adopted.open_runs == ()
    held = jobs.hold(NO_RUNS, ONE, time=AT, why="is held")
    for memory in (adopted, held, jobs.create(NO_RUNS, run(1))):
        assert jobs.adopt(memory, ONE, "c9", time=AT, why="again") == memory
        assert jobs.hold(memory, ONE, time=AT, why="again") == memory
    assert held.occasion(TWO, jobs.ON_CHANGE) is None
