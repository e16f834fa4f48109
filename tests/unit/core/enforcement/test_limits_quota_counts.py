"""What counts in quotas: the inventory, open creates and reservations, each object once."""

from __future__ import annotations

from dataclasses import replace

from controller.core.enforcement.limits import (
    Counted,
    QuotaUse,
    all_counted,
    count,
    quota_use,
)
from controller.core.rules.context import QuotaCounts
from controller.model import names
from controller.model.inventory import ContainerItem, Inventory, OpenIntent, OwnedObject
from controller.model.observed import Settings
from controller.model.records import Role
from tests.unit.core.creates import policy


def container(key: str, owner: str, origin: str, *ports: str) -> ContainerItem:
    item = ContainerItem(key, "", "s", 0, "", owner, origin, f"i-{key}", "r", Settings("x"))
    return replace(item, ports=ports)


def owned(key: str, owner: str, origin: str, namespace: str = "") -> OwnedObject:
    return OwnedObject(key, key, namespace, owner, origin, f"i-{key}")


def open_create(route: str, owner: str, origin: str) -> OpenIntent:
    labels = {names.OWNER: owner, names.ORIGIN: origin}
    return OpenIntent(1, "", "client", {"route": route, "summary": {"labels": labels}})


INVENTORY = Inventory(
    containers={
        "c1": container("c1", "alice", "client", "127.0.0.1:8080:80/tcp", "::1:8080:80/tcp"),
        "c2": container("c2", "alice", "controller", "127.0.0.1:8000-8100:80/tcp"),
        "c3": container("c3", "operator", "client", "127.0.0.1:9000:80/tcp"),
    },
    volumes={
        "v1": owned("v1", "alice", "client"),
        "v2": owned("v2", "alice", "controller"),
        "v3": owned("v3", "bob", "client"),
    },
    networks={
        "n1": owned("n1", "alice", "client"),
        "n2": owned("n2", "alice", "controller", "default"),
        "n3": owned("n3", "invented", "controller", "default"),
        # The namespace's network, which a container of alice's needed first.
        "n4": owned("n4", "alice", "client", "default"),
    },
    open={
        "i-1": open_create("volume.create", "alice", "client"),
        "i-2": open_create("network.create", "alice", "client"),
        "i-3": open_create("container.start", "alice", "client"),
    },
)


def counts(owner: str, role: Role, reserved: dict[str, Counted] | None = None) -> QuotaCounts:
    return count(all_counted(INVENTORY, reserved or {}), owner=owner, role=role)


def test_a_client_counts_what_its_owner_has_and_what_all_clients_made() -> None:
    assert counts("alice", Role.CLIENT) == QuotaCounts(
        volumes=3, networks=2, ports=3, all_containers=1, all_volumes=3, all_networks=3, all_ports=2
    )


def test_the_controller_counts_what_all_documents_have() -> None:
    assert counts("invented", Role.CONTROLLER) == QuotaCounts(
        volumes=0, networks=0, all_containers=1, all_volumes=1, all_networks=2, all_ports=1
    )


def test_ports_of_a_container_count_from_its_reservation_to_its_end() -> None:
    reserved = Counted("container", "alice", "client", service="s", ports=4)
    assert counts("alice", Role.CLIENT, {"i-9": reserved}).ports == 7
    assert counts("alice", Role.CLIENT, {"i-c1": reserved}).ports == 3
    labels = {names.OWNER: "alice", names.ORIGIN: "client"}
    summary = {"labels": labels, "ports": ["127.0.0.1:8081:80/tcp"]}
    begun = OpenIntent(1, "", "client", {"route": "container.create", "summary": summary})
    creating = replace(INVENTORY, open={"i-9": begun})
    assert count(all_counted(creating, {}), owner="alice", role=Role.CLIENT).all_ports == 3
    left = replace(INVENTORY, containers=INVENTORY.items.lacking("c1"))
    assert count(all_counted(left, {}), owner="alice", role=Role.CLIENT).ports == 1


def test_a_reservation_counts_until_its_object_or_its_intent_does() -> None:
    reserved = Counted("volume", "alice", "client")
    assert counts("alice", Role.CLIENT, {"i-9": reserved}).volumes == 4
    assert counts("alice", Role.CLIENT, {"i-1": reserved}).volumes == 3
    assert counts("alice", Role.CLIENT, {"i-v1": reserved}).volumes == 3


def test_the_fullest_quota_comes_first() -> None:
    rules = policy(quotas={"volumesPerOwner": 3, "clients": {"networks": 4}})
    used = quota_use(all_counted(INVENTORY, {}), rules)
    assert used[0] == QuotaUse("quotas.volumesPerOwner", "alice", 3, 3)
    assert used[1] == QuotaUse("quotas.clients.networks", "", 3, 4)
    assert [use.percent for use in used[:2]] == [100, 75]
    # The operators' are in no sum, and networks of documents in no owner's quota.
    by_key = {(use.key, use.owner): use.count for use in used}
    assert by_key["quotas.clients.containers", ""] == 1
    assert by_key["quotas.perOwner", "operator"] == 1
    assert by_key["quotas.networksPerOwner", "alice"] == 2
    assert by_key["quotas.portsPerOwner", "alice"] == 3
    assert by_key["quotas.documents.ports", ""] == 1
    assert QuotaUse("k", "", 0, 0).percent == 100


def test_a_quota_of_nothing_is_full_only_if_something_is_there() -> None:
    rules = policy(quotas={"documents": {"networks": 0}, "clients": {"networks": 0}})
    none = {use.key: use for use in quota_use({}, rules)}
    assert "quotas.clients.networks" not in none
    assert all(use.percent == 0 for use in none.values())
    some = {use.key: use for use in quota_use(all_counted(INVENTORY, {}), rules)}
    assert some["quotas.clients.networks"].percent == 100
