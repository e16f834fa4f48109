"""The controller is held to its share of what runs, and to what an operator approved beyond it."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from controller.broker.dispatch import handle
from controller.broker.gate.commands import Forward, ReadEngine, WriteRecord
from controller.broker.gate.request_target import build_path
from controller.broker.gate.state import TIMES_MAX, GateState
from controller.broker.guards.disruption_budget import is_young
from controller.broker.guards.lists import encode_filters
from controller.core.enforcement import approvals
from controller.core.records import inventory_json
from controller.core.records.parts import ResultPart
from controller.model.inventory import Inventory, OwnedObject, RecordTime
from controller.model.records import Actor, Entry, Reply
from tests.unit.broker.dialogue import (
    ALICE,
    CONTEXT,
    CONTROLLER,
    NO_CONTENT,
    OPERATOR,
    RECORDED,
    Clock,
    Step,
    Told,
    as_value,
    at,
    converse,
    lost,
    record,
    reply,
    request,
    shaped,
    state,
)
from tests.unit.broker.world import LOOK_AT_ALL, WEB, inspect, item, labels
from tests.unit.broker.world import inventory as usual

PLAN = "ab" * 32
COUNT = 10
GIB = 1024**3


def full(number: int) -> str:
    """The id of service number *number*'s container."""
    return f"{number:02x}" * 32


def services(count: int = COUNT) -> Inventory:
    """An inventory of as many services, of one container each."""
    items = {
        full(n): item(
            full(n), f"s{n}.1-0", "team", origin="controller", namespace="default", service=f"s{n}"
        )
        for n in range(count)
    }
    volumes = {
        name: OwnedObject(
            name, name, "default", "team", "controller", "i0", dumped="2026-01-01T00:00:00Z"
        )
        for name in ("data", "other")
    }
    replicas = {key: inventory_json.replica_of(one, up=RecordTime()) for key, one in items.items()}
    return Inventory(seq=7, containers=items, volumes=volumes, replicas=replicas)


def headers(plan: str) -> list[tuple[str, str]]:
    value = base64.urlsafe_b64encode(json.dumps({"cause": "c", "plan": plan}).encode()).decode()
    return [(CONTEXT[0], value)]


def shown(number: int, status: str = "running") -> Step:
    told = inspect(full(number), f"s{number}.1-0", "team", State={"Status": status})
    return (ReadEngine(f"/containers/{full(number)}/json"), reply(told))


def running(*numbers: int) -> Step:
    return (ReadEngine(LOOK_AT_ALL), reply([{"Id": full(n)} for n in numbers]))


def take_down(
    knows: GateState,
    number: int,
    up: range,
    *,
    verb: str = "stop",
    plan: str = "",
    answer: Any = NO_CONTENT,
    actor: Actor = CONTROLLER,
    closes: bool = False,
) -> Told:
    """Have a container taken down, and let it be so."""
    method, path = "POST", f"/containers/{full(number)}/{verb}"
    if verb == "remove":
        method, path = "DELETE", f"/containers/{full(number)}"
    forward = Forward(method, path)
    steps: list[Step] = [shown(number)]
    steps += [running(*up)] if actor is CONTROLLER else []
    steps += [("intent", RECORDED), (forward, answer)]
    steps += [("outcome", RECORDED)] if closes or isinstance(answer, Reply) else []
    asked = request(method, path, actor=actor, headers=headers(plan) if plan else ())
    return converse(handle(asked, knows), steps, knows)


def refused(
    knows: GateState, number: int, up: range, *, verb: str = "stop", plan: str = ""
) -> Told:
    method = "DELETE" if verb == "remove" else "POST"
    path = f"/containers/{full(number)}{'' if verb == 'remove' else f'/{verb}'}"
    asked = request(method, path, actor=CONTROLLER, headers=headers(plan) if plan else ())
    steps: list[Step] = [shown(number), running(*up), ("refusal", RECORDED)]
    told = converse(handle(asked, knows), steps, knows)
    assert (told.status, told.rule) == (403, "blast.radius")
    return told


def approve(knows: GateState, *objects: str, plan: str = PLAN) -> Told:
    view = approvals.view(knows.inventory, plan, objects)
    body: dict[str, object] = {"act": "approve", "plan": plan, "note": "so be it"}
    body |= {"objects": list(objects), "shown": view.digest}
    asked = request("POST", "/trimtab/v1/records", actor=OPERATOR, body=body)
    return converse(handle(asked, knows), [("operator", RECORDED)], knows)


def three_down() -> GateState:
    knows = state(services())
    for number in range(3):
        take_down(knows, number, range(number, COUNT))
    return knows


