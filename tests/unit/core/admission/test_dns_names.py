"""What containers answer to, and who may not answer to it as well."""

from __future__ import annotations

import json
from dataclasses import replace

from controller.core.admission.dns_names import (
    DnsNames,
    clashes,
    make_dns_names,
    of_item,
    of_summary,
)
from controller.core.engine_api.requests import Finding
from controller.core.records.inventory import fold
from controller.core.records.inventory_json import from_json, to_json
from controller.core.records.parts import SummaryPart
from controller.model.inventory import Inventory
from controller.model.observed import Settings
from controller.model.records import Entry, Record
from tests.unit.broker.world import SLOT, WEB, inventory, item, labels

BOBS = DnsNames("bob", frozenset({"isle", "sea"}), frozenset({"db", "cache"}))


def names_taken(mine: DnsNames, *free: str) -> list[str]:
    return [
        finding.reason.partition("answers to '")[2].partition("'")[0]
        for finding in clashes(mine, [BOBS], free=free)
    ]


def test_a_name_clashes_with_another_owners_where_both_are() -> None:
    assert names_taken(make_dns_names("alice", ["sea"], ["DB", "web", "", "cache"])) == [
        "cache",
        "db",
    ]
    assert names_taken(make_dns_names("alice", ["lake"], ["db"])) == []
    assert names_taken(make_dns_names("bob", ["sea"], ["db"])) == []
    assert names_taken(make_dns_names("alice", [], ["db"])) == []


def test_what_the_policy_leaves_to_all_is_nobodys() -> None:
    assert names_taken(make_dns_names("alice", ["sea"], ["db", "cache"]), "DB") == ["cache"]


def test_a_service_that_changes_its_owner_takes_over_from_itself() -> None:
    before = make_dns_names("bob", ["sea"], ["web.1-11111111", "web"], service="default/web")

    def clashing(service: str) -> list[Finding]:
        mine = make_dns_names("alice", ["sea"], ["web.1-22222222", "web"], service=service)
        return list(clashes(mine, [before]))

    assert clashing("default/web") == []
    assert clashing("other/web") and clashing("")
    assert list(clashes(make_dns_names("alice", ["sea"], ["web"]), [replace(before, service="")]))


def test_a_service_answers_where_the_controller_made_it() -> None:
    there = Settings("own-name", networks=("sea",))
    clients = replace(item(WEB, "", "alice"), service="api", admitted=there, aliases=("Host",))
    assert of_item(clients) == make_dns_names("alice", ["sea"], ["own-name", "host"])
    slot = replace(inventory().containers[SLOT], service="api", admitted=there)
    assert of_item(slot) == make_dns_names(
        "team", ["sea"], ["own-name", "api"], service="default/api"
    )


def test_an_open_create_answers_as_its_container_will() -> None:
    summary: dict[str, object] = {
        "name": "soon",
        "labels": labels("team", origin="controller", namespace="default"),
        "settings": {"networks": ["sea"]},
        "answersTo": ["host"],
    }
    answers = ["soon", "web", "host"]
    assert of_summary(SummaryPart.read(summary)) == make_dns_names(
        "team", ["sea"], answers, service="default/web"
    )
    damaged = SummaryPart.read({"name": 1, "answersTo": "x", "labels": []})
    assert of_summary(damaged) == make_dns_names("", [], [])


def changed(known: Inventory, route: str, subject: str, summary: dict[str, object]) -> Inventory:
    """Return an inventory after a change that was made."""
    asked: dict[str, object] = {"route": route, "object": subject, "summary": summary}
    intent = Entry(f"i{known.seq}", "intent", actor={"role": "client"}, request=asked)
    made: dict[str, object] = {"status": 201, "container": WEB}
    outcome = Entry(f"i{known.seq}", "outcome", result=made)
    for entry in (intent, outcome):
        known = fold(known, Record(known.seq + 1, "2026-01-01T12:00:00.000Z", entry, "", ""))
    return known


def test_the_inventory_knows_what_a_container_answers_to_also_after_it_was_saved() -> None:
    created: dict[str, object] = {
        "name": "web",
        "labels": labels("alice"),
        "settings": {"name": "web", "networks": ["isle"]},
        "answersTo": ["host", "web-alias"],
    }
    known = changed(Inventory(), "container.create", "web", created)
    assert known.containers[WEB].aliases == ("host", "web-alias")
    joined: dict[str, object] = {"network": "sea", "answersTo": ["more"]}
    known = changed(known, "network.connect", WEB, joined)
    wanted = make_dns_names("alice", ["isle", "sea"], ["web", "host", "more", "web-alias"])
    assert of_item(known.containers[WEB]) == wanted
    saved = json.loads(json.dumps(to_json(known)))
    assert from_json(saved).containers == known.containers
    # One that was saved before there were names in it.
    for each in saved["containers"]:
        del each["aliases"]
    assert from_json(saved).containers[WEB].aliases == ()
