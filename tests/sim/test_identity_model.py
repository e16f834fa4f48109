"""No container reaches another owner's object, whoever makes what anew (``identity_model``).

``make sim KIND=identity STORIES=100000`` plays as many stories, and adds a line to docs/security/identity.md.
``ARGS="--seed N"`` plays one.
"""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.sim.identity_model import Reached, play
from tests.sim.parallel import mapped
from tests.sim.planted import Plant
from tests.sim.planted_identity import IDENTITY_PLANTS

PAGE = Path(__file__).parents[2] / "docs" / "security" / "identity.md"
#: From so many stories on, a run adds a line to the page.
TOLD_FROM = 10_000
CHUNK = 25
#: A planted bug is found within as many stories. Those that found one the last time are played first.
PLANTED = 1000
REMEMBERED = (63, 1304, 4239)
#: What the stories must have, so that they prove something.
MET = (
    ("start", "204"),
    ("start", "network.changed"),
    ("connect", "200"),
    ("remove network", "204"),
    ("rename", "204"),
)


@pytest.mark.timeout(0)
def test_no_container_reaches_another_owners_object(pytestconfig: pytest.Config) -> None:
    seed, stories = pytestconfig.getoption("seed"), pytestconfig.getoption("stories")
    if seed is not None:
        print(play(seed))
        return
    counts = Counter[tuple[str, str]]()
    for answers in mapped(play, range(stories), chunk=CHUNK):
        counts.update(answers)
    assert [each for each in MET if not counts[each]] == []
    if stories >= TOLD_FROM:
        _tell(stories, counts)


def _tell(stories: int, counts: Counter[tuple[str, str]]) -> None:
    requests = sum(counts.values())
    refused = counts["start", "network.changed"] + counts["restart", "network.changed"]
    ended = counts["start", "effective.network"] + counts["restart", "effective.network"]
    git = ["git", "rev-parse", "--short=10", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    cells = (time.strftime("%Y-%m-%d"), commit, stories, requests, refused, ended, 0)
    with PAGE.open("a") as page:
        page.write(f"| {' | '.join(map(str, cells))} |\n")


@pytest.mark.parametrize("plant", IDENTITY_PLANTS, ids=lambda plant: plant.patch)
def test_each_planted_bug_is_found(plant: Plant) -> None:
    """And without the bug, the story that finds it holds."""
    for number in (*REMEMBERED, *range(PLANTED)):
        try:
            with plant.growing():
                play(number)
        except Reached:
            play(number)
            return
    raise AssertionError(f"no story finds {plant.what}")
