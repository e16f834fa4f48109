"""Addresses that requests choose: of containers, of IPv6 networks, and on the host's own network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from controller.core.addresses import slot_address
from controller.core.admission.networks_volumes import admit_network
from controller.core.engine_api.parse import parse_network
from controller.core.rules.context import CreateFacts, NetworkFacts
from controller.core.rules.verdict import AdmissionDecision
from controller.model import names
from controller.model.inventory import Inventory
from controller.model.policy.document import Policy
from tests.unit.core.creates import (
    CLIENT,
    CONTROLLER,
    FACTS,
    STAMP,
    STRICT,
    denials,
    judged,
    judged_for_controller,
    policy,
)

CHOSEN = policy(networks={"staticAddresses": True})
BACKEND = NetworkFacts(
    "6" * 64, "backend", ours=True, namespace="default", internal=True, subnet="10.80.4.0/24"
)
ADDRESS = "10.80.4.10"
LAN = {"owner": "alice", "namespace": "default", "parent": "eth0", "range": "192.168.1.192/27"}
OWNERS = [{"name": "alice", "namespaces": ["default"]}, {"name": "bob", "namespaces": ["default"]}]
ON_LAN = policy(owners=OWNERS, networks={"macvlan": [LAN]})


def facts(of: NetworkFacts = BACKEND, *, address: str = ADDRESS) -> CreateFacts:
    networks = {**FACTS.networks, of.name: of}
    return replace(FACTS, networks=networks, addresses={of.name: address})


def endpoints(network: str, address: str, *aliases: str) -> dict[str, Any]:
    end = {"Aliases": list(aliases), "IPAMConfig": {"IPv4Address": address}}
    return {"NetworkingConfig": {"EndpointsConfig": {network: end}}}


def service(
    address: str = ADDRESS,
    *,
    rules: Policy = CHOSEN,
    known: CreateFacts | None = None,
    aliases: tuple[str, ...] = ("web",),
) -> AdmissionDecision:
    return judged_for_controller(
        endpoints("backend", address, *aliases),
        host={"NetworkMode": "backend"},
        rules=rules,
        facts=known or facts(),
    )


def address_of(admission: AdmissionDecision, network: str = "backend") -> str:
    assert admission.body is not None, admission.verdict.reason
    body: Any = admission.body
    end = body["NetworkingConfig"]["EndpointsConfig"][network]
    return str((end.get("IPAMConfig") or {}).get("IPv4Address", ""))


def test_a_service_has_the_address_that_its_document_chose() -> None:
    admission = service()
    assert (denials(admission), address_of(admission)) == ((), ADDRESS)
    summary: Any = admission.summary
    assert summary["slotAddresses"] == {BACKEND.id: ADDRESS}


def test_a_successor_gets_the_chosen_address_with_the_name_of_its_service() -> None:
    admission = service(aliases=())
    assert (denials(admission), address_of(admission)) == ((), "")
    summary: Any = admission.summary
    assert summary["slotAddresses"] == {BACKEND.id: ADDRESS}, "the slot's from now on"


@pytest.mark.parametrize(
    ("address", "known", "rules"),
    [
        (ADDRESS, facts(), STRICT),
        (ADDRESS, facts(address=""), CHOSEN),  # of another slot or container
        ("10.80.4.1", facts(address="10.80.4.1"), CHOSEN),  # the gateway
        ("10.80.4.255", facts(address="10.80.4.255"), CHOSEN),
        ("10.80.5.10", facts(address="10.80.5.10"), CHOSEN),
        ("10.80.4.10/32", facts(), CHOSEN),
        ("fd12::10", facts(), CHOSEN),
        (ADDRESS, facts(replace(BACKEND, subnet="")), CHOSEN),
    ],
)
def test_no_service_has_another_address(address: str, known: CreateFacts, rules: Policy) -> None:
    assert denials(service(address, rules=rules, known=known)) == ("network.address",)


def test_a_client_chooses_addresses_in_networks_of_its_own() -> None:
    for network, rules, refused in (
        ("alice-net", CHOSEN, ()),
        ("alice-net", STRICT, ("network.address",)),
        ("platform-network", CHOSEN, ("network.address",)),
    ):
        admission = judged(endpoints(network, ADDRESS), host={"NetworkMode": network}, rules=rules)
        assert denials(admission) == refused
        if not refused:
            assert address_of(admission, network) == ADDRESS
            summary: Any = admission.summary
            assert "slotAddresses" not in summary


def test_a_slot_keeps_the_chosen_address_from_others() -> None:
    def of(slot: str, asked: str, known: Mapping[str, str], held: Mapping[str, str]) -> str:
        inventory = replace(Inventory(), addresses={"n": dict(known)})
        return slot_address(
            inventory, slot, network="n", subnet="10.80.4.0/24", held=held, own=("me",), asked=asked
        )

    assert of("default/web/1", ADDRESS, {"default/web/1": "10.80.4.2"}, {}) == ADDRESS
    assert of("default/web/1", ADDRESS, {}, {ADDRESS: "me"}) == ADDRESS
    assert of("default/web/1", ADDRESS, {}, {ADDRESS: "other"}) == ""
    assert of("default/db/1", "", {"default/web/1": "10.80.4.2"}, {}) == "10.80.4.3"


# Networks


def network(
    body: dict[str, Any],
    *,
    rules: Policy,
    owner: str = "alice",
    routes: tuple[str, ...] = (),
    client: bool = False,
) -> AdmissionDecision:
    labels = {} if client else {names.OWNER: owner, names.NAMESPACE: "default"}
    return admit_network(
        parse_network({"Name": "backend", "Labels": labels, **body}),
        actor=CLIENT if client else CONTROLLER,
        policy=rules,
        existing=None,
        stamp=STAMP,
        routes=routes,
        subnets=(),
    )


SIX = {"EnableIPv6": True, "Internal": True, "IPAM": {"Config": [{"Subnet": "fd12:3::/64"}]}}
IPV6 = policy(networks={"ipv6": True})


def test_an_ipv6_network_has_addresses_of_slots_too() -> None:
    admission = network(SIX, rules=IPV6)
    assert denials(admission) == ()
    body: Any = admission.body
    assert body["EnableIPv6"] is True
    assert [pool["Subnet"] for pool in body["IPAM"]["Config"]] == ["10.208.0.0/21", "fd12:3::/64"]


@pytest.mark.parametrize(
    ("subnet", "more", "rules", "rule"),
    [
        ("fd12:3::/64", {}, STRICT, "network.ipv6"),
        ("fd12:3::/64", {"EnableIPv6": False}, IPV6, "network.address"),
        ("2001:db8::/64", {}, IPV6, "network.address"),
        ("fd12:3::/48", {}, IPV6, "network.address"),
        ("fd12:4::/64", {}, IPV6, "network.address"),  # the host has a route there
        ("fd12:3::1/64", {}, IPV6, "network.address"),
    ],
)
def test_no_other_ipv6_subnet_is_admitted(
    subnet: str, more: dict[str, Any], rules: Policy, rule: str
) -> None:
    body = {**SIX, "IPAM": {"Config": [{"Subnet": subnet}]}, **more}
    assert denials(network(body, rules=rules, routes=("fd12:4::/56",))) == (rule,)


POOL = {"Subnet": "192.168.1.0/24", "Gateway": "192.168.1.1", "IPRange": "192.168.1.200/32"}
MACVLAN = {"Driver": "macvlan", "Options": {"parent": "eth0"}, "IPAM": {"Config": [POOL]}}


def test_a_macvlan_network_is_made_on_the_granted_interface() -> None:
    admission = network(MACVLAN, rules=ON_LAN, routes=("192.168.1.0/24",))
    assert denials(admission) == ()
    body: Any = admission.body
    assert (body["Driver"], body["Options"]) == ("macvlan", {"parent": "eth0"})
    assert body["IPAM"]["Config"] == [POOL]


@pytest.mark.parametrize(
    ("more", "rules", "rule"),
    [
        ({}, STRICT, "network.driver"),
        ({"Options": {"parent": "eth1"}}, ON_LAN, "network.driver"),
        ({"Options": {}}, ON_LAN, "network.driver"),
        ({"Options": {"parent": "eth0", "macvlan_mode": "passthru"}}, ON_LAN, "network.options"),
        ({"Driver": "ipvlan"}, ON_LAN, "network.driver"),
        ({"Driver": "bridge"}, ON_LAN, "network.options"),
        ({"IPAM": {"Config": []}}, ON_LAN, "network.address"),
        ({"IPAM": {"Config": [{**POOL, "IPRange": ""}]}}, ON_LAN, "network.address"),
        (
            {"IPAM": {"Config": [{**POOL, "IPRange": "192.168.1.128/25"}]}},
            ON_LAN,
            "network.address",
        ),
        ({"IPAM": {"Config": [{**POOL, "Subnet": "10.0.0.0/24"}]}}, ON_LAN, "network.address"),
        ({"Internal": True}, ON_LAN, "network.address"),
    ],
)
def test_no_other_macvlan_network_is_made(more: dict[str, Any], rules: Policy, rule: str) -> None:
    assert rule in denials(network({**MACVLAN, **more}, rules=rules))


def test_a_macvlan_grant_is_for_documents_of_an_owner() -> None:
    assert denials(network(MACVLAN, rules=ON_LAN, owner="bob")) == ("network.driver",)
    assert "network.driver" in denials(network(MACVLAN, rules=ON_LAN, client=True))
    with pytest.raises(ValueError, match="isn't in the list"):
        policy(networks={"macvlan": [LAN]})


def test_an_address_of_the_hosts_network_is_in_the_granted_range() -> None:
    lan = replace(BACKEND, driver="macvlan", internal=False, subnet="")
    for address, refused in (("192.168.1.200", ()), ("192.168.1.1", ("network.address",))):
        admission = service(address, rules=ON_LAN, known=facts(lan, address=""), aliases=())
        assert denials(admission) == refused
        if not refused:
            assert address_of(admission) == address
            summary: Any = admission.summary
            assert "slotAddresses" not in summary
