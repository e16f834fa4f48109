"""A move of a service: what a usurped controller could take by it, and what the inventory shows after."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from controller.core.admission.dns_names import DnsNames, of_item
from controller.core.admission.service_move import MoveRequest, judge_move, read_move, subject_of
from controller.core.records.container_effects import move_service
from controller.core.records.inventory_json import from_json, replica_of, to_json
from controller.model.confinement import Confinement
from controller.model.inventory import (
    ContainerItem,
    Inventory,
    OpenIntent,
    RecordTime,
    TakenDown,
)
from controller.model.names import Key, job_key, service_key
from controller.model.observed import JobMemory, Settings
from controller.model.policy.document import Policy
from controller.model.records import Role

API, WEB = service_key("shop", "api"), service_key("shop", "web")
BODY = {"act": "service.moved", "object": str(WEB), "from": str(API), "owner": "team"}
LISTED = {
    "owners": [
        {"name": "team", "namespaces": ["shop"]},
        {"name": "rival", "namespaces": ["shop", "lab"]},
    ]
}


def item(service: str = "api", slot: int = 1, **changes: object) -> ContainerItem:
    more: dict[str, Any] = {"confined": Confinement(), **changes}
    admitted = Settings(name=f"shop.{service}.{slot}-0a0a0a0a", networks=("platform-network.shop",))
    made = ContainerItem(
        id=f"{service}{slot}".ljust(64, "0"),
        namespace="shop",
        service=service,
        slot=slot,
        revision="v2:" + "0a" * 32,
        owner="team",
        origin="controller",
        intent="i",
        image="ghcr.io/p/web:1",
        admitted=admitted,
        started=True,
    )
    return replace(made, **more)


def inventory(*items: ContainerItem) -> Inventory:
    replicas = {i.id: replica_of(i, up=RecordTime()) for i in items if i.origin == "controller"}
    return Inventory(containers={i.id: i for i in items}, replicas=replicas)


def rules(
    known: Inventory,
    *,
    role: Role = Role.CONTROLLER,
    policy: Policy | None = None,
    in_use: tuple[DnsNames, ...] = (),
    asks: Mapping[str, object] = MappingProxyType({}),
    owner: str = "team",
    approved: bool = False,
) -> list[str]:
    asked = read_move({**BODY, "owner": owner, **asks})
    assert isinstance(asked, MoveRequest), asked
    found = judge_move(
        asked,
        known,
        role=role,
        policy=policy or Policy(name="t"),
        names_in_use=in_use,
        approved=approved,
    )
    return [finding.rule for finding in found]


def policy(**members: object) -> Policy:
    return Policy.model_validate_json(json.dumps({"name": "t", **members}))


def test_a_service_goes_on_under_another_name_of_its_namespace() -> None:
    assert rules(inventory(item(), item(slot=2))) == []
    assert rules(inventory(item()), policy=policy(**LISTED)) == []


@pytest.mark.parametrize(
    ("known", "changes", "rule"),
    [
        # Another owner's service can't be taken, also not by claiming its owner's name for one slot.
        (inventory(item(owner="rival")), {}, "move.owner"),
        (inventory(item()), {"owner": "rival"}, "move.owner"),
        (inventory(item(), item(slot=2, owner="rival")), {}, "move.owner"),
        (inventory(item()), {"object": "Service/lab/web"}, "move.namespace"),
        (inventory(item()), {"object": str(API)}, "move.self"),
        (inventory(), {}, "move.nothing"),
        # A client's container is nobody's service, whatever its labels say.
        (inventory(item(origin="client")), {}, "move.nothing"),
        (inventory(item(is_run=True)), {}, "move.nothing"),
        # Two services are never merged: one of them would lose its slots.
        (inventory(item(), item("web")), {}, "move.taken"),
        (inventory(item(), item("web", owner="rival")), {}, "move.taken"),
        (inventory(item(), item("web", is_run=True)), {}, "move.taken"),
        (
            replace(inventory(item()), jobs={job_key("shop", "web"): JobMemory(last=1)}),
            {},
            "move.taken",
        ),
    ],
)
def test_what_a_usurped_controller_claims_is_refused(
    known: Inventory, changes: dict[str, str], rule: str
) -> None:
    assert rule in rules(known, asks=changes)


def test_an_owner_moves_services_within_the_namespaces_of_the_policy() -> None:
    lab = {"object": "Service/lab/web", "from": "Service/lab/api"}
    there = inventory(item(namespace="lab"))
    assert "owner.namespace" in rules(there, policy=policy(**LISTED), asks=lab)
    rival = inventory(item(namespace="lab", owner="rival"))
    assert rules(rival, policy=policy(**LISTED), owner="rival", asks=lab) == []


@pytest.mark.parametrize("service", ["api", "web"])
def test_no_service_is_moved_into_or_out_of_an_exception(service: str) -> None:
    exception = {
        "owner": "team",
        "namespace": "shop",
        "service": service,
        "repository": "ghcr.io/p/web",
        "loosens": {"capAdd": ["NET_ADMIN"]},
        "reason": "it routes the packets",
        "expires": "2099-01-01",
    }
    known, excepted = inventory(item()), policy(exceptions=[exception])
    assert rules(known, policy=excepted) == ["move.exception"]
    assert rules(known, policy=excepted, role=Role.OPERATOR) == []


def test_no_service_leaves_its_namespace() -> None:
    both = {"owners": [{"name": "team", "namespaces": ["shop", "lab"]}]}
    asks = {"object": "Service/lab/web"}
    for role in (Role.CONTROLLER, Role.OPERATOR):
        for approved in (False, True):
            found = rules(
                inventory(item()), role=role, policy=policy(**both), asks=asks, approved=approved
            )
            assert found == ["move.namespace"]


def test_an_approval_covers_no_container_that_was_made_after_it() -> None:
    one, two = item(), item(slot=2)
    asked = read_move(BODY)
    assert isinstance(asked, MoveRequest)
    assert subject_of(asked, inventory(one)) != subject_of(asked, inventory(one, two))
    assert subject_of(asked, inventory(one, two)) == subject_of(asked, inventory(two, one))


def test_an_operator_alone_gives_a_service_to_another_owner() -> None:
    known = inventory(item())
    assert rules(known, owner="rival") == ["move.owner"]
    assert rules(known, owner="rival", role=Role.OPERATOR) == []


@pytest.mark.parametrize("route", ["container.create", "container.adopt"])
@pytest.mark.parametrize("service", ["api", "web"])
def test_no_create_or_adoption_in_progress_is_left_behind(service: str, route: str) -> None:
    labels = {"io.trimtab.namespace": "shop", "io.trimtab.service": service}
    request: dict[str, object] = {"route": route, "summary": {"labels": labels}}
    known = replace(inventory(item()), open={"x": OpenIntent(1, "", "controller", request)})
    assert rules(known) == ["move.busy"]


def test_a_name_that_another_owners_container_answers_to_is_not_taken_by_a_move() -> None:
    rival = item("db", owner="rival", aliases=("web",))
    known = inventory(item(), rival)
    assert rules(known, in_use=(of_item(item()), of_item(rival))) == ["network.name-taken"]


@pytest.mark.parametrize(
    "changes",
    [
        {"from": "Service/shop"},
        {"from": "Job/shop/api"},
        {"object": "Volume/shop/web"},
        {"object": "Service/shop/../x"},
        {"from": "Service/shop/" + "a" * 28},
        {"owner": "a b"},
        {"owner": ""},
        {"from": 1},
        {"note": "x"},
        {"volumes": []},
    ],
)
def test_a_malformed_request_is_no_move(changes: dict[str, object]) -> None:
    assert isinstance(read_move({**BODY, **changes}), str)
    assert isinstance(read_move({k: v for k, v in BODY.items() if k != "owner"}), str)


def taken(service: str) -> TakenDown:
    return TakenDown("gone", f"shop/{service}", "container.remove", "t", 1, "", closed=True)


def test_a_moved_service_stays_in_the_counts_of_the_disruption_budget() -> None:
    known = replace(inventory(item(), item("db")), taken={"t": taken("api")})
    moved = move_service(known, API, WEB, "team")
    assert {i.service for i in moved.containers.values()} == {"web", "db"}
    assert {r.service for r in moved.replicas.values()} == {"shop/web", "shop/db"}
    assert [t.service for t in moved.taken.values()] == ["shop/web"]
    assert from_json(json.loads(json.dumps(to_json(moved)))) == moved


def test_a_moved_container_keeps_its_identity_and_answers_to_its_former_name() -> None:
    before = item(network_aliases=(("platform-network.shop", ("cache",)),))
    (after,) = move_service(inventory(before), API, WEB, "team").containers.values()
    assert after == replace(
        before,
        service="web",
        former="api",
        aliases=("api",),
        network_aliases=(("platform-network.shop", ("api", "cache")),),
    )
    assert of_item(after).names == {"shop.api.1-0a0a0a0a", "web", "api"}


def test_a_service_that_is_moved_back_has_no_former_name() -> None:
    once = move_service(inventory(item()), API, WEB, "team")
    (back,) = move_service(once, WEB, API, "team").containers.values()
    assert (back.service, back.former) == ("api", "")
    twice = move_service(once, WEB, Key("Service", "shop", "site"), "team")
    (further,) = twice.containers.values()
    assert (further.service, further.former) == ("site", "api")


def test_moves_in_plenty_neither_hide_a_name_that_resolves_nor_fill_the_inventory() -> None:
    known, last = inventory(item()), API
    for number in range(200):
        target = service_key("shop", f"a{number}")
        known, last = move_service(known, last, target, "team"), target
    (after,) = known.containers.values()
    assert "api" in of_item(after).names
    assert after.aliases == ("api",)
    assert after.network_aliases == (("platform-network.shop", ("api",)),)


def test_a_name_under_which_a_network_was_joined_stays_a_name_of_the_container() -> None:
    once = move_service(inventory(item()), API, WEB, "team")
    (joined,) = (replace(i, aliases=("api", "web")) for i in once.containers.values())
    known, last = replace(once, containers={joined.id: joined}), WEB
    for name in ("site", "web", "shop"):
        target = service_key("shop", name)
        known, last = move_service(known, last, target, "team"), target
    (after,) = known.containers.values()
    assert of_item(after).names >= {"api", "web", "shop"}
    assert dict(after.network_aliases)["platform-network.shop"] == ("api", "web")


def test_other_services_and_runs_of_a_job_stay_as_they_are() -> None:
    others = (
        item("db"),
        item(namespace="lab"),
        item(slot=7, is_run=True),
        item(slot=8, origin="client"),
    )
    known = inventory(*others)
    assert move_service(known, API, WEB, "team").containers == known.containers