@pytest.mark.parametrize("verb", ["stop", "kill", "pause", "remove"])
def test_the_controller_stops_at_its_share(verb: str) -> None:
    knows = state(services())
    for number in range(3):
        told = take_down(knows, number, range(number, COUNT), verb=verb)
        assert told.entries[0].request["summary"]["takesDown"] == "service"  # type: ignore[index]
    reason = refused(knows, 3, range(3, COUNT), verb=verb).json["trimtab"]["reason"]
    assert reason == (
        "the disruption budget is used up: default/s3 would be one more of 10 services that are "
        "down because of the controller (default/s0, default/s1, default/s2), and at most 3 may be"
    )


def test_what_goes_down_while_the_engine_lists_what_runs_is_counted() -> None:
    """It is in the list, and down when the list is there: not started again."""
    knows = state(services())
    for number in range(3):
        take_down(knows, number, range(COUNT), answer=lost())
    asked = request("POST", f"/containers/{full(3)}/stop", actor=CONTROLLER)
    flow: Any = handle(asked, knows)
    assert next(flow) == shown(3)[0]
    listing, listed = running(*range(COUNT))
    assert as_value(flow.send(shown(3)[1])) == as_value(listing)
    for identifier in tuple(knows.inventory.open):  # the stops end now
        done = ResultPart(status=204).members
        record(knows, Entry(identifier, "outcome", result=done))
    command = flow.send(listed)
    assert isinstance(command, WriteRecord)
    assert command.entry.stage == "refusal"


def test_requests_without_an_answer_are_counted() -> None:
    knows = state(services())
    for number in range(3):
        take_down(knows, number, range(COUNT), answer=lost())
    assert len(knows.inventory.open) == 3
    refused(knows, 3, range(COUNT))


def test_people_are_not_held() -> None:
    knows = three_down()
    take_down(knows, 3, range(3, COUNT), actor=OPERATOR)
    assert len(knows.inventory.taken) == 3


def test_where_one_uid_is_both_what_it_asks_without_a_context_is_not_held() -> None:
    both = replace(OPERATOR, uid=1000, separated=False)
    knows = three_down()
    path = f"/containers/{full(3)}/stop"
    asked = request("POST", path, actor=both, headers=headers(""))
    steps: list[Step] = [shown(3), running(*range(3, COUNT)), ("refusal", RECORDED)]
    assert converse(handle(asked, knows), steps, knows).rule == "blast.radius"
    take_down(knows, 3, range(3, COUNT), actor=both)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (f"/containers/{WEB}/kill", None),
        # Less memory than it uses ends it, and without its network it serves nobody.
        (f"/containers/{WEB}/update", {"Memory": 6 * 1024**2}),
        ("/networks/platform-network/disconnect", {"Container": WEB}),
        ("/networks/platform-network/connect", {"Container": WEB}),
    ],
)
def test_what_a_client_made_is_not_the_controllers_to_take_down(path: str, body: object) -> None:
    knows = state(usual())
    look: Step = (ReadEngine(f"/containers/{WEB}/json"), reply(inspect(WEB, "alice-web", "alice")))
    asked = request("POST", path, actor=CONTROLLER, body=body)
    told = converse(handle(asked, knows), [look, ("refusal", RECORDED)], knows)
    assert (told.status, told.rule) == (403, "blast.client")


def test_a_removal_of_what_is_down_is_free() -> None:
    knows = three_down()
    path = f"/containers/{full(0)}"
    steps: list[Step] = [
        shown(0, "exited"),
        ("intent", RECORDED),
        (Forward("DELETE", path), NO_CONTENT),
        ("outcome", RECORDED),
    ]
    asked = request("DELETE", path, actor=CONTROLLER)
    assert converse(handle(asked, knows), steps, knows).status == 204
    # That it is removed doesn't make it less down.
    refused(knows, 3, range(3, COUNT))


# What leaves a service running in name only


def update(
    knows: GateState,
    number: int,
    body: dict[str, object],
    *steps: Step,
    actor: Actor = CONTROLLER,
    status: str = "running",
) -> Told:
    path = f"/containers/{full(number)}/update"
    asked = request("POST", path, actor=actor, body=body)
    return converse(handle(asked, knows), [shown(number, status), *steps], knows)


def updated(number: int, body: dict[str, object]) -> list[Step]:
    path = f"/containers/{full(number)}/update"
    forward = Forward("POST", path, json.dumps(body).encode(), deadline_s=60.0)
    return [("intent", RECORDED), (forward, reply({})), ("outcome", RECORDED)]


