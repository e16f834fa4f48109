"""Whatever a machine does to a world, step by step, it stays safe and converges; what doesn't, shrinks.

An ordinary run takes the same steps each time. ``--drawn N`` draws N runs anew; what breaks is printed as a
program of a few steps, and Hypothesis replays it first in the next such run.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.sim.machine import Machine
from tests.sim.planted import PLANTS

EXAMPLES = 25
STEPS = 16
#: Steps of a run that is shrunk: Hypothesis takes them again for each attempt at a shorter program.
SHRUNK_FROM = 12
SETTINGS = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
)


@pytest.mark.timeout(3600)
def test_whatever_is_done_to_a_world_it_stays_safe_and_converges(
    pytestconfig: pytest.Config,
) -> None:
    drawn = pytestconfig.getoption("drawn")
    anew: Any = {"max_examples": drawn, "derandomize": False, "database": settings().database}
    run_state_machine_as_test(Machine, settings=settings(SETTINGS, **(anew if drawn else {})))


@pytest.mark.timeout(600)
def test_what_a_machine_finds_is_shrunk_to_a_few_steps() -> None:
    (plant,) = (each for each in PLANTS if each.patch == "label-is-enough")

    class Finder(Machine):
        def _rest(self) -> None:
            """It is found on the way, if at all."""

    phases = (Phase.generate, Phase.shrink)
    with plant.growing(), pytest.raises(AssertionError, match=f"invariant {plant.invariant}:"):
        run_state_machine_as_test(
            Finder,
            settings=settings(
                SETTINGS, max_examples=500, stateful_step_count=SHRUNK_FROM, phases=phases
            ),
        )
    assert len(Finder.steps) <= 5, Finder.steps
