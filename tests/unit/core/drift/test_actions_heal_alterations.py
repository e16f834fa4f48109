"""What puts an altered container back where it stands: every action, in order."""

from dataclasses import fields, replace
from typing import Any

import pytest

from controller.core.drift.actions import heal, taken_addresses
from controller.core.drift.classify import alterations, is_healable, still_ignored
from controller.model.desired.plan import Action, AnyAction
from controller.model.errors import Severity
from controller.model.names import service_key
from controller.model.observed import Container, ContainerState
from tests.worlds import BRIDGE, ISOLATED, act, container, declared, engine, plan, service

NAME = "web.1-bbbbbbbb"
TWO = {"networks": ("platform-ingress", "platform-network")}


def told(action: AnyAction) -> tuple[str, str]:
    own = {field.name for field in fields(action)} - {field.name for field in fields(Action)}
    values = (f"{name}={getattr(action, name)}" for name in sorted(own) if getattr(action, name))
    return " ".join([action.verb, *values]), action.cause


@pytest.mark.parametrize(
    ("there", "actions"),
    [
        (container(), []),
        (
            container(settings={"memory": 1 << 30}),
            [
                (
                    "update-container limits={'memory': 536870912, 'memory_swap': 536870912}",
                    "memory is 1Gi, admitted 512Mi",
                )
            ],
        ),
        (
            container(settings={"memory_swap": -1, "pids": 0}),
            [
                (
                    "update-container limits={'memory': 536870912, 'memory_swap': 536870912, 'pids': 256}",
                    "memory swap is unlimited, admitted 512Mi; pids is unlimited, admitted 256",
                )
            ],
        ),
        (
            container(settings={"nano_cpus": 5 * 10**8}),
            [("update-container limits={'nano_cpus': 1000000000}", "nano cpus is 0.5, admitted 1")],
        ),
        (container(state="paused"), [("unpause-container", f"{NAME} is paused")]),
        (
            container(settings={"name": "mine"}),
            [(f"rename-container name={NAME}", f"mine is called {NAME}, and names are final")],
        ),
        (
            container(settings={"networks": ("bridge", "platform-network")}),
            [
                (
                    "disconnect-network network=bridge",
                    f"{NAME} is in the network bridge, and wasn't admitted to it",
                )
            ],
        ),
        (
            container(settings={"networks": ()}),
            [
                (
                    "connect-network aliases=('web',) network=platform-network",
                    f"{NAME} isn't in its network platform-network",
                )
            ],
        ),
        (
            container(aliases=(("platform-network", ("db", "web")),)),
            [
                (
                    "disconnect-network network=platform-network",
                    f"{NAME} answers to db on platform-network",
                ),
                (
                    "connect-network aliases=('web',) network=platform-network",
                    f"{NAME} answers to db on platform-network",
                ),
            ],
        ),
        # Its restart policy is the rollout's to set.
        (container(settings={"restart": "no"}), []),
    ],
)
def test_each_alteration_has_its_remedy(there: Container, actions: list[tuple[str, str]]) -> None:
    assert [told(action) for action in heal(there)] == actions


def test_what_isolates_it_comes_first_and_what_an_engine_may_refuse_last() -> None:
    there = container(
        state="paused",
        settings={"name": "mine", "networks": ("bridge",), "pids": 1},
    )
    assert [action.verb for action in heal(there)] == [
        "disconnect-network",
        "unpause-container",
        "connect-network",
        "rename-container",
        "update-container",
    ]
    assert {action.precondition.id for action in heal(there)} == {there.id}


def test_one_that_is_not_announced_yet_joins_again_without_its_service_s_name() -> None:
    def joined(there: Container, *, with_alias: bool) -> str:
        return told(heal(there, with_alias=with_alias)[-1])[0]

    unknown = container(settings={"networks": ()})
    without = "connect-network network=platform-network"
    named = "connect-network aliases=('web',) network=platform-network"
    assert joined(unknown, with_alias=False) == without
    half = {"admitted": TWO, "settings": {"networks": ("platform-ingress",)}}
    assert joined(container(**half), with_alias=False) == named  # type: ignore[arg-type]
    nameless = container(**half, aliases=(("platform-ingress", ()),))  # type: ignore[arg-type]
    assert joined(nameless, with_alias=False) == without
    borrowing = container(aliases=(("platform-network", ("db",)),))
    assert joined(borrowing, with_alias=False) == without
    assert joined(borrowing, with_alias=True) == named
    both = container(aliases=(("platform-network", ("db", "web")),))
    assert joined(both, with_alias=False) == named


def test_what_can_not_be_joined_is_left_for_later() -> None:
    there = container(settings={"networks": ("bridge",), "pids": 1})
    verbs = [action.verb for action in heal(there, joinable=())]
    assert verbs == ["disconnect-network", "update-container"]