def with_memory(inventory: Inventory, memory: int) -> Inventory:
    """The inventory with every container admitted with so much memory."""
    items = {
        key: replace(each, admitted=replace(each.admitted, memory=memory, memory_swap=memory))
        for key, each in inventory.containers.items()
    }
    replicas = {key: inventory_json.replica_of(one, up=RecordTime()) for key, one in items.items()}
    return replace(inventory, containers=items, replicas=replicas)


def test_what_an_operator_raised_is_put_back_without_a_budget() -> None:
    knows = state(with_memory(services(), GIB))
    for number in range(5):
        for actor, memory in ((OPERATOR, 4 * GIB), (CONTROLLER, GIB)):
            body: dict[str, object] = {"Memory": memory, "MemorySwap": memory}
            update(knows, number, body, *updated(number, body), actor=actor)
    assert knows.inventory.taken == {}


@pytest.mark.parametrize("status", ["running", "exited"])
def test_an_update_of_the_restart_policy_alone_takes_nothing_down(status: str) -> None:
    """A replacement begins with it, also of a container with too small a limit."""
    knows = state(with_memory(services(), GIB))
    for number in range(3):
        starve(knows, number)
    body: dict[str, object] = {"RestartPolicy": {"Name": "no"}}
    for number in range(4):
        told = update(knows, number, body, *updated(number, body), status=status)
        assert "takesDown" not in told.entries[0].request["summary"]  # type: ignore[operator]
    assert [each.ended for each in knows.inventory.taken.values()] == [False] * 3


@pytest.mark.parametrize(("status", "counts"), [("paused", True), ("restarting", False)])
def test_a_stop_of_what_is_paused_counts_and_of_what_crashes_does_not(
    status: str, *, counts: bool
) -> None:
    """A paused container goes on after an unpause, and the stop may come only then."""
    knows = three_down()
    path = f"/containers/{full(3)}/stop"
    steps: list[Step] = [shown(3, status)]
    if counts:
        steps += [running(*range(4, COUNT)), ("refusal", RECORDED)]
    else:
        forward = Forward("POST", path)
        steps += [("intent", RECORDED), (forward, NO_CONTENT), ("outcome", RECORDED)]
    told = converse(handle(request("POST", path, actor=CONTROLLER), knows), steps, knows)
    assert told.status == (403 if counts else 204)


def starve(knows: GateState, number: int) -> None:
    body = {"Memory": 6 * 1024**2, "MemorySwap": 6 * 1024**2}
    forward = Forward(
        "POST", f"/containers/{full(number)}/update", json.dumps(body).encode(), deadline_s=60.0
    )
    steps: list[Step] = [running(*range(COUNT)), ("intent", RECORDED), (forward, reply({}))]
    told = update(knows, number, {"Memory": 6 * 1024**2}, *steps, ("outcome", RECORDED))
    assert told.entries[0].request["summary"]["takesDown"] == "service"  # type: ignore[index]


def test_an_update_to_next_to_nothing_takes_a_service_down() -> None:
    knows = state(services())
    for number in range(3):
        starve(knows, number)
    steps: list[Step] = [running(*range(COUNT)), ("refusal", RECORDED)]
    assert update(knows, 3, {"PidsLimit": 1}, *steps).rule == "blast.radius"
    refused(knows, 3, range(COUNT))


def test_a_poisoned_restart_counts_although_the_engine_says_yes() -> None:
    """One process, then a restart: the engine answers 204, and the program ends at once."""
    knows = state(services())
    for number in range(3):
        take_down(knows, number, range(number, COUNT), verb="kill")
        start(knows, number)  # it ends at once: the list doesn't show it
    at(knows, 60.0)
    refused(knows, 3, range(3, COUNT))


def disconnect(knows: GateState, number: int, *steps: Step) -> Told:
    network = {"Id": "f" * 64, "Name": "net", "Labels": {}, "Driver": "bridge"}
    item_shown = inspect(
        full(number),
        f"s{number}.1-0",
        "team",
        State={"Status": "running"},
        NetworkSettings={"Networks": {"net": {"NetworkID": "f" * 64}}},
    )
    asked = request(
        "POST", "/networks/net/disconnect", actor=CONTROLLER, body={"Container": full(number)}
    )
    looks: list[Step] = [
        (ReadEngine(f"/containers/{full(number)}/json"), reply(item_shown)),
        (ReadEngine("/networks/net"), reply(network)),
    ]
    return converse(handle(asked, knows), [*looks, *steps], knows)


