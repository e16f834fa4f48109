"""A network with other settings is removed and made again, and its containers join again."""

from dataclasses import replace
from typing import Any

import pytest

from controller.core.planning.planner import plan as plan_of
from controller.model.desired.desired import Network, OverrideReason
from controller.model.desired.plan import ConnectNetwork
from controller.model.desired.spec.network import NetworkSpec
from controller.model.names import Key, job_key
from controller.model.observed import Container, ContainerState, ObservedNetwork
from tests.worlds import (
    ISOLATED,
    NAMES,
    allow,
    container,
    declared,
    deny,
    engine,
    network,
    perform,
    plan,
    service,
)

BACK = ObservedNetwork(
    "n9", "back", True, "controller", "default", internal=True, subnets=("172.20.0.0/16",)
)
ON_BACK = {"attach": ["back"]}
BOTH = {"networks": ("back", "platform-network")}
OPEN = network("back", internal=False)


def member(name: str = "web", slot: int = 1, **fields: Any) -> Container:
    aliases = (("back", (name,)), ("platform-network", (name,)))
    given: dict[str, Any] = {"admitted": BOTH, "aliases": aliases, **fields}
    return container(name, slot, **given)


def observed(*containers, back: ObservedNetwork = BACK):
    return engine(*containers, networks=(ISOLATED, back))


def moves(desired, seen, **more):
    return [(action.verb, action.target) for action in plan(desired, seen, **more).actions]


def problems(desired, seen):
    made = plan(desired, seen)
    assert [a.verb for a in made.actions if a.object == OPEN.key] == []
    return [(p.code, p.message, p.remedy) for p in made.problems]


WEB, API = "web.1-bbbbbbbb", "api.1-bbbbbbbb"


def test_dependents_leave_first_and_join_last() -> None:
    api = service("api", network=ON_BACK)
    web = service(network=ON_BACK, dependsOn=[{"name": "api"}])
    made = plan(declared(OPEN, api, web), observed(member("api"), member()))
    assert [(a.verb, a.target) for a in made.actions] == [
        ("disconnect-network", WEB),
        ("disconnect-network", API),
        ("remove-network", "back"),
        ("create-network", "back"),
        ("connect-network", API),
        ("connect-network", WEB),
    ]
    assert {(str(a.object), a.cause) for a in made.actions} == {
        (
            "Network/default/back",
            "back is remade: internal is true, want false; api and web lose the network for about 2 s",
        )
    }
    joins = [a for a in made.actions if isinstance(a, ConnectNetwork)]
    assert [(a.network, a.aliases) for a in joins] == [("back", ("api",)), ("back", ("web",))]


def test_afterwards_everything_is_as_declared() -> None:
    desired = declared(OPEN, service(network=ON_BACK))
    seen = observed(member())
    after, _ = perform(plan(desired, seen), seen)
    assert plan(desired, after).actions == ()
    assert [c.id for c in after.containers] == [f"id:{WEB}"]


def test_a_container_that_the_engine_is_just_restarting_ends_before_and_starts_again() -> None:
    desired = declared(OPEN, service(network=ON_BACK))
    seen = observed(member(state=ContainerState.RESTARTING))
    made = plan(desired, seen)
    assert [(a.verb, str(a.object)) for a in made.actions if a.target == WEB][:3] == [
        ("update-container", "Network/default/back"),
        ("stop-container", "Network/default/back"),
        ("disconnect-network", "Network/default/back"),
    ]
    after, _ = perform(made, seen)
    again = [a.verb for a in plan(desired, after).actions]
    assert again == ["start-container", "update-container"]


@pytest.mark.parametrize(
    ("spec", "remade"),
    [
        (NetworkSpec(internal=True), False),
        (NetworkSpec(internal=False), True),
        (NetworkSpec(subnet="172.20.0.0/16"), False),
        (NetworkSpec(subnet="10.80.4.0/24"), True),
    ],
)
def test_changed_settings_and_no_others_remake_a_network(
    spec: NetworkSpec, *, remade: bool
) -> None:
    desired = declared(replace(OPEN, spec=spec), service(network=ON_BACK))
    assert bool(moves(desired, observed(member()))) is remade


def test_addresses_that_the_engine_adds_by_itself_remake_no_network() -> None:
    both = replace(BACK, subnets=("10.80.4.0/24", "fd00:1::/64"))
    desired = declared(
        replace(OPEN, spec=NetworkSpec(subnet="10.80.4.0/24")), service(network=ON_BACK)
    )
    assert moves(desired, observed(member(), back=both)) == []


@pytest.mark.parametrize("spec", [NetworkSpec(internal=False), NetworkSpec(internal=True)])
def test_a_default_of_the_engine_remakes_no_network(spec: NetworkSpec) -> None:
    """A new network would have the default too: the remakes would never end."""
    web = service(network=ON_BACK)
    seen = observed(member(), back=replace(BACK, icc=False))
    made = plan(declared(replace(OPEN, spec=spec), web), seen)
    assert [a.verb for a in made.actions if a.object == OPEN.key] == []
    assert {problem.code for problem in made.problems} == {"network.foreign"}


