"""Jobs in simulated worlds: a doubled run is found by its checker, and no death doubles one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.core.jobs import run_end
from controller.core.jobs.run_end import RunEnd
from controller.core.records import container_effects
from tests.sim.doomed import DoomedWorld
from tests.sim.planted import Plant, returning
from tests.sim.runs import DOUBLED
from tests.sim.stories import STORIES
from tests.sim.test_crash_sweep import Death, die, some, told
from tests.sim.violation import Violation

JOBS = "jobs"
#: Deaths of an ordinary run; ``make sim-sweep`` has all of them.
DEATHS = 24


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
        ((run_end, "end_of", returning(_as_failed)),),
    ),
)


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.patch)
def test_a_job_doubled_is_found(plant: Plant) -> None:
    with plant.growing(), pytest.raises(Violation) as found:
        DoomedWorld(STORIES[JOBS]).run()
    assert found.value.invariant == DOUBLED


def test_wherever_a_process_dies_a_job_runs_once_for_each_revision() -> None:
    moments = {Death(JOBS, at): moment for at, moment in enumerate(told(JOBS).moments)}
    problems = [problem for death in some(moments, DEATHS) if (problem := die(death))]
    assert problems == []