def test_a_disconnect_from_an_admitted_network_takes_a_service_down() -> None:
    knows = state(attached(services()))
    for number in range(3):
        take_down(knows, number, range(number, COUNT))
    steps: list[Step] = [running(*range(3, COUNT)), ("refusal", RECORDED)]
    assert disconnect(knows, 3, *steps).rule == "blast.radius"


def connect(knows: GateState, number: int, endpoint: dict[str, object] | None) -> None:
    network = {"Id": "f" * 64, "Name": "net", "Driver": "bridge"}
    network["Labels"] = labels("team", origin="controller")  # type: ignore[assignment]
    apart = inspect(
        full(number),
        f"s{number}.1-0",
        "team",
        HostConfig={"NetworkMode": "net"},
        NetworkSettings={},
    )
    body: dict[str, object] = {"Container": full(number)}
    body |= {} if endpoint is None else {"EndpointConfig": endpoint}
    flow: Any = handle(request("POST", "/networks/net/connect", actor=CONTROLLER, body=body), knows)
    command, stages = next(flow), []
    try:
        while True:
            if isinstance(command, WriteRecord):
                stages.append(command.entry.stage)
                answer: Any = record(knows, command.entry)
            elif isinstance(command, Forward):
                answer = reply({})
            elif command.path == "/networks/net":
                answer = reply(network)
            elif command.path.endswith("/json"):
                answer = reply(apart)
            else:
                answer = shaped(command, reply([]))
            command = flow.send(answer)
    except StopIteration as stop:
        assert (stop.value.status, stages) == (200, ["intent", "outcome"])


@pytest.mark.parametrize("endpoint", [None, {"Aliases": ["s0.1-0"]}])
def test_a_connect_without_the_services_name_ends_no_disconnect(
    endpoint: dict[str, object] | None,
) -> None:
    """Nobody reaches the service: its name leads nowhere."""
    knows = state(attached(services()))
    left = Forward(
        "POST",
        f"/networks/{'f' * 64}/disconnect",
        json.dumps({"Container": full(0)}).encode(),
        deadline_s=15.0,
    )
    steps: list[Step] = [running(*range(COUNT)), ("intent", RECORDED)]
    disconnect(knows, 0, *steps, (left, reply({})), ("outcome", RECORDED))
    connect(knows, 0, endpoint)
    assert [each.ended for each in knows.inventory.taken.values()] == [False]
    connect(knows, 0, {"Aliases": ["s0"]})
    assert [each.ended for each in knows.inventory.taken.values()] == [True]


def attached(inventory: Inventory) -> Inventory:
    """The inventory with every container admitted to a network."""
    items = {
        key: replace(each, admitted=replace(each.admitted, networks=("net",)))
        for key, each in inventory.containers.items()
    }
    replicas = {key: inventory_json.replica_of(one, up=RecordTime()) for key, one in items.items()}
    network = OwnedObject("f" * 64, "net", "default", "team", "controller", "i0")
    networks = {network.id: network}
    return replace(inventory, containers=items, replicas=replicas, networks=networks)


def test_the_network_of_what_runs_stays() -> None:
    knows = state(attached(services(2)))
    network = {"Id": "f" * 64, "Name": "net", "Labels": labels("team", origin="controller")}
    asked = request("DELETE", "/networks/net", actor=CONTROLLER)
    looked: Step = (ReadEngine("/networks/net"), reply(network))
    steps: list[Step] = [looked, running(0, 1), ("refusal", RECORDED)]
    told = converse(handle(asked, knows), steps, knows)
    assert told.rule == "blast.radius"
    assert told.json["trimtab"]["reason"] == (
        "net is the network of 2 services that run, such as default/s0"
    )
    # What was removed past the gate runs no more, and needs no network.
    forward = Forward("DELETE", f"/networks/{'f' * 64}", deadline_s=15.0)
    steps = [looked, running(), ("intent", RECORDED), (forward, NO_CONTENT), ("outcome", RECORDED)]
    assert converse(handle(asked, knows), steps, knows).status == 204


@pytest.mark.parametrize(
    ("uptime", "young"),
    [
        ("Up Less than a second", True),
        ("Up 1 second", True),
        ("Up 4 seconds (health: starting)", True),
        ("Up 5 seconds", False),
        ("Up About a minute", False),
        ("Up 4 minutes", False),
        ("running", False),
        ("", False),
    ],
)
def test_the_engines_words_for_a_short_uptime(uptime: str, *, young: bool) -> None:
    assert is_young({"Status": uptime}) is young


