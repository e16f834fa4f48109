"""The address of a slot: its own from its first container on, and nobody else's."""

from __future__ import annotations

from dataclasses import replace

from controller.core import addresses as slots
from controller.model.inventory import ContainerItem, Inventory
from controller.model.observed import Settings

NET, SUBNET = "n" * 64, "10.208.0.0/21"
WEB1, WEB2, DB1 = (slots.slot_key("default", *pair) for pair in (("web", 1), ("web", 2), ("db", 1)))


def known(**addresses: str) -> Inventory:
    """Return an inventory that remembers addresses, by SERVICE_SLOT."""
    pairs = ([*pair[0].split("_"), pair[1]] for pair in addresses.items())
    return Inventory(addresses={NET: {slots.slot_key("default", s, n): a for s, n, a in pairs}})


def item(identifier: str, service: str = "web", slot: int = 1) -> ContainerItem:
    settings = Settings(name=identifier)
    return ContainerItem(
        identifier, "default", service, slot, "v1", "me", "controller", "i", "x", settings
    )


def address(inventory: Inventory, slot: str, *, subnet: str = SUBNET, **more: object) -> str:
    given = {"held": {}, **more}
    return slots.slot_address(inventory, slot, network=NET, subnet=subnet, **given)  # type: ignore[arg-type]


def test_a_new_slot_gets_the_lowest_address_that_nobody_ever_had() -> None:
    assert address(Inventory(), WEB1) == "10.208.0.2"
    inventory = known(web_1="10.208.0.2", gone_1="10.208.0.3")
    assert address(inventory, WEB2) == "10.208.0.4"
    assert address(inventory, WEB2, held={"10.208.0.4": "stranger"}) == "10.208.0.5"


def test_a_slot_keeps_its_address() -> None:
    assert address(known(db_1="10.208.0.2", web_1="10.208.0.9"), WEB1) == "10.208.0.9"


def test_an_address_that_another_container_has_now_is_not_given_out() -> None:
    inventory = known(web_1="10.208.0.9")
    held = {"10.208.0.9": "predecessor"}
    assert address(inventory, WEB1, held=held) == "", "it has not made way"
    assert address(inventory, WEB1, held=held, own={"predecessor"}) == "10.208.0.9"


def test_without_a_memory_the_address_of_the_slots_container_is_kept() -> None:
    held = {"10.208.0.7": "mine", "10.208.0.2": "other"}
    assert address(Inventory(), WEB1, held=held, own={"mine"}) == "10.208.0.7"
    dynamic = {"10.208.4.7": "mine"}
    assert address(Inventory(), WEB1, held=dynamic, own={"mine"}) == "10.208.0.2"


def test_when_all_addresses_were_used_the_slot_without_containers_gives_its_own() -> None:
    full = {slots.slot_key("default", f"s{n}", 1): f"10.9.9.{n}" for n in range(2, 8)}
    inventory = Inventory(addresses={NET: full}, containers={"c": item("c", "s2")})
    assert address(inventory, WEB1, subnet="10.9.9.0/28") == "10.9.9.3", "the oldest without one"
    everyone = {f"c{n}": item(f"c{n}", f"s{n}") for n in range(2, 8)}
    assert address(replace(inventory, containers=everyone), WEB1, subnet="10.9.9.0/28") == ""


def test_an_address_belongs_to_one_slot_and_the_last_one_named_comes_last() -> None:
    inventory = known(web_1="10.208.0.2", db_1="10.208.0.3")
    again = slots.with_addresses(inventory, WEB1, {NET: "10.208.0.2"})
    assert [*again[NET]] == [DB1, WEB1]
    taken = slots.with_addresses(inventory, WEB2, {NET: "10.208.0.3"})
    assert taken == {NET: {WEB1: "10.208.0.2", WEB2: "10.208.0.3"}}


def test_a_moved_service_takes_its_addresses_with_it() -> None:
    inventory = known(web_1="10.208.0.2", db_1="10.208.0.3")
    moved = slots.moved_addresses(inventory, "default/web", "default/shop")
    assert moved == {NET: {"default/shop/1": "10.208.0.2", DB1: "10.208.0.3"}}


def test_only_replicas_of_services_have_slots() -> None:
    assert slots.key_of(item("a")) == WEB1
    assert slots.key_of(replace(item("a"), origin="client")) == ""
    assert slots.key_of(replace(item("a"), is_run=True)) == ""
