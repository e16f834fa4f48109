"""The prune guard judges DIR and each Git source apart."""

from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core.planning.planner import keys
from controller.core.service.prune_guard import (
    APPROVE,
    KEEP,
    REPAIR,
    SETTLE_S,
    PruneDecision,
    PruneMemory,
    guard,
)
from controller.model.desired.desired import (
    Declared,
    Desired,
    SourceIdentity,
    SourceLocation,
    SourceScope,
)
from controller.model.names import Key, service_key
from controller.model.observed import Observed
from tests.worlds import HERE, container, declared, engine, plan, service

SHOP = frozenset({"shop"})


def key(name: str, namespace: str = "shop") -> Key:
    return service_key(namespace, name)


def scope(
    name: str,
    *known: Key,
    blind: bool = False,
    present: bool = True,
    documents: int = 3,
    device: int = 7,
    namespaces: frozenset[str] | None = SHOP,
    state: Declared = Declared.ACTIVE,
) -> SourceScope:
    identity = SourceIdentity(f"Source {name}", present, device, documents)
    return SourceScope(name, identity, blind, namespaces, frozenset(known), state)


def world(
    *scopes: SourceScope, services: Iterable[Key] = (), own: SourceScope | None = None
) -> Desired:
    """A desired state of these services; DIR has those of namespace default."""
    services = tuple(services)
    mine = own or scope("", *(k for k in services if k.namespace == "default"), namespaces=None)
    mine = replace(mine, identity=HERE) if mine.identity.present else mine
    everything = (mine, *scopes)
    made = (
        replace(
            service(k.name, namespace=k.namespace),
            source=SourceLocation("x.yaml", origin=_name_of(k, everything)),
        )
        for k in services
    )
    return replace(declared(*made, blind=any(each.blind for each in everything)), scopes=everything)


def _name_of(k: Key, scopes: tuple[SourceScope, ...]) -> str:
    return next((each.name for each in scopes if k in each.keys), "")


def running(*those: Key) -> Observed:
    return engine(*(container(k.name, namespace=k.namespace) for k in those))


def twice(
    desired: Desired,
    observed: Observed,
    memory: PruneMemory | None = None,
    *,
    approved: bool = False,
) -> PruneDecision:
    first = guard(desired, observed, memory or PruneMemory(), now=1000.0, approved=approved)
    return guard(desired, observed, first.memory, now=1000.0 + SETTLE_S, approved=False)


def reasons(decision: PruneDecision) -> list[str]:
    return [f"{b.key.name}: {b.reason}; {b.remedy}" for b in decision.blocked]


WEB, API, OLD, OWN = key("web"), key("api"), key("old"), key("own", "default")
MINE = scope("", OWN, namespaces=None)


def test_a_commit_without_a_service_removes_the_service():
    desired = world(scope("team", WEB, OLD), services=[WEB])
    decision = twice(desired, running(WEB, OLD))
    assert decision.prunable == {OLD}
    assert decision.blocked == ()
    assert dict(decision.memory.sources) == {WEB: "team", OLD: "team"}


@pytest.mark.parametrize(
    ("lost", "reason"),
    [
        (
            scope("team", OLD, blind=True),
            "a file or document of Source team can't be read, and may declare it",
        ),
        (
            scope("team", OLD, blind=True, present=False, documents=0, device=0),
            "Source team has no readable commit",
        ),
        (
            scope("team", OLD, blind=True, state=Declared.BROKEN),
            "the document of Source team can't be read",
        ),
        (
            scope("team", OLD, blind=True, state=Declared.REMOVED),
            "a file or document can't be read, and may declare Source team",
        ),
    ],
)
def test_a_blind_source_holds_back_its_own_services_alone_approved_or_not(lost, reason):
    gone = key("gone", "default")
    desired = world(lost, services=[OWN], own=MINE)
    for approved in (False, True):
        decision = twice(desired, running(OWN, OLD, gone), approved=approved)
        assert decision.prunable == {gone}
        assert reasons(decision) == [
            f"old: would be removed, but {reason}; {REPAIR}; {KEEP}",
        ]


def test_a_service_of_an_unknown_source_waits_for_all_that_may_declare_it():
    lost = scope("team", blind=True, present=False)
    other = key("other", "blog")
    desired = world(lost, services=[OWN], own=MINE)
    assert twice(desired, running(OWN, OLD, other)).prunable == {other}


def test_a_blind_directory_holds_back_its_own_services_alone():
    own = scope("", OWN, blind=True, namespaces=None)
    desired = world(scope("team", WEB, OLD), services=[WEB], own=own)
    decision = twice(desired, running(WEB, OLD, OWN))
    assert decision.prunable == {OLD}
    assert [b.key for b in decision.blocked] == [OWN]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (scope("team", OLD, state=Declared.REMOVED), "the document of Source team was removed"),
        (scope("team", OLD, state=Declared.SUSPENDED), "Source team is suspended"),
        (scope("team", OLD, documents=0), "Source team is without any document"),
        (scope("team", OLD, device=8), "Source team is on another filesystem than before"),
    ],
)
def test_such_a_source_prunes_after_an_approval(source, reason):
    desired = world(source, services=[OWN], own=MINE)
    memory = PruneMemory(device=7, devices=(("team", 7),))
    held = twice(desired, running(OWN, OLD), memory)
    assert held.prunable == frozenset()
    assert reasons(held) == [
        f"old: would be removed, but {reason}; {APPROVE}; {KEEP}",
    ]
    assert twice(desired, running(OWN, OLD), held.memory, approved=True).prunable == {OLD}


