from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from controller.broker.dispatch import handle
from controller.broker.gate.call import Author
from controller.broker.gate.commands import Forward, InspectPaths, ReadEngine, WriteRecord
from controller.broker.gate.mutate import Change, perform, refuse_if_held
from controller.broker.gate.refusals import Denied
from controller.broker.gate.state import GateState
from controller.model.host_paths import DIRECTORY, ENGINE_DATA, PathFacts
from controller.model.inventory import OpenIntent
from controller.model.mutations import Mutation
from controller.model.observed import Settings
from controller.model.records import Actor, Record, Reply, Verdict
from tests.unit.broker.dialogue import (
    ALICE,
    CONTROLLER,
    NO_CONTENT,
    NOT_FOUND,
    OPERATOR,
    RECORDED,
    Step,
    Told,
    converse,
    reply,
    request,
    state,
)
from tests.unit.broker.world import LOOK_AT_ALL, SERVICE, SLOT, WEB, inspect, inventory, policy

SOURCE = "/var/lib/platform/x"
BOUND = [{"Type": "bind", "Source": SOURCE}, {"Type": "volume", "Source": "/v"}]


def look(identifier: str = WEB, owner: str = "alice", **more: Any) -> Step:
    name = SERVICE if identifier == SLOT else "alice-web"
    return (
        ReadEngine(f"/containers/{identifier}/json"),
        reply(inspect(identifier, name, owner, **more)),
    )


def ask(
    method: str, target: str, dialogue: list[Step], knows: GateState | None = None, **more: Any
) -> Told:
    knows = knows or state(inventory())
    return converse(handle(request(method, target, **more), knows), dialogue, knows)


def changed(forward: Forward, answer: Reply = NO_CONTENT) -> list[Step]:
    """The steps of a change that is recorded."""
    return [("intent", RECORDED), (forward, answer), ("outcome", RECORDED)]


def test_a_start_looks_again_at_what_is_mounted() -> None:
    knows = state(inventory())
    answer = ask(
        "POST",
        f"/containers/{WEB}/start",
        [
            look(Mounts=BOUND),
            (InspectPaths((SOURCE,)), (PathFacts(SOURCE, "dir"),)),
            *changed(Forward("POST", f"/containers/{WEB}/start")),
        ],
        knows,
    )
    assert answer.status == 204
    assert knows.inventory.containers[WEB].started


@pytest.mark.parametrize(
    ("actor", "answer"),
    [
        (CONTROLLER, NO_CONTENT),
        (CONTROLLER, reply({"message": "not paused"}, 409)),
        (OPERATOR, NO_CONTENT),
    ],
)
def test_everybody_is_answered_what_the_engine_answered(actor: Actor, answer: Reply) -> None:
    forward = Forward("POST", f"/containers/{SLOT}/unpause")
    told = ask(
        "POST",
        f"/containers/{SLOT}/unpause",
        [look(SLOT, ""), *changed(forward, answer)],
        actor=actor,
    )
    assert told.value == answer


@pytest.mark.parametrize("verb", ["start", "restart"])
def test_an_error_of_a_start_is_recorded_without_the_command(verb: str) -> None:
    config = {**inspect(WEB, "alice-web", "alice")["Config"], "Cmd": ["mysql -pX", "hunter3"]}
    failed = reply({"message": 'exec: "mysql -pX": not found; hunter3, TOKEN=hunter2'}, 400)
    answer = ask(
        "POST",
        f"/containers/{WEB}/{verb}",
        [look(Config=config), *changed(Forward("POST", f"/containers/{WEB}/{verb}"), failed)],
    )
    assert answer.entries[1].result["error"] == (
        'exec: "mysql [withheld]": not found; [withheld], TOKEN=[withheld]'
    )
    assert answer.value == failed


@pytest.mark.parametrize("verb", ["start", "restart"])
@pytest.mark.parametrize(
    "facts",
    [
        (PathFacts(SOURCE, "symlink"),),
        (PathFacts(SOURCE, "missing"),),
        (PathFacts(SOURCE, "socket"),),
        (PathFacts(SOURCE, "dir", protected="broker socket"),),
        (PathFacts(SOURCE, "dir", protected=ENGINE_DATA),),
        # No record says that the policy admitted a folder of the directory.
        (PathFacts(SOURCE, "dir", protected=DIRECTORY, in_directory=True),),
        (),
    ],
)
def test_a_container_with_a_swapped_source_is_not_started(
    verb: str, facts: tuple[PathFacts, ...]
) -> None:
    answer = ask(
        "POST",
        f"/containers/{WEB}/{verb}",
        [look(Mounts=BOUND), (InspectPaths((SOURCE,)), facts), ("refusal", RECORDED)],
    )
    assert (answer.status, answer.rule) == (403, "mount.changed")


