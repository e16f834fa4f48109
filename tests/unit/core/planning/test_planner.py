"""What belongs into a plan and what must never, and what its digest stands for."""

from dataclasses import replace
from functools import partial

import pytest

from controller.core.encoding.json_values import digest
from controller.core.planning import planner
from controller.core.planning.planner import ACTIONS_MAX, keys, orphan_keys
from controller.core.review.flat_plan import to_json
from controller.model.desired.desired import SourceIdentity
from controller.model.desired.plan import Blocked
from controller.model.errors import Problem, Severity
from controller.model.names import Key, service_key
from controller.model.observed import Image, ObservedNetwork
from controller.model.records import Verdict
from tests.growth import LINEAR, steps
from tests.worlds import (
    BRIDGE,
    HERE,
    IMAGE,
    INGRESS,
    ISOLATED,
    NAMES,
    WEB,
    allow,
    container,
    declared,
    deny,
    engine,
    network,
    plan,
    revision,
    service,
    volume,
)

REMOVED = [
    ("update-container", "web.1-bbbbbbbb"),
    ("stop-container", "web.1-bbbbbbbb"),
    ("remove-container", "web.1-bbbbbbbb"),
]
NETWORK_GONE = ("remove-network", "platform-network")
CREATED = [("create-container", "web.1-bbbbbbbb"), ("start-container", "web.1-bbbbbbbb")]
OTHER = container("other")


def moves(desired, observed, **more):
    return [(action.verb, action.target) for action in plan(desired, observed, **more).actions]


def test_an_undeclared_service_is_removed_and_then_what_it_joined():
    made = plan(declared(), engine(container()))
    assert [(a.verb, a.target) for a in made.actions] == [*REMOVED, NETWORK_GONE]
    last = made.actions[-1]
    assert (str(last.object), last.precondition.id, last.cause) == (
        "Network/default/platform-network",
        "n1",
        "no service uses it any more",
    )


def test_only_what_the_prune_guard_names_is_removed():
    observed = engine(container(), OTHER)
    assert moves(declared(), observed, prunable=frozenset({WEB})) == REMOVED
    assert moves(declared(), observed, prunable=frozenset()) == []


def test_nothing_undeclared_is_removed_while_blind_and_creating_goes_on():
    observed = engine(OTHER, networks=(ISOLATED, BRIDGE))
    made = plan(declared(service(), blind=True), observed)
    assert [(a.verb, a.target) for a in made.actions] == CREATED
    assert made.complete is False


@pytest.mark.parametrize("there", [container(), container(slot=9), container(rev="a")])
@pytest.mark.parametrize("wanted", [(), (service(),), (service(replicas=0),)])
def test_a_blind_key_is_left_exactly_as_it_is(there, wanted):
    made = plan(declared(*wanted, blind_keys=[WEB]), engine(there, OTHER))
    assert {a.object.name for a in made.actions} == {"other"}
    assert made.complete is False


def test_a_service_with_a_container_that_cant_be_read_is_left_and_says_so():
    other = service("other", replicas=0)
    observed = replace(engine(OTHER), unread={WEB: "web.1-a: the answer passes 16777216 bytes"})
    made = plan(declared(service(), other), observed)
    assert {action.object.name for action in made.actions} == {"other"}
    (problem,) = made.problems
    assert (problem.key, problem.code, problem.severity) == (WEB, "engine.garbled", Severity.ERROR)
    assert "web.1-a: the answer passes" in problem.message
    undeclared = plan(declared(other), observed, prunable=frozenset({WEB}))
    assert [each.key for each in undeclared.problems] == [WEB]
    assert plan(declared(service(), other), observed, only=other.key).problems == ()


def test_blind_networks_and_volumes_are_left_as_they_are():
    desired = declared(network("back"), volume("data"))
    blind = replace(desired, blind_keys=frozenset({desired.networks[0].key}))
    assert moves(blind, engine(networks=())) == [("create-volume", "data")]
    blind = replace(desired, blind_keys=frozenset({desired.volumes[0].key}))
    assert moves(blind, engine(networks=())) == [("create-network", "back")]


def test_what_a_client_made_is_never_planned_for():
    clients = (container(origin="client"), container(slot=2, rev="a", origin="client"))
    assert moves(declared(), engine(*clients, networks=())) == []
    made = moves(declared(service()), engine(container("web", 2, "a", origin="client")))
    assert made == CREATED


