"""Documents change while passes run, and all is done without an observation by its timer."""

from __future__ import annotations

import pytest

from tests.sim.hurried import HurriedWorld
from tests.sim.parallel import mapped
from tests.sim.violation import Violation

#: Worlds of an ordinary run.
WORLDS = 10
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
    failed = list(filter(None, mapped(hurry, range(WORLDS), chunk=1)))
    assert not failed, failed[0]
