"""The facts of jobs in the status: occasions and their runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.core.jobs import memory as jobs
from controller.core.status.facts import StatusInputs, job_facts
from controller.core.status.report import report
from controller.model.desired.plan import Plan
from controller.model.observed import NO_RUNS, JobRun
from tests.unit.core.planning.test_job_plan import AT, JOB, job, ran
from tests.worlds import NAMES, declared, engine, revision, service


@pytest.mark.parametrize(
    ("trigger", "remedy"),
    [
        ("Rollout", "correct it, then try the rollout again: trimtab resume web"),
        ("OnChange", "change its document, or run it again: trimtab run-job migrate"),
    ],
)
def test_a_failed_job_has_a_remedy_that_can_work(trigger: str, remedy: str) -> None:
    one = job(trigger=trigger, backoffLimit=0)
    of = f"{jobs.ROLLOUT}web@{'a' * 64}" if trigger == "Rollout" else jobs.ON_CHANGE
    seen = replace(engine(), jobs={JOB: ran("failed", occasion=of)})
    desired = replace(declared(service(rollout={"before": ["migrate"]})), jobs=(one,))
    made = report(StatusInputs(desired, seen, Plan(), NAMES), previous=None, now=AT)
    (row,) = (r for r in made["resources"] if r["kind"] == "Job")  # type: ignore[attr-defined]
    (stalled,) = (c["message"] for c in row["conditions"] if c["type"] == "Stalled")
    assert remedy in stalled


def test_an_occasion_is_shown_with_its_run_after_many_later_ones() -> None:
    asked = JobRun(1, revision("b"), f"{jobs.MANUAL}a", "c1", AT)
    memory = jobs.create(NO_RUNS, asked)
    for minute in range(20):
        instant = f"{jobs.SCHEDULE}2026-03-01T12:{minute:02}:00Z"
        memory = ran("failed", label="2/1", occasion=instant, memory=memory)
    memory = jobs.end(memory, "c1", time=AT.replace("12:", "13:"), outcome="succeeded", why="done")
    seen = replace(engine(), jobs={JOB: memory})
    facts = job_facts(job(), StatusInputs(declared(), seen, Plan(), NAMES))
    shown = facts.details["occasions"]
    assert isinstance(shown, list)
    assert [each["complete"] for each in shown if each["occasion"] == f"{jobs.MANUAL}a"] == [True]
