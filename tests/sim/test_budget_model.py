"""Never more than the share is down, whatever a hostile controller asks for (``budget_model``).

``make sim KIND=budget STORIES=100000`` plays as many stories.
"""

from __future__ import annotations

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.sim.budget_model import DELAYS, MOVES, PAUSES, BeyondTheShare, Move, play
from tests.sim.planted import Plant
from tests.sim.planted_budget import BUDGET_PLANTS

#: A planted bug is found within as many stories.
STORIES = 300
#: The bug that is planted in the model: it needs two moves of one pair at the right time.
RARE = {"budget-repairs-overtake": 3000}


def _index(of: tuple[float, ...]) -> st.SearchStrategy[int]:
    return st.integers(0, len(of) - 1)


#: Moves that stories have more often than others: those that break the share together.
OFTEN = ("stop", "stop", "stop", "restart", "restart", "helper", "helper")
OFTEN_PAIRED = ("starve", "feed", "disconnect", "connect")
MOVE = st.builds(
    Move,
    verb=st.sampled_from((*MOVES, *OFTEN, *OFTEN_PAIRED)),
    first=st.sampled_from((0, 0, 1, 3, 4, 6)),
    count=st.integers(1, 6),
    effect=_index(DELAYS),
    answer=_index(DELAYS),
    look=_index(DELAYS),
    pause=_index(PAUSES),
    fate=st.sampled_from(("done", "done", "done", "lost", "refused")),
)
SERVICES = st.integers(4, 12)
TALES = st.lists(MOVE, min_size=3, max_size=14)


@pytest.mark.timeout(3600)  # for 100,000 stories: 4 ms each
def test_never_more_than_the_share_is_down(pytestconfig: pytest.Config) -> None:
    counted = [0, 0]

    @settings(max_examples=pytestconfig.getoption("stories"), database=None)
    @given(services=SERVICES, moves=TALES)
    def run(services: int, moves: list[Move]) -> None:
        counted[0] += 1
        counted[1] += play(services, moves).admitted

    run()
    assert counted[1] > counted[0], "hardly anything is taken down in these stories"


@pytest.mark.parametrize("plant", BUDGET_PLANTS, ids=lambda plant: plant.patch)
def test_each_planted_bug_is_found(plant: Plant) -> None:
    """And without the bug, the story that finds it holds."""

    @settings(max_examples=RARE.get(plant.patch, STORIES), database=None, phases=[Phase.generate])
    @given(services=SERVICES, moves=TALES)
    def run(services: int, moves: list[Move]) -> None:
        play(services, moves)

    with plant.growing(), pytest.raises(BeyondTheShare) as found:
        run()
    play(*found.value.story)
