"""A Compose project that can't be read keeps its own services, and no others."""

from dataclasses import replace

import pytest

from controller.core.planning.networks import unused_networks
from controller.core.service.prune_guard import SETTLE_S, PruneDecision, PruneMemory, guard
from controller.core.status.facts import StatusInputs
from controller.core.status.report import report
from controller.model.desired.desired import Desired, SourceIdentity, SourceScope
from controller.model.names import Key, service_key
from controller.model.observed import Observed, ObservedNetwork
from tests.worlds import NAMES, container, declared, engine, plan, service

WEB, JOB, GONE = service_key("shop", "web"), Key("Job", "shop", "j"), service_key("blog", "gone")
STAYS = service("stays", namespace="blog")
DIR = SourceIdentity("dir", present=True, device=7, documents=2)


def world(*, of_source: bool = False) -> Desired:
    """The project of the namespace shop can't be read; the source of blog can."""
    desired = replace(declared(STAYS), blind_namespaces=frozenset({"shop"}))
    if not of_source:
        return desired
    unread = frozenset({"shop"})
    scopes = (
        SourceScope("", DIR, namespaces=None, keys=frozenset({GONE, STAYS.key})),
        SourceScope("team", DIR, namespaces=unread, keys=frozenset({WEB}), blind_namespaces=unread),
    )
    return replace(desired, scopes=scopes)


def running() -> Observed:
    return engine(*(container(k.name, namespace=k.namespace) for k in (WEB, GONE, STAYS.key)))


def decide(desired: Desired, memory: PruneMemory | None = None) -> PruneDecision:
    first = guard(desired, running(), memory or PruneMemory(), now=1000.0, approved=False)
    return guard(desired, running(), first.memory, now=1000.0 + SETTLE_S, approved=False)


@pytest.mark.parametrize("of_source", [False, True])
def test_its_services_stay_and_others_are_pruned(of_source: bool) -> None:
    decision = decide(world(of_source=of_source))
    assert decision.prunable == {GONE}
    assert decision.blocked == ()


def test_a_removal_that_has_begun_goes_no_further() -> None:
    memory = PruneMemory(going=frozenset({WEB}))
    assert decide(world(), memory).prunable == {GONE}


def test_a_document_of_the_namespace_goes_on() -> None:
    api = service("api", namespace="shop", replicas=0)
    desired = replace(declared(STAYS, api), blind_namespaces=frozenset({"shop"}))
    observed = engine(
        *(container(k.name, namespace=k.namespace) for k in (api.key, WEB, STAYS.key))
    )
    first = guard(desired, observed, PruneMemory(), now=1000.0, approved=False)
    second = guard(desired, observed, first.memory, now=1000.0 + SETTLE_S, approved=False)
    assert second.prunable == {api.key}


def test_its_services_say_that_they_are_left_as_they_are() -> None:
    desired, observed = world(), running()
    decision = decide(desired)
    made = plan(desired, observed, prunable=decision.prunable, blocked=decision.blocked)
    assert {action.object for action in made.actions if action.object.kind == "Service"} == {GONE}
    assert not made.complete
    shown = report(
        StatusInputs(desired, observed, made, NAMES), previous=None, now="2026-03-01T12:00:00Z"
    )
    resources = shown["resources"]
    assert isinstance(resources, list)
    told = {
        f"{each['namespace']}/{each['name']}": (c["reason"], c["message"])
        for each in resources
        for c in each["conditions"]
        if c["type"] == "Ready"
    }
    assert told["shop/web"] == ("Blind", "its document can't be read: it is left as it is")
    assert told["blog/stays"][0] == "AsDeclared"
    assert "PrunePending" not in str(resources)


def test_no_network_of_its_namespace_is_unused() -> None:
    networks = tuple(
        ObservedNetwork(name, f"{name}.n", ours=True, origin="controller", namespace=name)
        for name in ("shop", "blog")
    )
    observed = replace(running(), networks=networks)
    desired = world(of_source=True)
    assert [each.name for each in unused_networks(desired, observed, NAMES, [])] == ["blog.n"]


def test_an_approval_removes_none_of_them() -> None:
    decision = guard(world(), running(), PruneMemory(), now=1000.0, approved=True)
    assert decision.prunable == {GONE}


@pytest.mark.parametrize("of_source", [False, True])
def test_what_the_project_possibly_declares_is_known(of_source: bool) -> None:
    desired = world(of_source=of_source)
    keys = (WEB, JOB, GONE, STAYS.key)
    assert [desired.is_unread(key) for key in keys] == [True, True, False, False]
    assert [desired.is_blind_for(key) for key in keys] == [True, True, False, False]
    assert not desired.whole
