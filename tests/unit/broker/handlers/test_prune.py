"""Prunes: the caller's own unused objects go, each judged and recorded; everything else stays."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from controller.broker.dispatch import handle
from controller.broker.gate.commands import Command, CommandResult, Forward, ReadEngine, WriteRecord
from controller.broker.gate.state import GateState
from controller.broker.handlers import prune
from controller.model import names
from controller.model.inventory import OwnedObject
from controller.model.records import Actor, Reply
from tests.unit.broker.dialogue import (
    ALICE,
    CONTROLLER,
    NOT_FOUND,
    OPERATOR,
    drive,
    record,
    reply,
    request,
    shaped,
    state,
)
from tests.unit.broker.world import (
    DB,
    NETWORK,
    SLOT,
    STRAY,
    WEB,
    inspect,
    inventory,
    item,
    labels,
    network,
)

OPS = "0d" * 32
OTHER_NET, OPS_NET = "e1" * 32, "e2" * 32
STOPPED = {"Status": "exited", "Running": False}
OWNED = {
    NETWORK: OwnedObject(NETWORK, "alice-net", "default", "alice", "client", "i0"),
    OTHER_NET: OwnedObject(OTHER_NET, "bob-net", "default", "bob", "client", "i0"),
    OPS_NET: OwnedObject(OPS_NET, "ops-net", "default", "operator", "client", "i0"),
}
VOLUMES = {
    f"{owner}-data": OwnedObject(f"{owner}-data", f"{owner}-data", "default", owner, origin, "i0")
    for owner, origin in (("alice", "client"), ("bob", "client"), ("team", "controller"))
} | {
    # Of a document of the same owner: never pruned.
    "alice-kept": OwnedObject("alice-kept", "alice-kept", "default", "alice", "controller", "i0")
}


class Engine:
    """An engine with a stopped container, an unused network and an unused volume of each owner."""

    def __init__(self, knows: GateState, *, in_use: str = "") -> None:
        self.knows = knows
        self.in_use = in_use
        self.lists: list[dict[str, list[str]]] = []
        self.sent: list[str] = []
        self.stages: list[str] = []
        #: The owners of the stopped containers.
        self.containers = {WEB: "alice", DB: "bob", SLOT: "team", OPS: "operator"}

    def __call__(self, command: Command) -> CommandResult:
        match command:
            case WriteRecord():
                self.stages.append(command.entry.stage)
                return record(self.knows, command.entry)
            case Forward():
                assert command.method == "DELETE"
                self.sent.append(command.path)
                is_used = self.in_use != "" and self.in_use in command.path
                return reply({"message": "is used"}, 409) if is_used else Reply(204)
            case ReadEngine():
                return shaped(command, self.look(command.path))
        raise AssertionError(f"no answer for {command!r}")

    def look(self, path: str) -> Reply:
        url = urlsplit(path)
        _, kind, *rest = url.path.split("/")
        if rest in ([], ["json"]):
            self.lists.append(json.loads(parse_qs(url.query)["filters"][0]))
            return self.listed(kind)
        match kind, rest[0]:
            case "containers", name:
                if owner := self.containers.get(name):
                    return reply(inspect(name, f"{owner}-x", owner, State=STOPPED))
            case "networks", name if name in OWNED:
                return reply(network(name, OWNED[name].name, OWNED[name].owner))
            case "volumes", name if name in VOLUMES:
                owned = {**labels(VOLUMES[name].owner), names.INTENT: "i0"}
                return reply({"Name": name, "Driver": "local", "Labels": owned})
        return NOT_FOUND

    def listed(self, kind: str) -> Reply:
        match kind:
            case "containers":
                return reply([{"Id": each} for each in (*self.containers, STRAY)])
            case "networks":
                return reply([{"Id": each} for each in (*OWNED, STRAY)])
        return reply({"Volumes": [{"Name": each} for each in (*VOLUMES, "stray")]})


def world(**more: Any) -> GateState:
    known = inventory()
    containers = {**known.containers, OPS: item(OPS, "ops-web", "operator")}
    return state(inventory(containers=containers, networks=OWNED, volumes=VOLUMES), **more)


def ask(engine: Engine, path: str, actor: Actor = ALICE) -> Reply:
    asked = request("POST", path, actor=actor)
    answer = drive(handle(asked, engine.knows), engine)
    assert isinstance(answer, Reply)
    return answer


@pytest.mark.parametrize(
    ("actor", "path", "told", "sent"),
    [
        (ALICE, "/containers/prune", {"ContainersDeleted": [WEB]}, [f"/containers/{WEB}"]),
        (OPERATOR, "/containers/prune", {"ContainersDeleted": [OPS]}, [f"/containers/{OPS}"]),
        (ALICE, "/networks/prune", {"NetworksDeleted": ["alice-net"]}, [f"/networks/{NETWORK}"]),
        (OPERATOR, "/networks/prune", {"NetworksDeleted": ["ops-net"]}, [f"/networks/{OPS_NET}"]),
        (
            ALICE,
            "/volumes/prune?filters=%7B%22all%22%3A%5B%22true%22%5D%7D",
            {"VolumesDeleted": ["alice-data"]},
            ["/volumes/alice-data"],
        ),
    ],
)
def test_what_people_of_the_owner_made_and_nobody_uses_goes(
    actor: Actor, path: str, told: dict[str, Any], sent: list[str]
) -> None:
    engine = Engine(world())
    answer = ask(engine, path, actor)
    assert (answer.status, json.loads(answer.body)) == (200, {**told, "SpaceReclaimed": 0})
    assert engine.sent == sent
    assert engine.stages == ["intent", "outcome"]


def test_the_engine_is_asked_for_unused_objects_of_ours_alone() -> None:
    engine = Engine(world())
    asked = "filters=%7B%22label%22%3A%5B%22a%3Db%22%5D%7D"
    for kind in ("containers", "networks", "volumes"):
        ask(engine, f"/{kind}/prune?{asked}")
    ours = [f"{names.INSTANCE}={engine.knows.instance}", f"{names.OWNER}=alice"]
    assert engine.lists == [
        {"label": ["a=b", *ours], "status": ["created", "exited", "dead"]},
        {"label": ["a=b", *ours], "dangling": ["true"]},
        # Volumes with a name are kept, unless the filter ``all`` asks for them.
        {"label": ["a=b", "com.docker.volume.anonymous", *ours], "dangling": ["true"]},
    ]


def test_what_is_used_meanwhile_stays_and_the_rest_goes() -> None:
    second = "ab" * 32
    knows = world()
    containers = {**knows.inventory.containers, second: item(second, "alice-two", "alice")}
    knows.inventory = inventory(containers=containers)
    engine = Engine(knows, in_use=WEB)
    engine.containers = {WEB: "alice", second: "alice"}
    answer = ask(engine, "/containers/prune")
    assert json.loads(answer.body)["ContainersDeleted"] == [second]
    assert engine.sent == [f"/containers/{WEB}", f"/containers/{second}"]
    assert engine.stages == ["intent", "outcome"] * 2


def test_a_prune_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prune, "PRUNE_MAX", 0)
    engine = Engine(world())
    answer = ask(engine, "/containers/prune")
    assert json.loads(answer.body) == {"ContainersDeleted": None, "SpaceReclaimed": 0}
    assert engine.sent == []


@pytest.mark.parametrize("kind", ["containers", "networks", "volumes"])
def test_other_filters_and_callers_are_refused(kind: str) -> None:
    engine = Engine(world())
    until = ask(engine, f"/{kind}/prune?filters=%7B%22until%22%3A%5B%221h%22%5D%7D")
    assert (until.status, engine.sent) == (400, [])
    assert ask(engine, f"/{kind}/prune", CONTROLLER).status == 403
    assert ask(engine, f"/{kind}/prune", replace(ALICE, owner="nobody")).status == 200
    assert engine.sent == []
