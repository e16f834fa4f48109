"""What strict refuses and a policy may grant: each by its own key, and to the letter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from controller.core.admission.create import admit_create
from controller.core.admission.networks_volumes import named_volume
from controller.core.engine_api.parse import parse_create, parse_volume
from controller.core.rules.confinement import confinement_from_json
from controller.core.rules.context import HostFacts, NetworkFacts, make_case
from controller.core.rules.images import kept_volumes
from controller.model.records import Actor
from tests.unit.core.creates import (
    CLIENT,
    CONTROLLER,
    CONTROLLER_LABELS,
    CONTROLLER_NAME,
    FACTS,
    OPERATOR,
    REFERENCE,
    STAMP,
    STRICT,
    denials,
    judged,
    judged_for_controller,
    looked_at,
    policy,
)

NETWORK = {"NetworkMode": "alice-net"}
ALIASED = {"NetworkingConfig": {"EndpointsConfig": {"alice-net": {"Aliases": ["db", "db.local"]}}}}


@pytest.mark.parametrize(
    ("grants", "body", "host", "rule", "kept"),
    [
        (
            {"security": {"groupAdd": True}},
            {},
            {"GroupAdd": ["audio", "1000"]},
            "user.groups",
            {"GroupAdd": ["audio", "1000"]},
        ),
        (
            {"resources": {"cpuset": True}},
            {},
            {"CpusetCpus": "0-2,4"},
            "resources.cpuset",
            {"CpusetCpus": "0-2,4"},
        ),
        (
            {"resources": {"tmpfs": {"exec": True}}},
            {},
            {"Tmpfs": {"/run": "exec,size=1m"}},
            "mount.options",
            {"Tmpfs": {"/run": "rw,nosuid,nodev,exec,size=1048576"}},
        ),
        (
            {"networks": {"extraHosts": ["addresses"]}},
            {},
            {"ExtraHosts": ["a:192.0.2.1", "b_c.local:2001:db8::1"]},
            "network.hosts",
            {"ExtraHosts": ["a:192.0.2.1", "b_c.local:2001:db8::1"]},
        ),
        (
            {"networks": {"extraHosts": ["host-gateway"]}},
            {},
            {"ExtraHosts": ["host.docker.internal:host-gateway"]},
            "network.hosts",
            {"ExtraHosts": ["host.docker.internal:host-gateway"]},
        ),
        (
            {"networks": {"ports": {"ranges": True}}},
            {},
            {"PortBindings": {"80/tcp": [{"HostPort": "18000-18002"}]}, **NETWORK},
            "port.invalid",
            {"PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "18000-18002"}]}},
        ),
        ({"names": {"underscores": True}}, {"Hostname": "my_app"}, {}, "host.name", {}),
        ({"networks": {"clientAliases": True}}, ALIASED, NETWORK, "network.alias", {}),
    ],
    ids=[
        "groups",
        "cpuset",
        "exec in a tmpfs",
        "hosts",
        "host gateway",
        "port range",
        "host name",
        "aliases",
    ],
)
def test_a_grant_lets_through_what_strict_refuses(
    grants: dict[str, Any],
    body: dict[str, Any],
    host: dict[str, Any],
    rule: str,
    kept: dict[str, Any],
) -> None:
    assert set(denials(judged(body, host=host))) == {rule}
    admission = judged(body, host=host, rules=policy(**grants))
    assert denials(admission) == ()
    assert admission.body is not None
    forwarded: dict[str, Any] = admission.body
    assert {name: forwarded["HostConfig"][name] for name in kept} == kept
    assert {name: forwarded[name] for name in body if name == "Hostname"} == {
        name: value for name, value in body.items() if name == "Hostname"
    }
    if body is ALIASED:
        ends = forwarded["NetworkingConfig"]["EndpointsConfig"]
        assert ends["alice-net"] == {"Aliases": ["db", "db.local"]}


def test_one_kind_of_hosts_entry_is_no_grant_of_the_other() -> None:
    gateway = {"ExtraHosts": ["h:host-gateway"]}
    address = {"ExtraHosts": ["h:192.0.2.1"]}
    only_addresses = policy(networks={"extraHosts": ["addresses"]})
    only_gateway = policy(networks={"extraHosts": ["host-gateway"]})
    assert denials(judged(host=gateway, rules=only_addresses)) == ("network.hosts",)
    assert denials(judged(host=address, rules=only_gateway)) == ("network.hosts",)


@pytest.mark.parametrize(
    ("host", "rule"),
    [
        ({"ExtraHosts": ["a"]}, "network.hosts"),
        ({"ExtraHosts": ["a:b"]}, "network.hosts"),
        ({"ExtraHosts": ["a b:192.0.2.1"]}, "network.hosts"),
        ({"ExtraHosts": [":192.0.2.1"]}, "network.hosts"),
        ({"ExtraHosts": ["a:192.0.2.1 evil"]}, "network.hosts"),
        ({"ExtraHosts": ["a:fe80::1%eth0"]}, "network.hosts"),
        ({"ExtraHosts": ["a:192.0.2.1"] * 65}, "network.hosts"),
        ({"GroupAdd": ["a b"]}, "user.groups"),
        ({"GroupAdd": ["-1"]}, "user.groups"),
        ({"CpusetCpus": "0-"}, "resources.cpuset"),
        ({"CpusetCpus": "0,,1"}, "resources.cpuset"),
        ({"CpusetCpus": "8"}, "resources.cpuset"),
        ({"CpusetMems": "0"}, "resources.cpuset"),
        ({"Tmpfs": {"/run": "exec,suid"}}, "mount.options"),
        ({"PortBindings": {"80/tcp": [{"HostPort": "18000-18100"}]}}, "port.invalid"),
        ({"PortBindings": {"80/tcp": [{"HostPort": "18002-18000"}]}}, "port.invalid"),
        ({"PortBindings": {"80/tcp": [{"HostPort": "1000-1030"}]}}, "port.privileged"),
        ({"PortBindings": {"80/tcp": [{"HostPort": "2370-2375"}]}}, "port.reserved"),
        ({"PortBindings": {"80-90/tcp": [{"HostPort": "18000-18010"}]}}, "port.invalid"),
        ({"Sysctls": {"net.core.somaxconn": "1"}}, "sysctls"),
        ({"Links": ["a"]}, "network.links"),
        ({"VolumesFrom": ["a"]}, "mount.volumes-from"),
        ({"NetworkMode": "container:a"}, "network.mode"),
        ({"IpcMode": "container:a"}, "namespace.ipc"),
    ],
)
def test_what_no_grant_lets_through(host: dict[str, Any], rule: str) -> None:
    everything = policy(
        security={"groupAdd": True},
        resources={"cpuset": True, "tmpfs": {"exec": True}},
        networks={
            "extraHosts": ["addresses", "host-gateway"],
            "clientAliases": True,
            "ports": {"ranges": True},
        },
        names={"underscores": True, "max": 255},
    )
    facts = replace(FACTS, host=HostFacts(cpus=8, now=1.0))
    assert rule in denials(judged(host=host, rules=everything, facts=facts))


@pytest.mark.parametrize(
    ("network", "free"),
    [
        (NetworkFacts("6" * 64, "net", ours=True, owner="alice"), True),
        # Others are in it, or may be.
        (NetworkFacts("6" * 64, "net", ours=True, owner="bob"), False),
        (NetworkFacts("6" * 64, "net", ours=True, owner="alice", namespace="default"), False),
    ],
    ids=["its owner's", "another owner's", "declared by a document"],
)
def test_aliases_are_free_only_where_nobody_else_is(network: NetworkFacts, free: bool) -> None:
    rules = policy(networks={"clientAliases": True})
    facts = replace(FACTS, networks={**FACTS.networks, "net": network})
    body = {"NetworkingConfig": {"EndpointsConfig": {"net": {"Aliases": ["db"]}}}}
    found = denials(judged(body, host={"NetworkMode": "net"}, rules=rules, facts=facts))
    assert ("network.alias" not in found) == free


def test_aliases_of_implied_networks_stay_the_services_own() -> None:
    rules = policy(networks={"clientAliases": True})
    for network in ("platform-network", "platform-bridge"):
        ends = {network: {"Aliases": ["db"]}}
        body = {"NetworkingConfig": {"EndpointsConfig": ends}}
        admission = judged(body, host={"NetworkMode": network}, rules=rules)
        assert denials(admission) == ("network.alias",)


def test_the_controller_s_containers_have_no_free_aliases() -> None:
    ends = {"platform-network": {"Aliases": ["web", "db"]}}
    body = {"NetworkingConfig": {"EndpointsConfig": ends}, "Labels": CONTROLLER_LABELS}
    rules = policy(networks={"clientAliases": True})
    assert denials(judged_for_controller(body, rules=rules)) == ("network.alias",)


def test_groups_follow_the_rule_on_root() -> None:
    rules = policy(security={"groupAdd": True, "requireNonRoot": True})
    for groups, refused in (
        (["1000"], ()),
        (["0"], ("user.groups",)),
        (["audio"], ("user.groups",)),
    ):
        admission = judged({"User": "1000:1000"}, host={"GroupAdd": groups}, rules=rules)
        assert denials(admission) == refused


def test_the_journal_has_what_was_granted() -> None:
    rules = policy(
        security={"groupAdd": True},
        networks={"extraHosts": ["host-gateway"], "ports": {"ranges": True}},
        resources={"tmpfs": {"exec": True}},
    )
    host = {
        "GroupAdd": ["audio"],
        "ExtraHosts": ["h:host-gateway"],
        "PortBindings": {"80/tcp": [{"HostPort": "18000-18002"}]},
        "Tmpfs": {"/run": "exec"},
        **NETWORK,
    }
    summary = judged(host=host, rules=rules).summary
    assert summary["groups"] == ["audio"]
    assert summary["extraHosts"] == ["h:host-gateway"]
    assert summary["ports"] == ["127.0.0.1:18000-18002:80/tcp"]
    confined = confinement_from_json(summary["confined"])
    assert confined is not None
    assert [mount.executable for mount in confined.mounts] == [True]
    assert "groups" not in judged().summary


# Volumes that a client names, and project folders


def test_a_volume_that_a_client_names_is_made_where_the_policy_lets_it() -> None:
    host = {"Binds": ["fresh:/data"]}
    refused = judged(host=host)
    assert denials(refused) == ("volume.missing",)
    rules = policy(mounts={"createVolumes": True})
    asked = {"Image": REFERENCE, "HostConfig": host}
    case = kept_volumes(
        make_case(
            parse_create(asked), name="web", actor=CLIENT, policy=rules, facts=FACTS, stamp=STAMP
        )
    )
    assert case == ("fresh",)
    for text in ("fresh", "x" * 64):
        body = parse_create({**asked, "HostConfig": {"Binds": [f"{text}:/data"]}})
        by_text = admit_create(
            body, name="web", actor=CLIENT, policy=rules, facts=None, stamp=STAMP
        )
        assert denials(by_text) == (() if text == "fresh" else ("name.invalid",))


def test_the_controller_makes_its_volumes_by_actions_of_their_own() -> None:
    rules = policy(mounts={"createVolumes": True})
    labels = {"Labels": CONTROLLER_LABELS, "Image": REFERENCE}
    body = parse_create({**labels, "HostConfig": {"Binds": ["fresh:/data"]}})
    found = kept_volumes(
        make_case(
            body, name=CONTROLLER_NAME, actor=CONTROLLER, policy=rules, facts=FACTS, stamp=STAMP
        )
    )
    assert found == ()


def test_a_volume_without_a_name_gets_one_where_the_policy_lets_it() -> None:
    rules = policy(mounts={"createVolumes": True})
    unnamed = parse_volume({"Name": ""})
    for policy_, actor, name in (
        (rules, CLIENT, "alice-00000000abcd"),
        (rules, OPERATOR, "operator-00000000abcd"),
        (rules, CONTROLLER, ""),
        (STRICT, CLIENT, ""),
    ):
        assert named_volume(unnamed, actor=actor, policy=policy_, stamp=STAMP).name == name


HOME = {
    "parent_owners": (0, 1000),
}


@pytest.mark.parametrize(
    ("source", "facts", "actor", "rules"),
    [
        ("/home/me/shop", HOME, CLIENT, ()),
        ("/home/me/shop/src", HOME, OPERATOR, ()),
        ("/home/me/shop", HOME, replace(CLIENT, uid=1001), ("mount.forbidden",)),
        ("/home/me/shop2", HOME, CLIENT, ("mount.forbidden",)),
        ("/home/me", HOME, CLIENT, ("mount.forbidden",)),
        ("/home/me/shop", {"parent_owners": (0, 1001)}, CLIENT, ("mount.parent",)),
        ("/home/me/shop", {"parents_writable_by_others": "/home/me"}, CLIENT, ("mount.parent",)),
        ("/home/me/shop/x", {"kind": "symlink"}, CLIENT, ("mount.symlink",)),
        ("/home/me/shop/x", {"kind": "socket"}, CLIENT, ("mount.socket",)),
        ("/home/me/shop/x", {"kind": "missing"}, CLIENT, ("mount.missing",)),
        ("/home/me/shop/docker.sock", HOME, CLIENT, ("mount.never",)),
        ("/home/me/shop", {**HOME, "protected": "the state folder"}, CLIENT, ("mount.never",)),
    ],
)
def test_a_project_is_mounted_by_its_user_and_operators(
    source: str, facts: dict[str, Any], actor: Actor, rules: tuple[str, ...]
) -> None:
    listed = policy(mounts={"projects": [{"path": "/home/me/shop", "uid": 1000}]})
    found = looked_at(source, **facts)
    admission = judged(
        {"User": "1000:1000"},
        host={"Binds": [f"{source}:/app"]},
        actor=actor,
        rules=listed,
        facts=found,
    )
    assert denials(admission) == rules
    assert "mount.forbidden" in denials(
        judged(host={"Binds": [f"{source}:/app"]}, facts=found)
    ) or ("mount.never" in rules)


@pytest.mark.parametrize(
    ("user", "groups", "rules"),
    [
        ("1000:1000", [], ()),
        ("1000:1000", ["1000"], ()),
        ("", [], ("mount.project",)),
        ("0", [], ("mount.project",)),
        ("1000", [], ("mount.project",)),  # the image says which group
        ("me:me", [], ("mount.project",)),  # the image says who that is
        ("1000:999", [], ("mount.project",)),
        ("1000:1000", ["999"], ("mount.project",)),
        ("1000:1000", ["docker"], ("mount.project",)),
        ("01000:1000", [], ("mount.project",)),
    ],
)
@pytest.mark.parametrize("access", ["rw", "ro"])
def test_a_clients_container_has_no_more_rights_in_a_project_than_its_user(
    user: str, groups: list[str], access: str, rules: tuple[str, ...]
) -> None:
    # As root it could leave a set-user-id program there, or get at whatever a link leads to.
    projects = [{"path": "/home/me/shop", "uid": 1000}]
    listed = policy(mounts={"projects": projects}, security={"groupAdd": True})
    host = {"Binds": [f"/home/me/shop:/app:{access}"], "GroupAdd": groups}
    found = looked_at("/home/me/shop", **HOME)
    admission = judged({"User": user}, host=host, rules=listed, facts=found)
    assert denials(admission) == rules
    as_root = judged({"User": user}, host=host, rules=listed, facts=found, actor=OPERATOR)
    assert denials(as_root) == (), "an operator is trusted with more"


@pytest.mark.parametrize("path", ["/", "/home", "/root", "/etc", "/proc"])
def test_a_project_contains_no_forbidden_folder(path: str) -> None:
    with pytest.raises(ValidationError, match="which is forbidden"):
        policy(mounts={"projects": [{"path": path, "uid": 1000}]})
