"""Each fact of a request is one for all who judge by it: admission, proofs, quotas and records.

`make fuzz KIND=facts` draws 100,000 requests for each property.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from controller.broker import signed_acts
from controller.broker.gate.call import GateRequest
from controller.broker.gate.routes import ROUTES
from controller.broker.guards.kernel_verify import bounds_of
from controller.broker.guards.lookup import OwnContainer, container_facts
from controller.core.admission import create, dns_names
from controller.core.admission.calls import admit_delivery, admit_update, read_delivery
from controller.core.admission.networks_volumes import admit_network, admit_volume
from controller.core.enforcement.limits import Counted, all_counted, counted_of
from controller.core.engine_api.parse import (
    parse_create,
    parse_network,
    parse_update,
    parse_volume,
)
from controller.core.proofs.rendering import shape_of_create
from controller.core.records import parts
from controller.core.records.container_effects import create_container
from controller.core.records.inventory import _create_network, _create_volume
from controller.core.records.inventory_json import replica_of
from controller.core.records.parts import CreatePart, DeliveryPart, SummaryPart
from controller.core.rules.context import (
    CreateFacts,
    HostFacts,
    NetworkFacts,
    RunFacts,
    case_of,
    make_case,
    requested_place,
)
from controller.core.rules.verdict import AdmissionDecision
from controller.model import names
from controller.model.delivery import FileSet
from controller.model.inventory import Capacity, ContainerItem, Inventory
from controller.model.names import (
    CONTAINER_NAME_MAX,
    container_name,
    namespaced_network,
    qualified,
    run_name,
)
from controller.model.observed import NO_RUNS
from controller.model.policy.document import Policy
from controller.model.policy.sections import SignedSource
from controller.model.records import Actor, Request, Role
from tests.examples import examples
from tests.unit.core.creates import (
    CLIENT,
    CONTROLLER,
    FACTS,
    OPERATOR,
    REFERENCE,
    REVISION,
    STAMP,
    judged,
    policy,
)

pytestmark = pytest.mark.slow

Body = dict[str, Any]
ROUTE = ROUTES[0]
SOURCE = {"require": "signed", "keys": "release", "path": "deploy", "since": "0" * 40}
REPOSITORY = REFERENCE.partition(":")[0]
EXCEPTION = {
    "reason": "it needs more memory",
    "expires": "2999-12-31",
    "loosens": {"memoryMax": "12Gi"},
}


def call_of(body: object, actor: Actor, rules: Policy) -> GateRequest:
    request = Request("POST", "/", "", (), b"", actor)
    return GateRequest("i1", rules, request, actor, None, ROUTE, {}, {}, body)


def closing_of(summary: Mapping[str, object], actor: Actor) -> parts.Closing:
    """Return the settled intent of an admitted create."""
    return parts.Closing(
        id="i1",
        seq=1,
        role=actor.role.value,
        object="",
        summary=SummaryPart.read(summary),
        result=parts.ResultPart(container="c" * 64, object="o" * 64),
        recovered=False,
        applied=True,
    )


NAMESPACES = ("default", "shop", "lab")
OWNERS = ("alice", "bob")
SPACE, OWNER, SERVICE = names.NAMESPACE, names.OWNER, names.SERVICE
COMPOSE = "com.docker.compose.service"
#: A change of a few labels: other values, none, and other spellings of the key.
CHANGES = st.one_of(
    st.tuples(st.just(SPACE), st.sampled_from([None, None, "", "Shop", "sho.p", "default "])),
    st.tuples(st.just(OWNER), st.sampled_from([None, "", "bob", "Alice", "operator"])),
    st.tuples(st.just(SERVICE), st.sampled_from([None, "", "db", "We.b", "web."])),
    st.tuples(st.just(COMPOSE), st.sampled_from(["", "web", "db", "WEB"])),
    st.tuples(st.just(names.SLOT), st.sampled_from([None, "2", "run-1", "run-2", "01", "-1"])),
    st.tuples(st.just(names.REVISION), st.sampled_from([None, "v2:" + "0" * 64, "x"])),
    st.tuples(st.just(names.IMAGE), st.sampled_from([None, REFERENCE.partition(":")[0], "x"])),
    st.tuples(st.just("Io.Trimtab.Namespace"), st.just("shop")),
)


@dataclass(frozen=True)
class Sender:
    """Who asks, with the labels of the request."""

    actor: Actor
    labels: dict[str, str]


@st.composite
def senders(draw: st.DrawFn, *, container: bool) -> Sender:
    """Draw a caller, and labels of which most are as the caller writes them."""
    actor = draw(st.sampled_from([CONTROLLER, CONTROLLER, CONTROLLER, CLIENT, OPERATOR]))
    labels: dict[str, str | None] = {}
    if actor is CONTROLLER:
        labels |= {OWNER: "alice", SPACE: draw(st.sampled_from(NAMESPACES))}
    if actor is CONTROLLER and container:
        labels |= {SERVICE: "web", names.SLOT: "1", names.REVISION: REVISION}
        labels |= {names.IMAGE: REFERENCE}
        if draw(st.booleans()):
            labels |= {names.SLOT: "run-1", names.OCCASION: "change"}
    elif container:
        labels |= {draw(st.sampled_from([SERVICE, COMPOSE])): "web"}
    most = draw(st.sampled_from([0, 0, 1, 1, 2]))
    labels |= dict(draw(st.lists(CHANGES, max_size=most)))
    return Sender(actor, {name: text for name, text in labels.items() if text is not None})


def _excepted(place: str, made_by: str, repository: str = REPOSITORY) -> Body:
    owner, namespace, service = place.split("/")
    at = {"owner": owner, "namespace": namespace, "service": service, "repository": repository}
    return {**EXCEPTION, **at, "for": made_by}


EXCEPTIONS: tuple[list[Body], ...] = (
    [],
    *([_excepted(f"alice/{each}/web", "documents")] for each in NAMESPACES),
    *([_excepted(f"alice/{each}/web", "clients")] for each in NAMESPACES[:2]),
    [_excepted(f"alice/default/{each}", "clients") for each in ("web", "db")],
    [_excepted(f"{each}/shop/web", "documents") for each in ("bob", "alice")],
    [{**_excepted("alice/default/web", "documents"), "expires": "1969-12-31"}],
    [_excepted("alice/default/web", each, "ghcr.io/x/y") for each in ("documents", "clients")],
)
#: Policies with signed namespaces, listed owners and exceptions, and without.
POLICIES = tuple(
    policy(
        networks={"modes": ["none", "isolated", "bridge"]},
        sources=[{**SOURCE, "source": each, "namespaces": [each]} for each in signed],
        owners=listed and [{"name": each, "namespaces": listed} for each in OWNERS],
        exceptions=exceptions,
    )
    for signed, listed, exceptions in product(
        ([], ["default"], ["shop"], ["default", "lab"]),
        (None, ["default"], ["shop", "lab"], [*NAMESPACES]),
        EXCEPTIONS,
    )
)


# Networks and volumes

Rule = Callable[[GateRequest], SignedSource | None]


@st.composite
def objects(draw: st.DrawFn) -> tuple[str, str, Sender]:
    """Draw a kind, a name that mostly fits to the namespace, and who asks."""
    sender = draw(senders(container=False))
    kind = draw(st.sampled_from(["network", "volume"]))
    space = sender.labels.get(SPACE) or "default"
    usual = qualified(space, draw(st.sampled_from(["net", "data"])))
    others = ["net", "platform-network", "platform-network.shop", "a.b", f"{space}.a.b"]
    return kind, draw(st.sampled_from([usual, usual, usual, *others])), sender


def differing_facts(
    kind: str,
    name: str,
    labels: dict[str, str],
    actor: Actor,
    rules: Policy,
    rule: Rule = signed_acts.rule_of_request,
) -> list[str]:
    """Return the facts of an admitted network or volume on which two judges differ."""
    body: Body = {"Name": name, "Labels": labels, "Internal": True}
    if kind == "volume":
        del body["Internal"]
    judge = _judge_network if kind == "network" else _judge_volume
    judged = judge(body, actor, rules)
    if judged.verdict.decision == "deny":
        return []
    call, summary = call_of(body, actor, rules), SummaryPart.read(judged.summary)
    made_of = _create_network if kind == "network" else _create_volume
    made = made_of(Inventory(), closing_of(judged.summary, actor))
    (item,) = (made.networks if kind == "network" else made.volumes).values()
    counted = counted_of("network" if kind == "network" else "volume", summary)
    place = requested_place(labels, actor, rules)
    by_controller = actor.role is Role.CONTROLLER
    engine_labels = labels_of(judged)
    namespace = place.namespace if by_controller else ""
    wanted = rules.signed_source(namespace) if by_controller else None
    rows = {
        "rule": (rule(call), wanted),
        "namespace": (
            engine_labels[names.NAMESPACE],
            item.namespace,
            counted.namespace,
            namespace,
        ),
        "owner": (engine_labels[names.OWNER], item.owner, counted.owner, place.owner),
        "origin": (engine_labels[names.ORIGIN], item.origin, counted.origin),
        "name": (sent_of(judged)["Name"], item.name, summary.name, name),
        "counted": (counted, next(iter(all_counted(made, {})))._replace(service=counted.service)),
    }
    return [f"{fact}: {values}" for fact, values in rows.items() if _differ(values)]


def sent_of(judged: AdmissionDecision) -> Body:
    """Return the body that the engine gets."""
    assert judged.body is not None
    return dict(judged.body)


def labels_of(judged: AdmissionDecision) -> dict[str, str]:
    labels = sent_of(judged)["Labels"]
    assert isinstance(labels, dict)
    return labels


def _differ(values: tuple[object, ...]) -> bool:
    return any(value != values[0] for value in values)


def _judge_network(body: Body, actor: Actor, rules: Policy) -> AdmissionDecision:
    request = parse_network(body)
    return admit_network(request, actor=actor, policy=rules, existing=None, stamp=STAMP)


def _judge_volume(body: Body, actor: Actor, rules: Policy) -> AdmissionDecision:
    request = parse_volume(body)
    return admit_volume(request, actor=actor, policy=rules, existing=None, stamp=STAMP)


@settings(max_examples=examples(200))
@given(asked=objects(), rules=st.sampled_from(POLICIES))
def test_a_network_or_volume_is_judged_where_it_is_made(
    asked: tuple[str, str, Sender], rules: Policy
) -> None:
    kind, name, sender = asked
    assert differing_facts(kind, name, sender.labels, sender.actor, rules) == []


def rule_of_the_label(call: GateRequest) -> SignedSource | None:
    """Return the rule by the label alone: the planted bug. An object of ``default`` needs none."""
    assert isinstance(call.body, dict)
    label = call.body["Labels"].get(names.NAMESPACE, "")
    return call.policy.signed_source(label) if call.actor.role is Role.CONTROLLER else None


SIGNED_DEFAULT = policy(sources=[{**SOURCE, "source": "s", "namespaces": ["default"]}])


@pytest.mark.parametrize("kind", ["network", "volume"])
@pytest.mark.parametrize("more", [{}, {names.NAMESPACE: ""}])
def test_the_property_finds_a_rule_of_its_own(kind: str, more: dict[str, str]) -> None:
    labels = {names.OWNER: "alice", **more}
    asked = (kind, "spy", labels, CONTROLLER, SIGNED_DEFAULT)
    assert differing_facts(*asked) == []
    (found,) = differing_facts(*asked, rule=rule_of_the_label)
    assert found.startswith("rule: (None, ")


# Containers


@st.composite
def creates(draw: st.DrawFn) -> tuple[Body, str, Actor]:
    """Draw a create, its name, and who asks."""
    sender = draw(senders(container=True))
    labels = sender.labels
    space, service = labels.get(names.NAMESPACE, ""), labels.get(names.SERVICE, "")
    slot, revision = labels.get(names.SLOT, ""), labels.get(names.REVISION, "")
    number = names.number_of_slot(slot)
    if not names.is_revision(revision):
        usual = "alice-web"
    elif names.run_of_slot(slot):
        usual = run_name(space, service, number=number, revision=revision)
    else:
        usual = container_name(space, service, slot=number, revision=revision)
    if sender.actor is not CONTROLLER:
        usual = "alice-web"
    name = draw(st.sampled_from([usual, usual, usual, "", "alice-web", f"{usual}.2"]))
    isolated = namespaced_network("platform-network", space or "default")
    if sender.actor is not CONTROLLER:
        isolated = ""
    mode = draw(st.sampled_from(["none", isolated, isolated, "platform-network.shop"]))
    host: Body = {"NetworkMode": mode}
    body: Body = {"Image": REFERENCE, "Labels": labels, "HostConfig": host}
    aliases = [service] if service and not names.run_of_slot(slot) else []
    ends: Body = {} if mode in {"", "none"} else {mode: {"Aliases": aliases}}
    if draw(st.booleans()) and mode != "none":
        host["PortBindings"] = {
            "80/tcp": [{"HostPort": "8080"}, {"HostIp": "::1"}],
            "81/udp": [{}],
        }
        if mode:
            ends[mode.replace("network", "ingress")] = {}
    body["NetworkingConfig"] = {"EndpointsConfig": ends}
    if draw(st.booleans()):
        host["Memory"] = draw(st.sampled_from([9, 12, 13])) << 30
    return body, name[:CONTAINER_NAME_MAX], sender.actor


KINDS = {"network": (True, True, True), "ingress": (False, False, False)}
NETWORKS = {
    name: NetworkFacts(
        f"{number:064x}",
        name,
        ours=True,
        namespace=space,
        internal=internal,
        masquerade=masquerade,
        icc=icc,
    )
    for number, (space, kind) in enumerate(
        (space, kind) for space in NAMESPACES for kind in ("network", "ingress")
    )
    for internal, masquerade, icc in [KINDS[kind]]
    for name in [f"platform-{kind}" + ("" if space == "default" else f".{space}")]
}
LOOKED_AT = replace(FACTS, networks=NETWORKS, run=RunFacts(NO_RUNS))


def inspect_of(item: ContainerItem, host: Body) -> Body:
    """Return the engine's inspect of a container as it was made."""
    ends: Body = {name: {} for name in item.admitted.networks}
    return {
        "Name": f"/{item.admitted.name}",
        "HostConfig": host,
        "NetworkSettings": {"Networks": ends},
    }


