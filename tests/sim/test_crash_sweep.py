"""Broker and controller, each killed at every moment of every story, one death a telling.

What is safe is checked after every command, and in the end all is as the files say. An ordinary
run has some deaths of each kind, always the same; ``make sim KIND=sweep`` has all of them.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache

import pytest

from tests.sim.broker import BrokerDied
from tests.sim.controller import ControllerDied
from tests.sim.doomed import DoomedWorld, Moment
from tests.sim.parallel import mapped
from tests.sim.planted import PLANTS
from tests.sim.stories import STORIES
from tests.sim.violation import Violation

SHOWN = 60
CHUNK = 8


@dataclass(frozen=True, slots=True)
class Death:
    """One death: in which story, and at which of its moments."""

    story: str
    at: int

    def __str__(self) -> str:
        return f"{self.story}:{self.at}"


@cache
def told(story: str) -> DoomedWorld:
    """Tell a story to its end, in which nobody dies."""
    world = DoomedWorld(STORIES[story])
    world.run()
    return world


def die(death: Death) -> str:
    """Tell a story with a death in it; return what went wrong, '' if nothing did."""
    world = DoomedWorld(STORIES[death.story], death.at)
    try:
        world.run()
    except Violation as violation:
        problem = str(violation)
    except (Exception, BrokerDied, ControllerDied) as error:  # noqa: BLE001 - it is told with its death
        problem = f"{type(error).__name__}: {error}"
    else:
        return "" if len(world.moments) > death.at else "its moment didn't come again"
    lines = "\n".join(world.trace.lines[-SHOWN:])
    return f"{death} ({world.moments[death.at]}): {problem}\n{lines}"


def some(moments: dict[Death, Moment], most: int) -> list[Death]:
    """Return at most so many deaths: of each kind as many, from as many stories.

    Fewer deaths than kinds are spread over the kinds: by their names the broker's come first.
    """
    kinds: dict[Moment, dict[str, list[Death]]] = defaultdict(lambda: defaultdict(list))
    for death, moment in moments.items():
        kinds[moment][death.story].append(death)
    rows = []
    for number, kind in enumerate(sorted(kinds, key=str)):
        stories = [*kinds[kind].values()]
        first = number % len(stories)
        rows.append(_in_turn([*stories[first:], *stories[:first]]))
    if most < len(rows):
        rows = [rows[number * len(rows) // most] for number in range(most)]
    return list(itertools.islice(_in_turn(rows), most))


def _in_turn(rows: Iterable[Iterable[Death]]) -> Iterator[Death]:
    """Yield the first of each, then the second of each, …."""
    for row in itertools.zip_longest(*rows):
        yield from (each for each in row if each is not None)


@pytest.mark.parametrize("story", STORIES)
def test_a_story_does_what_it_is_told_for(story: str) -> None:
    assert told(story).did >= STORIES[story].does


@pytest.mark.timeout(7200)
def test_wherever_a_process_dies_all_is_safe_and_converges(
    pytestconfig: pytest.Config, record_property: Callable[[str, object], None]
) -> None:
    moments = {
        Death(story, at): moment
        for story in STORIES
        for at, moment in enumerate(told(story).moments)
    }
    most, one = pytestconfig.getoption("moments"), pytestconfig.getoption("death")
    deaths = some(moments, most) if most else list(moments)
    if one is not None:
        story, _, number = one.partition(":")
        deaths = [Death(story, int(number))]
    failed = [problem for problem in mapped(die, deaths, chunk=CHUNK) if problem]
    swept = f"{len(deaths)} deaths of {len(moments)}, in {len(STORIES)} stories"
    record_property("crash sweep", [swept])
    if failed:
        first = failed[0].split(" (")[0]
        pytest.fail(
            f"{len(failed)} of {len(deaths)} deaths did harm.\n{failed[0]}\n"
            f"replay it: .venv/bin/python -m pytest tests/sim -k crash_sweep --death '{first}'",
            pytrace=False,
        )
    kinds = set(moments.values())
    if len(deaths) >= len(kinds):
        assert {moments[death] for death in deaths} == kinds


@pytest.mark.parametrize(
    ("patch", "soonest"),
    [
        ("no-recovery", "before forwarding"),
        ("created-is-missing", "after the answer to create-container"),
    ],
)
def test_the_sweep_sees_what_only_a_death_brings_to_light(patch: str, soonest: str) -> None:
    (plant,) = (each for each in PLANTS if each.patch == patch)
    moments = told("scale").moments
    deaths = [at for at, each in enumerate(moments) if not each.looks]
    deaths.sort(key=lambda at: not moments[at].what.startswith(soonest))
    with plant.growing():
        DoomedWorld(STORIES["scale"]).run()
        assert any(die(Death("scale", at)) for at in deaths)