def test_a_volumes_own_folder_is_still_its_volume() -> None:
    source = "/var/lib/docker/volumes/alice-data/_data"
    answer = ask(
        "POST",
        f"/containers/{WEB}/start",
        [
            look(Mounts=[{"Type": "bind", "Source": source}]),
            (InspectPaths((source,)), (PathFacts(source, "dir", protected=ENGINE_DATA),)),
            *changed(Forward("POST", f"/containers/{WEB}/start")),
        ],
    )
    assert answer.status == 204


@pytest.mark.parametrize("verb", ["start", "restart"])
def test_what_the_policy_no_longer_admits_is_not_started_again_but_may_be_stopped(
    verb: str,
) -> None:
    knows = state(inventory(), policy=policy(images={"allow": ["ghcr.io/other/"]}))
    answer = ask("POST", f"/containers/{WEB}/{verb}", [look(), ("refusal", RECORDED)], knows)
    assert (answer.status, answer.rule) == (403, "image.not-allowed")
    stopped = ask(
        "POST",
        f"/containers/{WEB}/stop?t=3",
        [look(), *changed(Forward("POST", f"/containers/{WEB}/stop?t=3"))],
        knows,
    )
    assert stopped.status == 204


@pytest.mark.parametrize(
    ("target", "config", "grace", "deadline"),
    [
        ("stop", {"StopTimeout": 7}, 7, 60.0),
        ("stop", {}, 10, 60.0),
        ("stop?t=0", {"StopTimeout": 7}, 0, 60.0),
        ("stop?t=300", {}, 300, 315.0),
        ("restart?t=100", {}, 100, 115.0),
        ("stop?signal=SIGINT", {}, 10, 60.0),
        ("kill?signal=SIGHUP", {}, 0, 60.0),
    ],
)
def test_the_engine_gets_the_grace_and_the_gate_waits_for_it(
    target: str, config: dict[str, int], grace: int, deadline: float
) -> None:
    inspected = look()
    told = json.loads(inspected[1].body)  # type: ignore[attr-defined]
    told["Config"] = {"Labels": told["Config"]["Labels"], **config}
    forward = Forward("POST", f"/containers/{WEB}/{target}", deadline_s=deadline)
    steps: list[Step] = [(inspected[0], reply(told))]
    answer = ask("POST", f"/containers/{WEB}/{target}", [*steps, *changed(forward)])
    summary: Any = answer.entries[0].request["summary"]
    assert summary.get("graceS", 0) == grace
    assert summary.get("signal", "") == target.partition("signal=")[2]


@pytest.mark.parametrize(
    ("target", "rule"),
    [
        ("stop?t=301", "stop.timeout"),
        ("stop?t=-1", "stop.timeout"),
        ("stop?signal=SIGBOGUS", "signal.invalid"),
        ("kill?signal=99", "signal.invalid"),
        ("restart?t=-1", "stop.timeout"),
    ],
)
def test_ends_without_end_are_refused(target: str, rule: str) -> None:
    answer = ask("POST", f"/containers/{WEB}/{target}", [("refusal", RECORDED)])
    assert answer.rule == rule


def test_volumes_stay_when_a_container_goes() -> None:
    knows = state(inventory())
    forward = Forward("DELETE", f"/containers/{WEB}?force=1")
    ask("DELETE", f"/containers/{WEB}?force=True&v=1&link=0", [look(), *changed(forward)], knows)
    assert WEB not in knows.inventory.containers
    refused = ask("DELETE", f"/containers/{SLOT}?link=1", [("refusal", RECORDED)])
    assert refused.rule == "remove.link"


LIMITS = {
    "Memory": 2**30,
    "MemorySwap": 2**30,
    "NanoCpus": 10**9,
    "PidsLimit": 256,
    "RestartPolicy": {"Name": "always"},
}


@pytest.mark.parametrize(
    ("who", "kept"), [(CONTROLLER, False), (OPERATOR, True)], ids=["controller", "operator"]
)
def test_an_update_is_judged_by_the_state_it_leads_to(who: Any, kept: bool) -> None:
    knows = state(inventory())
    before = knows.inventory.containers[SLOT].admitted
    sent: list[dict[str, Any]] = []

    class Update:
        def __eq__(self, other: object) -> bool:
            assert isinstance(other, Forward)
            sent.append(json.loads(other.body))
            return other.path == f"/containers/{SLOT}/update"

        __hash__ = None  # type: ignore[assignment]

    # It is less than half of what the container was admitted with.
    listed: list[Step] = [] if kept else [(ReadEngine(LOOK_AT_ALL), reply([{"Id": SLOT}]))]
    dialogue: list[Step] = [
        look(SLOT, "team", HostConfig=LIMITS),
        *listed,
        ("intent", RECORDED),
        (Update(), reply({"Warnings": None})),
        ("outcome", RECORDED),
    ]
    body = {"Memory": 2**29, "MemorySwap": 2**29}
    answer = ask("POST", f"/containers/{SLOT}/update", dialogue, knows, body=body, actor=who)
    assert answer.status == 200
    assert sent[0]["Memory"] == 2**29
    after = knows.inventory.containers[SLOT].admitted
    if kept:
        assert after == before
    else:
        # Its restart policy is another than it was admitted with, and nobody asked for that.
        assert after == replace(before, memory=2**29, memory_swap=2**29)