def test_a_container_without_the_services_name_joins_again_without() -> None:
    spare = member(aliases=(("back", ()), ("platform-network", ())))
    made = plan(declared(OPEN), observed(spare))
    assert [a.aliases for a in made.actions if isinstance(a, ConnectNetwork)] == [()]


def test_a_stopped_container_joins_the_new_network_too() -> None:
    stopped = member(state="exited")
    made = moves(declared(OPEN, service(network=ON_BACK, state="Stopped")), observed(stopped))
    assert made[:4] == [
        ("disconnect-network", WEB),
        ("remove-network", "back"),
        ("create-network", "back"),
        ("connect-network", WEB),
    ]


CHANGE = "back can't be remade (internal is true, want false): "
OTHER = "docker network disconnect back CONTAINER, or give the new network another name"


@pytest.mark.parametrize(
    ("seen", "message", "remedy"),
    [
        (
            observed(member(), back=replace(BACK, outsiders=2)),
            "containers that trimtab doesn't supervise are on it (2 of others)",
            f"disconnect them: {OTHER}",
        ),
        (
            observed(member(origin="client"), back=replace(BACK, outsiders=2)),
            f"containers that trimtab doesn't supervise are on it ({WEB}, 1 of others)",
            f"disconnect them: {OTHER}",
        ),
        (  # would keep the id of the removed network, and not start again
            observed(member(origin="client", state="exited")),
            f"containers that trimtab doesn't supervise are on it ({WEB})",
            f"disconnect them: {OTHER}",
        ),
    ],
)
def test_nothing_is_disconnected_while_strangers_are_on_the_network(seen, message, remedy) -> None:
    assert problems(declared(OPEN), seen) == [("network.in-use", CHANGE + message, remedy)]


def test_nothing_is_disconnected_while_a_service_on_the_network_is_suspended() -> None:
    web = service(network=ON_BACK)
    hold = OverrideReason(web.key, "suspended", "Suspended", "by hand", "")
    desired = replace(declared(OPEN, web), holds=(hold,))
    assert problems(desired, observed(member())) == [
        (
            "network.in-use",
            f"{CHANGE}suspended services are on it: Service/default/web",
            "resume them: trimtab resume NAME, or give the new network another name",
        )
    ]


def test_nothing_is_disconnected_while_the_document_of_a_service_cannot_be_read() -> None:
    web = service(network=ON_BACK)
    desired = replace(declared(OPEN), blind_keys=frozenset({web.key}))
    ((code, message, _),) = problems(desired, observed(member()))
    assert code == "network.in-use"
    assert message.endswith("services with unreadable documents are on it: Service/default/web")


def test_a_running_job_ends_before_the_remake() -> None:
    run = member(key=job_key("default", "web"))
    desired = declared(OPEN)
    made = plan(desired, observed(run), only=Key("Network", "default", "back"))
    assert [(a.verb, a.cause) for a in made.actions] == [
        ("wait", f"back is remade once {WEB} has ended: internal is true, want false")
    ]
    ended = replace(run, state=ContainerState.EXITED)
    made = plan(desired, observed(ended), only=Key("Network", "default", "back"))
    assert [a.verb for a in made.actions] == ["remove-network", "create-network"]


def test_the_remake_waits_for_a_container_that_lost_the_network() -> None:
    """The gate keeps a network while a container that it didn't disconnect runs."""
    lost = member(settings={"networks": ("platform-network",)})
    made = plan(declared(OPEN, service(network=ON_BACK)), observed(member("api"), lost))
    assert [(a.verb, a.target) for a in made.actions if a.object.kind == "Network"] == [
        ("wait", "back")
    ]
    assert ("connect-network", WEB) in [(a.verb, a.target) for a in made.actions]


def test_a_denied_create_disconnects_nothing() -> None:
    desired = declared(OPEN, service(network=ON_BACK))
    assert moves(desired, observed(member()), judge=deny("create-network")) == [
        ("create-network", "back")
    ]


def test_a_new_container_waits_for_the_new_network_and_a_stopped_one_does_not() -> None:
    web = service(network=ON_BACK, replicas=2)
    desired = declared(OPEN, web)
    seen = observed(member(state="exited"))
    made = plan(desired, seen, only=web.key)
    assert [(a.verb, a.target) for a in made.actions] == [
        ("start-container", WEB),
        ("wait", "web.2-bbbbbbbb"),
    ]
    assert made.actions[1].cause == "waiting until back is remade: internal is true, want false"
    # A plan of everything begins with the remake.
    assert ("create-container", "web.2-bbbbbbbb") in moves(desired, seen)


def test_an_adopted_network_is_never_remade() -> None:
    adopted = Network(
        OPEN.key, OPEN.owner, NetworkSpec(internal=False, engineName="back"), OPEN.source
    )
    there = observed(member(), back=replace(BACK, adopted=True))
    assert [code for code, *_ in problems(declared(adopted), there)] == ["network.foreign"]


def test_the_judge_of_a_plan_sees_each_action() -> None:
    seen = []

    def judge(action):
        seen.append(action.verb)
        return allow(action)

    plan_of(
        declared(OPEN),
        observed(member()),
        networks=NAMES,
        judge=judge,
        prunable=frozenset(),
        blocked=(),
        policy_digest="",
    )
    assert seen[:4] == [
        "disconnect-network",
        "remove-network",
        "create-network",
        "connect-network",
    ]
