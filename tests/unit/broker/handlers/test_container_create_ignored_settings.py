"""What the gate makes of an engine that does a create or an update in part."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from controller.broker.dispatch import handle
from controller.broker.gate.commands import Command, CommandResult, Forward, ReadEngine, WriteRecord
from controller.broker.gate.state import GateState
from controller.model.policy.document import Policy
from controller.model.policy.sections import EngineRules
from controller.model.records import Actor, Entry, Reply
from tests.unit.broker.dialogue import (
    ALICE,
    NO_CONTENT,
    NOT_FOUND,
    OPERATOR,
    drive,
    record,
    reply,
    request,
    state,
)
from tests.unit.broker.world import REFERENCE, WEB, image, inspect, inventory

NEW = "99" * 32
REMEDY = (
    "enable the kernel's pids cgroup; give a rootless engine its controllers; or add pids to "
    "engine.ignores in the policy"
)


class Engine:
    """An engine that drops members of creates and updates."""

    def __init__(self, *dropped: str, admits: tuple[Any, ...] = ()) -> None:
        self.dropped = dropped
        policy = Policy(name="strict", engine=EngineRules(ignores=admits))
        self.knows: GateState = state(inventory(), policy=policy)
        self.asked: list[str] = []
        self.body: dict[str, Any] = {}
        self.entries: list[Entry] = []

    def ask(self, path: str, body: object, actor: Actor = ALICE) -> Reply:
        """Return the gate's answer to a ``POST``."""
        answer: Reply = drive(
            handle(request("POST", path, body=body, actor=actor), self.knows), self._answer
        )
        return answer

    def create(self, **host: Any) -> Reply:
        body = {"Image": REFERENCE, "HostConfig": {"NetworkMode": "none", **host}}
        return self.ask("/containers/create?name=job", body)

    @property
    def stages(self) -> list[str]:
        return [each.stage for each in self.entries]

    @property
    def ignored(self) -> tuple[str, ...]:
        return self.knows.inventory.containers[NEW].ignored

    def _answer(self, command: Command) -> CommandResult:
        match command:
            case WriteRecord(entry):
                self.entries.append(entry)
                return record(self.knows, entry)
            case Forward(method, path, body):
                self.asked.append(f"{method} {path.partition('?')[0]}")
                self.body = json.loads(body) if body else self.body
                if path.startswith("/containers/create"):
                    return reply({"Id": NEW, "Warnings": ["the engine's"]}, 201)
                return reply({"Warnings": None}) if path.endswith("/update") else NO_CONTENT
            case ReadEngine(path) if path.startswith("/images/"):
                return reply(image())
            case ReadEngine(path) if path == f"/containers/{NEW}/json" and self.body:
                return reply(self._shown())
            case ReadEngine(path) if path == f"/containers/{WEB}/json":
                host = {k: v for k, v in self.body.items() if k not in self.dropped}
                return reply({**inspect(WEB, "alice-web", "alice"), "HostConfig": host})
            case _:
                return NOT_FOUND

    def _shown(self) -> dict[str, Any]:
        host = {k: v for k, v in self.body["HostConfig"].items() if k not in self.dropped}
        config = {k: v for k, v in self.body.items() if k not in {"HostConfig", *self.dropped}}
        return {"Id": NEW, "Config": config, "HostConfig": host, "State": {"Status": "created"}}


def refusal(answer: Reply) -> tuple[int, str, str]:
    told = json.loads(answer.body)["trimtab"]
    return answer.status, told["rule"], told["remedy"]


def test_an_engine_that_keeps_everything_is_told_nothing() -> None:
    engine = Engine()
    answer = engine.create()
    assert (answer.status, json.loads(answer.body)["Warnings"]) == (201, ["the engine's"])
    assert "ignored" not in engine.entries[-1].result
    assert engine.ignored == ()


def test_a_dropped_setting_is_told_and_recorded() -> None:
    engine = Engine("CpuShares", "Init")
    answer = engine.create(CpuShares=512, Init=True)
    told = [
        "engine.ignores: the engine ignores CpuShares",
        "engine.ignores: the engine ignores Init",
    ]
    assert json.loads(answer.body)["Warnings"] == ["the engine's", *told]
    assert engine.entries[-1].result["ignored"] == ["CpuShares", "Init"]
    assert engine.ignored == ("CpuShares", "Init")


