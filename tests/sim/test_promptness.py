"""Documents change while passes run, and all is done without an observation by its timer."""

from __future__ import annotations

import pytest

from tests.sim.hurried import HurriedWorld
from tests.sim.parallel import mapped
from tests.sim.planted import PLANTS
from tests.sim.promptness import LATE
from tests.sim.violation import Violation

#: The worlds of an ordinary run; in some of them a document goes during its first pass.
SEEDS = range(4, 10)
#: One of these worlds.
OUTLASTED = 7
SHOWN = 60


def hurry(seed: int) -> str:
    """Live one world; return what was wrong."""
    world = HurriedWorld(seed)
    try:
        world.run()
    except Violation as violation:
        return "\n".join([f"seed {seed}: {violation}", *world.trace.lines[-SHOWN:]])
    return ""


@pytest.mark.timeout(600)
def test_changes_amid_passes_wait_for_no_timer() -> None:
    failed = list(filter(None, mapped(hurry, SEEDS, chunk=1)))
    assert not failed, failed[0]


def test_a_container_that_nobody_asked_the_guard_about_is_found_late() -> None:
    """A planted bug: only the next change of a document, or the timer, makes the guard decide."""
    plant = next(each for each in PLANTS if each.patch == "guard-unasked")
    with plant.growing():
        assert f"invariant {LATE}: " in hurry(OUTLASTED)
