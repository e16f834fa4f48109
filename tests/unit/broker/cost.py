"""The cost of a request by its size, at each place that a client fills (``cost_places``).

The cost is counted, not timed: Python's function calls, jumps and branches, and the sizes of the
texts and lists that are handed to functions of C. So the counts of two runs are equal, on any
machine. Operators of C, such as ``+=`` on a text, count as one step: ``--largest`` times the
largest request of each place too, on the processor. ``python -m tests.unit.broker.cost`` prints the
places whose cost grows fastest.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType

from controller.broker.dispatch import handle
from controller.broker.gate.commands import (
    Command,
    CommandResult,
    EndConnections,
    EndProcess,
    Forward,
    GiveWay,
    InspectPaths,
    JournalNotReadable,
    MakeFiles,
    OpenSecret,
    QueryJournal,
    ReadAccounts,
    ReadEngine,
    ReadProcess,
    Relay,
    SecretNotOpened,
    StoreContent,
    WriteRecord,
)
from controller.broker.gate.request_target import VALUE_MAX
from controller.broker.gate.router import body_limit
from controller.broker.gate.routes import ROUTES
from controller.broker.wire.request_reader import ParsedRequest, RequestReader
from controller.model.confinement import NotReadable
from controller.model.host_paths import PathFacts
from controller.model.records import Reply, Request, Role
from tests.unit.broker.cost_places import Place, all_places
from tests.unit.broker.dialogue import CONTEXT, record, reply, state
from tests.unit.broker.world import (
    NETWORK,
    WEB,
    image,
    inspect,
    inventory,
    labels,
    network,
    policy,
)

# One request through the gate.

INVENTORY, POLICY = inventory(), policy()


def serve(place: Place, raw: bytes) -> object:
    """Read a request in pieces and answer it. Return the reply, a Malformed, or None."""
    reader = RequestReader(body_limit)
    parsed: object = None
    for at in range(0, len(raw), 4096):
        reader.feed(raw[at : at + 4096])
        if (parsed := reader.poll()) is not None:
            break
    if not isinstance(parsed, ParsedRequest):
        return parsed
    headers = parsed.headers
    if place.actor.role is Role.CONTROLLER and not any(name == CONTEXT[0] for name, _ in headers):
        headers = (*headers, CONTEXT)
    knows = state(INVENTORY, policy=POLICY)
    request = Request(parsed.method, parsed.path, parsed.query, headers, parsed.body, place.actor)
    flow = handle(request, knows)
    answer: CommandResult = None
    while True:
        try:
            command = flow.send(answer)
        except StopIteration as stop:
            return stop.value
        answer = record(knows, command.entry) if isinstance(command, WriteRecord) else _act(command)


def _act(command: Command) -> CommandResult:  # noqa: C901 - a table
    match command:
        case ReadEngine(path):
            return _read(path)
        case InspectPaths(paths):
            return tuple(PathFacts(path, "dir") for path in paths)
        case ReadAccounts():
            return None
        case ReadProcess():
            return NotReadable("not here")
        case Forward():
            return reply({"Id": "f" * 64, "Name": "v", "Warnings": []}, 201)
        case Relay():
            return Reply(200)
        case QueryJournal():
            return JournalNotReadable("journal.behind", "not here")
        case EndConnections() | EndProcess() | StoreContent() | MakeFiles():
            return ""
        case OpenSecret():
            return SecretNotOpened("secret.worker", "not here")
        case GiveWay():
            return None
        case _:
            raise AssertionError(command)


def _read(path: str) -> Reply:
    """Return the engine's answer: whatever is asked about is there and belongs to alice."""
    plain = path.partition("?")[0]
    if plain in {"/containers/json", "/images/json", "/networks"} or plain.endswith("/history"):
        return reply([])
    name = plain.split("/")[2] if plain.count("/") > 1 else ""
    if plain.startswith("/containers/"):
        return reply(inspect(WEB, "alice-web", "alice"))
    if plain.startswith(("/images/", "/distribution/")):
        return reply(image())
    if plain.startswith("/networks/"):
        return reply(network(NETWORK, name, "alice"))
    if plain.startswith("/volumes/"):
        return reply({"Name": name, "Driver": "local", "Labels": labels("alice"), "Options": None})
    return reply({})


# Counting.

_EVENTS = sys.monitoring.events
_COUNTED = _EVENTS.PY_START | _EVENTS.PY_RESUME | _EVENTS.JUMP | _EVENTS.BRANCH
#: A function of C does so many bytes, or items, in the time of one step of Python.
BYTES_A_STEP = 64
#: Functions of C that look at every item of what they get. Most others look at a few.
WHOLE = (sorted, set, frozenset, tuple, list, dict, sum, min, max, any, all)

ITEMS = (list, dict, tuple)
SIZED = (str, bytes, *ITEMS)