def test_a_helper_that_the_engine_starts_again_and_again_keeps_nothing_up() -> None:
    inventory = services()
    helper = replace(inventory.containers[full(3)], id=full(30))
    items = {**inventory.containers, helper.id: helper}
    replicas = {**inventory.replicas, helper.id: inventory_json.replica_of(helper, up=RecordTime())}
    knows = state(replace(inventory, containers=items, replicas=replicas))
    for number in range(3):
        take_down(knows, number, range(number, COUNT))
    listed = [{"Id": full(n)} for n in range(3, COUNT)]
    for uptime, admitted in (("Up 4 seconds", False), ("Up 5 seconds", True)):
        rows = [*listed, {"Id": helper.id, "Status": uptime}]
        asked = request("POST", f"/containers/{full(3)}/stop", actor=CONTROLLER)
        steps: list[Step] = [shown(3), (ReadEngine(LOOK_AT_ALL), reply(rows))]
        steps.append(("intent", RECORDED) if admitted else ("refusal", RECORDED))
        if admitted:
            forward = Forward("POST", f"/containers/{full(3)}/stop")
            steps += [(forward, NO_CONTENT), ("outcome", RECORDED)]
        converse(handle(asked, knows), steps, knows)


def test_a_slow_stop_counts_until_ten_minutes_after_it_ended() -> None:
    """``stop?t=300`` with a signal that the program ignores: the container is down only later."""
    knows = state(services())
    for number in range(3):
        take_down(knows, number, range(COUNT), answer=lost())
    at(knows, 300.0)
    for identifier in tuple(knows.inventory.open):
        record(knows, Entry(identifier, "outcome", result=ResultPart(status=204).members))
    at(knows, 599.0)
    refused(knows, 3, range(3, COUNT))
    at(knows, 1.0)
    take_down(knows, 3, range(3, COUNT))


def start(knows: GateState, number: int, answer: Any = NO_CONTENT) -> None:
    path = f"/containers/{full(number)}/start"
    steps: list[Step] = [
        shown(number, "exited"),
        ("intent", RECORDED),
        (Forward("POST", path), answer),
        ("outcome", RECORDED),
    ]
    converse(handle(request("POST", path, actor=CONTROLLER), knows), steps, knows)


def refused_among(knows: GateState, number: int, up: tuple[int, ...]) -> None:
    asked = request("POST", f"/containers/{full(number)}/stop", actor=CONTROLLER)
    steps: list[Step] = [shown(number), running(*up), ("refusal", RECORDED)]
    assert converse(handle(asked, knows), steps, knows).rule == "blast.radius"


def test_what_was_started_again_is_not_counted() -> None:
    knows = three_down()
    start(knows, 0)
    up = (0, *range(3, COUNT))
    refused_among(knows, 3, up)
    at(knows, 5.0)
    asked = request("POST", f"/containers/{full(3)}/stop", actor=CONTROLLER)
    steps: list[Step] = [
        shown(3),
        running(*up),
        ("intent", RECORDED),
        (Forward("POST", f"/containers/{full(3)}/stop"), NO_CONTENT),
        ("outcome", RECORDED),
    ]
    assert converse(handle(asked, knows), steps, knows).status == 204


def test_a_start_of_what_still_ran_hides_no_signal() -> None:
    knows = state(services())
    for number in range(3):
        take_down(knows, number, range(COUNT), verb="kill")
        start(knows, number, Reply(304))
    refused(knows, 3, range(COUNT), verb="kill")


def test_what_is_being_started_is_not_free() -> None:
    knows = three_down()
    path = f"/containers/{full(3)}/start"
    begun: list[Step] = [
        shown(3, "exited"),
        ("intent", RECORDED),
        (Forward("POST", path), lost()),
    ]
    converse(handle(request("POST", path, actor=CONTROLLER), knows), begun, knows)
    assert len(knows.inventory.open) == 1
    asked = request("POST", f"/containers/{full(3)}/stop", actor=CONTROLLER)
    steps: list[Step] = [shown(3, "exited"), running(*range(4, COUNT)), ("refusal", RECORDED)]
    assert converse(handle(asked, knows), steps, knows).rule == "blast.radius"


@pytest.mark.parametrize("verb", ["start", "restart?t=1", "unpause"])
def test_no_start_overtakes_a_stop_that_is_in_progress(verb: str) -> None:
    """A stop of what is down is free, and the engine may carry it out after the start."""
    knows = three_down()
    path = f"/containers/{full(0)}/stop"
    begun: list[Step] = [
        shown(0, "exited"),
        ("intent", RECORDED),
        (Forward("POST", path), lost()),
    ]
    converse(handle(request("POST", path, actor=CONTROLLER), knows), begun, knows)
    asked = request("POST", f"/containers/{full(0)}/{verb}", actor=CONTROLLER)
    told = converse(handle(asked, knows), [shown(0, "exited"), ("refusal", RECORDED)], knows)
    assert (told.status, told.rule) == (409, "held")