def test_limits_cannot_be_lifted_by_an_update() -> None:
    for body in ({"PidsLimit": -1}, {"Memory": 2**40}, {"Devices": [{"PathOnHost": "/dev/mem"}]}):
        answer = ask(
            "POST",
            f"/containers/{WEB}/update",
            [look(HostConfig=LIMITS), ("refusal", RECORDED)],
            body=body,
        )
        assert answer.status in {400, 403}


def test_a_clients_container_takes_the_name_it_is_given() -> None:
    knows = state(inventory())
    forward = Forward("POST", f"/containers/{WEB}/rename?name=other")
    free: Step = (ReadEngine("/containers/other/json"), NOT_FOUND)
    ask("POST", f"/containers/{WEB}/rename?name=other", [look(), free, *changed(forward)], knows)
    assert knows.inventory.containers[WEB].admitted == Settings(name="other")


@pytest.mark.parametrize("name", ["0123456789ab", "-x", ""])
def test_a_name_that_could_be_anothers_id_is_refused(name: str) -> None:
    dialogue: list[Step] = [look(), ("refusal", RECORDED)]
    answer = ask("POST", f"/containers/{WEB}/rename?name={name}", dialogue)
    assert answer.status == 403


def test_the_controllers_containers_keep_their_names() -> None:
    dialogue: list[Step] = [look(SLOT, "team"), ("refusal", RECORDED)]
    answer = ask("POST", f"/containers/{SLOT}/rename?name=x1", dialogue, actor=CONTROLLER)
    assert answer.rule == "name.final"
    back = Forward("POST", f"/containers/{SLOT}/rename?name={SERVICE}")
    answer = ask(
        "POST",
        f"/containers/{SLOT}/rename?name={SERVICE}",
        [
            look(SLOT, "team"),
            (ReadEngine(f"/containers/{SERVICE}/json"), NOT_FOUND),
            *changed(back),
        ],
        actor=CONTROLLER,
    )
    assert answer.status == 204


def test_pausing_and_thawing() -> None:
    for verb in ("pause", "unpause"):
        forward = Forward("POST", f"/containers/{WEB}/{verb}")
        assert ask("POST", f"/containers/{WEB}/{verb}", [look(), *changed(forward)]).status == 204


def test_a_client_of_no_owner_sees_nothing() -> None:
    nobody = replace(ALICE, owner="")
    knows = state(inventory())
    item = replace(knows.inventory.containers[WEB], owner="")
    knows.inventory = replace(knows.inventory, containers={WEB: item})
    answer = ask(
        "POST", f"/containers/{WEB}/stop", [look(), ("refusal", RECORDED)], knows, actor=nobody
    )
    assert answer.status == 404


def test_values_of_secrets_go_to_the_engine_and_into_no_record_and_no_reply() -> None:
    knows = state(inventory())
    change = Change(
        mutation=Mutation.CONTAINER_CREATE,
        subject="web",
        path="/containers/create?name=web",
        summary={"name": "web"},
        verdict=Verdict("allow"),
        body={"Image": "x", "Env": ["LEVEL=info"]},
        deadline_s=1,
        secret_env=('URL=hunter2 "ä"',),
    )
    assert "hunter2" not in repr(change)
    flow = perform(knows, Author("i", CONTROLLER, policy="p"), change)
    intent = next(flow)
    assert isinstance(intent, WriteRecord)
    forward = flow.send(Record(1, "2026-01-01T00:00:00Z", intent.entry, "", ""))
    assert isinstance(forward, Forward)
    assert json.loads(forward.body)["Env"] == ["LEVEL=info", 'URL=hunter2 "ä"']
    outcome = flow.send(reply({"message": 'no such thing: URL=hunter2 "ä"'}, 400))
    assert isinstance(outcome, WriteRecord)
    with pytest.raises(StopIteration) as end:
        flow.send(Record(2, "2026-01-01T00:00:00Z", outcome.entry, "", ""))
    assert "hunter2" not in f"{intent.entry} {outcome.entry} {end.value.value}"
    assert end.value.value.status == 400
    plain = replace(change, secret_env=())
    other = next(perform(knows, Author("j", CONTROLLER, policy="p"), plain))
    assert isinstance(other, WriteRecord)
    digest, same = intent.entry.request, other.entry.request
    assert digest == same, "neither digests nor hashes have the value"


def test_an_open_change_of_a_network_holds_no_container_of_the_same_name() -> None:
    asked = {"route": Mutation.NETWORK_CREATE, "object": "web", "summary": {"name": "web"}}
    knows = state(replace(inventory(), open={"i1": OpenIntent(1, "", "controller", dict(asked))}))
    refuse_if_held(knows, Mutation.CONTAINER_RENAME, "web")
    with pytest.raises(Denied) as refused:
        refuse_if_held(knows, Mutation.NETWORK_REMOVE, "web")
    assert refused.value.rule == "held"
