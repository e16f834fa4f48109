"""Status, page, metrics and open incidents agree in all states of worlds and of told stories."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from controller.cli.status import table
from controller.core.metrics import controller_values
from controller.core.notify import symptoms
from controller.core.status.standing import Standing, Word, worst_of
from controller.loop import status_reporter
from controller.web.pages import resources
from tests.conftest import WORLDS
from tests.sim.agreement import AGREEMENT, ReadStory, ReadWorld
from tests.sim.parallel import mapped
from tests.sim.planted import Plant, always, returning
from tests.sim.stories import STORIES
from tests.sim.violation import Violation

#: One in so many worlds and stories, unless more worlds are asked for than ``make test`` has.
SHARE = 10
#: A story in which services wait, fail, and need a person.
TOLD = "failed rollout"
#: A world with a Git source that isn't reported yet, is served, and can't be fetched.
SOURCED = 3


def read(which: int | str) -> tuple[int, str]:
    """Live a world, or tell a story; return the compared states, and what was wrong."""
    world = ReadWorld(which) if isinstance(which, int) else ReadStory(STORIES[which])
    try:
        world.run()
    except Violation as violation:
        return world.readers.compared, f"{which}: {violation}"
    return world.readers.compared, ""


@pytest.mark.timeout(3600)
def test_status_page_metrics_and_incidents_agree_in_every_state(
    pytestconfig: pytest.Config,
    seeds: list[int],
    record_property: Callable[[str, object], None],
) -> None:
    share = 1 if pytestconfig.getoption("seeds") > WORLDS else SHARE
    chosen: list[int | str] = [*seeds[::share], *[*STORIES][::share]]
    found = list(mapped(read, chosen, chunk=1))
    states = sum(compared for compared, _ in found)
    record_property("agreement", [f"{states} states of {len(chosen)} worlds and stories"])
    wrong = [problem for _, problem in found if problem]
    assert not wrong, "\n".join(wrong[:5])
    assert states >= 10 * len(chosen), "a story has many states"


def _well(row: dict[str, object]) -> dict[str, object]:
    return {**row, "severity": "ok", "who": "nobody"}


def _type_alone(_original: Any) -> Any:
    return lambda row: (row["worst"], worst_of(row)[1])


def _plant(patch: str, owner: object, name: str, wrong: Any) -> Plant:
    return Plant(AGREEMENT, patch, "", ((owner, name, wrong),))


#: Found in a world with a Git source.
OF_SOURCES = (
    _plant("incidents of sources", symptoms, "_of_sources", always(lambda *_: ())),
    _plant("the word of incidents", symptoms, "word_of_source", always(lambda _: Word.FAILED)),
)
PLANTS = (
    *OF_SOURCES,
    _plant("a word of the text", table, "word_of", always(lambda _row: "Ready")),
    _plant("severities of the JSON", status_reporter, "attended", returning(_well)),
    _plant("entries of the page", resources, "entries_of", returning(lambda found: found[1:])),
    _plant("conditions of metrics", controller_values, "worst_of", _type_alone),
    _plant(
        "sums of metrics", controller_values, "standing_of", always(lambda _: Standing(Word.FAILED))
    ),
    _plant("incidents", symptoms, "_of_row", always(lambda *_: ())),
)


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.patch)
def test_a_form_that_says_something_else_is_found(plant: Plant) -> None:
    with plant.growing():
        assert f"invariant {AGREEMENT}: " in read(SOURCED if plant in OF_SOURCES else TOLD)[1]