def test_a_stop_that_never_reached_the_engine_does_not_count() -> None:
    """The engine is being restarted: what was asked of it meanwhile did nothing."""
    knows = state(services())
    for number in range(3):
        take_down(knows, number, range(COUNT), answer=lost(sent=False), closes=True)
    assert knows.inventory.taken == {}


@pytest.mark.parametrize(
    ("verb", "status"), [("stop", 500), ("pause", 500), ("restart", 500), ("restart", 400)]
)
def test_what_the_engine_failed_to_do_counts_for_ten_minutes(verb: str, status: int) -> None:
    """It may have done a part: a restart stops first, and its failing start is answered 400."""
    knows = state(services())
    failed = reply({"message": "no such file or directory"}, status)
    for number in range(3):
        take_down(knows, number, range(COUNT), verb=verb, answer=failed)
    refused(knows, 3, range(COUNT))
    for number in range(3):
        start(knows, number, Reply(304))  # they run on
    at(knows, 599.0)
    refused(knows, 3, range(COUNT))
    at(knows, 1.0)
    take_down(knows, 3, range(COUNT))


def test_a_signal_that_failed_counts_until_the_container_is_started() -> None:
    knows = state(services())
    for number in range(3):
        take_down(knows, number, range(COUNT), verb="kill", answer=reply({}, 500))
    at(knows, 6000.0)
    refused(knows, 3, range(COUNT))


def test_no_update_or_connect_overtakes_its_opposite_that_is_in_progress() -> None:
    """The engine may carry out the first one last, and its answer may be recorded first."""
    knows = state(attached(with_memory(services(), GIB)))
    less: dict[str, object] = {"Memory": 6 * 1024**2, "MemorySwap": 6 * 1024**2}
    intent, (forward, _), _ = updated(0, less)
    steps: list[Step] = [running(*range(COUNT)), intent, (forward, lost())]
    update(knows, 0, less, *steps)
    more: dict[str, object] = {"Memory": GIB, "MemorySwap": GIB}
    told = update(knows, 0, more, ("refusal", RECORDED))
    assert (told.status, told.rule) == (409, "held")
    policy: dict[str, object] = {"RestartPolicy": {"Name": "no"}}
    held = update(knows, 0, policy, ("refusal", RECORDED))  # until recovery has settled the first
    assert held.rule == "held"
    (key,) = knows.inventory.open
    knows.intents.in_flight.add(key)  # its answer is still awaited
    told = update(knows, 0, more, ("refusal", RECORDED))
    assert told.json["trimtab"]["reason"] == (
        "container.update of the container is still in progress"
    )
    update(knows, 0, policy, *updated(0, policy))


def test_ten_minutes_later_it_is_not_counted() -> None:
    knows = three_down()
    at(knows, 599.0)
    refused(knows, 3, range(3, COUNT))
    at(knows, 1.0)
    take_down(knows, 3, range(3, COUNT))


@pytest.mark.parametrize("jump_s", [-86400.0, 86400.0])
def test_a_clock_that_jumps_opens_nothing(jump_s: float) -> None:
    knows = three_down()
    assert isinstance(knows.clock, Clock)
    knows.clock.jumped = jump_s
    refused(knows, 3, range(3, COUNT))


def test_records_dated_in_the_future_count_from_the_start_of_the_broker() -> None:
    """The clock was a day ahead, and is right again."""
    before = state(services())
    for number in range(3):
        take_down(before, number, range(COUNT))
        start(before, number)
    told = json.dumps(inventory_json.to_json(before.inventory))
    ahead = json.loads(told.replace("2026-01-01T", "2026-01-02T"))
    for seconds, is_up in ((4.9, False), (5.0, True)):
        after = state(inventory_json.from_json(ahead))
        at(after, seconds)
        (take_down if is_up else refused)(after, 3, range(COUNT))


def test_a_broker_that_starts_anew_goes_on_counting() -> None:
    before = three_down()
    told = json.loads(json.dumps(inventory_json.to_json(before.inventory)))
    after = state(inventory_json.from_json(told))
    assert after.inventory == before.inventory
    refused(after, 3, range(3, COUNT))
    at(after, 600.0)
    take_down(after, 3, range(3, COUNT))


# Approvals