def test_what_nobody_knows_is_told_once_for_a_service_and_never_fought() -> None:
    there = [
        container(slot=1, unknown=("HostConfig.Novel", "Novel")),
        container(slot=2, unknown=("HostConfig.Novel",)),
    ]
    made = plan(declared(service(replicas=2)), engine(*there))
    assert made.actions == ()
    (problem,) = made.problems
    assert (problem.code, problem.severity) == ("drift.unknown", Severity.WARNING)
    assert problem.message.startswith("the engine shows HostConfig.Novel, Novel of web, which")


@pytest.mark.parametrize(
    ("ignored", "settings"),
    [
        (("PidsLimit",), {"pids": 0}),
        (("Memory", "MemorySwap"), {"memory": 0, "memory_swap": -1}),
        (("MemorySwap",), {"memory_swap": 1 << 30}),  # the engine's own: twice the memory
        (("NanoCpus",), {"nano_cpus": 0}),
        (("RestartPolicy",), {"restart": "no"}),
    ],
)
def test_what_the_engine_dropped_is_told_and_is_nobody_s_alteration(
    ignored: tuple[str, ...], settings: dict[str, Any]
) -> None:
    there = container(settings=settings, ignored=ignored)
    assert alterations(there) == ()
    made = plan(declared(service()), engine(there))
    assert made.actions == ()
    assert still_ignored(there) == ignored
    told = [(each.code, each.severity, each.message) for each in made.problems]
    message = "the engine ignores spec.restart.policy of web: its containers run without"
    declared_here = ignored == ("RestartPolicy",)
    # The policy lets the engine ignore the others.
    assert told == ([("engine.ignores", Severity.WARNING, message)] if declared_here else [])


def test_what_somebody_sets_in_place_of_a_dropped_limit_is_healed() -> None:
    there = container(settings={"pids": 100_000}, ignored=("PidsLimit",))
    assert [each.what for each in alterations(there)] == ["pids"]
    kept = container(ignored=("PidsLimit",))
    assert plan(declared(service()), engine(kept)).problems == (), "an update set it since"


@pytest.mark.parametrize("state", ["running", "paused"])
@pytest.mark.parametrize(
    "altered",
    [
        {"memory": 1 << 30, "memory_swap": 1 << 30, "nano_cpus": 1, "pids": 0},
        {"memory_swap": -1, "name": "mine"},
        {"networks": ("platform-bridge",), "memory": 1 << 20},
        {"networks": ()},
    ],
)
def test_what_is_healed_is_as_admitted_and_was_not_restarted(
    state: str, altered: dict[str, object]
) -> None:
    there = container(state=state, settings=altered)
    assert is_healable(there)
    world = engine(there, networks=(ISOLATED, BRIDGE))
    for action in heal(there):
        world = act(action, world)
    (after,) = world.of(service_key("default", "web"))
    assert (alterations(after), after.running) == ((), True)
    assert (after.id, after.started_at) == (there.id, there.started_at)
    assert heal(after) == ()


def test_a_container_reconnects_under_the_names_that_it_was_admitted_with() -> None:
    further = (("platform-network", ("sql",)),)
    own = container(aliases=(("platform-network", ("sql", "web")),), admitted_aliases=further)
    assert heal(own) == ()
    altered = replace(own, aliases=(("platform-network", ("db", "sql", "web")),))
    assert (
        told(heal(altered)[-1])[0]
        == "connect-network aliases=('web', 'sql') network=platform-network"
    )
    lost = container(settings={"networks": ()}, aliases=(), admitted_aliases=further)
    assert told(heal(lost)[-1])[0] == told(heal(altered)[-1])[0]


def test_a_moved_container_reconnects_under_its_present_name_alone() -> None:
    earlier = (("platform-network", ("api",)),)
    moved = container(aliases=earlier, admitted_aliases=earlier, former="api")
    assert heal(moved) == ()
    lost = replace(moved, settings=replace(moved.settings, networks=()), aliases=())
    joined = "connect-network aliases=('web',) network=platform-network"
    assert told(heal(lost)[-1])[0] == joined
    borrowing = replace(moved, aliases=(("platform-network", ("api", "db")),))
    assert told(heal(borrowing)[-1])[0] == joined


def test_a_container_of_others_at_the_address_of_a_slot_is_named() -> None:
    there = container(holders=(("platform-network", "10.208.0.2", "guest"),))
    (problem,) = taken_addresses(service(), (there, replace(there, state=ContainerState.EXITED)))
    assert (problem.code, problem.severity, problem.key) == (
        "address.taken",
        Severity.WARNING,
        there.key,
    )
    assert problem.message == (
        "the container guest has 10.208.0.2 on platform-network, the address of slot 1 of web: "
        "web.1-bbbbbbbb has another one"
    )
    planned = plan(declared(service()), engine(there))
    assert problem in planned.problems