@pytest.mark.parametrize(
    "network_there",
    [
        replace(ISOLATED, ours=False),
        replace(ISOLATED, origin="client"),
        replace(ISOLATED, containers=1),
    ],
)
def test_a_network_that_is_not_ours_or_in_use_is_not_removed(network_there):
    assert moves(declared(), engine(networks=(network_there,))) == []


def test_a_network_whose_containers_all_go_is_removed_with_them():
    used = replace(ISOLATED, containers=1)
    assert moves(declared(), engine(container(), networks=(used,))) == [*REMOVED, NETWORK_GONE]
    more = replace(ISOLATED, containers=2)
    assert moves(declared(), engine(container(), networks=(more,))) == REMOVED
    # The engine lists running ones only, so one that is down isn't among the one.
    down = container(state="exited")
    assert moves(declared(), engine(down, networks=(used,))) == [
        ("remove-container", "web.1-bbbbbbbb")
    ]


def test_a_network_that_a_stopped_or_kept_container_joins_is_not_removed():
    down = container("task", state="exited")
    made = moves(declared(), engine(down), prunable=frozenset())
    assert made == []
    client = container("mine", origin="client", state="exited")
    assert moves(declared(), engine(client)) == []


def test_a_removal_that_is_denied_keeps_its_network():
    made = plan(declared(), engine(container()), judge=deny("remove-container"))
    assert [a.verb for a in made.actions] == [
        "update-container",
        "stop-container",
        "remove-container",
    ]


def test_declared_and_implied_networks_stay():
    back = ObservedNetwork("n9", "back", ours=True, origin="controller", internal=True)
    published = service(ports=[{"container": 80, "host": 80}], state="Stopped")
    observed = engine(networks=(ISOLATED, INGRESS, back))
    assert moves(declared(published, network("back")), observed) == []
    assert moves(declared(service(state="Stopped")), observed) == [
        ("remove-network", "back"),
        ("remove-network", "platform-ingress"),
    ]


@pytest.mark.parametrize(
    "desired",
    [
        declared(blind=True),
        declared(blind_keys=[service_key("default", "other")]),
        declared(identity=replace(HERE, present=False)),
        declared(identity=replace(HERE, documents=0)),
        declared(identity=SourceIdentity("x", present=False)),
    ],
)
def test_no_network_is_removed_while_the_directory_is_not_wholly_read(desired):
    assert moves(desired, engine()) == []
    assert moves(declared(), engine()) == [NETWORK_GONE]


def test_no_network_is_removed_while_a_removal_is_pending():
    blocked = (Blocked(WEB, "PrunePending", "too many", "approve"),)
    assert moves(declared(), engine(), blocked=blocked) == []


def test_a_denied_network_removal_is_shown():
    made = plan(declared(), engine(), judge=deny("remove-network"))
    assert [(a.verb, a.verdict.decision) for a in made.actions] == [("remove-network", "deny")]


def test_services_come_by_key_and_networks_and_volumes_before_them():
    desired = declared(
        service("b"), service("a", namespace="z"), service("a"), volume("v"), network("n")
    )
    there = engine(networks=(ISOLATED, replace(ISOLATED, id="z", name="platform-network.z")))
    assert [str(key) for key in dict.fromkeys(a.object for a in plan(desired, there).actions)] == [
        "Network/default/n",
        "Volume/default/v",
        "Service/default/a",
        "Service/default/b",
        "Service/z/a",
    ]


def test_one_key_alone_gets_its_own_actions_and_no_others():
    desired = declared(service(), service("api"), network("back"), volume("data"))
    unused = replace(BRIDGE, name="old")
    observed = engine(OTHER, networks=(ISOLATED, unused))
    whole = plan(desired, observed)
    for key in keys(desired, observed):
        assert plan(desired, observed, only=key).actions == whole.of(key)
    assert {a.object for a in whole.actions} == keys(desired, observed) - {
        Key("Network", "default", "platform-network")
    }
    assert moves(desired, observed, only=Key("Network", "default", "old")) == [
        ("remove-network", "old")
    ]
    assert moves(desired, observed, only=service_key("default", "nobody")) == []


def test_every_key_that_may_need_a_pass_is_named():
    desired = declared(service(), network("back"), volume("data"))
    observed = engine(
        OTHER,
        container("mine", origin="client"),
        networks=(
            ISOLATED,
            replace(BRIDGE, ours=False),
            replace(INGRESS, origin="client"),
        ),
    )
    assert {str(key) for key in keys(desired, observed)} == {
        "Service/default/web",
        "Service/default/other",
        "Network/default/back",
        "Network/default/platform-network",
        "Volume/default/data",
    }
    assert orphan_keys(desired, observed) == {OTHER.key}
    assert orphan_keys(replace(desired, blind_keys=frozenset({OTHER.key})), observed) == set()