def test_an_approved_removal_is_allowed_once_as_part_of_its_plan() -> None:
    knows = three_down()
    identifier = approve(knows, full(3), full(4)).json["id"]
    refused(knows, 3, range(3, COUNT))
    refused(knows, 3, range(3, COUNT), plan="cd" * 32)
    refused(knows, 5, range(3, COUNT), plan=PLAN)
    told = take_down(knows, 3, range(3, COUNT), plan=PLAN)
    assert told.entries[0].verdict["rules"] == [f"approval:{identifier}"]
    start(knows, 3)
    refused(knows, 3, range(3, COUNT), plan=PLAN)
    take_down(knows, 4, range(3, COUNT), plan=PLAN)
    assert knows.inventory.approvals[identifier].used == (full(3), full(4))


def test_what_was_approved_leaves_the_share_to_the_rest() -> None:
    knows = state(services())
    approve(knows, *(full(n) for n in range(6)))
    for number in range(6):
        take_down(knows, number, range(number, COUNT), plan=PLAN)
    for number in range(6, 9):
        take_down(knows, number, range(number, COUNT))
    refused(knows, 9, range(9, COUNT))


def test_an_approval_ends_after_an_hour() -> None:
    knows = three_down()
    approve(knows, full(3))
    at(knows, 3600.0)
    for number in (0, 1, 2):
        start(knows, number)
        take_down(knows, number, range(number, COUNT))
    refused(knows, 3, range(3, COUNT), plan=PLAN)


def remove_volume(knows: GateState, *steps: Step) -> Told:
    volume = {"Name": "data", "Driver": "local", "Labels": labels("team", origin="controller")}
    asked = request("DELETE", "/volumes/data", actor=CONTROLLER, headers=headers(PLAN))
    looked: Step = (ReadEngine("/volumes/data"), reply(volume))
    return converse(handle(asked, knows), [looked, *steps], knows)


def test_a_volume_goes_with_an_approval_only() -> None:
    knows = state(services())
    forward = Forward("DELETE", "/volumes/data", deadline_s=15.0)
    approve(knows, "volume:other")
    told = remove_volume(knows, ("refusal", RECORDED))
    assert (told.status, told.rule) == (403, "volume.approval")
    identifier = approve(knows, "volume:data").json["id"]
    full_disk = reply({"message": "no space left"}, 500)
    failed = remove_volume(knows, ("intent", RECORDED), (forward, full_disk), ("outcome", RECORDED))
    assert failed.entries[0].verdict["rules"] == [f"approval:{identifier}"]
    assert knows.inventory.approvals[identifier].used == ("volume:data",)
    assert remove_volume(knows, ("refusal", RECORDED)).rule == "volume.approval"
    approve(knows, "volume:data")
    done = remove_volume(knows, ("intent", RECORDED), (forward, NO_CONTENT), ("outcome", RECORDED))
    assert done.status == 204
    assert list(knows.inventory.volumes) == ["other"]


@pytest.mark.parametrize("who", [ALICE, CONTROLLER])
def test_only_operators_approve(who: Actor) -> None:
    knows = state(services())
    body = {"act": "approve", "plan": PLAN, "objects": [full(0)], "note": ""}
    asked = request("POST", "/trimtab/v1/records", actor=who, body=body)
    told = converse(handle(asked, knows), [("refusal", RECORDED)], knows)
    assert told.rule == "role.denied"
    assert knows.inventory.approvals == {}


def test_an_approval_names_its_objects_in_full_in_the_journal() -> None:
    many = [f"{n:064x}" for n in range(1000)]
    items = {each: item(each, "s.1-0", "team", origin="controller") for each in many}
    knows = state(Inventory(seq=7, containers=items))
    told = approve(knows, *many)
    assert (told.status, told.json) == (
        200,
        {"id": "id-1", "plan": PLAN, "objects": 1000, "expiresS": 3600},
    )
    (entry,) = told.entries
    view = approvals.view(knows.inventory, PLAN, many)
    summary = {"act": "approve", "plan": PLAN, "note": "so be it", "objects": many}
    summary["shown"] = view.digest
    assert entry.request["route"] == "plan.approve"
    assert entry.request["summary"] == summary
    assert list(knows.inventory.approvals["id-1"].objects) == many


def test_an_approval_of_another_shape_is_refused() -> None:
    knows = state(services())
    body = {"act": "approve", "plan": "web", "objects": [full(0)]}
    asked = request("POST", "/trimtab/v1/records", actor=OPERATOR, body=body)
    told = converse(handle(asked, knows), [("refusal", RECORDED)], knows)
    assert (told.status, told.rule) == (400, "approval.invalid")


