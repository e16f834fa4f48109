"""The cost of a request by its size, at each place that a client fills (``cost_places``).

The cost is counted (``tests.growth``). ``--largest`` times the largest request of each place too, on the
processor. ``python -m tests.unit.broker.cost`` prints the places whose cost grows fastest.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import partial

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
    ReadSettings,
    Relay,
    SecretNotOpened,
    SettingsRefused,
    StoreContent,
    WriteRecord,
)
from controller.broker.gate.request_target import VALUE_MAX
from controller.broker.gate.routes import ROUTES, body_limit
from controller.broker.wire import ParsedRequest, RequestReader
from controller.model.confinement import NotReadable
from controller.model.host_paths import PathFacts
from controller.model.records import Reply, Request, Role
from tests.growth import LINEAR, NOISE, Growth, steps
from tests.growth import growth as growth_of
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
        answer = record(knows, command.entry) if isinstance(command, WriteRecord) else act(command)


def act(command: Command) -> CommandResult:  # noqa: C901 - a table
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
        case ReadSettings():
            return SettingsRefused("settings.invalid", "not here", "")
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
    """Measure a place at *size*, twice and four times *size* bytes. *large* is known of the last."""
    return growth_of(place, partial(_cost, place), size, large)


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