def test_a_container_without_a_required_limit_is_removed_and_no_other_is_created() -> None:
    engine = Engine("PidsLimit")
    answer = engine.create()
    assert refusal(answer) == (403, "engine.ignores", REMEDY)
    assert engine.asked == ["POST /containers/create", f"DELETE /containers/{NEW}"]
    assert engine.stages == ["intent", "outcome", "intent", "outcome"]
    assert NEW not in engine.knows.inventory.containers
    assert refusal(engine.create()) == (403, "engine.ignores", REMEDY)
    assert (len(engine.asked), engine.stages[-1]) == (2, "refusal")


def test_under_another_policy_or_engine_it_is_tried_again() -> None:
    engine = Engine("PidsLimit")
    engine.create()
    engine.dropped = ()
    assert engine.create().status == 403
    kept = engine.knows.policy
    engine.knows.policy = Policy(name="other")
    assert engine.create().status == 201
    engine.knows.policy = kept
    engine.knows.engine = replace(engine.knows.engine, version="99")
    assert engine.create().status == 201


@pytest.mark.parametrize("member", ["CapDrop", "Labels", "NetworkMode", "SecurityOpt"])
def test_no_policy_lets_an_engine_drop_what_the_gate_writes_into_every_create(member: str) -> None:
    engine = Engine(member, admits=("memory", "swap", "cpus", "pids"))
    assert refusal(engine.create()) == (403, "engine.ignores", "use another engine")
    assert engine.asked[-1] == f"DELETE /containers/{NEW}"


def test_the_policy_lets_an_engine_ignore_a_limit() -> None:
    engine = Engine("PidsLimit", admits=("pids",))
    assert engine.create().status == 201
    assert engine.ignored == ("PidsLimit",)


def test_by_the_engines_own_words_nothing_is_tried() -> None:
    engine = Engine()
    engine.knows.engine = replace(engine.knows.engine, ignores=("MemorySwap", "PidsLimit"))
    answer = engine.create()
    assert refusal(answer)[:2] == (403, "engine.ignores")
    assert (engine.asked, engine.stages) == ([], ["refusal"])


def test_a_limit_of_cpus_that_the_engine_would_refuse_is_not_sent() -> None:
    engine = Engine(admits=("cpus",))
    engine.knows.engine = replace(engine.knows.engine, ignores=("CpuQuota", "NanoCpus"))
    assert engine.create().status == 201
    assert "NanoCpus" not in engine.body["HostConfig"]
    assert engine.ignored == ("NanoCpus",)
    assert engine.knows.inventory.containers[NEW].admitted.nano_cpus == 10**9


def test_an_update_learns_what_the_engine_dropped() -> None:
    engine = Engine("CpuShares")
    path, body = f"/containers/{WEB}/update", {"CpuShares": 256, "PidsLimit": 9}
    answer = engine.ask(path, body)
    assert json.loads(answer.body)["Warnings"] == ["engine.ignores: the engine ignores CpuShares"]
    assert engine.knows.inventory.containers[WEB].ignored == ("CpuShares",)
    engine.dropped = ()
    engine.ask(path, body)
    assert engine.knows.inventory.containers[WEB].ignored == ()


@pytest.mark.parametrize("actor", [ALICE, OPERATOR])
def test_a_person_cannot_set_a_limit_that_the_engine_ignores(actor: Actor) -> None:
    engine = Engine()
    engine.knows.engine = replace(engine.knows.engine, ignores=("PidsLimit",))
    path = f"/containers/{WEB}/update"
    assert refusal(engine.ask(path, {"PidsLimit": 9}, actor)) == (403, "engine.ignores", REMEDY)
    assert engine.ask(path, {"RestartPolicy": {"Name": "no"}}, actor).status == 200


def test_nothing_is_started_without_a_limit_that_the_policy_requires() -> None:
    engine = Engine()
    engine.knows.engine = replace(engine.knows.engine, ignores=("PidsLimit",))
    assert refusal(engine.ask(f"/containers/{WEB}/start", None)) == (403, "engine.ignores", REMEDY)
    assert engine.asked == []