def test_problems_of_files_and_of_the_plan_come_by_place():
    late = Problem("x", "late", file="z.yaml", line=2, severity=Severity.WARNING)
    early = Problem("y", "early", file="a.yaml", line=9, column=1)
    first = Problem("y", "first", file="a.yaml", line=9)
    desired = declared(service(pullPolicy="Never"), problems=(late, early, first))
    made = plan(desired, engine(images={}))
    assert [p.message.partition(" ")[0] for p in made.problems] == [
        "first",
        "early",
        "ghcr.io/platformnetwork/web:1",
        "late",
    ]


def test_a_problem_of_every_slot_is_told_once():
    made = plan(declared(service(pullPolicy="Never", replicas=3)), engine(images={}))
    assert len(made.problems) == 1


def test_what_is_blocked_is_shown_by_key():
    blocked = tuple(Blocked(k, "PrunePending", "r", "m") for k in (OTHER.key, WEB))
    made = plan(declared(), engine(), blocked=tuple(reversed(blocked)), prunable=frozenset())
    assert made.blocked == blocked


def test_a_plan_is_bounded_and_says_so():
    services = [service(f"s{n}", replicas=999) for n in range(6)]
    made = plan(declared(*services), engine())
    assert (len(made.actions), made.complete) == (ACTIONS_MAX, False)
    assert [(p.code, p.message) for p in made.problems] == [
        ("plan.too-large", "the plan has 11988 actions, and shows the first 10000")
    ]
    just_fits = plan(declared(*services[:5], service("t", replicas=5)), engine())
    assert (len(just_fits.actions), just_fits.complete) == (ACTIONS_MAX, True)


def test_the_work_of_a_plan_grows_with_its_slots():
    few, more, most = (
        steps(partial(plan, declared(service(replicas=replicas)), engine()))
        for replicas in (100, 200, 400)
    )
    assert most - more <= LINEAR * (more - few)


def digest_of(desired, observed, **more) -> str:
    return plan(desired, observed, **more).digest


STALE = engine(container(rev="a"))


def test_the_digest_is_the_same_for_the_same_actions_whatever_they_say():
    same = engine(
        container(rev="a", state="restarting", restart_count=7, started_at="2026-05-05T00:00:00Z")
    )
    assert digest_of(declared(service()), STALE) == digest_of(declared(service()), same)
    later, sooner = ({(WEB, 1): text} for text in ("later", "sooner"))
    assert digest_of(declared(service()), STALE, backoff=later) == digest_of(
        declared(service()), STALE, backoff=sooner
    )
    assert len(digest_of(declared(), engine())) == 64


def other_policy() -> str:
    return planner.plan(
        declared(service()),
        STALE,
        networks=NAMES,
        judge=allow,
        prunable=frozenset(),
        blocked=(),
        policy_digest="another",
    ).digest


def test_the_digest_changes_with_everything_that_an_approval_is_about():
    mutated = Verdict("mutate", ("limits",))
    digests = {
        "as it is": digest_of(declared(service()), STALE),
        "instance": digest_of(declared(service()), replace(STALE, instance="there")),
        "desired": digest_of(replace(declared(service()), digest="d2"), STALE),
        "policy": other_policy(),
        "decision": digest_of(declared(service()), STALE, judge=lambda _: mutated),
        "an id": digest_of(declared(service()), engine(container(rev="a", id="other"))),
        "a revision": digest_of(declared(service(rev="c")), STALE),
        "a grace": digest_of(declared(service()), engine(container(rev="a", stop_grace_s=3))),
        "a wait": digest_of(declared(service()), STALE, backoff={(WEB, 1): "later"}),
        "an image": digest_of(
            declared(service()), replace(STALE, pins={revision("b"): Image("sha256:" + "1" * 64)})
        ),
        "fewer": digest_of(declared(service()), engine()),
        "none": digest_of(declared(), engine(networks=())),
        "a network": digest_of(declared(network("n")), engine(networks=())),
        "an open network": digest_of(declared(network("n", internal=False)), engine(networks=())),
        "a volume": digest_of(declared(volume("n")), engine(networks=())),
        "a restart": digest_of(
            declared(service()),
            engine(container(settings={"restart": "no"}, admitted={"restart": "no"})),
        ),
        "another restart": digest_of(
            declared(service()), engine(container()), controller_restarts=frozenset({(WEB, 1)})
        ),
    }
    assert len(set(digests.values())) == len(digests)


