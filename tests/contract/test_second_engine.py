"""What an image store could change holds with the other one, too."""

from __future__ import annotations

import os

import pytest

from tests.contract import engine_rings
from tools.engine_setups import SETUPS, VARIABLE


# Without a bound of its own: each test in there has one, and a run that is cut off tells nothing.
@pytest.mark.owns_engine
@pytest.mark.timeout(0)
def test_images_pins_and_adoption_are_the_same_with_the_containerd_image_store() -> None:
    if VARIABLE in os.environ:
        return  # a run for one set-up
    outcome = engine_rings.run(SETUPS["docker-26-containerd"], engine_rings.STORES)
    assert outcome.failed == 0, outcome.said
    assert outcome.passed >= len(engine_rings.STORES)
