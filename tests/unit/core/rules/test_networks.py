"""A container joins exactly what its mode implies."""

from dataclasses import replace

import pytest

from controller.core.rules.context import NetworkFacts
from controller.model import names
from tests.unit.core.creates import (
    ALICES,
    BOBS,
    BRIDGE,
    ENGINES,
    FACTS,
    INGRESS,
    ISOLATED,
    NETWORKS,
    OPERATOR,
    STRICT,
    denials,
    host_of,
    judged,
    judged_for_controller,
    policy,
)

PUBLISHED = {"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}}
NO_BRIDGE = policy(networks={"modes": ["none", "isolated"]})


def joined(admission):
    """Return the mode and the endpoints that are forwarded."""
    mode = host_of(admission)["NetworkMode"]
    assert admission.body is not None
    networking = admission.body.get("NetworkingConfig", {})
    assert isinstance(networking, dict)
    return mode, networking.get("EndpointsConfig", {})


def client(mode=None, endpoints=None, **changes):
    host = {**changes.pop("host", {}), **({} if mode is None else {"NetworkMode": mode})}
    networking = {"NetworkingConfig": {"EndpointsConfig": endpoints}} if endpoints else {}
    body = {**networking, **changes.pop("body", {})}
    return judged(body, host=host, **changes)


@pytest.mark.parametrize(
    ("mode", "endpoints", "host", "expected"),
    [
        (None, None, {}, ("platform-network", ["platform-network"])),
        ("", None, {}, ("platform-network", ["platform-network"])),
        ("default", {"default": {}}, {}, ("platform-network", ["platform-network"])),
        ("default", {"default": None}, {}, ("platform-network", ["platform-network"])),
        ("bridge", {"bridge": {}}, {}, ("platform-bridge", ["platform-bridge"])),
        ("bridge", None, {}, ("platform-bridge", ["platform-bridge"])),
        ("none", None, {}, ("none", [])),
        ("none", {"none": {}}, {}, ("none", [])),
        ("alice-net", {"alice-net": {}}, {}, ("alice-net", ["alice-net"])),
        ("platform-network", None, {}, ("platform-network", ["platform-network"])),
        (
            None,
            {"alice-net": {}},
            {},
            ("platform-network", ["platform-network", "alice-net"]),
        ),
        (None, None, PUBLISHED, ("platform-network", ["platform-network", "platform-ingress"])),
        ("bridge", None, PUBLISHED, ("platform-bridge", ["platform-bridge"])),
        ("alice-net", None, PUBLISHED, ("alice-net", ["alice-net", "platform-ingress"])),
    ],
)
def test_a_clients_mode_becomes_networks_by_name(mode, endpoints, host, expected):
    admission = client(mode, endpoints, host=host)
    told, found = joined(admission)
    assert (told, list(found)) == expected
    assert admission.settings is not None
    assert admission.settings.networks == tuple(sorted(expected[1]))


def test_a_network_may_be_named_by_its_full_id_and_is_forwarded_by_name():
    facts = replace(FACTS, networks={**NETWORKS, ALICES.id: ALICES, ISOLATED.id: ISOLATED})
    assert joined(client(ALICES.id, {ALICES.id: {}}, facts=facts)) == (
        "alice-net",
        {"alice-net": {}},
    )
    assert joined(client(ISOLATED.id, facts=facts))[0] == "platform-network"


def test_a_prefix_of_an_id_is_no_name():
    # The engine's inspect answers to prefixes.
    facts = replace(FACTS, networks={"333333": ALICES, "2" * 12: BRIDGE})
    assert denials(client("333333", facts=facts)) == ("network.unknown",)
    assert "network.unknown" in denials(client("none", {"2" * 12: {}}, facts=facts)) or denials(
        client("none", {"2" * 12: {}}, facts=facts)
    ) == ("network.endpoints",)


@pytest.mark.parametrize(
    ("mode", "endpoints", "rule"),
    [
        ("host", None, "network.mode"),
        ("container:x", None, "network.mode"),
        ("ns:/proc/1/ns/net", None, "network.mode"),
        ("host ", None, "network.unknown"),
        ("HOST", None, "network.unknown"),
        ("nosuchnet", None, "network.unknown"),
        ("bob-net", None, "network.foreign"),
        ("none", {"bridge": {}}, "network.endpoints"),
        ("none", {"BRIDGE": {}}, "network.endpoints"),
        ("none", {"alice-net": {}}, "network.endpoints"),
        (None, {"bridge": {}}, "network.foreign"),
        (None, {"platform-bridge": {}}, "network.endpoints"),
        ("bridge", {"platform-network": {}}, "network.endpoints"),
        (None, {"bob-net": {}}, "network.foreign"),
        (None, {"platform-ingress": {}}, "network.endpoints"),
        ("platform-ingress", None, "network.mode"),
    ],
)
def test_what_no_client_joins(mode, endpoints, rule):
    assert denials(client(mode, endpoints))[0] == rule


def test_an_id_doesnt_get_around_the_modes():
    facts = replace(
        FACTS, networks={**NETWORKS, BRIDGE.id: BRIDGE, INGRESS.id: INGRESS, ENGINES.id: ENGINES}
    )
    assert denials(client(BRIDGE.id, facts=facts, rules=NO_BRIDGE)) == ("network.mode",)
    assert denials(client(None, {BRIDGE.id: {}}, facts=facts)) == ("network.endpoints",)
    assert denials(client(INGRESS.id, facts=facts)) == ("network.mode",)
    assert denials(client(ENGINES.id, facts=facts)) == ("network.foreign",)


def test_modes_are_granted_by_the_policy():
    assert denials(client("bridge", rules=NO_BRIDGE)) == ("network.mode",)
    only_bridge = policy(networks={"modes": ["bridge"]})
    assert joined(client(None, rules=only_bridge))[0] == "platform-bridge"
    assert denials(client("none", rules=only_bridge)) == ("network.mode",)
    only_none = policy(networks={"modes": ["none"]})
    assert joined(client(None, rules=only_none)) == ("none", {})


def test_a_network_with_a_way_out_needs_the_grant_of_bridge():
    out = replace(ALICES, internal=False)
    facts = replace(FACTS, networks={**NETWORKS, "alice-net": out})
    assert denials(client("alice-net", facts=facts)) == ()
    assert denials(client("alice-net", facts=facts, rules=NO_BRIDGE)) == ("network.mode",)
    # It publishes ports by itself.
    assert list(joined(client("alice-net", facts=facts, host=PUBLISHED))[1]) == ["alice-net"]


@pytest.mark.parametrize(
    "network",
    [
        replace(ISOLATED, ours=False),
        replace(ISOLATED, internal=False),
        replace(ISOLATED, driver="macvlan"),
        replace(ISOLATED, plain=False),
    ],
)
def test_an_implied_network_that_isnt_what_it_should_be_is_never_used(network):
    facts = replace(FACTS, networks={**NETWORKS, "platform-network": network})
    admission = client(None, facts=facts)
    assert denials(admission) == ("network.foreign",)
    assert "networks.isolated" in admission.verdict.remedy
    assert "remove or rename" in admission.verdict.remedy


@pytest.mark.parametrize(
    "network",
    [
        replace(INGRESS, masquerade=True),
        replace(INGRESS, icc=True),
        replace(INGRESS, internal=True),
        replace(INGRESS, ours=False),
    ],
)
def test_an_ingress_network_lets_nothing_out_and_nobody_across(network):
    facts = replace(FACTS, networks={**NETWORKS, "platform-ingress": network})
    assert denials(client(None, facts=facts, host=PUBLISHED)) == ("network.foreign",)


def test_an_operator_may_join_everybodys_networks():
    assert denials(client("bob-net", actor=OPERATOR)) == ()


def test_a_clients_namespace_is_the_first_of_its_owners():
    team = replace(ISOLATED, name="platform-network.team", id="6" * 64)
    facts = replace(FACTS, networks={"platform-network.team": team})
    rules = policy(owners=[{"name": "alice", "namespaces": ["team", "default"]}])
    assert joined(client(None, facts=facts, rules=rules))[0] == "platform-network.team"


def test_base_names_are_the_policys():
    rules = policy(networks={"isolated": "second-network"})
    second = replace(ISOLATED, name="second-network", id="7" * 64)
    facts = replace(FACTS, networks={"second-network": second, "platform-network": ISOLATED})
    assert joined(client(None, facts=facts, rules=rules))[0] == "second-network"


@pytest.mark.parametrize(
    ("aliases", "labels", "admitted"),
    [
        (["web"], {names.SERVICE: "web"}, True),
        (["alice-web"], {}, True),
        (["db", "alice-web"], {"com.docker.compose.service": "db"}, True),
        (["web"], {}, False),
        (["registry"], {names.SERVICE: "web"}, False),
        (["web", "metadata"], {names.SERVICE: "web"}, False),
    ],
)
def test_a_container_answers_to_its_own_names(aliases, labels, admitted):
    endpoints = {"alice-net": {"Aliases": aliases}}
    admission = client("alice-net", endpoints, body={"Labels": labels})
    assert denials(admission) == (() if admitted else ("network.alias",))
    if admitted:
        assert joined(admission)[1] == endpoints


def test_policies_may_grant_further_names():
    rules = policy(networks={"aliases": ["registry"]})
    endpoints = {"alice-net": {"Aliases": ["registry"]}}
    assert denials(client("alice-net", endpoints, rules=rules)) == ()


def controllers(mode, endpoints, *, host=None, rules=STRICT, facts=FACTS):
    networking = {"EndpointsConfig": {name: {"Aliases": ["web"]} for name in endpoints}}
    return judged_for_controller(
        {"NetworkingConfig": networking},
        host={"NetworkMode": mode, **(host or {})},
        rules=rules,
        facts=facts,
    )


TEAM_NET = NetworkFacts("8" * 64, "extra", ours=True, owner="bob", namespace="default")
OTHER_NET = NetworkFacts("9" * 64, "team.extra", ours=True, owner="alice", namespace="team")


@pytest.mark.parametrize(
    ("mode", "endpoints", "host", "rules"),
    [
        ("none", (), {}, ()),
        ("platform-network", ("platform-network",), {}, ()),
        ("platform-bridge", ("platform-bridge",), {}, ()),
        ("platform-bridge", ("platform-bridge",), PUBLISHED, ()),
        ("platform-network", ("platform-network", "platform-ingress"), PUBLISHED, ()),
        ("platform-network", ("platform-network", "extra"), {}, ()),
        # Everything is named: nothing is added for the controller.
        ("platform-network", (), {}, ("network.endpoints",)),
        ("platform-network", ("platform-network",), PUBLISHED, ("network.endpoints",)),
        (
            "platform-network",
            ("platform-network", "platform-ingress"),
            {},
            ("network.endpoints",),
        ),
        ("platform-network", ("platform-network", "platform-bridge"), {}, ("network.endpoints",)),
        ("platform-bridge", ("platform-bridge", "platform-ingress"), {}, ("network.endpoints",)),
        ("none", ("platform-network",), {}, ("network.endpoints",)),
        ("none", (), PUBLISHED, ("port.unreachable",)),
        ("platform-network", ("platform-network", "team.extra"), {}, ("network.foreign",)),
        ("platform-network", ("platform-network", "bob-net"), {}, ("network.foreign",)),
    ],
)
def test_the_controller_names_exactly_what_the_mode_implies(mode, endpoints, host, rules):
    facts = replace(FACTS, networks={**NETWORKS, "extra": TEAM_NET, "team.extra": OTHER_NET})
    admission = controllers(mode, endpoints, host=host, facts=facts)
    assert denials(admission) == rules
    if not rules:
        assert joined(admission) == (mode, {name: {"Aliases": ["web"]} for name in endpoints})


@pytest.mark.parametrize(
    ("mode", "endpoints", "rules"),
    [
        ("platform-bridge", ("platform-bridge", "platform-network"), ()),
        # What was admitted before the policy said so is admitted again.
        ("platform-bridge", ("platform-bridge",), ()),
        ("platform-network", ("platform-network", "platform-bridge"), ("network.endpoints",)),
        ("platform-bridge", ("platform-bridge", "platform-ingress"), ("network.endpoints",)),
        ("none", ("platform-network",), ("network.endpoints",)),
    ],
)
def test_a_bridge_joins_the_isolated_network_only_where_the_policy_says_so(mode, endpoints, rules):
    lax = policy(networks={"bridgeJoinsIsolated": True})
    admission = controllers(mode, endpoints, rules=lax)
    assert denials(admission) == rules
    if not rules:
        assert joined(admission) == (mode, {name: {"Aliases": ["web"]} for name in endpoints})
    if len(endpoints) > 1:
        assert denials(controllers(mode, endpoints)) == ("network.endpoints",)


@pytest.mark.parametrize("mode", ["", "default", "bridge", "platform-ingress"])
def test_the_controller_speaks_of_networks_by_name(mode):
    facts = replace(FACTS, networks={**NETWORKS, "extra": TEAM_NET})
    assert denials(controllers(mode, (mode,), facts=facts))[0] == "network.mode"


DECLARED = replace(FACTS, networks={**NETWORKS, "extra": TEAM_NET, "team.extra": OTHER_NET})


def test_a_declared_network_takes_the_place_of_the_implied_ones():
    admission = controllers("extra", ("extra",), facts=DECLARED)
    assert joined(admission) == ("extra", {"extra": {"Aliases": ["web"]}})


@pytest.mark.parametrize(
    ("mode", "endpoints", "rules"),
    [
        ("extra", ("extra", "platform-network"), "network.endpoints"),
        ("extra", ("extra", "platform-bridge"), "network.endpoints"),
        # The ingress is for published ports.
        ("extra", ("extra", "platform-ingress"), "network.endpoints"),
        ("team.extra", ("team.extra",), "network.foreign"),
        ("nobodys", ("nobodys",), "network.unknown"),
    ],
)
def test_a_declared_network_is_joined_alone_and_is_of_the_namespace(mode, endpoints, rules):
    assert denials(controllers(mode, endpoints, facts=DECLARED))[0] == rules


@pytest.mark.parametrize(
    ("endpoints", "way_out", "rules"),
    [
        (("extra",), True, ()),
        (("extra", "platform-ingress"), True, ()),
        (("extra",), False, ("network.endpoints",)),
        (("extra", "platform-ingress"), False, ()),
    ],
)
def test_ports_lead_through_a_declared_network_with_a_way_out_or_through_the_ingress(
    endpoints, way_out, rules
):
    networks = {**NETWORKS, "extra": replace(TEAM_NET, internal=not way_out)}
    facts = replace(FACTS, networks=networks)
    assert denials(controllers("extra", endpoints, host=PUBLISHED, facts=facts)) == rules


def test_a_policy_without_networks_admits_no_declared_one():
    closed = policy(networks={"modes": ["none"]})
    assert denials(controllers("extra", ("extra",), facts=DECLARED, rules=closed)) == (
        "network.mode",
    )


def test_another_namespaces_network_needs_a_grant():
    facts = replace(FACTS, networks={**NETWORKS, "team.extra": OTHER_NET})
    endpoints = ("platform-network", "team.extra")
    granted = policy(networks={"granted": ["team.extra"]})
    assert denials(controllers("platform-network", endpoints, facts=facts)) == ("network.foreign",)
    assert denials(controllers("platform-network", endpoints, facts=facts, rules=granted)) == ()


def test_an_implied_network_that_is_missing_is_told():
    facts = replace(FACTS, networks={})
    assert denials(controllers("platform-network", ("platform-network",), facts=facts)) == (
        "network.unknown",
    )


def ports(bindings, **changes):
    return judged(host={"PortBindings": bindings}, **changes)


@pytest.mark.parametrize(
    ("binding", "rules"),
    [
        ({"HostPort": "8080"}, ()),
        ({"HostIp": "127.0.0.1", "HostPort": "1024"}, ()),
        ({"HostIp": "::1", "HostPort": "8080"}, ()),
        ({"HostIp": "0:0:0:0:0:0:0:1", "HostPort": "8080"}, ()),
        ({}, ()),
        ({"HostIp": "0.0.0.0", "HostPort": "8080"}, ("port.address",)),
        ({"HostIp": "::", "HostPort": "8080"}, ("port.address",)),
        ({"HostIp": "::ffff:127.0.0.1", "HostPort": "8080"}, ("port.address",)),
        ({"HostIp": "127.1", "HostPort": "8080"}, ("port.address",)),
        ({"HostIp": "evil", "HostPort": "8080"}, ("port.address",)),
        ({"HostIp": "127.0.0.2", "HostPort": "8080"}, ("port.address",)),
        ({"HostPort": "1023"}, ("port.privileged",)),
        ({"HostPort": "2375"}, ("port.reserved",)),
    ],
)
def test_ports_are_published_on_loopback_above_1023(binding, rules):
    assert denials(ports({"80/tcp": [binding]})) == rules


def test_a_published_port_is_exposed_and_bound_to_loopback():
    admission = ports({"80/tcp": [{"HostPort": "8080"}], "53/udp": [{}]})
    assert admission.body is not None
    # The engine ignores bindings of ports that aren't exposed.
    assert admission.body["ExposedPorts"] == {"53/udp": {}, "80/tcp": {}}
    assert host_of(admission)["PortBindings"] == {
        "53/udp": [{"HostIp": "127.0.0.1", "HostPort": ""}],
        "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}],
    }
    assert {"port.loopback", "port.exposed"} <= set(admission.verdict.rules)


def test_a_host_port_is_published_once():
    twice = {
        "80/tcp": [{"HostPort": "8080"}],
        "81/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}],
    }
    assert denials(ports(twice)) == ("port.duplicate",)
    both = {"80/tcp": [{"HostPort": "8080"}, {"HostIp": "::1", "HostPort": "8080"}]}
    assert denials(ports(both)) == ()
    assert (
        denials(ports({"80/tcp": [{"HostPort": "8080"}], "80/udp": [{"HostPort": "8080"}]})) == ()
    )


def test_a_port_that_no_network_can_publish_is_refused():
    assert denials(client("none", host=PUBLISHED)) == ("port.unreachable",)
    assert denials(client(None, host=PUBLISHED, body={"NetworkDisabled": True})) == (
        "port.unreachable",
    )


def test_policies_grant_ports_and_addresses():
    rules = policy(networks={"ports": {"hostIPs": ["0.0.0.0"], "granted": [80, 2375]}})
    assert denials(ports({"80/tcp": [{"HostPort": "80"}]}, rules=rules)) == ()
    assert denials(ports({"1/tcp": [{"HostPort": "2375"}]}, rules=rules)) == ()
    assert host_of(ports({"80/tcp": [{}]}, rules=rules))["PortBindings"] == {
        "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": ""}]
    }
    assert denials(ports({"80/tcp": [{"HostPort": "81"}]}, rules=rules)) == ("port.privileged",)


def test_a_preview_takes_networks_to_be_what_they_should_be():
    assert joined(client("mine", {"mine": {}}, facts=None)) == ("mine", {"mine": {}})
    assert denials(client("host", facts=None)) == ("network.mode",)
    assert BOBS.owner == "bob"


def test_only_so_many_networks_are_joined():
    # Each is looked up on the engine, by name, while other admissions wait.
    many: dict[str, dict[str, object]] = {f"net-{number}": {} for number in range(17)}
    assert "network.count" in denials(judged(networking(many), facts=None))


def networking(endpoints):
    return {"NetworkingConfig": {"EndpointsConfig": endpoints}}
