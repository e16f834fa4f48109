"""Adoption of a foreign volume or network: which objects an operator can vouch for."""

from dataclasses import replace

import pytest

from controller.core.admission.adoption import AdoptionRequest, ObjectUser, judge_object
from controller.model.inventory import OwnedObject
from controller.model.policy.document import Policy

VOLUME = AdoptionRequest("volume", "shop_data", "shop", "team")
NETWORK = AdoptionRequest("network", "shop_default", "shop", "team")
PLAIN = {"Name": "shop_data", "Driver": "local", "Options": None, "Labels": None}
BRIDGE = {
    "Name": "shop_default",
    "Id": "a" * 64,
    "Driver": "bridge",
    "Scope": "local",
    "Internal": True,
    "IPAM": {"Driver": "default"},
    "Options": {},
}
STRICT = Policy.from_json({"name": "strict"})
CLOSED = Policy.from_json({"name": "closed", "networks": {"modes": ["none", "isolated"]}})
LISTED = Policy.from_json(
    {"name": "listed", "owners": [{"name": "team", "namespaces": ["default"]}]}
)
RUNS = ObjectUser("db-1", running=True, ours=False)
OURS = OwnedObject("shop_data", "shop_data", "shop", "team", "controller", "i1")


def rules(request=VOLUME, inspect=None, *, owned=None, users=(), policy=STRICT):
    inspect = inspect or (PLAIN if request.kind == "volume" else BRIDGE)
    found = judge_object(
        request, inspect, owned=owned, users=users, instance="0" * 16, policy=policy
    )
    return [finding.rule for finding in found]


def test_a_plain_volume_and_a_plain_network_can_be_adopted():
    assert rules() == []
    assert rules(NETWORK) == []
    assert rules(NETWORK, BRIDGE | {"Internal": False}) == []


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"Driver": "nfs"}, "volume.options"),
        ({"Options": {"type": "none", "o": "bind", "device": "/etc"}}, "volume.options"),
        ({"Labels": {"io.trimtab.instance": "0" * 16}}, "adopt.labels"),
        ({"Labels": {"io.trimtab.instance": "1" * 16}}, "adopt.labels"),
    ],
)
def test_a_volume_with_options_or_of_an_instance_stays_foreign(changed, rule):
    assert rules(inspect=PLAIN | changed) == [rule]


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"Driver": "macvlan"}, "network.options"),
        ({"Scope": "swarm"}, "network.options"),
        ({"Ingress": True}, "network.options"),
        ({"Options": {"com.docker.network.bridge.gateway_mode_ipv4": "routed"}}, "network.options"),
        ({"IPAM": {"Driver": "dhcp"}}, "network.options"),
        ({"EnableIPv6": True}, "network.ipv6"),
        ({"Internal": False}, "network.internal"),
    ],
)
def test_an_unusual_network_stays_foreign(changed, rule):
    assert rules(NETWORK, BRIDGE | changed, policy=CLOSED) == [rule]


@pytest.mark.parametrize("name", ["bridge", "host", "platform-network", "platform-ingress.shop"])
def test_networks_of_the_engine_and_of_namespaces_stay(name):
    assert rules(replace(NETWORK, name=name)) == ["name.reserved"]


def test_a_volume_with_a_size_is_as_plain_as_one_without():
    assert rules(VOLUME, PLAIN | {"Options": {"size": "10g"}}) == []


def test_a_volume_without_a_name_is_adopted_under_the_engines_and_a_network_has_no_ids_name():
    assert rules(replace(VOLUME, name="a1" * 32)) == []
    assert rules(replace(VOLUME, name="a1" * 16)) == ["name.like-an-id"]
    assert rules(replace(NETWORK, name="a1" * 16)) == ["name.like-an-id"]


def test_namespace_and_owner_are_those_of_the_policy():
    assert rules(policy=LISTED) == ["owner.namespace"]
    assert rules(replace(VOLUME, namespace="default"), policy=LISTED) == []
    assert rules(replace(VOLUME, namespace="No")) == ["adopt.namespace"]
    assert rules(replace(VOLUME, owner="No Owner")) == ["owner.invalid"]


def test_nobody_elses_container_runs_with_the_object():
    assert rules(users=(RUNS,)) == ["adopt.in-use"]
    assert rules(users=(replace(RUNS, running=False), replace(RUNS, ours=True))) == []


def test_our_own_object_needs_no_adoption_and_an_adopted_one_moves_unused():
    assert rules(owned=OURS) == ["adopt.known"]
    adopted = replace(OURS, adopted="2026-01-01T00:00:00Z", namespace="default")
    assert rules(owned=adopted) == []
    assert rules(owned=adopted, users=(replace(RUNS, ours=True),)) == ["adopt.in-use"]
