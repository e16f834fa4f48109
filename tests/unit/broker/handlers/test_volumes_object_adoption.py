"""Adoption of a foreign volume or network at the gate: recorded, and known by its identity."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from controller.broker.dispatch import handle
from controller.broker.gate.commands import ReadEngine
from controller.broker.gate.state import GateState
from controller.core.records.inventory_json import from_json, to_json
from controller.model.inventory import Inventory, OwnedObject
from controller.model.records import Actor
from tests.unit.broker.dialogue import (
    ALICE,
    CONTROLLER,
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

MADE = "2026-01-02T03:04:05Z"
VOLUME: dict[str, Any] = {
    "Name": "shop_data",
    "Driver": "local",
    "Options": None,
    "Labels": {},
    "CreatedAt": MADE,
}
NETWORK: dict[str, Any] = {
    "Id": "e" * 64,
    "Name": "shop_default",
    "Driver": "bridge",
    "Internal": True,
    "Options": {},
    "IPAM": {"Driver": "default"},
    "Labels": {},
}
BODY = {
    "act": "adopt-object",
    "kind": "volume",
    "object": "shop_data",
    "namespace": "shop",
    "owner": "team",
}
LOOK = ReadEngine("/volumes/shop_data")


def users(kind: str, value: str) -> ReadEngine:
    filters = quote(json.dumps({kind: [value]}, separators=(",", ":")), safe="")
    return ReadEngine(f"/containers/json?all=1&filters={filters}")


def ask(knows: GateState, dialogue: list[Step], *, actor: Actor = OPERATOR, **body: Any) -> Told:
    asked = request("POST", "/trimtab/v1/records", actor=actor, body=BODY | body)
    return converse(handle(asked, knows), dialogue, knows)


def adopted(knows: GateState | None = None) -> GateState:
    knows = knows or state()
    told = ask(
        knows,
        [(LOOK, reply(VOLUME)), (users("volume", "shop_data"), reply([])), ("operator", RECORDED)],
    )
    assert told.status == 200
    return knows


def test_an_adopted_volume_is_in_the_inventory_with_its_identity():
    knows = adopted()
    item = knows.inventory.volumes["shop_data"]
    assert (item.namespace, item.owner, item.origin, item.adopted) == (
        "shop",
        "team",
        "controller",
        MADE,
    )
    kept: Inventory = from_json(json.loads(json.dumps(to_json(knows.inventory))))
    assert kept.volumes == knows.inventory.volumes


def test_an_adopted_volume_is_shown_until_another_one_has_its_name():
    knows = adopted()
    get = request("GET", "/volumes/shop_data", actor=CONTROLLER)
    assert converse(handle(get, knows), [(LOOK, reply(VOLUME))], knows).status == 200
    again = VOLUME | {"CreatedAt": "2026-01-02T03:04:06Z"}
    told = converse(handle(get, knows), [(LOOK, reply(again)), ("refusal", RECORDED)], knows)
    assert told.rule == "foreign"


def test_lists_show_adopted_objects_and_no_foreign_ones():
    knows = adopted()
    listed = {"Volumes": [VOLUME, VOLUME | {"Name": "stray"}], "Warnings": None}
    get = request("GET", "/volumes", actor=CONTROLLER)
    told = converse(handle(get, knows), [(ReadEngine("/volumes"), reply(listed))], knows)
    assert [each["Name"] for each in told.json["Volumes"]] == ["shop_data"]
    told = converse(
        handle(request("GET", "/volumes", actor=ALICE), knows),
        [(ReadEngine("/volumes"), reply(listed))],
        knows,
    )
    assert told.json["Volumes"] == []


def test_a_network_is_known_by_its_id():
    knows = state()
    told = ask(
        knows,
        [
            (ReadEngine("/networks/shop_default"), reply(NETWORK)),
            (users("network", "e" * 64), reply([])),
            ("operator", RECORDED),
        ],
        kind="network",
        object="shop_default",
    )
    assert told.status == 200
    assert knows.inventory.networks["e" * 64].adopted == "e" * 64


def test_the_controller_removes_no_adopted_network() -> None:
    made = OwnedObject("e" * 64, "shop_default", "shop", "team", "controller", "i", "e" * 64)
    knows = state(Inventory(networks={"e" * 64: made}))
    asked = request("DELETE", "/networks/shop_default", actor=CONTROLLER)
    look: Step = (ReadEngine("/networks/shop_default"), reply(NETWORK))
    told = converse(handle(asked, knows), [look, ("refusal", RECORDED)], knows)
    assert (told.status, told.rule) == (403, "network.adopted")


def test_a_volume_with_a_running_stranger_is_refused_and_nothing_recorded():
    knows = state()
    stranger = {"Id": "f" * 64, "Names": ["/db-1"], "State": "running"}
    told = ask(
        knows,
        [
            (LOOK, reply(VOLUME)),
            (users("volume", "shop_data"), reply([stranger])),
            ("refusal", RECORDED),
        ],
    )
    assert (told.status, told.rule) == (403, "adopt.in-use")
    assert knows.inventory.volumes == {}


def test_only_operators_adopt_what_exists():
    assert ask(state(), [("refusal", RECORDED)], actor=CONTROLLER).rule == "role.denied"
    assert ask(state(), [("refusal", RECORDED)], actor=ALICE).rule == "role.denied"
    told = ask(state(), [(LOOK, NOT_FOUND), ("refusal", RECORDED)])
    assert (told.status, told.rule) == (404, "adopt.unknown")
    assert ask(state(), [("refusal", RECORDED)], kind="container").rule == "body.invalid"
