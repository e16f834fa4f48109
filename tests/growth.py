"""The cost of a work by its size, counted and not timed.

Counted are Python's function calls, jumps and branches, and the sizes of the texts and lists that are
handed to functions of C. So the counts of two runs are equal, on any machine. Operators of C, such as
``+=`` on a text, count as one step.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType, FrameType, FunctionType
from typing import Any, TypeAlias

TraceFunction: TypeAlias = Callable[[FrameType, str, Any], Any]
#: A function of C does so many bytes, or items, in the time of one step of Python.
BYTES_A_STEP = 64
#: Functions of C that look at every item of what they get. Most others look at a few.
WHOLE = (sorted, set, frozenset, tuple, list, dict, sum, min, max, any, all)
#: Methods with a position from which they look at a text: they needn't see all of it.
FROM_A_PLACE = (str.find, str.rfind, str.startswith, bytes.find, bytes.startswith)

ITEMS = (list, dict, tuple)
SIZED = (str, bytes, *ITEMS)


def steps(work: Callable[[], object]) -> int:
    """Return the number of Python's steps in *work*, and of bytes that functions of C got.

    No garbage is collected meanwhile: the callbacks of a collection would count.
    """
    monitoring = getattr(sys, "monitoring", None)
    if monitoring is None:
        return _lines(work)
    tool = monitoring.PROFILER_ID
    events = monitoring.events
    counted = (events.PY_START, events.PY_RESUME, events.JUMP, events.BRANCH)
    # Takes two or three arguments, and counts its calls: as fast as C does.
    step = lru_cache(maxsize=0)(slice)
    count = 0

    def call(_code: CodeType, _offset: int, function: object, argument: object) -> None:
        nonlocal count
        count += 1
        # What a function of Python does with a text is counted where it does it.
        if (
            not isinstance(function, FunctionType)
            and isinstance(argument, SIZED)
            and (
                function in WHOLE
                if isinstance(argument, ITEMS)
                else function is not len and function not in FROM_A_PLACE
            )
        ):
            count += len(argument) // BYTES_A_STEP

    monitoring.use_tool_id(tool, "cost")
    gc.disable()
    try:
        for event in counted:
            monitoring.register_callback(tool, event, step)
        monitoring.register_callback(tool, events.CALL, call)
        monitoring.set_events(tool, events.CALL | sum(counted))
        work()
    finally:
        monitoring.set_events(tool, 0)
        monitoring.free_tool_id(tool)
        gc.enable()
    return count + step.cache_info().misses


def _lines(work: Callable[[], object]) -> int:
    """Return the number of Python's lines in *work*: Python 3.11 counts nothing finer, and nothing of C."""
    count = 0

    def trace(_frame: FrameType, _event: str, _argument: object) -> TraceFunction:
        nonlocal count
        count += 1
        return trace

    gc.disable()
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
        gc.enable()
    return count


#: Sorting costs n log n: at these sizes up to 2.3. A pairwise comparison costs 4.
LINEAR = 2.5
#: Added steps below this number are no growth.
NOISE = 400


@dataclass(frozen=True, slots=True)
class Growth:
    """The cost of a place at three sizes, each twice the size before."""

    place: object
    costs: tuple[int, int, int]

    @property
    def factor(self) -> float:
        """How the added cost grows when the added size doubles: 2 is linear, 4 quadratic.

        Few steps don't count: they are parts of the request that are read only once it is longer.
        """
        small, middle, large = self.costs
        return (large - middle) / max(middle - small, NOISE)

    def __str__(self) -> str:
        shown = "  ".join(f"{cost:>8,}" for cost in self.costs)
        return f"{self.factor:5.2f}  {shown}  {self.place}"


def growth(
    place: object, cost: Callable[[int], int], size: int, large: int | None = None
) -> Growth:
    """Measure a place at *size*, twice and four times *size*. *large* is known of the last.

    A step, such as a message that is escaped only up to its limit, is no growth. So a factor beyond
    ``LINEAR`` has to show again at twice the sizes. Where four times the size adds no more than
    ``NOISE``, the size between isn't measured.

    The largest is measured first. It also fills caches of patterns and tables, so its cost is at least
    that of a later one: a factor beyond ``LINEAR`` is measured once more.
    """
    first = _growth(place, cost, size, cost(4 * size) if large is None else large)
    if first.factor > LINEAR:
        first = _growth(place, cost, size, cost(4 * size))
    if first.factor <= LINEAR:
        return first
    _, middle, large = first.costs
    second = Growth(place, (middle, large, cost(8 * size)))
    return min(first, second, key=lambda each: each.factor)


def _growth(place: object, cost: Callable[[int], int], size: int, large: int) -> Growth:
    small = cost(size)
    is_flat = abs(large - small) <= NOISE
    return Growth(place, (small, small if is_flat else cost(2 * size), large))
