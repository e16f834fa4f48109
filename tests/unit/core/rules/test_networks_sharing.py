"""Namespaces of another service: what the gate admits, and the modes that the engine gets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.core.encoding.identifiers import repository_of
from controller.core.engine_api.parse import parse_create
from controller.core.engine_api.requests import Grant
from controller.core.policy.grants import grant_of
from controller.core.rules.container import namespaces_private
from controller.core.rules.context import Case, SharedContainer, make_case
from controller.core.rules.networks import shares_allowed
from controller.model import names
from tests.unit.core.creates import (
    CONTROLLER,
    FACTS,
    OPERATOR,
    denials,
    host_of,
    judged,
    policy,
)
from tests.unit.core.creates import CONTROLLER_LABELS as LABELS
from tests.unit.core.creates import CONTROLLER_NAME as NAME

ALL = policy(security={"sharedNamespaces": ["network", "ipc", "pid"]})
VPN = "ab" * 32
FOUND = replace(FACTS, shared=SharedContainer(VPN, shareable=True, shm=128 << 20))


def asked(
    shares: dict[str, Any] | None = None,
    *,
    host: dict[str, Any] | None = None,
    rules: Any = ALL,
    facts: Any = FOUND,
    **body: Any,
) -> Any:
    """Judge the create of a sidecar, which asks for the network of vpn."""
    whole = {
        "Labels": LABELS,
        "TrimtabShares": {"Service": "vpn", "Network": True} if shares is None else shares,
        **body,
    }
    return judged(whole, host=host or {}, name=NAME, actor=CONTROLLER, rules=rules, facts=facts)


def test_the_engine_gets_the_container_that_the_gate_found() -> None:
    host = host_of(asked())
    assert host["NetworkMode"] == f"container:{VPN}"
    assert "PidMode" not in host
    assert "IpcMode" not in host
    every = {"Service": "vpn", "Network": True, "Ipc": True, "Pid": True}
    host = host_of(asked(every))
    assert {host[name] for name in ("NetworkMode", "IpcMode", "PidMode")} == {f"container:{VPN}"}


def test_a_sidecar_joins_no_network_and_the_record_has_the_size_of_the_shared_memory() -> None:
    decision = asked({"Service": "vpn", "Network": True, "Ipc": True})
    assert decision.settings.networks == ()
    assert "NetworkingConfig" not in decision.body
    assert "TrimtabShares" not in decision.body
    assert decision.summary["confined"]["shm"] == 128 << 20
    assert decision.summary["shares"] == [f"network:vpn:{VPN}", f"ipc:vpn:{VPN}"]


def test_processes_alone_leave_the_network_its_own() -> None:
    ends = {"EndpointsConfig": {"platform-network": {"Aliases": ["web"]}}}
    decision = asked(
        {"Service": "vpn", "Pid": True},
        host={"NetworkMode": "platform-network"},
        NetworkingConfig=ends,
    )
    host = host_of(decision)
    assert (host["NetworkMode"], host["PidMode"]) == ("platform-network", f"container:{VPN}")


@pytest.mark.parametrize(
    ("shares", "more", "rule"),
    [
        ({"Service": "vpn", "Network": True}, {"rules": policy()}, "namespace.shared"),
        (
            {"Service": "vpn", "Pid": True},
            {"rules": policy(security={"sharedNamespaces": ["network"]})},
            "namespace.shared",
        ),
        ({"Service": "web", "Network": True}, {}, "namespace.service"),
        ({"Service": "", "Network": True}, {}, "namespace.service"),
        ({"Service": "team/vpn", "Network": True}, {}, "namespace.service"),
        ({"Service": VPN, "Network": True}, {}, "namespace.service"),
        ({"Service": "vpn"}, {}, "namespace.service"),
        ({"Service": "vpn", "Network": True, "Container": VPN}, {}, "body.unknown"),
        (
            None,
            {"facts": replace(FACTS, shared=SharedContainer(VPN, joined=True))},
            "namespace.service",
        ),
        (
            {"Service": "vpn", "Ipc": True},
            {"facts": replace(FACTS, shared=SharedContainer(VPN))},
            "namespace.service",
        ),
        (None, {"Labels": {**LABELS, names.SLOT: "run-1"}}, "namespace.service"),
        (None, {"Hostname": "a"}, "namespace.own"),
        (None, {"host": {"ExtraHosts": ["a:10.0.0.1"]}}, "namespace.own"),
        (None, {"host": {"Dns": ["10.0.0.1"]}}, "namespace.own"),
        (None, {"host": {"Sysctls": {"net.core.somaxconn": "1"}}}, "namespace.own"),
        (None, {"host": {"NetworkMode": "platform-bridge"}}, "namespace.own"),
        (None, {"host": {"NetworkMode": f"container:{VPN}"}}, "namespace.own"),
        (None, {"host": {"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}}}, "namespace.own"),
        (
            {"Service": "vpn", "Ipc": True, "Network": True},
            {"host": {"ShmSize": 1 << 20}},
            "namespace.own",
        ),
    ],
)
def test_what_is_refused(shares: dict[str, Any] | None, more: dict[str, Any], rule: str) -> None:
    assert rule in denials(asked(shares, **more))


@pytest.mark.parametrize(
    ("body", "host", "name"),
    [
        ({"TrimtabShares": {"Service": "vpn", "Pid": True}}, {}, "pid"),
        ({"TrimtabShares": {"Service": "vpn", "Network": True}}, {}, "network"),
        ({}, {"IpcMode": "shareable"}, "ipc"),
    ],
)
def test_the_refusal_names_the_line_of_the_policy(
    body: dict[str, Any], host: dict[str, Any], name: str
) -> None:
    (finding,) = {
        each
        for rule in (shares_allowed, namespaces_private)
        for each in rule(case_of({"Labels": LABELS, **body, "HostConfig": host}))
    }
    assert grant_of(finding, policy()) == Grant("add", "security.sharedNamespaces", name)


def test_no_line_of_the_policy_opens_the_ipc_of_a_client() -> None:
    (finding,) = namespaces_private(case_of({"HostConfig": {"IpcMode": "shareable"}}))
    assert grant_of(finding, policy()) is None


def case_of(body: dict[str, Any]) -> Case:
    return make_case(parse_create(body), name=NAME, actor=CONTROLLER, policy=policy(), facts=FACTS)


def test_only_documents_share_namespaces() -> None:
    body = {"TrimtabShares": {"Service": "vpn", "Network": True}}
    assert denials(judged(body, rules=ALL)) == ("namespace.client",)
    assert denials(judged(body, actor=OPERATOR, rules=ALL)) == ("namespace.client",)


@pytest.mark.parametrize("mode", ["NetworkMode", "IpcMode", "PidMode"])
@pytest.mark.parametrize("named", [f"container:{VPN}", "container:vpn", "container:vpn.1-01234567"])
def test_nobody_names_a_container(mode: str, named: str) -> None:
    for actor in (CONTROLLER, OPERATOR):
        body = {"Labels": LABELS} if actor is CONTROLLER else {}
        decision = judged(body, host={mode: named}, name=NAME, actor=actor, rules=ALL, facts=FOUND)
        assert denials(decision)
    assert denials(judged({}, host={mode: named}, rules=ALL, facts=FOUND))


def test_ipc_is_shareable_only_for_documents_where_the_policy_shares_it() -> None:
    ends = {"EndpointsConfig": {"platform-network": {"Aliases": ["web"]}}}

    def shareable(rules: Any, **more: Any) -> tuple[str, ...]:
        host = {"NetworkMode": "platform-network", "IpcMode": "shareable"}
        body = {"Labels": LABELS, "NetworkingConfig": ends}
        decision = judged(body, host=host, name=NAME, actor=CONTROLLER, rules=rules, **more)
        return denials(decision)

    assert shareable(ALL) == ()
    assert shareable(policy()) == ("namespace.ipc",)
    assert denials(judged({}, host={"IpcMode": "shareable"}, rules=ALL)) == ("namespace.ipc",)


def excepted(service: str, **loosens: Any) -> dict[str, Any]:
    return {
        "owner": LABELS[names.OWNER],
        "namespace": LABELS[names.NAMESPACE],
        "service": service,
        "repository": repository_of(LABELS[names.IMAGE]),
        "reason": "it reaches the registry of the chain",
        "expires": "2020-01-01" if service == "vpn" else "2099-01-01",
        "loosens": loosens,
    }


@pytest.mark.parametrize(
    ("shares", "loosens"),
    [
        ({"Network": True}, {"modes": ["bridge"]}),
        ({"Network": True}, {"networks": ["other-network"]}),
        ({"Network": True}, {"hostPorts": [443]}),
        ({"Network": True}, {"hostIPs": ["0.0.0.0"]}),
        ({"Pid": True}, {"mounts": ["/srv/keys"]}),
    ],
)
def test_a_sidecar_borrows_no_exception(shares: dict[str, bool], loosens: dict[str, Any]) -> None:
    def judge(*exceptions: dict[str, Any]) -> tuple[str, ...]:
        rules = policy(
            security={"sharedNamespaces": ["network", "pid"]},
            networks={"modes": ["isolated"]},
            exceptions=[*exceptions],
        )
        body = {"Labels": LABELS, "TrimtabShares": {"Service": "vpn", **shares}}
        case = make_case(
            parse_create(body),
            name=NAME,
            actor=CONTROLLER,
            policy=rules,
            facts=FOUND,
        )
        return tuple(each.rule for each in shares_allowed(case))

    theirs = excepted("vpn", **loosens)
    assert judge(theirs) == ("namespace.service",)
    assert judge(theirs, excepted(LABELS[names.SERVICE], **loosens)) == ()
    assert judge(excepted("other", **loosens)) == ()
