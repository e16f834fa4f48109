"""Whatever a client calls an object, the engine is told its full id: on every route of the table."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from controller.broker.dispatch import handle
from controller.broker.gate.commands import (
    Command,
    CommandResult,
    Forward,
    InspectPaths,
    ReadEngine,
    ReadProcess,
    Relay,
    WriteRecord,
)
from controller.broker.gate.routes import ROUTES, Route
from controller.broker.gate.state import GateState
from controller.model.confinement import NotReadable
from controller.model.host_paths import PathFacts
from controller.model.records import Actor, Reply, Role
from tests.unit.broker.dialogue import (
    ALICE,
    NO_CONTENT,
    NOT_FOUND,
    OPERATOR,
    record,
    reply,
    request,
    state,
)
from tests.unit.broker.world import (
    DB,
    NETWORK,
    STRAY,
    WEB,
    inspect,
    inventory,
    network,
    policy,
)

#: Objects by the kind that templates have, and what a client may call them.
KINDS = {"container": "containers", "network": "networks"}
SPELLINGS = {
    "container": ("alice-web", WEB[:12], WEB[:40], WEB),
    "network": ("alice-net", NETWORK[:12], NETWORK),
}
FULL = {"container": WEB, "network": NETWORK}
ROWS = [r for r in ROUTES if any(f"{{{kind}}}" in r.template for kind in KINDS)]
#: What a request needs besides the path to be admitted.
BODIES: dict[str, dict[str, Any]] = {
    "container.update": {"RestartPolicy": {"Name": "no"}},
    "exec.create": {"Cmd": ["true"], "User": "1000"},
    "network.connect": {"Container": "alice-web"},
    "network.disconnect": {"Container": "alice-web"},
}
QUERIES = {"container.rename": "?name=renamed", "container.resize": "?h=1&w=1"}
NAMED_AS_ASKED = re.compile(r"/containers/[^/?]+/json|/networks/[^/?]+")


@dataclass
class Engine:
    """Has alice's container and network, bob's and a stranger's, under every spelling."""

    sent: list[str] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)

    def answer(self, command: Command, knows: GateState) -> CommandResult:
        match command:
            case WriteRecord(entry):
                return record(knows, entry)
            case ReadEngine(path):
                if not NAMED_AS_ASKED.fullmatch(path):
                    self.sent.append(path)
                return self._look(path)
            case Forward(_, path, body):
                self.sent.append(path)
                self.bodies.append(json.loads(body) if body else None)
                if path.endswith("/update"):
                    return reply({"Warnings": None})
                return reply({"Id": "ef" * 32}, 201) if path.endswith("/exec") else NO_CONTENT
            case InspectPaths(paths):
                return tuple(PathFacts(path, "dir") for path in paths)
            case ReadProcess():
                return NotReadable("not looked at")
            case _:
                raise AssertionError(f"no answer for {command!r}")

    def _look(self, path: str) -> Reply:
        told = re.fullmatch(r"/containers/([^/?]+)/json(?:\?size=1)?", path)
        if told:
            return self._container(told[1])
        told = re.fullmatch(r"/networks/([^/?]+)(?:\?.*)?", path)
        if told and told[1] in SPELLINGS["network"]:
            return reply(network(NETWORK, "alice-net", "alice"))
        return reply([]) if path.endswith(("/top", "/changes")) else NOT_FOUND

    @staticmethod
    def _container(name: str) -> Reply:
        joined = {"HostConfig": {"NetworkMode": "platform-network"}}
        if name in SPELLINGS["container"]:
            return reply(inspect(WEB, "alice-web", "alice", **joined))
        if name in {DB, "bob-db", DB[:12]}:
            return reply(inspect(DB, "bob-db", "bob", **joined))
        if name in {STRAY, "stray", STRAY[:12]}:
            # Labelled as alice's, by somebody with the engine's socket.
            return reply(inspect(STRAY, "stray", "alice", **joined))
        return NOT_FOUND


def serve(route: Route, asked: dict[str, str], actor: Actor) -> tuple[Engine, Reply | Relay]:
    """Ask the gate for a route, with objects called as *asked*, and return what the engine got."""
    rules = policy(networks={"clientInternal": False}, exec={"clients": True})
    known = inventory().containers
    mine = {**known, WEB: replace(known[WEB], uid=ALICE.uid)}
    knows = state(inventory(containers=mine), policy=rules)
    engine = Engine()
    path = route.template.format(**{**FULL, **asked})
    body = BODIES.get(route.name)
    if body and "Container" in body:
        body = {**body, "Container": asked.get("member", "alice-web")}
    target = path + QUERIES.get(route.name, "")
    steps = handle(request(route.method, target, actor=actor, body=body), knows)
    answer: CommandResult = None
    while True:
        try:
            command = steps.send(answer)
        except StopIteration as stop:
            return engine, stop.value
        if isinstance(command, Relay):
            engine.sent.append(command.path)
            answer = Reply(101)
        else:
            answer = engine.answer(command, knows)


def callers(route: Route) -> Iterator[Actor]:
    if Role.CLIENT in route.roles:
        yield ALICE
    yield OPERATOR


def named(path: str) -> list[tuple[str, str]]:
    """Return the objects that a path names, with their kind."""
    segments = {plural: kind for kind, plural in KINDS.items()}
    return [
        (segments[plural], name)
        for plural, name in re.findall(r"/(containers|networks)/([^/?]+)", path)
    ]


@pytest.mark.parametrize("route", ROWS, ids=lambda route: str(route.name))
def test_only_full_ids_are_forwarded(route: Route) -> None:
    kind = next(kind for kind in KINDS if f"{{{kind}}}" in route.template)
    for actor in callers(route):
        for spelling in SPELLINGS[kind]:
            engine, answer = serve(route, {kind: spelling}, actor)
            relayed = [answer.path] if isinstance(answer, Relay) else []
            paths = [*engine.sent, *relayed]
            told = answer.body.decode() if isinstance(answer, Reply) else ""
            refused = isinstance(answer, Reply) and answer.status >= 400
            assert not refused, (route.name, actor.role, spelling, told)
            assert all(name == FULL[kind_] for path in paths for kind_, name in named(path)), paths
            assert all(
                body["Container"] == WEB for body in engine.bodies if body and "Container" in body
            )
            if route.kind == "mutate" or relayed:
                assert paths, "something was forwarded"


@pytest.mark.parametrize("route", ROWS, ids=lambda route: str(route.name))
@pytest.mark.parametrize("whose", [DB, "bob-db", DB[:12], STRAY, "stray", STRAY[:12], "0" * 64])
def test_no_request_about_another_owners_object_is_forwarded(route: Route, whose: str) -> None:
    asked = {"container": whose, "network": NETWORK, "member": whose}
    if "{network}" in route.template and route.name not in BODIES:
        asked["network"] = whose
    actor = ALICE if Role.CLIENT in route.roles else OPERATOR
    if actor is OPERATOR and whose.startswith(("b2", "bob")):
        return  # an operator may: bob's is ours
    engine, answer = serve(route, asked, actor)
    assert isinstance(answer, Reply)
    # Alike for what is another's, nobody's, and not there at all.
    assert (answer.status, engine.sent, engine.bodies) == (404, [], [])


def test_the_table_of_this_test_has_every_route_that_names_an_object() -> None:
    by_name = {r.name for r in ROUTES if "{" in r.template}
    others = {
        r.name for r in ROUTES if re.search(r"\{(image|volume|exec|kind|namespace)\}", r.template)
    }
    assert by_name - others == {route.name for route in ROWS}
