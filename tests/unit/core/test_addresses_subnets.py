"""Subnets of networks: off what is taken, halved, and known again by an inspect."""

from __future__ import annotations

from typing import Any

from controller.core import addresses

POOL = "10.208.0.0/12"


def shown(subnet: str, ip_range: str = "", **more: str) -> dict[str, Any]:
    pool = {"Subnet": subnet, **({"IPRange": ip_range} if ip_range else {}), **more}
    return {"IPAM": {"Driver": "default", "Config": [pool]}}


def test_the_first_subnet_is_chosen_that_overlaps_nothing() -> None:
    assert addresses.choose_subnet((POOL,), ()) == "10.208.0.0/21"
    taken = ("10.208.0.0/21", "10.208.12.0/24", "fd00::/8", "no subnet", "10.208.16.9/30")
    assert addresses.choose_subnet((POOL,), taken) == "10.208.24.0/21"
    assert (
        addresses.choose_subnet((POOL, "192.168.128.0/18"), ("10.0.0.0/8",)) == "192.168.128.0/21"
    )


def test_without_room_or_pools_none_is_chosen() -> None:
    assert addresses.choose_subnet((POOL,), ("0.0.0.0/0",)) == ""
    assert addresses.choose_subnet((), ()) == ""
    assert addresses.choose_subnet(("10.9.9.0/24",), ("10.9.9.128/25",)) == ""


def test_a_small_pool_is_one_subnet() -> None:
    assert addresses.choose_subnet(("10.9.9.0/24",), ()) == "10.9.9.0/24"


def test_slots_have_the_lower_half_and_the_engine_chooses_from_the_upper_one() -> None:
    assert addresses.dynamic_range("10.208.8.0/21") == "10.208.12.0/22"
    assert addresses.gateway_of("10.208.8.0/21") == "10.208.8.1"


def test_an_inspect_tells_whether_a_network_has_slot_addresses() -> None:
    halved = shown("10.208.8.0/21", "10.208.12.0/22", Gateway="10.208.8.1")
    assert addresses.slot_subnet(halved) == "10.208.8.0/21"
    halved["IPAM"]["Config"].append({"Subnet": "fd00::/64"})
    assert addresses.slot_subnet(halved) == "10.208.8.0/21"
    assert addresses.slot_subnet(shown("172.18.0.0/16")) == ""
    assert addresses.slot_subnet(shown("10.208.8.0/21", "10.208.8.0/22")) == ""
    assert addresses.slot_subnet(shown("10.9.9.0/25", "10.9.9.64/26")) == "", "too small"
    assert addresses.slot_subnet({"IPAM": {"Config": None}}) == ""
    assert addresses.slot_subnet({}) == ""


def test_subnets_of_networks_are_listed() -> None:
    found = addresses.subnets_of((shown("10.1.0.0/16"), {"IPAM": {"Config": []}}, {}))
    assert found == ("10.1.0.0/16",)
