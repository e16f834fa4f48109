"""Whatever the engine answers, each reader answers too: no exception, and bounded bytes and steps."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator
from functools import partial
from itertools import islice
from typing import Any

import pytest

from controller.broker.dispatch import handle
from controller.broker.engine.response import EventLines, ListBroken, ListTooLong, RowParser
from controller.broker.engine.shared_pulls import _kind_of
from controller.broker.gate import redact
from controller.broker.gate.commands import (
    Command,
    CommandResult,
    Forward,
    Lost,
    ReadEngine,
    Rows,
    WriteRecord,
    encode_list,
)
from controller.broker.gate.refusals import Answered, Denied
from controller.broker.gate.routes import OWN_PREFIX, ROUTES, Route
from controller.broker.gate.state import GateState
from controller.broker.guards import job_runs, kernel_verify, recovery
from controller.broker.handlers import container_exec, container_hooks
from controller.broker.handlers.container_read import _own_event
from controller.broker.handlers.image import read_progress
from controller.broker.server.background_tasks import containers_of
from controller.core.engine_api import streams
from controller.core.engine_api.streams import PullProgress
from controller.model.records import Actor, Reply, Request, Role, ViewerScope
from tests.growth import LINEAR, steps
from tests.unit.broker.cost import POLICY, act
from tests.unit.broker.cost_places import BODIES as LEAST
from tests.unit.broker.cost_places import OTHER_BODIES
from tests.unit.broker.dialogue import ALICE, CONTEXT, CONTROLLER, OPERATOR, drive, record, state
from tests.unit.broker.guards.test_recovery import MUTATIONS, opened
from tests.unit.broker.hostile_answers import BODIES, altered_bodies, good_answer
from tests.unit.broker.world import NETWORK, REFERENCE, WEB, inventory

pytestmark = pytest.mark.slow

ANSWER_MAX = 4 * 1024 * 1024
VIEWER = Actor(1100, 1100, 15, Role.VIEWER, scope=ViewerScope(None, frozenset({"alice"})))
ACTORS = {
    Role.CLIENT: ALICE,
    Role.OPERATOR: OPERATOR,
    Role.CONTROLLER: CONTROLLER,
    Role.VIEWER: VIEWER,
}
NAMES = {"container": WEB, "exec": "f" * 64, "image": REFERENCE, "network": NETWORK}
NAMES |= {"volume": "alice-data", "kind": "config", "namespace": "default", "name": "site"}
#: Reads that the altered answers reach: one route for each kind of object and of list.
READING = (
    *("container.list", "container.inspect", "container.start", "container.update", "own.observe"),
    *("image.list", "image.inspect", "network.list", "network.inspect", "volume.list"),
    *("volume.inspect", "system.info", "own.inventory", "own.strangers", "network.connect"),
)


class Engine:
    """Answers every read, and every change, with the same bytes."""

    def __init__(self, knows: GateState, body: bytes, only: str = "") -> None:
        self.knows, self.body, self.only = knows, body, only

    def __call__(self, command: Command) -> CommandResult:
        match command:
            case WriteRecord(entry):
                return record(self.knows, entry)
            case ReadEngine(path, rows=rows):
                body = self.body
                if self.only and path.partition("?")[0] != self.only:
                    body = json.dumps(good_answer(path)).encode()
                if rows is None:
                    return Reply(200, body)
                try:
                    return Reply(200, encode_list(rows, body))
                except ValueError as error:
                    return Lost(str(error), unreadable=True)
            case Forward():
                return Reply(200, self.body)
            case _:
                return act(command)


def requests_of(route: Route) -> Iterator[Request]:
    path = (OWN_PREFIX if route.own else "/v1.45") + route.template.format(**NAMES)
    least = (
        [LEAST[route.body][1]] if route.body in LEAST else OTHER_BODIES.get(route.body or "", ())
    )
    for role in sorted(route.roles):
        for body in least or ({},):
            sent = json.dumps(body).encode() if route.body else b""
            headers = [("content-type", "application/json")] if sent else []
            headers += [CONTEXT] if role is Role.CONTROLLER else []
            yield Request(route.method, path, "", tuple(headers), sent, ACTORS[role])


def answered(request: Request, body: bytes, only: str = "") -> object:
    knows = state(inventory(), policy=POLICY)
    return drive(handle(request, knows), Engine(knows, body, only))


@pytest.mark.parametrize("name", BODIES)
def test_no_answer_of_the_engine_keeps_a_route_from_answering(name: str) -> None:
    for route in ROUTES:
        for request in requests_of(route):
            told = answered(request, BODIES[name])
            if isinstance(told, Reply):
                assert len(told.body) < ANSWER_MAX, (route.name, request.actor)


PATHS = (
    *(f"/containers/{WEB}/json", f"/images/{REFERENCE}/json", f"/networks/{NETWORK}"),
    *("/volumes/alice-data", "/containers/json", "/images/json", "/networks", "/volumes"),
)


@pytest.mark.parametrize("path", PATHS)
def test_no_member_of_another_type_keeps_a_route_from_answering(path: str) -> None:
    routes = [route for route in ROUTES if route.name in READING]
    for body in altered_bodies(path):
        for route in routes:
            for request in islice(requests_of(route), 1):
                assert answered(request, body, path) is not None, (route.name, body)


def flows(knows: GateState) -> dict[str, Generator[Command, CommandResult, Any]]:
    return {
        "verify": kernel_verify.verify_container(knows, WEB),
        "end of a run": job_runs.look_for_end(knows, WEB),
        "survey": recovery.survey(knows),
        "forget": recovery.forget_gone(knows),
        "hooks": container_hooks.complete(knows, WEB),
        "exec": container_exec.supervise(knows, "f" * 64),
    }


@pytest.mark.parametrize("name", BODIES)
def test_no_answer_of_the_engine_ends_a_task_of_the_broker(name: str) -> None:
    for task in flows(state(inventory())):
        knows = state(inventory(), policy=POLICY)
        try:
            drive(flows(knows)[task], Engine(knows, BODIES[name]))
        except (Answered, Denied):
            continue


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_no_answer_of_the_engine_ends_a_recovery(mutation: str) -> None:
    for body in BODIES.values():
        knows = opened(MUTATIONS[mutation])
        drive(recovery.settle(knows, "id-1", earlier=None), Engine(knows, body))


LINES: dict[str, Callable[[bytes], object]] = {
    "checks": lambda line: [*containers_of(line)],
    "own events": partial(_own_event, state(inventory())),
    "shown events": redact.event,
    "progress": partial(streams.advance_pull, PullProgress()),
    "a shared pull": _kind_of,
    "the end of a pull": read_progress,
}


@pytest.mark.parametrize("reader", LINES)
def test_no_line_of_a_stream_ends_its_reader(reader: str) -> None:
    event = {"Type": "container", "Action": "start", "id": WEB, "status": "exec_start: x"}
    event["Actor"] = {"ID": WEB, "Attributes": {"io.trimtab.instance": "i1"}}  # type: ignore[assignment]
    others = (json.dumps(each).encode() for each in altered_events(event))
    for line in (*BODIES.values(), *others):
        LINES[reader](line)


def altered_events(event: dict[str, Any]) -> Iterator[Any]:
    for name in event:
        for value in (None, 3, "exec_x", [], {}, [3], {"ID": 3}, {"ID": [], "Attributes": 3}):
            yield {**event, name: value}


def long_rows(size: int) -> bytes:
    labels = {f"p{n}": '"{[\\' * 4 for n in range(size // 40)}
    return json.dumps([{"Id": "a", "Labels": labels}, {"Id": "b", "Labels": None}]).encode()


BY_SIZE: dict[str, Callable[[int], bytes]] = {
    "a long row": long_rows,
    "a deep row": lambda size: b'[{"Id":' + b"[" * size + b"]" * size + b"}]",
    "many rows": lambda size: (
        b"[" + b",".join([b'{"Id":"%b"}' % (b"a" * 1000)] * (size // 1011)) + b"]"
    ),
    "an endless row": lambda size: b'[{"Id":"' + b"x" * size,
    "escapes": lambda size: b'[{"Id":"' + b'\\"' * (size // 2) + b'"}]',
}


@pytest.mark.parametrize("form", BY_SIZE)
def test_the_work_of_a_list_grows_with_its_length(form: str) -> None:
    def read(size: int, lines: bool) -> None:
        body = BY_SIZE[form](size)
        parser: RowParser | EventLines = RowParser(Rows(lambda row: str(row.keys()).encode()))
        if lines:
            parser = EventLines()
        try:
            for at in range(0, len(body), 4096):
                parser.feed(body[at : at + 4096])
        except (ListBroken, ListTooLong, ValueError):
            pass

    for lines in (False, True):
        small, middle, large = (steps(partial(read, n << 20, lines)) for n in (2, 4, 8))
        assert large - middle < LINEAR * (middle - small) + 2000, (small, middle, large)