def owned(resource, owner):
    return replace(resource, owner=owner)


def test_the_digest_changes_with_an_owner_of_what_is_made():
    for resource in (network("n"), volume("n")):
        assert digest_of(declared(resource), engine(networks=())) != digest_of(
            declared(owned(resource, "another")), engine(networks=())
        )


def test_the_digest_is_that_of_the_canonical_plan_without_numbers_and_texts():
    desired = declared(
        network("n", internal=False), volume("v"), service(stopGracePeriod="30s"), service("api")
    )
    observed = engine(
        container(rev="a"),
        container("api", settings={"restart": "no"}, admitted={"restart": "no"}),
        networks=(ISOLATED, replace(BRIDGE, name="old")),
        images={},
    )
    made = plan(desired, observed)
    of = {"object": "Service/default/web", "slot": 1, "decision": "allow"}
    new = {"absent": "", "id": "", "revision": revision("b")}
    old = {"absent": "", "id": "id:web.1-aaaaaaaa", "revision": revision("a")}
    mine = {**new, "id": "id:api.1-bbbbbbbb"}
    back = {"object": "Network/default/n", "slot": 0, "decision": "allow"}
    data = {"object": "Volume/default/v", "slot": 0, "decision": "allow"}
    unused = {"object": "Network/default/old", "slot": 0, "decision": "allow"}
    nothing = {"absent": "", "id": "", "revision": ""}
    shape = {"owner": "team", "internal": False, "masquerade": True, "icc": True}
    kept, gone = "web.1-bbbbbbbb", "web.1-aaaaaaaa"
    actions = [
        {
            "action": "create-network",
            **back,
            "target": "n",
            "precondition": {**nothing, "absent": "n"},
            **shape,
        },
        {
            "action": "create-volume",
            **data,
            "target": "v",
            "precondition": {**nothing, "absent": "v"},
            "owner": "team",
        },
        {
            "action": "update-container",
            **of,
            "object": "Service/default/api",
            "target": "api.1-bbbbbbbb",
            "precondition": mine,
            "body": {"RestartPolicy": {"Name": "always"}},
        },
        {
            "action": "pull-image",
            **of,
            "slot": 0,
            "target": IMAGE,
            "precondition": nothing,
        },
        {
            "action": "create-container",
            **of,
            "target": kept,
            "precondition": {**nothing, "absent": kept},
            "image": IMAGE,
            "revision": revision("b"),
            "announced": False,
        },
        {"action": "start-container", **of, "target": kept, "precondition": new},
        {"action": "wait", **of, "target": kept, "precondition": nothing},
        {
            "action": "disconnect-network",
            **of,
            "target": kept,
            "precondition": new,
            "network": "platform-network",
        },
        {
            "action": "connect-network",
            **of,
            "target": kept,
            "precondition": new,
            "network": "platform-network",
            "aliases": ["web"],
        },
        {
            "action": "update-container",
            **of,
            "target": gone,
            "precondition": old,
            "body": {"RestartPolicy": {"Name": "no"}},
        },
        {
            "action": "stop-container",
            **of,
            "target": gone,
            "precondition": old,
            "graceS": 30,
        },
        {"action": "remove-container", **of, "target": gone, "precondition": old},
        {
            "action": "remove-network",
            **unused,
            "target": "old",
            "precondition": {**nothing, "id": "n3"},
        },
    ]
    sealed = {"instance": "here", "desired": "desired", "policy": "policy", "actions": actions}
    assert made.digest == digest(sealed)


def test_a_directory_with_one_document_is_read_wholly():
    assert moves(declared(identity=replace(HERE, documents=1)), engine()) == [NETWORK_GONE]


def test_what_stays_attached_keeps_its_network_though_others_go():
    used = replace(ISOLATED, containers=2)
    observed = engine(container(), container("mine", origin="client"), networks=(used,))
    assert moves(declared(), observed) == REMOVED


def test_a_plan_of_nothing_has_no_actions_and_is_complete():
    made = plan(declared(service()), engine(container()))
    assert (made.actions, made.complete, to_json(made)["actions"]) == ((), True, [])
