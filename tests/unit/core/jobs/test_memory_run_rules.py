"""What the gate requires of a run: the next number, an occasion, and no second start."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.core.jobs import memory as jobs
from controller.core.rules.context import RunFacts
from controller.model import names
from controller.model.observed import NO_RUNS, JobMemory, JobRun
from tests.unit.core.creates import (
    CONTROLLER_LABELS,
    FACTS,
    REVISION,
    denials,
    judged_for_controller,
)

AT = "2026-03-01T12:00:00.000Z"
NOW = 1_772_366_400.0  # AT
REQUEST = "0190b3c4-0000-7000-8000-000000000000"


def memory(*outcomes: jobs.Outcome | None, occasion: str = jobs.ON_CHANGE) -> JobMemory:
    known = NO_RUNS
    for number, outcome in enumerate(outcomes, 1):
        known = jobs.create(known, JobRun(number, REVISION, occasion, f"c{number}", AT))
        if outcome is not None:
            known = jobs.end(known, f"c{number}", time=AT, outcome=outcome, why="exited")
    return known


def refused(
    number: int = 1,
    occasion: str = jobs.ON_CHANGE,
    known: JobMemory = NO_RUNS,
    *,
    is_service: bool = False,
    revision: str = REVISION,
    completions: str = "",
) -> tuple[str, ...]:
    labels = {
        names.SLOT: names.run_slot(number),
        names.OCCASION: occasion,
        names.REVISION: revision,
        **({names.COMPLETIONS: completions} if completions else {}),
    }
    name = names.run_name("default", "web", number=number, revision=revision)
    facts = replace(FACTS, run=RunFacts(known, now=NOW, is_service=is_service))
    ends: dict[str, Any] = {"NetworkingConfig": {"EndpointsConfig": {"platform-network": {}}}}
    return denials(judged_for_controller(ends, labels=labels, name=name, facts=facts))


def test_runs_are_made_one_after_the_other() -> None:
    assert refused() == ()
    assert refused(2, known=memory("failed")) == ()
    assert refused(2, known=memory("succeeded"), revision="v2:" + "9" * 64) == ()


@pytest.mark.parametrize(
    ("number", "occasion", "known", "rule"),
    [
        (1, jobs.ON_CHANGE, memory("failed"), "job.number"),
        (3, jobs.ON_CHANGE, memory("failed"), "job.number"),
        (2, jobs.ON_CHANGE, memory("succeeded"), "job.done"),
        (2, jobs.ON_CHANGE, memory(None), "job.running"),
        (1, "because", NO_RUNS, "job.occasion"),
        (1, "", NO_RUNS, "job.occasion"),
        (1, "schedule:2026-02-30T00:00:00Z", NO_RUNS, "job.occasion"),
        (1, f"manual:{REQUEST}", NO_RUNS, "job.request"),
        (1, "schedule:2026-03-01T13:00:00Z", NO_RUNS, "job.schedule"),
    ],
)
def test_a_run_that_cannot_be_is_refused(
    number: int, occasion: str, known: JobMemory, rule: str
) -> None:
    assert refused(number, occasion, known) == (rule,)


def test_a_request_of_an_operator_has_its_runs() -> None:
    asked = jobs.request(NO_RUNS, REQUEST)
    assert refused(1, f"manual:{REQUEST}", asked) == ()
    failed = memory("failed", occasion=f"manual:{REQUEST}")
    assert refused(2, f"manual:{REQUEST}", failed) == ()


def test_an_instant_has_the_runs_of_one_revision() -> None:
    instant = "schedule:2026-03-01T12:00:00Z"
    assert refused(1, instant) == ()
    failed = memory("failed", occasion=instant)
    assert refused(2, instant, failed) == ()
    assert refused(2, instant, failed, revision="v2:" + "9" * 64) == ("job.done",)


def test_a_job_has_no_name_of_a_service() -> None:
    assert refused(is_service=True) == ("job.name",)


def test_an_occasion_has_the_numbers_of_its_first_run() -> None:
    def known(*outcomes: jobs.Outcome | None) -> JobMemory:
        memory = NO_RUNS
        for number, outcome in enumerate(outcomes, 1):
            run = JobRun(number, REVISION, jobs.ON_CHANGE, f"c{number}", AT)
            memory = jobs.create(memory, run, "3/2")
            if outcome is not None:
                memory = jobs.end(memory, f"c{number}", time=AT, outcome=outcome, why="exited")
        return memory

    assert refused(2, known=known(None), completions="3/2") == ()
    assert refused(3, known=known(None, None), completions="3/2") == ("job.running",)
    # A later run can't ask for more than the first one.
    assert refused(3, known=known(None, None), completions="50/10") == ("job.running",)
    # No more runs go on than successes are missing.
    assert refused(4, known=known("succeeded", "succeeded", None)) == ("job.running",)
    assert refused(4, known=known("succeeded", "succeeded", "failed")) == ()
    done = known("succeeded", "succeeded", "succeeded")
    assert refused(4, known=done, completions="50/10") == ("job.done",)
    assert refused(2, known=memory("succeeded"), completions="50/10") == ("job.done",)
    for label in ("51/1", "3/4", "1/1", "three"):
        assert refused(completions=label) == ("job.completions",)


def test_a_service_has_no_occasion() -> None:
    assert denials(judged_for_controller(labels={names.COMPLETIONS: "3/2"})) == ("label.reserved",)
    labels = {names.OCCASION: jobs.ON_CHANGE}
    assert denials(judged_for_controller(labels=labels)) == ("label.reserved",)
    assert denials(judged_for_controller(labels=dict(CONTROLLER_LABELS))) == ()