def made_by(
    admission: AdmissionDecision, actor: Actor
) -> tuple[ContainerItem, SummaryPart, Inventory]:
    assert admission.settings is not None
    summary = SummaryPart.read(admission.summary) | CreatePart(settings=admission.settings)
    inventory = create_container(Inventory(), closing_of(summary.members, actor))
    (item,) = inventory.containers.values()
    return item, summary, inventory


@settings(max_examples=examples(200))
@given(asked=creates(), rules=st.sampled_from(POLICIES))
def test_a_container_is_judged_where_it_is_made(
    asked: tuple[Body, str, Actor], rules: Policy
) -> None:
    body, name, actor = asked
    admission = judged(body, name=name, actor=actor, rules=rules, facts=LOOKED_AT)
    if admission.verdict.decision == "deny":
        return
    request, call = parse_create(body), call_of(body, actor, rules)
    case = make_case(request, name=name, actor=actor, policy=rules, facts=LOOKED_AT, stamp=STAMP)
    item, summary, inventory = made_by(admission, actor)
    by_controller = actor.role is Role.CONTROLLER
    namespace = case.namespace if by_controller else ""
    sent, labels = sent_of(admission), labels_of(admission)
    assert (item.namespace, labels[names.NAMESPACE]) == (namespace, namespace)
    assert item.owner == labels[names.OWNER] == case.owner
    assert item.service == labels[names.SERVICE] == case.service
    assert item.origin == labels[names.ORIGIN]
    assert item.slot_label == labels[names.SLOT] or not by_controller
    assert item.revision == labels[names.REVISION]
    assert item.admitted.name == summary.name == dict(admission.query)["name"]
    # Proofs.
    wanted = rules.signed_source(namespace) if by_controller else None
    assert signed_acts.rule_of_request(call) == wanted
    if by_controller:
        kind = "Job" if item.is_run else "Service"
        assert signed_acts.key_of_request(call) == f"{kind}/{item.namespace}/{item.service}"
        shape = shape_of_create(body)
        assert shape is not None
        assert names.number_of_slot(shape.slot) == item.slot
        assert shape.reference == item.image
        assert tuple(network for network, _ in shape.endpoints) == item.admitted.networks
    # Quotas.
    counted = counted_of("container", summary)
    assert counted == Counted(
        "container", item.owner, item.origin, item.namespace, item.service, len(item.ports)
    )
    before = all_counted(Inventory(), {"i1": counted})
    assert before == all_counted(inventory, {}) == all_counted(inventory, {"i1": counted})
    assert len(item.ports) == len(request.ports)
    # Names and ports.
    assert dns_names.of_item(item) == replace(dns_names.of_summary(summary), id=item.id)
    assert create.host_ports_of_item(item) == create.host_ports_of_summary(summary)
    # Networks.
    rebuilt = parse_create(sent)
    joined = {rebuilt.network_mode, *(end.network for end in rebuilt.endpoints)}
    assert joined - {"none"} == {*item.admitted.networks}
    assert replica_of(item, up=None).networks == item.admitted.networks
    assert replica_of(item, up=None).capacity == Capacity.of(item.admitted)


