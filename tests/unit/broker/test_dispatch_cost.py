"""The cost of a request is at most linear in its size, for every place of every route."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import pytest

from controller.broker.gate.routes import ROUTES, Route
from controller.core.engine_api import field_tables
from controller.core.engine_api.field_reader import Field
from tests.growth import LINEAR, Growth, steps
from tests.unit.broker.cost import growths
from tests.unit.broker.cost_places import BODIES, OTHER_BODIES, Place, places, tables_reached
from tests.unit.broker.dialogue import ALICE

pytestmark = pytest.mark.slow

SIZE = 128
#: What this test fills fields of bodies with; ``make fuzz KIND=cost`` fills them with everything.
FILLINGS = ("text", "items", "lists under one member")


def is_taken(name: str) -> bool:
    """Return True if this test fills the place."""
    return not name.startswith("body ") or name.rpartition(": ")[2] in FILLINGS


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_twice_the_bytes_cost_at_most_twice_the_work(route: Route) -> None:
    some = (place for place in places(route) if is_taken(place.name))
    worst = max(growths(some, SIZE), key=lambda each: each.factor)
    assert worst.factor <= LINEAR, str(worst)


def test_every_table_of_fields_is_filled() -> None:
    reached = tables_reached()
    parts = {"TERMINAL", "RESOURCES", "HOST", "PROCESS", "INHERITED"}  # parts of other tables
    for name, table in vars(field_tables).items():
        if isinstance(table, tuple) and all(isinstance(entry, Field) for entry in table):
            assert name in parts or id(table) in reached, name
    assert {route.body for route in ROUTES} == {"", *BODIES, *OTHER_BODIES}


def _repeats(n: int) -> object:
    text, found = "x" * n, 0
    for at in range(n):
        found += text.count("y", at, at + 1)
    return found


def _compares_pairs(n: int) -> object:
    return sum(first == second for first in range(n) for second in range(n))


def _sorts_each_time(n: int) -> object:
    items = list(range(n))
    return [sorted(items) for _ in items]


#: Of Python's own steps, and of functions of C, whose steps Python 3.11 doesn't tell.
QUADRATIC = [_compares_pairs, *([_repeats, _sorts_each_time] if hasattr(sys, "monitoring") else [])]


@pytest.mark.parametrize("work", QUADRATIC)
def test_quadratic_work_is_found(work: Callable[[int], object]) -> None:
    size = SIZE
    costs = [steps(partial(work, n)) for n in (size, 2 * size, 4 * size)]
    place = Place("none", work.__name__, ALICE, lambda _n: b"")
    assert Growth(place, (costs[0], costs[1], costs[2])).factor > LINEAR
