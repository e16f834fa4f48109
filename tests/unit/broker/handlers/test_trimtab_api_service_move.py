"""The route that records a move: judged by the inventory, recorded, and seen in lists after."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest

from controller.broker.dispatch import handle
from controller.broker.gate.commands import ReadEngine
from controller.core.records.inventory import fold
from controller.model.inventory import Approval
from controller.model.mutations import move_subject
from controller.model.names import service_key
from controller.model.records import Record
from tests.unit.broker.dialogue import (
    ALICE,
    CONTROLLER,
    OPERATOR,
    RECORDED,
    UNRECORDED,
    converse,
    reply,
    request,
    state,
)
from tests.unit.broker.world import SLOT, inventory

SITE = service_key("default", "site")
BODY = {
    "act": "service.moved",
    "object": str(SITE),
    "from": "Service/default/web",
    "owner": "team",
}


def ask(dialogue: Any, actor: Any = CONTROLLER, **changes: object) -> Any:
    knows = state(inventory())
    asked = request("POST", "/trimtab/v1/records", body={**BODY, **changes}, actor=actor)
    return converse(handle(asked, knows), dialogue, knows)


def test_a_move_is_recorded_and_nothing_reaches_the_engine() -> None:
    answer = ask([("operator", RECORDED)])
    assert answer.json == {"id": "id-1"}
    (entry,) = answer.entries
    assert (entry.request["route"], entry.request["object"]) == ("service.moved", str(SITE))
    assert entry.request["summary"] == {
        "act": "service.moved",
        "labels": {
            "io.trimtab.namespace": "default",
            "io.trimtab.service": "site",
            "io.trimtab.owner": "team",
        },
        "movedFrom": "Service/default/web",
    }
    known = inventory()
    after = fold(known, Record(known.seq + 1, "2026-01-01T00:00:00.000Z", entry, "", ""))
    moved = after.containers[SLOT]
    assert (moved.service, moved.former, moved.aliases) == ("site", "web", ("web",))
    # The containers of clients with that label are nobody's service.
    assert {i.service for i in after.containers.values() if i.id != SLOT} == {"web"}


def test_without_a_record_nothing_is_moved() -> None:
    assert ask([("operator", UNRECORDED)]).rule == "journal.unavailable"


@pytest.mark.parametrize(
    ("changes", "rule", "status"),
    [
        ({"owner": "alice"}, "move.owner", 403),
        ({"object": "Service/lab/site"}, "move.namespace", 403),
        ({"from": "Service/default/none"}, "move.nothing", 409),
        ({"object": "Job/default/site"}, "body.invalid", 400),
        ({"also": 1}, "body.invalid", 400),
    ],
)
def test_a_claim_that_the_inventory_does_not_bear_is_refused_and_recorded(
    changes: dict[str, object], rule: str, status: int
) -> None:
    answer = ask([("refusal", RECORDED)], **changes)
    assert (answer.rule, answer.value.status) == (rule, status)


def test_no_client_moves_a_service() -> None:
    assert ask([("refusal", RECORDED)], ALICE).rule == "role.denied"


def test_an_operator_gives_a_service_to_another_owner() -> None:
    answer = ask([("operator", RECORDED)], OPERATOR, owner="alice")
    assert answer.entries[0].request["summary"]["labels"]["io.trimtab.owner"] == "alice"


def of_plan(plan: str) -> tuple[str, str]:
    claims = json.dumps({"cause": "c", "plan": plan}).encode()
    return "trimtab-context", urlsafe_b64encode(claims).decode().rstrip("=")


def test_a_move_to_another_owner_uses_up_its_approval() -> None:
    subject = move_subject(service_key("default", "web"), SITE, "alice", [SLOT])
    approval = Approval("a", "0" * 64, (subject,), "2026-01-01T00:00:00.000Z")
    known = inventory(approvals={"a": approval})
    body = {**BODY, "owner": "alice"}

    def moved(plan: str, step: str) -> Any:
        knows = state(known)
        knows.remember_time("a")
        asked = request(
            "POST", "/trimtab/v1/records", body=body, actor=CONTROLLER, headers=[of_plan(plan)]
        )
        return converse(handle(asked, knows), [(step, RECORDED)], knows)

    assert moved("1" * 64, "refusal").rule == "move.owner", "it is bound to its plan"
    (entry,) = moved("0" * 64, "operator").entries
    assert entry.verdict["rules"] == ["approval:a"]
    after = fold(known, Record(known.seq + 1, "2026-01-01T00:00:00.000Z", entry, "", ""))
    assert after.approvals["a"].used == (subject,)
    assert after.containers[SLOT].owner == "alice"


def test_a_list_by_the_present_name_has_the_moved_containers() -> None:
    knows = state(inventory())
    moved = replace(knows.inventory.containers[SLOT], service="site", former="web")
    knows.inventory = replace(
        knows.inventory, containers={**knows.inventory.containers, SLOT: moved}
    )
    asked = quote(json.dumps({"label": ["io.trimtab.service=site"]}))
    # The engine knows the name in the labels, so it isn't asked by name.
    filters = quote('{"label":["io.trimtab.instance=i1"]}', safe="")
    others = [each for each in knows.inventory.containers if each != SLOT]
    was = {"io.trimtab.service": "web", "io.trimtab.namespace": "default"}
    rows = [{"Id": each, "Labels": was} for each in (SLOT, *others)]
    look = ReadEngine(f"/containers/json?filters={filters}")
    told = request("GET", f"/containers/json?filters={asked}", actor=CONTROLLER)
    answer = converse(handle(told, knows), [(look, reply(rows))], knows)
    assert answer.json == [{"Id": SLOT, "Labels": {**was, "io.trimtab.service": "site"}}]