def test_approvals_and_take_downs_are_bounded() -> None:
    knows = state(services())
    for _ in range(70):
        approve(knows, full(0))
    assert list(knows.inventory.approvals) == [f"id-{n}" for n in range(7, 71)]
    for _ in range(TIMES_MAX):
        knows.remember_time(knows.new_id())
    assert len(knows.recorded_at) <= TIMES_MAX
    assert knows.recorded_at.keys() >= knows.inventory.approvals.keys()
    assert replace(knows.inventory, approvals={}).taken == {}


def leave(knows: GateState, number: int) -> None:
    """Disconnect a container from its network."""
    body = json.dumps({"Container": full(number)}).encode()
    left = Forward("POST", f"/networks/{'f' * 64}/disconnect", body, deadline_s=15.0)
    steps: list[Step] = [running(0, 1), ("intent", RECORDED), (left, reply({}))]
    disconnect(knows, number, *steps, ("outcome", RECORDED))


def remove_network(knows: GateState, connected: tuple[int, ...], *steps: Step) -> Told:
    network: dict[str, object] = {"Id": "f" * 64, "Name": "net"}
    network["Labels"] = labels("team", origin="controller")
    network["Containers"] = {full(number): {} for number in connected}
    asked = request("DELETE", "/networks/net", actor=CONTROLLER)
    looked: Step = (ReadEngine("/networks/net"), reply(network))
    return converse(handle(asked, knows), [looked, *steps], knows)


def test_a_network_is_removed_once_each_container_left_it_by_a_counted_disconnect() -> None:
    knows = state(attached(services(2)))
    leave(knows, 0)
    answer = remove_network(knows, (1,), running(0, 1), ("refusal", RECORDED))
    assert answer.rule == "blast.radius"
    leave(knows, 1)
    # The engine shows one of them on the network: an engine carries requests out in any order.
    answer = remove_network(knows, (1,), running(0, 1), ("refusal", RECORDED))
    assert answer.rule == "blast.radius"
    forward = Forward("DELETE", f"/networks/{'f' * 64}", deadline_s=15.0)
    left: list[Step] = [("intent", RECORDED), (forward, NO_CONTENT), ("outcome", RECORDED)]
    assert remove_network(knows, (), *left).status == 204


def test_a_network_with_containers_of_others_is_not_removed() -> None:
    knows = state(attached(services(2)))
    answer = remove_network(knows, (9,), ("refusal", RECORDED))
    assert answer.rule == "network.in-use"


@pytest.mark.parametrize(
    ("dumped", "adopted", "allowed"),
    [("", "", False), ("2026-01-01T00:00:00Z", "", True), ("2026-01-01T00:00:00Z", "c", False)],
)
def test_an_approved_removal_of_data_needs_a_dump(
    dumped: str, adopted: str, *, allowed: bool
) -> None:
    owned = OwnedObject(
        "data", "data", "default", "team", "controller", "i0", adopted=adopted, dumped=dumped
    )
    knows = state(replace(services(1), volumes={"data": owned}))
    approve(knows, "volume:data")
    shown = {"Name": "data", "Driver": "local", "CreatedAt": "c"}
    there: Step = (
        ReadEngine("/volumes/data"),
        reply(shown | {"Labels": labels("team", origin="controller")}),
    )
    forward = Forward("DELETE", "/volumes/data", deadline_s=15.0)
    removal: list[Step] = [("intent", RECORDED), (forward, NO_CONTENT), ("outcome", RECORDED)]
    asked = request("DELETE", "/volumes/data", actor=CONTROLLER, headers=headers(PLAN))
    answer = converse(
        handle(asked, knows), [there, *(removal if allowed else [("refusal", RECORDED)])], knows
    )
    if allowed:
        assert answer.status == 204
    else:
        assert answer.rule == "volume.not-dumped"


def test_an_adopted_container_is_listed_by_its_id_since_it_has_no_label() -> None:
    """Without it, its service would count as down, and the budget as used up."""
    all_of_them = services()
    containers = {**all_of_them.containers}
    containers[full(9)] = replace(containers[full(9)], adopted=True)
    knows = state(replace(all_of_them, containers=containers))
    by_id = build_path(
        "/containers/json", {"filters": encode_filters({"id": [full(9)], "status": ["running"]})}
    )
    forward = Forward("POST", f"/containers/{full(0)}/stop")
    steps: list[Step] = [shown(0), running(*range(9))]
    steps.append((ReadEngine(by_id), reply([{"Id": full(9)}])))
    steps += [("intent", RECORDED), (forward, NO_CONTENT), ("outcome", RECORDED)]
    asked = request("POST", f"/containers/{full(0)}/stop", actor=CONTROLLER)
    told = converse(handle(asked, knows), steps, knows)
    assert told.status == 204
