"""Names and resolvers: which aliases a service's containers answer to, and which servers they ask."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.core.admission.networks_volumes import admit_connect
from controller.core.engine_api.parse import parse_connect
from controller.core.rules.context import ContainerFacts
from controller.model.observed import Settings
from tests.unit.core.creates import (
    CONTROLLER,
    ISOLATED,
    OPERATOR,
    STRICT,
    denials,
    host_of,
    judged,
    judged_for_controller,
    policy,
)

FREE = policy(networks={"serviceAliases": True})


def named(*aliases: str, rules: Any = FREE) -> tuple[str, ...]:
    """Return the refusals of a service's container with these aliases."""
    ends = {"platform-network": {"Aliases": ["web", *aliases]}}
    admission = judged_for_controller(
        {"NetworkingConfig": {"EndpointsConfig": ends}},
        host={"NetworkMode": "platform-network"},
        rules=rules,
    )
    return denials(admission)


def test_a_service_answers_to_further_names_where_the_policy_says_so() -> None:
    assert named("sql", "db.internal") == ()
    assert named("sql", rules=STRICT) == ("network.alias",)
    assert named("sql", rules=policy(networks={"aliases": ["sql"]})) == ()


def test_a_service_answers_to_other_spellings_of_its_own_name() -> None:
    assert named("WEB", rules=STRICT) == ()
    assert named("web_", rules=STRICT) == ("network.alias",)
    assert named("w.eb", rules=STRICT) == ("network.alias",)
    ends = {"platform-network": {"Aliases": ["WEB"]}}
    body = {"NetworkingConfig": {"EndpointsConfig": ends}}
    refused = denials(judged(body, host={"NetworkMode": "platform-network"}, rules=STRICT))
    assert refused == ("network.alias",), "a client's container has its own names alone"


@pytest.mark.parametrize("alias", ["team.web.1-01234567", "a b", "-a", "x" * 64])
def test_an_alias_is_a_host_name_and_never_that_of_a_container_of_the_controller(
    alias: str,
) -> None:
    assert "network.alias" in named(alias)


def test_a_client_has_no_alias_of_the_switch_for_services() -> None:
    ends = {"platform-network": {"Aliases": ["sql"]}}
    body = {"NetworkingConfig": {"EndpointsConfig": ends}}
    assert denials(judged(body, host={"NetworkMode": "platform-network"}, rules=FREE)) == (
        "network.alias",
    )


CURRENT = ContainerFacts(
    settings=Settings(name="web.1-01234567", networks=("platform-network",)),
    owner="alice",
    namespace="default",
    service="web",
    origin="controller",
    id="c" * 64,
    network_mode="platform-network",
    admitted_networks=("platform-network",),
)


@pytest.mark.parametrize(
    ("actor", "current", "allowed"),
    [
        (CONTROLLER, CURRENT, True),
        (OPERATOR, CURRENT, False),
        (CONTROLLER, replace(CURRENT, origin="client"), False),
    ],
)
def test_only_the_controller_connects_its_containers_under_further_names(
    actor: Any, current: ContainerFacts, *, allowed: bool
) -> None:
    body = {"Container": "x", "EndpointConfig": {"Aliases": ["web", "sql"]}}
    request = parse_connect(body, network="platform-network")
    admission = admit_connect(
        request, actor=actor, policy=FREE, current=current, network=ISOLATED, now=1.0
    )
    assert (admission.verdict.decision != "deny") is allowed


RESOLVING = policy(networks={"dns": {"servers": ["10.0.0.0/8", "fd00::/8"], "search": True}})


@pytest.mark.parametrize(
    ("host", "rules", "refused"),
    [
        ({"Dns": ["10.1.2.3", "fd00::1"]}, RESOLVING, ()),
        ({"Dns": ["9.9.9.9"]}, RESOLVING, ("network.dns",)),
        ({"Dns": ["10.1.2.3"]}, STRICT, ("network.dns",)),
        ({"Dns": ["not an address"]}, RESOLVING, ("network.dns",)),
        ({"Dns": ["fd00::1%eth0"]}, RESOLVING, ("network.dns",)),
        ({"DnsSearch": ["example.org", "."]}, RESOLVING, ()),
        ({"DnsSearch": ["a b"]}, RESOLVING, ("network.dns",)),
        ({"DnsOptions": ["rotate"]}, RESOLVING, ("network.dns",)),
        ({"DnsOptions": ["ndots:2\nnameserver 9.9.9.9"]}, RESOLVING, ("network.dns",)),
        ({"DnsSearch": ["x"] * 17}, RESOLVING, ("network.dns",)),
    ],
)
def test_a_resolver_is_within_the_policy(
    host: dict[str, Any], rules: Any, refused: tuple[str, ...]
) -> None:
    assert denials(judged(host=host, rules=rules))[:1] in (
        refused,
        *([("body.type",)] if refused else []),
    )


def test_an_admitted_resolver_is_forwarded_as_it_is() -> None:
    host = {"Dns": ["10.1.2.3"], "DnsSearch": ["example.org"]}
    forwarded = host_of(judged(host=host, rules=RESOLVING))
    assert {name: forwarded[name] for name in host} == host