def steps(work: Callable[[], object]) -> int:
    """Return the number of Python's steps in *work*, and of bytes that functions of C got.

    No garbage is collected meanwhile: the callbacks of a collection would count.
    """
    tool, monitoring = sys.monitoring.PROFILER_ID, sys.monitoring
    # Takes two or three arguments, and counts its calls: as fast as C does.
    step = lru_cache(maxsize=0)(slice)
    count = 0

    def call(_code: CodeType, _offset: int, function: object, argument: object) -> None:
        nonlocal count
        count += 1
        if isinstance(argument, SIZED) and (
            function in WHOLE if isinstance(argument, ITEMS) else function is not len
        ):
            count += len(argument) // BYTES_A_STEP

    monitoring.use_tool_id(tool, "cost")
    gc.disable()
    try:
        for event in (_EVENTS.PY_START, _EVENTS.PY_RESUME, _EVENTS.JUMP, _EVENTS.BRANCH):
            monitoring.register_callback(tool, event, step)
        monitoring.register_callback(tool, _EVENTS.CALL, call)
        monitoring.set_events(tool, _COUNTED | _EVENTS.CALL)
        work()
    finally:
        monitoring.set_events(tool, 0)
        monitoring.free_tool_id(tool)
        gc.enable()
    return count + step.cache_info().misses


@dataclass(frozen=True, slots=True)
class Growth:
    """The cost of a place at three sizes, each twice the size before."""

    place: Place
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
        return f"{self.factor:5.2f}  {shown}  {self.place.route}  {self.place.name}"


#: Sorting costs n log n: at these sizes up to 2.3. A pairwise comparison costs 4.
LINEAR = 2.5
#: Added steps below this number are no growth.
NOISE = 400


def growths(some: Iterable[Place], size: int) -> Iterator[Growth]:
    """Measure places of a route, each at its largest size first.

    The cheapest place of each part of the request is measured at all sizes. Where another costs
    little more at its largest size, it can't grow beyond ``LINEAR``: the smaller ones are left out.
    """
    parts: defaultdict[str, dict[Place, int]] = defaultdict(dict)
    for place in some:
        parts[place.part][place] = _cost(place, 4 * size)
    for costs in parts.values():
        cheapest = growth(min(costs, key=costs.__getitem__), size)
        yield cheapest
        floor = min(cheapest.costs)
        for place, large in costs.items():
            if large - floor > LINEAR * NOISE:
                yield growth(place, size, large)


def growth(place: Place, size: int, large: int | None = None) -> Growth:
    """Measure a place at *size*, twice and four times *size* bytes. *large* is known of the last.

    A step, such as a message that is escaped only up to its limit, is no growth. So a factor beyond
    ``LINEAR`` has to show again at twice the sizes. Where four times the bytes add no more than
    ``NOISE``, the size between isn't measured.

    The largest request is measured first. It also fills caches of patterns and tables, so its cost
    is at least that of a later one: a factor beyond ``LINEAR`` is measured once more.
    """
    first = _growth(place, size, _cost(place, 4 * size) if large is None else large)
    if first.factor > LINEAR:
        first = _growth(place, size, _cost(place, 4 * size))
    if first.factor <= LINEAR:
        return first
    _, middle, large = first.costs
    second = Growth(place, (middle, large, _cost(place, 8 * size)))
    return min(first, second, key=lambda each: each.factor)


def _growth(place: Place, size: int, large: int) -> Growth:
    small = _cost(place, size)
    is_flat = abs(large - small) <= NOISE
    return Growth(place, (small, small if is_flat else _cost(place, 2 * size), large))


def _cost(place: Place, n: int) -> int:
    raw = place.fill(n)
    return steps(lambda: serve(place, raw))


def largest_ms(place: Place) -> float:
    """Return the milliseconds of the processor for the largest request that a place can have."""
    route = next(route for route in ROUTES if route.name == place.route)
    most = route.body_max if place.name.startswith("body") else VALUE_MAX
    raw = place.fill(most - 1024)
    taken = []
    for _ in range(2):
        began = time.thread_time()
        serve(place, raw)
        taken.append(time.thread_time() - began)
    return min(taken) * 1000


def main() -> None:
    """Print the places whose cost grows fastest."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--size", type=int, default=2048, help="smallest of three sizes, in bytes")
    parser.add_argument("--show", type=int, default=10, help="places that are printed")
    parser.add_argument("--route", default="", help="only this route")
    parser.add_argument("--largest", action="store_true", help="time the largest requests too")
    arguments = parser.parse_args()
    wanted = [place for place in all_places() if arguments.route in {"", place.route}]
    found = [growth(place, arguments.size) for place in wanted]
    for each in sorted(found, key=lambda each: each.factor, reverse=True)[: arguments.show]:
        print(each)
    dearest = max(found, key=lambda each: each.costs[-1])
    print(f"{len(found)} places; the dearest: {dearest}")
    if arguments.largest:
        timed = sorted(((largest_ms(place), place) for place in wanted), key=lambda each: each[0])
        for took, place in timed[: -arguments.show - 1 : -1]:
            print(f"{took:6.1f} ms  {place.route}  {place.name}")


if __name__ == "__main__":
    main()
