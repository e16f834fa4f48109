"""What containers answer to, and who may not answer to it as well."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

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
from controller.model.policy.sections import Networks
from controller.model.records import Entry, Record
from tests.unit.broker.world import SLOT, WEB, inventory, item, labels

BOBS = DnsNames("bob", frozenset({"isle", "sea"}), frozenset({"db", "cache"}))


def names_taken(mine: DnsNames, *free: str) -> list[str]:
    return [
        finding.reason.partition("answers to '")[2].partition("'")[0]
        for finding in clashes(mine, [BOBS], policy=Networks(aliases=free))
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
        return list(clashes(mine, [before], policy=Networks()))

    assert clashing("default/web") == []
    assert clashing("other/web") and clashing("")
    mine = make_dns_names("alice", ["sea"], ["web"])
    assert list(clashes(mine, [replace(before, service="")], policy=Networks()))


def rules(mine: DnsNames, *others: DnsNames, **policy: Any) -> list[str]:
    return [found.rule for found in clashes(mine, others, policy=Networks(**policy))]


SHARED, DESK = "platform-network", "0123456789ab" + "c" * 52
RESERVED, TAKEN = "network.name-reserved", "network.name-taken"


@pytest.mark.parametrize(
    "name",
    [
        f"ledger.{SHARED}",
        f"Ledger.{SHARED.upper()}.",
        f"x.ledger.{SHARED}",
        "ledger.platform-ingress.shop",
        "ledger.platform-bridge",
        "ledger.granted",
    ],
)
def test_a_name_in_a_network_that_owners_share_is_reserved_also_while_alone(name: str) -> None:
    mine = make_dns_names("alice", [SHARED], [name])
    assert rules(mine, granted=("granted",)) == [RESERVED]


def test_a_name_in_another_owners_network_is_reserved_if_that_owner_could_ask_for_it() -> None:
    mine = make_dns_names("alice", [SHARED], ["db.bob-net"])
    bobs = make_dns_names("bob", [SHARED, "Bob-Net"], ["desk"])
    assert rules(mine, bobs) == [RESERVED]
    assert rules(mine, replace(bobs, networks=frozenset({"bob-net"}))) == []
    assert rules(replace(mine, owner="bob"), bobs) == []


def test_host_names_with_a_domain_stay_free() -> None:
    mine = make_dns_names("alice", [SHARED], ["db.example.org", f"{SHARED}.example.org", SHARED])
    assert rules(mine, make_dns_names("bob", [SHARED], ["desk"])) == []
    assert rules(make_dns_names("alice", ["alice-net"], ["db.alice-net"])) == []


def test_who_joins_a_network_later_is_refused_where_a_neighbour_has_its_names() -> None:
    alices = make_dns_names("alice", [SHARED], ["db.bob-net"])
    assert rules(make_dns_names("bob", ["bob-net"], ["db"]), alices) == []
    assert rules(make_dns_names("bob", ["bob-net"], ["desk"], joined=[SHARED]), alices) == [TAKEN]
    assert rules(make_dns_names("bob", ["bob-net", SHARED], ["desk"]), alices) == [TAKEN]


def test_who_joins_the_network_of_a_neighbour_with_its_names_is_refused() -> None:
    alices = make_dns_names("alice", [SHARED], ["db.bob-net"])
    assert rules(make_dns_names("bob", [SHARED], ["desk"], joined=["Bob-Net"]), alices) == [TAKEN]
    assert rules(make_dns_names("bob", [SHARED], ["desk"], joined=["other"]), alices) == []


def test_a_new_name_of_one_network_takes_nothing_on_those_joined_before() -> None:
    bobs = make_dns_names("bob", [SHARED], ["cache"])
    assert rules(make_dns_names("alice", ["own"], ["cache"], joined=[SHARED]), bobs) == []


def test_names_that_the_controller_gives_are_its_own_on_every_network() -> None:
    slot = make_dns_names("team", [SHARED], ["web.1-01234567.2"], service="default/web")
    bobs = make_dns_names("bob", [SHARED, "2"], ["desk"])
    assert rules(slot, bobs) == [] == rules(bobs, slot)
    # Only with the controller's own service: a document's host name isn't one of them.
    assert rules(make_dns_names("team", [SHARED], ["web.1-01234567.2"]), bobs) == [RESERVED]


@pytest.mark.parametrize("length", [12, 13, 64])
def test_another_owners_id_is_a_name_of_its_container(length: int) -> None:
    bobs = make_dns_names("bob", [SHARED], ["desk"], identifier=DESK)
    assert rules(make_dns_names("alice", [SHARED], [DESK[:length].upper()]), bobs) == [TAKEN]
    assert rules(make_dns_names("bob", [SHARED], [DESK[:length]]), bobs) == []
    assert rules(make_dns_names("alice", [SHARED], ["f" * length]), bobs) == []
    assert rules(make_dns_names("alice", [SHARED], [DESK[:11]]), bobs) == []


def test_a_service_answers_where_the_controller_made_it() -> None:
    there = Settings("own-name", networks=("sea",))
    clients = replace(item(WEB, "", "alice"), service="api", admitted=there, aliases=("Host",))
    assert of_item(clients) == make_dns_names(
        "alice", ["sea"], ["own-name", "host"], identifier=WEB
    )
    slot = replace(inventory().containers[SLOT], service="api", admitted=there)
    assert of_item(slot) == make_dns_names(
        "team", ["sea"], ["own-name", "api"], service="default/api", identifier=SLOT
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
    answers = ["web", "host", "more", "web-alias"]
    wanted = make_dns_names("alice", ["isle", "sea"], answers, identifier=WEB)
    assert of_item(known.containers[WEB]) == wanted
    saved = json.loads(json.dumps(to_json(known)))
    assert from_json(saved).containers == known.containers
