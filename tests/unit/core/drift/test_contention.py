"""Who alters the same field again and again is fought more slowly, and forgotten in time."""

import json
from typing import Any

import pytest

from controller.core.drift.actions import ContainerHandle
from controller.core.drift.contention import (
    CALM,
    Contention,
    is_contended,
    not_before,
    observe,
    record_healing,
    update,
)
from controller.core.encoding.stored_form import StoredForm
from tests.worlds import container

FORM = StoredForm(dict[str, Contention])


def fought(*times: float) -> Contention:
    """A field that was altered at these times, and healed at once each time."""
    fight = CALM
    for at in times:
        fight = update(update(fight, ("c1",), at), (), at)
    return fight


@pytest.mark.parametrize(
    ("times", "rounds"),
    [
        ((), 0),
        ((0, 1, 2), 0),
        ((0, 1, 2, 3), 1),
        ((0, 100, 200, 599), 1),
        ((0, 100, 200, 600), 0),  # the first is ten minutes ago
        ((0, 1, 2, 3, 400, 900, 1400), 4),  # never quiet for ten minutes since
        ((0, 1, 2, 3, 603), 0),
        ((50, 51, 52, 3), 1),  # the clock was set back
    ],
)
def test_three_times_again_within_ten_minutes_is_a_fight_until_it_is_quiet_for_ten(
    times: tuple[float, ...], rounds: int
) -> None:
    assert fought(*times).rounds == rounds


def test_pauses_grow_threefold_up_to_five_minutes() -> None:
    pauses = [not_before(Contention((100.0,), rounds)) - 100 for rounds in range(1, 8)]
    assert pauses == [2, 6, 18, 54, 162, 300, 300]
    assert not_before(Contention((100.0,), 999)) == 400
    assert not_before(fought(1, 2, 3)) == 0


def test_what_stays_altered_is_altered_once() -> None:
    fight = CALM
    for at in range(0, 500, 10):
        fight = update(fight, ("c1",), float(at))
    assert (fight.times, fight.rounds) == ((0.0,), 0)
    assert update(fight, ("c2",), 500.0).times == (0.0, 500.0), "another container is"
    both = update(fight, ("c1", "c2"), 500.0)
    assert both.times == (0.0, 500.0), "also beside the first one"
    assert update(both, ("c1",), 501.0).times == (0.0, 500.0)


def test_quiet_makes_calm() -> None:
    fight = fought(0, 1, 2, 3)
    assert is_contended(fight, 602.0)
    assert not is_contended(fight, 603.0)
    assert update(fight, (), 603.0) == CALM


def test_a_look_counts_each_field_of_a_slot_by_itself() -> None:
    first = container(settings={"memory": 1, "pids": 9})
    other = container(attempt=2, settings={"pids": 9, "cpuset": "0"})
    down = container(attempt=3, state="exited", settings={"networks": ()})
    fights = observe({}, (first, other, down), 5.0)
    assert {name: sorted(fight.altered) for name, fight in fights.items()} == {
        "memory": [first.id],
        "pids": sorted([first.id, other.id]),
        "cpuset": [other.id],
    }
    assert observe(fights, (container(),), 605.0) == {}


def test_what_is_altered_again_before_anybody_looked_is_altered_again() -> None:
    there = container(state="paused", settings={"pids": 9})
    fights = observe({}, (there,), 0.0)
    for at in (1.0, 2.0, 3.0):
        fights = observe(
            record_healing(fights, ContainerHandle.of(there).unpause("")), (there,), at
        )
    assert (fights["paused"].rounds, fights["pids"].rounds) == (1, 0)


def test_a_stop_and_a_removal_count_as_fields_and_a_violation_as_none() -> None:
    first, breached = container(), container(violation="v1", settings={"restart": "no"})
    fights = observe({}, (first, breached), 0.0, ended={"stopped": first.id, "removed": "gone"})
    assert {name: sorted(fight.altered) for name, fight in fights.items()} == {
        "stopped": [first.id],
        "removed": ["gone"],
    }
    again = observe(
        record_healing(fights, ContainerHandle.of(first).start("")),
        (),
        1.0,
        ended={"stopped": first.id},
    )
    assert [len(again[name].times) for name in ("stopped", "removed")] == [2, 1]


def test_it_is_written_and_read_back() -> None:
    fights = observe({"memory": fought(1, 2, 3, 4)}, (container(state="paused"),), 5.0)
    assert FORM.from_json(json.loads(json.dumps(FORM.to_json(fights)))) == fights
    broken: tuple[Any, ...] = ({"memory": [1]}, {"memory": "x"}, [], {"memory": {"times": [None]}})
    for told in broken:
        with pytest.raises(ValueError, match=r"."):
            FORM.from_json(told)
