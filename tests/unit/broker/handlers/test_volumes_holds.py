"""Holds of volumes at the gate: no container starts meanwhile, and each starts again afterwards."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest

from controller.broker.dispatch import handle
from controller.broker.gate.commands import Forward, InspectPaths, Lost, ReadEngine
from controller.broker.gate.state import GateState
from controller.broker.handlers.volumes import LEASE_S, end_expired_holds
from controller.core.records.inventory_json import from_json, to_json
from controller.model.confinement import Confinement, ExpectedMount
from controller.model.host_paths import PathFacts
from controller.model.inventory import Inventory, OpenIntent, VolumeHold
from controller.model.records import Actor, Reply
from tests.unit.broker.dialogue import (
    ALICE,
    CONTROLLER,
    OPERATOR,
    RECORDED,
    UNRECORDED,
    Step,
    Told,
    at,
    converse,
    reply,
    request,
    state,
)
from tests.unit.broker.world import WEB, inspect, inventory, labels

DATA = {
    "Name": "alice-data",
    "Driver": "local",
    "Labels": labels("alice"),
    "Mountpoint": "/v/_data",
}
LOOK = ReadEngine("/volumes/alice-data")
MARKER = "/var/lib/docker/volumes/alice-data/_data/.trimtab-restore/exchange"
MOUNT = ExpectedMount("volume", "/data", source="alice-data")


def users(*listed: dict[str, Any]) -> Step:
    filters = quote(json.dumps({"volume": ["alice-data"]}), safe="")
    return ReadEngine(f"/containers/json?filters={filters}"), reply(list(listed))


def mounted() -> GateState:
    """Return a gate whose container WEB mounts the volume."""
    known = inventory()
    confined = Confinement(mounts=(MOUNT,))
    web = replace(known.containers[WEB], confined=confined, origin="client", started=True)
    return state(replace(known, containers={**known.containers, WEB: web}))


def ask(
    knows: GateState, dialogue: list[Step], body: dict[str, Any], *, actor: Actor = OPERATOR
) -> Told:
    asked = request("POST", "/trimtab/v1/records", actor=actor, body=body)
    return converse(handle(asked, knows), dialogue, knows)


BEGIN: dict[str, Any] = {"act": "volume.hold", "object": "alice-data"}


def held(knows: GateState, act: str = "dump", **more: Any) -> str:
    running = {"Id": WEB, "Names": ["/alice-web"]}
    steps: list[Step] = [(LOOK, reply(DATA)), users(running), ("operator", RECORDED)]
    told = ask(knows, steps, BEGIN | {"for": act} | more)
    assert told.status == 200, told.value
    assert told.json["users"] == [{"id": WEB, "name": "alice-web"}]
    return str(told.json["id"])


def start(knows: GateState, actor: Actor = ALICE) -> Told:
    asked = request("POST", f"/containers/{WEB}/start", actor=actor)
    look = ReadEngine(f"/containers/{WEB}/json", ahead=("/volumes/alice-data",))
    steps: list[Step] = [(look, reply(inspect(WEB, "alice-web", "alice"))), ("refusal", RECORDED)]
    return converse(handle(asked, knows), steps, knows)


def test_no_container_with_a_held_volume_is_started() -> None:
    knows = mounted()
    held(knows)
    assert (start(knows).status, start(knows).rule) == (409, "volume.held")


def test_a_held_volume_is_neither_held_again_nor_removed() -> None:
    knows = mounted()
    held(knows, "restore")
    again = ask(knows, [(LOOK, reply(DATA)), ("refusal", RECORDED)], BEGIN | {"for": "dump"})
    assert again.rule == "volume.held"
    asked = request("DELETE", "/volumes/alice-data", actor=OPERATOR)
    steps: list[Step] = [(LOOK, reply(DATA)), ("refusal", RECORDED)]
    assert converse(handle(asked, knows), steps, knows).rule == "volume.held"


def test_a_live_dump_holds_nobody_up_and_a_restore_is_never_live() -> None:
    knows = mounted()
    held(knows, live=True)
    assert knows.inventory.holds["alice-data"].users == ()
    refused = ask(mounted(), [("refusal", RECORDED)], BEGIN | {"for": "restore", "live": True})
    assert refused.rule == "body.invalid"


def test_a_running_stranger_can_only_be_dumped_live() -> None:
    stranger = {"Id": "f" * 64, "Names": ["/db-1"]}
    steps: list[Step] = [(LOOK, reply(DATA)), users(stranger)]
    look: Step = (ReadEngine(f"/containers/{WEB}/json"), reply({"State": {"Running": False}}))
    for act in ("dump", "restore"):
        told = ask(mounted(), [*steps, look, ("refusal", RECORDED)], BEGIN | {"for": act})
        assert told.rule == "volume.in-use"
    told = ask(
        mounted(), [*steps, look, ("operator", RECORDED)], BEGIN | {"for": "dump", "live": True}
    )
    assert told.status == 200


def test_nothing_is_held_without_a_record_and_by_nobody_but_operators() -> None:
    knows = mounted()
    running = {"Id": WEB, "Names": ["/alice-web"]}
    steps: list[Step] = [(LOOK, reply(DATA)), users(running), ("operator", UNRECORDED)]
    assert ask(knows, steps, BEGIN | {"for": "dump"}).status == 503
    assert knows.inventory.holds == {}
    for actor in (CONTROLLER, ALICE):
        told = ask(mounted(), [("refusal", RECORDED)], BEGIN | {"for": "dump"}, actor=actor)
        assert told.rule == "role.denied"


def summary_of(told: Told) -> Any:
    """Return the summary of the last record."""
    return told.entries[-1].request["summary"]


def ended(knows: GateState, identifier: str, **more: Any) -> dict[str, Any]:
    return {
        "act": "volume.end",
        "object": "alice-data",
        "id": identifier,
        "outcome": "succeeded",
        **more,
    }


def restarting() -> list[Step]:
    """Return the steps in which WEB is started; its admission is not looked at in this test."""
    return [
        (
            ReadEngine(f"/containers/{WEB}/json", ahead=("/volumes/alice-data",)),
            reply({"message": "gone"}, 404),
        ),
        ("read", RECORDED),
    ]


def test_the_end_of_a_dump_is_recorded_with_its_digest_and_remembered() -> None:
    knows = mounted()
    identifier = held(knows)
    told = ask(
        knows,
        [*restarting(), ("operator", RECORDED)],
        ended(knows, identifier, digest="sha256:abc", bytes=12, files=3),
    )
    assert told.status == 200
    assert [each["name"] for each in told.json["failed"]] == ["alice-web"]
    summary = summary_of(told)
    assert (summary["digest"], summary["sizeBytes"], summary["fileCount"]) == ("sha256:abc", 12, 3)
    assert knows.inventory.holds == {}
    assert knows.inventory.volumes["alice-data"].dumped


def test_a_failed_dump_is_no_dump() -> None:
    knows = mounted()
    body = ended(knows, held(knows), outcome="failed")
    ask(knows, [*restarting(), ("operator", RECORDED)], body)
    assert knows.inventory.volumes["alice-data"].dumped == ""


def test_only_the_command_of_a_hold_renews_and_ends_it() -> None:
    knows = mounted()
    identifier = held(knows)
    for act in ("renew-hold", "volume.end"):
        body = {"act": act, "object": "alice-data", "id": "other"}
        more = {"outcome": "failed"} if act == "volume.end" else {}
        assert ask(knows, [("refusal", RECORDED)], body | more).rule == "volume.hold-lost"
    body = {"act": "renew-hold", "object": "alice-data", "id": identifier}
    assert ask(knows, [], body).status == 200


def test_a_hold_ends_when_its_command_is_silent_also_at_the_next_broker() -> None:
    knows = mounted()
    identifier = held(knows)
    at(knows, LEASE_S - 1)
    assert converse(end_expired_holds(knows), [], knows).value == 0
    ask(knows, [], {"act": "renew-hold", "object": "alice-data", "id": identifier})
    at(knows, LEASE_S - 1)
    assert converse(end_expired_holds(knows), [], knows).value == 0
    kept: Inventory = from_json(json.loads(json.dumps(to_json(knows.inventory))))
    assert kept.holds == knows.inventory.holds
    later = state(kept)
    at(later, LEASE_S)
    told = converse(end_expired_holds(later), [*restarting(), ("operator", RECORDED)], later)
    assert told.value == 1
    assert summary_of(told)["outcome"] == "failed"
    assert later.inventory.holds == {}


def test_a_restore_that_died_amid_the_exchange_starts_nobody() -> None:
    knows = mounted()
    identifier = held(knows, "restore")
    at(knows, LEASE_S)
    look = InspectPaths((MARKER,))
    down: Step = (ReadEngine(f"/containers/{WEB}/json"), reply({"State": {"Running": False}}))
    told = converse(end_expired_holds(knows), [(look, (PathFacts(MARKER, "file"),)), down], knows)
    assert told.value == 0
    refused = ask(
        knows,
        [(look, (PathFacts(MARKER, "file"),)), ("refusal", RECORDED)],
        ended(knows, identifier),
    )
    assert refused.rule == "volume.unfinished"
    at(knows, 2 * LEASE_S)
    missing = (look, (PathFacts(MARKER, "missing"),))
    steps = [missing, *restarting(), ("operator", RECORDED)]
    assert converse(end_expired_holds(knows), steps, knows).value == 1


def test_a_hold_that_ends_is_not_renewed() -> None:
    knows = mounted()
    identifier = held(knows, "restore")
    at(knows, LEASE_S)
    flow = end_expired_holds(knows)
    assert next(flow) == InspectPaths((MARKER,))
    renewal = {"act": "renew-hold", "object": "alice-data", "id": identifier}
    assert ask(knows, [("refusal", RECORDED)], renewal).rule == "volume.hold-lost"
    # The marker came first: the hold stays.
    assert isinstance(flow.send((PathFacts(MARKER, "file"),)), ReadEngine)
    with pytest.raises(StopIteration):
        flow.send(reply({"State": {"Running": False}}))
    assert ask(knows, [], renewal).status == 200


def test_a_hold_whose_containers_were_started_without_a_record_is_not_renewed() -> None:
    knows = mounted()
    identifier = held(knows)
    at(knows, LEASE_S)
    steps = [*restarting(), ("operator", UNRECORDED)]
    assert converse(end_expired_holds(knows), steps, knows).value == 0
    renewal = {"act": "renew-hold", "object": "alice-data", "id": identifier}
    assert ask(knows, [("refusal", RECORDED)], renewal).rule == "volume.hold-lost"


def test_what_the_engine_itself_starts_on_incomplete_data_is_stopped() -> None:
    knows = mounted()
    held(knows, "restore")
    at(knows, LEASE_S)
    up = inspect(WEB, "alice-web", "alice")
    up["State"] = {"Running": True, "Status": "running"}
    told = converse(
        end_expired_holds(knows),
        [
            (InspectPaths((MARKER,)), (PathFacts(MARKER, "file"),)),
            (ReadEngine(f"/containers/{WEB}/json"), reply(up)),
            (ReadEngine(f"/containers/{WEB}/json"), reply(up)),
            ("intent", RECORDED),
            (Forward("POST", f"/containers/{WEB}/stop", by="id-2"), Reply(204)),
            ("outcome", RECORDED),
        ],
        knows,
    )
    assert told.value == 0
    assert [*knows.inventory.holds] == ["alice-data"]


def test_a_silent_hold_waits_for_an_engine_that_is_away() -> None:
    knows = mounted()
    held(knows)
    at(knows, LEASE_S)
    look = ReadEngine(f"/containers/{WEB}/json", ahead=("/volumes/alice-data",))
    told = converse(end_expired_holds(knows), [(look, Lost(sent=False, reason="refused"))], knows)
    assert (told.value, [*knows.inventory.holds]) == (0, ["alice-data"])


def test_a_hold_waits_for_a_start_that_was_admitted_before() -> None:
    knows = mounted()
    start_of: dict[str, object] = {"route": "container.start", "object": WEB}
    opened = {"s": OpenIntent(1, "", "client", start_of)}
    knows.inventory = replace(knows.inventory, open=opened)
    knows.intents.in_flight.add("s")
    look: Step = (ReadEngine(f"/containers/{WEB}/json"), reply({"State": {"Running": False}}))
    steps: list[Step] = [(LOOK, reply(DATA)), users(), look, ("refusal", RECORDED)]
    assert ask(knows, steps, BEGIN | {"for": "restore"}).rule == "held"
    assert knows.inventory.holds == {}


def test_the_end_of_one_hold_starts_no_container_with_another_held_volume() -> None:
    knows = mounted()
    identifier = held(knows)
    other = VolumeHold("other", "alice-more", "restore", live=False, users=(), time="")
    web = knows.inventory.containers[WEB]
    both = Confinement(mounts=(MOUNT, ExpectedMount("volume", "/more", source="alice-more")))
    knows.inventory = replace(
        knows.inventory,
        containers={**knows.inventory.containers, WEB: replace(web, confined=both)},
        holds={**knows.inventory.holds, "alice-more": other},
    )
    look = ReadEngine(
        f"/containers/{WEB}/json", ahead=("/volumes/alice-data", "/volumes/alice-more")
    )
    found: Step = (look, reply(inspect(WEB, "alice-web", "alice")))
    told = ask(knows, [found, ("operator", RECORDED)], ended(knows, identifier))
    assert told.status == 200
    assert "the volume alice-more is held" in told.json["failed"][0]["reason"]


def test_a_container_that_is_down_for_another_hold_is_started_by_the_last_one() -> None:
    knows = mounted()
    other = VolumeHold("other", "alice-more", "dump", live=False, users=(WEB,), time="")
    knows.inventory = replace(knows.inventory, holds={"alice-more": other})
    steps: list[Step] = [(LOOK, reply(DATA)), users(), ("operator", RECORDED)]
    told = ask(knows, steps, BEGIN | {"for": "restore"})
    assert told.json["users"] == [{"id": WEB, "name": "alice-web"}]
    assert knows.inventory.holds["alice-data"].users == (WEB,)


@pytest.mark.parametrize(
    "body",
    [
        {"for": "copy"},
        {"for": "dump", "live": "yes"},
        {"for": "dump", "more": 1},
        {"for": "dump", "object": ""},
        {},
    ],
)
def test_a_hold_that_cannot_be_read_is_refused(body: dict[str, Any]) -> None:
    told = ask(mounted(), [("refusal", RECORDED)], BEGIN | body)
    assert (told.status, told.rule) == (400, "body.invalid")