@settings(max_examples=examples(200))
@given(asked=creates(), rules=st.sampled_from(POLICIES))
def test_a_change_of_a_container_is_judged_as_its_create(
    asked: tuple[Body, str, Actor], rules: Policy
) -> None:
    """Owner, namespace, service and exceptions are the same for updates, connects and verification."""
    body, name, actor = asked
    admission = judged(body, name=name, actor=actor, rules=rules, facts=LOOKED_AT)
    if admission.verdict.decision == "deny":
        return
    request = parse_create(body)
    first = make_case(request, name=name, actor=actor, policy=rules, facts=LOOKED_AT)
    item, _, _ = made_by(admission, actor)
    host = sent_of(admission)["HostConfig"]
    current = container_facts(OwnContainer(item, inspect_of(item, host)))
    facts = CreateFacts(host=HostFacts(cpus=8, now=1.0))
    for sender in (actor, OPERATOR):
        later = case_of(current, actor=sender, policy=rules, facts=facts)
        assert (later.owner, later.namespace, later.service) == (
            first.owner,
            first.namespace,
            first.service,
        )
        assert later.actor.role is actor.role
        assert (later.exceptions, later.reference) == (first.exceptions, first.reference)
    bounds = bounds_of(rules, item, 1.0)
    assert bounds.memory == first.policy.resources.memory.max
    # What the create could have, an update may ask for, and nothing beyond.
    for memory in (9 << 30, 12 << 30, 13 << 30):
        update = parse_update({"Memory": memory, "MemorySwap": memory})
        answer = admit_update(
            update, actor=actor, policy=rules, current=current, host=HostFacts(cpus=8, now=1.0)
        )
        admitted = answer.verdict.decision != "deny"
        assert admitted is (memory <= first.policy.resources.memory.max)


# Files


@settings(max_examples=examples(50))
@example("config", "default", "site", SIGNED_DEFAULT)
@given(
    kind=st.sampled_from(["config", "secret"]),
    namespace=st.sampled_from([*NAMESPACES, "", "Shop", "sho.p", "default."]),
    name=st.sampled_from(["site", "", "a.b", "Site"]),
    rules=st.sampled_from(POLICIES),
)
def test_a_delivery_is_judged_where_it_is_stored(
    kind: str, namespace: str, name: str, rules: Policy
) -> None:
    files = FileSet(kind, namespace, name)
    delivery = read_delivery({"owner": "alice", "files": {"a.txt": "aGVsbG8="}})
    judged = admit_delivery(files, delivery, actor=CONTROLLER, policy=rules, stored={}, used=())
    if judged.verdict.decision == "deny":
        return
    summary = DeliveryPart.read(judged.summary)
    stored = FileSet(summary.kind, summary.namespace, summary.name)
    assert stored == files
    assert summary.owner == "alice"
    assert namespace in NAMESPACES
    assert rules.signed_source(stored.namespace) == rules.signed_source(files.namespace)
