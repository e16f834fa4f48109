"""Jobs in simulated worlds: a doubled run is found by its checker, and no death doubles one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.core.jobs import memory, rollout_hooks
from controller.core.jobs.decision import JobDecision
from controller.core.jobs.memory import RunEnd
from controller.core.planning import job_plan
from controller.core.records import container_effects
from tests.sim.doomed import DoomedWorld
from tests.sim.planted import Plant, returning
from tests.sim.runs import DOUBLED
from tests.sim.stories import STORIES
from tests.sim.test_crash_sweep import Death, die, some, told
from tests.sim.violation import Violation

JOBS = "jobs"
SEVERAL = "jobs of several runs"
ROLLOUTS = "jobs of rollouts"
#: Deaths of an ordinary run; ``make sim KIND=sweep`` has all of them.
DEATHS = 7


def _without_jobs(inventory: Any) -> Any:
    return replace(inventory, jobs={})


def _as_failed(end: RunEnd | None) -> RunEnd | None:
    return None if end is None else RunEnd("failed", end.why)


PLANTS = (
    Plant(
        DOUBLED,
        "run-forgotten-with-its-container",
        "a removed container takes the memory of its run along",
        ((container_effects, "forget_container", returning(_without_jobs)),),
    ),
    Plant(
        DOUBLED,
        "success-taken-for-failure",
        "a run that succeeded is recorded as failed",
        ((memory, "end_of", returning(_as_failed)),),
    ),
)


def _as_many_as_declared(_full: int) -> int:
    return 0


def _more_runs(decision: JobDecision) -> JobDecision:
    """Return a decision with a run more than may go on, as of a controller that counts wrong."""
    if not decision.runs:
        return decision
    last = decision.runs[-1]
    return replace(decision, runs=(*decision.runs, replace(last, number=last.number + 1)))


#: A controller that asks for too many runs, and a gate that admits them.
UNBOUNDED = Plant(
    DOUBLED,
    "too-many-runs-at-a-time",
    "an occasion has one run more than its completions, and the gate doesn't count",
    (
        (job_plan, "decide", returning(_more_runs)),
        (memory, "_full", returning(_as_many_as_declared)),
    ),
)


def _nothing(_found: object) -> None:
    return None


#: A service that doesn't wait for its job.
UNAWAITED = Plant(
    DOUBLED,
    "started-before-its-job",
    "a new revision starts before the job of its rollout",
    ((rollout_hooks.RolloutHooks, "before", returning(_nothing)),),
)


@pytest.mark.parametrize(
    ("plant", "story"),
    [
        *((plant, story) for plant in PLANTS for story in (JOBS, SEVERAL)),
        (PLANTS[1], ROLLOUTS),
        (UNAWAITED, ROLLOUTS),
        (UNBOUNDED, SEVERAL),
    ],
    ids=lambda each: each.patch if isinstance(each, Plant) else each,
)
def test_a_job_doubled_or_left_out_is_found(plant: Plant, story: str) -> None:
    with plant.growing(), pytest.raises(Violation) as found:
        DoomedWorld(STORIES[story]).run()
    assert found.value.invariant == DOUBLED


@pytest.mark.parametrize("story", [JOBS, SEVERAL, ROLLOUTS])
def test_wherever_a_process_dies_a_job_runs_once_for_each_revision(story: str) -> None:
    moments = {Death(story, at): moment for at, moment in enumerate(told(story).moments)}
    problems = [problem for death in some(moments, DEATHS) if (problem := die(death))]
    assert problems == []
