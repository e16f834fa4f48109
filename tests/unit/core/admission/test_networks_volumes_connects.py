"""A connect is judged as the create: no container gets by steps what its create refuses."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from controller.core.admission.networks_volumes import admit_connect
from controller.core.engine_api.parse import parse_connect
from controller.core.engine_api.requests import ConnectRequest
from controller.core.rules.context import ContainerFacts, NetworkFacts
from controller.core.rules.verdict import AdmissionDecision
from controller.model import names
from controller.model.policy.document import OPERATOR_OWNER, Policy
from controller.model.records import Actor, Role
from tests.examples import examples
from tests.unit.core.creates import (
    CLIENT,
    CONTROLLER,
    FACTS,
    ISOLATED,
    NETWORKS,
    OPERATOR,
    REFERENCE,
    host_of,
    judged,
    policy,
)

#: Networks that clients made: with a way out, and many internal ones.
OPENED = NetworkFacts("6" * 64, "alice-open", ours=True, owner="alice")
MORE = {
    each.name: each
    for number in range(16)
    for each in [
        NetworkFacts(f"{number:064x}", f"alice-{number}", ours=True, owner="alice", internal=True)
    ]
}
MANY = tuple(MORE)
STRAYS = NetworkFacts("7" * 64, "strays", ours=False)
KNOWN = {**NETWORKS, OPENED.name: OPENED, STRAYS.name: STRAYS, **MORE}
LOOKED_AT = replace(FACTS, networks=KNOWN)
FEW = ("platform-network", "platform-ingress", "platform-bridge", "alice-net", "alice-open")
#: Networks of others, and one that nobody has.
OTHERS = ("bob-net", "strays", "nothing")
MODES = st.sampled_from(["", "default", "none", "bridge", *FEW, "bob-net"])
POLICIES = st.builds(
    lambda modes, joins, aliases: policy(
        networks={"modes": modes, "bridgeJoinsIsolated": joins, "clientAliases": aliases}
    ),
    st.sampled_from([["none"], ["none", "isolated"], ["bridge"], ["none", "isolated", "bridge"]]),
    st.booleans(),
    st.booleans(),
)
ALIASES = st.sampled_from([(), (), ("web",), ("shop-web",), ("db",)])
ENDPOINTS = st.one_of(
    st.dictionaries(st.sampled_from(FEW), ALIASES, max_size=4),
    st.dictionaries(st.sampled_from([*FEW, *OTHERS]), ALIASES, max_size=4),
    st.just(dict.fromkeys(MANY, ())),
)
LABELS = {names.SERVICE: "web", "com.docker.compose.service": "shop-web"}


def create(
    ends: dict[str, tuple[str, ...]], mode: str, rules: Policy, actor: Actor, *, publishes: bool
) -> AdmissionDecision:
    asked = {name: {"Aliases": [*aliases]} for name, aliases in ends.items()}
    ports: dict[str, Any] = {"PortBindings": {"80/tcp": [{}]}} if publishes else {}
    body: dict[str, Any] = {"Labels": LABELS, "NetworkingConfig": {"EndpointsConfig": asked}}
    return judged(
        body,
        host={"NetworkMode": mode, **ports},
        actor=actor,
        rules=rules,
        facts=LOOKED_AT,
    )


def made_by(admission: AdmissionDecision, actor: Actor) -> ContainerFacts:
    """Return the container of an admitted create, as the gate looks at it before a connect."""
    assert admission.settings is not None
    host = host_of(admission)
    return ContainerFacts(
        admission.settings,
        owner=actor.owner or OPERATOR_OWNER,
        namespace="",
        service="web",
        origin="client",
        image=REFERENCE,
        id="c" * 64,
        network_mode=host["NetworkMode"],
        published=bool(host.get("PortBindings")),
        admitted_networks=admission.settings.networks,
        compose_service="shop-web",
    )


Judge = Callable[..., AdmissionDecision]


def joined_later(
    current: ContainerFacts,
    name: str,
    aliases: tuple[str, ...],
    rules: Policy,
    actor: Actor,
    judge: Judge = admit_connect,
) -> ContainerFacts | None:
    """Return the container after a connect; None if the connect is refused."""
    body = {"Container": "x", "EndpointConfig": {"Aliases": [*aliases]}}
    judgement = judge(
        parse_connect(body, network=name),
        actor=actor,
        policy=rules,
        current=current,
        network=KNOWN.get(name),
        now=1.0,
        mode_network=KNOWN.get(current.network_mode),
    )
    if judgement.verdict.decision == "deny":
        return None
    joined = tuple(sorted({*current.settings.networks, name}))
    return replace(current, settings=replace(current.settings, networks=joined))


@dataclass(frozen=True)
class Steps:
    """A create, the last endpoints of which can be joined afterwards instead."""

    ends: dict[str, tuple[str, ...]]
    mode: str
    rules: Policy
    actor: Actor
    publishes: bool
    later: int

    def difference(self, judge: Judge = admit_connect) -> str:
        """Return how the result by steps differs from that of the create; '' for no difference."""
        whole = self.create(list(self.ends))
        first = list(self.ends)[: max(0, len(self.ends) - self.later)]
        made = self.create(first)
        current = None if made.body is None else made_by(made, self.actor)
        for name in list(self.ends)[len(first) :]:
            # The engine refuses a second endpoint in a network that the mode or the ports imply.
            if current is None or name in current.settings.networks:
                return ""
            aliases = self.ends[name]
            current = joined_later(current, name, aliases, self.rules, self.actor, judge)
        if (current is None) is not (whole.body is None):
            return f"the create: {whole.verdict}; by steps: {current}"
        if current is None or whole.settings is None:
            return ""
        asked, got = whole.settings.networks, current.settings.networks
        return "" if asked == got else f"the create joins {asked}; by steps: {got}"

    def create(self, names_joined: list[str]) -> AdmissionDecision:
        """Judge the create with some of the endpoints."""
        ends = {name: self.ends[name] for name in names_joined}
        return create(ends, self.mode, self.rules, self.actor, publishes=self.publishes)


STEPS = st.builds(
    Steps,
    ENDPOINTS,
    MODES,
    POLICIES,
    st.sampled_from([CLIENT, OPERATOR]),
    st.booleans(),
    st.integers(0, 4),
)
#: What a connect admitted, and a create never did.
FOUND = (
    Steps({"platform-network": ()}, "bridge", policy(), CLIENT, publishes=False, later=1),
    Steps({"platform-network": ()}, "alice-net", policy(), CLIENT, publishes=False, later=1),
    Steps(dict.fromkeys(MANY, ()), "platform-network", policy(), CLIENT, publishes=False, later=2),
)


@pytest.mark.slow
@settings(max_examples=examples(300))
@example(FOUND[0])
@example(FOUND[1])
@example(FOUND[2])
@given(STEPS)
def test_no_container_gets_by_connects_what_its_create_refuses(steps: Steps) -> None:
    assert steps.difference() == ""


def admit_by_two_kinds(
    request: ConnectRequest,
    *,
    current: ContainerFacts,
    network: NetworkFacts | None,
    **others: Any,
) -> AdmissionDecision:
    """Judge a connect with a planted bug: the isolated network fits every mode, and nobody counts."""
    settings_ = replace(current.settings, networks=())
    current = replace(current, settings=settings_, joined=())
    if network == ISOLATED and current.network_mode != "none":
        current = replace(current, network_mode=ISOLATED.name)
    return admit_connect(request, current=current, network=network, **others)


@pytest.mark.parametrize("steps", FOUND)
def test_the_property_finds_a_connect_with_rules_of_its_own(steps: Steps) -> None:
    assert steps.difference() == ""
    assert steps.difference(admit_by_two_kinds) != ""


@pytest.mark.parametrize("role", [Role.CLIENT, Role.CONTROLLER])
def test_a_container_that_left_its_network_joins_it_again(role: Role) -> None:
    current = made_by(create({}, "platform-network", policy(), CLIENT, publishes=False), CLIENT)
    left = replace(current, settings=replace(current.settings, networks=()), joined=())
    if role is Role.CONTROLLER:
        left = replace(left, origin="controller", namespace="default")
    actor = Actor(9, 9, 9, role, "alice")
    assert joined_later(left, "platform-network", ("web",), policy(), actor) is not None


def test_networks_of_connects_in_progress_count() -> None:
    current = made_by(create({}, "platform-network", policy(), CLIENT, publishes=False), CLIENT)
    fifteen = replace(current, joined=MANY[:14])
    assert joined_later(fifteen, "alice-15", (), policy(), CLIENT) is not None
    sixteen = replace(current, joined=MANY[:15])
    assert joined_later(sixteen, "alice-15", (), policy(), CLIENT) is None


@pytest.mark.parametrize(
    ("change", "admitted"),
    [
        ({}, True),
        ({"expires": "1969-12-31"}, False),
        ({"for": "clients"}, False),
        ({"repository": "ghcr.io/x/y"}, False),
    ],
)
def test_an_exception_for_a_network_holds_for_its_connect_too(
    change: dict[str, str], *, admitted: bool
) -> None:
    """A container that left the network of an exception joins it again, until the exception ends."""
    grant = {
        "owner": "alice",
        "namespace": "default",
        "service": "web",
        "repository": "ghcr.io/platformnetwork/web",
        "reason": "it watches the others",
        "expires": "2999-12-31",
        "loosens": {"networks": ["bob-net"]},
    }
    rules = policy(exceptions=[{**grant, **change}])
    made = made_by(create({}, "platform-network", rules, CLIENT, publishes=False), CLIENT)
    document = replace(made, origin="controller", namespace="default")
    document = replace(document, admitted_networks=("platform-network", "bob-net"))
    joined = joined_later(document, "bob-net", (), rules, CONTROLLER)
    assert (joined is not None) is admitted