def test_a_held_source_leaves_the_removals_of_another_free():
    removed = scope("team", OLD, state=Declared.REMOVED)
    blog = key("blog", "blog")
    other = scope("other", blog, key("left", "blog"), namespaces=frozenset({"blog"}))
    desired = world(removed, other, services=[OWN, key("left", "blog")], own=MINE)
    decision = twice(desired, running(OWN, OLD, blog, key("left", "blog")))
    assert decision.prunable == {blog}
    assert [b.key for b in decision.blocked] == [OLD]


def test_services_of_all_sources_are_counted_together():
    letters = [key(c) for c in "abcdefgh"]
    ours = [key(c, "default") for c in "abcdefgh"]
    desired = world(scope("team", *letters), services=[letters[0], ours[0]])
    own = [*ours[1:3]]
    decision = twice(desired, running(*letters[:3], ours[0], *own))
    assert decision.prunable == frozenset()
    assert {b.reason for b in decision.blocked} == {
        "would be removed, but 4 of 6 services would go within 10 minutes, more than 3"
    }


def test_a_source_is_forgotten_with_its_last_resource():
    removed = scope("team", OLD, state=Declared.REMOVED)
    desired = world(removed, services=[OWN], own=MINE)
    assert dict(twice(desired, running(OWN, OLD)).memory.sources) == {OWN: "", OLD: "team"}
    assert twice(desired, running(OWN)).memory.sources == ()


def test_a_blind_source_keeps_its_resources_in_memory():
    volume = Key("Volume", "shop", "data")
    lost = scope("team", volume, OLD, blind=True, present=False)
    decision = twice(world(lost, services=[OWN], own=MINE), running(OWN))
    assert dict(decision.memory.sources) == {OWN: "", OLD: "team", volume: "team"}


NAMES = st.sampled_from(["team", "other"])
KEYS = st.builds(key, st.sampled_from("abc"), st.sampled_from(["shop", "blog", "default"]))
SCOPES = st.builds(
    lambda known, blind, present, documents, state: scope(
        "team",
        *known,
        blind=blind or not present or state is Declared.BROKEN,
        present=present,
        documents=documents if present else 0,
        state=state,
    ),
    st.frozensets(KEYS, max_size=4),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2),
    st.sampled_from(Declared),
)


@given(
    team=SCOPES,
    there=st.frozensets(KEYS, min_size=1, max_size=9),
    kept=st.frozensets(KEYS, max_size=4),
    approved=st.booleans(),
)
def test_nothing_goes_that_a_blind_source_may_declare(team, there, kept, approved):
    desired = world(team, services=sorted(kept - team.keys))
    decision = twice(desired, running(*there), approved=approved)
    for gone in decision.prunable:
        assert not desired.is_blind_for(gone)
        assert desired.service(gone) is None
        if gone in team.keys and not approved:
            assert team.declared is Declared.ACTIVE
            assert team.identity.documents > 0
    removals = plan(desired, running(*there), prunable=there).actions
    assert not [
        action
        for action in removals
        if desired.is_blind_for(action.object)
        and desired.service(action.object) is None
        and type(action).__name__ in {"StopContainer", "RemoveContainer"}
    ]
    assert keys(desired, running(*there)) >= there


def test_an_old_observation_makes_no_source_forgotten() -> None:
    """The files are read again after a service was created, and before the engine was observed."""
    web, others = key("web"), [key(f"s{n}", "default") for n in range(9)]
    shop = scope("shop", web)
    first = guard(
        world(shop, services=[web, *others]),
        running(*others),
        PruneMemory(),
        now=1.0,
        approved=False,
    )
    removed = replace(shop, namespaces=frozenset(), declared=Declared.REMOVED)
    gone = world(removed, services=others)
    second = guard(gone, running(*others), first.memory, now=2.0, approved=False, looked=False)
    assert dict(second.memory.sources)[web] == "shop"


@pytest.mark.parametrize(("blind", "present"), [(True, True), (False, False)])
def test_while_nothing_is_read_the_filesystems_of_sources_are_remembered(blind, present):
    """The sources are unknown then: their filesystem must be the same once they are known again."""
    memory = PruneMemory(device=7, devices=(("team", 9),))
    desired = Desired(blind=blind, identity=replace(HERE, present=present))
    assert guard(desired, engine(), memory, now=1000.0, approved=False).memory.devices == (
        ("team", 9),
    )
