"""The takedowns that the control loop counts in advance."""

from __future__ import annotations

from dataclasses import replace

from controller.core.planning import planned_takedowns
from controller.model.desired.plan import (
    AnyAction,
    DisconnectNetwork,
    RemoveContainer,
    StartContainer,
    StopContainer,
    UnpauseContainer,
    UpdateContainer,
)
from controller.model.observed import Container, ContainerState, Settings
from controller.model.records import Precondition
from tests.unit.core.plain import WEB, container

Kind = StartContainer | StopContainer | RemoveContainer | UnpauseContainer


def act(kind: type[Kind], target: str) -> AnyAction:
    return kind(object=WEB, target=target, cause="", precondition=Precondition(id=target))


def policy(target: str, restart: str) -> AnyAction:
    at = Precondition(id=target)
    return UpdateContainer(object=WEB, target=target, cause="", precondition=at, restart=restart)


def test_only_the_stop_that_leaves_nothing_running_takes_the_service_down() -> None:
    old, two = container("old"), container("two")
    stop, start = act(StopContainer, "old"), act(StartContainer, "new")
    assert planned_takedowns.last_slots([stop, start], [old]) == {"old"}
    assert planned_takedowns.last_slots([start, stop], [old]) == frozenset()
    assert planned_takedowns.last_slots([stop, act(StopContainer, "two")], [old, two]) == {"two"}
    assert (
        planned_takedowns.last_slots([stop], [container("old", ContainerState.EXITED)])
        == frozenset()
    )


def test_a_container_that_is_unpaused_counts_as_running() -> None:
    two = container("two")
    stop = act(StopContainer, "two")
    thaw = act(UnpauseContainer, "old")
    assert planned_takedowns.last_slots(
        [thaw, stop], [container("old", ContainerState.PAUSED), two]
    ) == (frozenset())
    assert not planned_takedowns.takes_down(thaw, frozenset({"old"}))


def leave(target: str, network: str = "net") -> AnyAction:
    at = Precondition(id=target)
    return DisconnectNetwork(object=WEB, target=target, cause="", precondition=at, network=network)


def attached(identifier: str) -> Container:
    return replace(container(identifier), admitted=Settings(name=identifier, networks=("net",)))


def test_a_stop_counts_unless_another_slot_has_run_for_long_enough() -> None:
    old, new = attached("old"), attached("new")
    stop = act(StopContainer, "old")
    for steady, counted in (
        ({"old", "new"}, set()),
        ({"old"}, {"old"}),
        (set(), {"old"}),
        ({"new", "gone"}, set()),
    ):
        assert (
            planned_takedowns.counted_slots([stop], [old, new], frozenset(map(str, steady)))
            == counted
        )
    assert (
        planned_takedowns.counted_slots(
            [stop], [container("old", ContainerState.EXITED)], frozenset()
        )
        == frozenset()
    )


def test_a_successor_that_takes_the_name_keeps_its_service_up_no_more_for_a_while() -> None:
    old, new = attached("old"), attached("new")
    rollout = [leave("new"), act(StopContainer, "old")]
    both = frozenset({"old", "new"})
    assert planned_takedowns.counted_slots(rollout, [old, new], both) == {"old"}
    assert planned_takedowns.counted_slots([leave("old")], [old], both) == {"old"}
    assert planned_takedowns.counted_slots([leave("old", "extra")], [old], both) == frozenset()
    assert planned_takedowns.takes_down(leave("old"), frozenset({"old"}))


def test_the_policy_that_goes_before_a_stop_belongs_to_it() -> None:
    last = frozenset({"old"})
    assert planned_takedowns.takes_down(policy("old", "no"), last)
    assert planned_takedowns.takes_down(act(StopContainer, "old"), last)
    assert planned_takedowns.takes_down(act(RemoveContainer, "old"), last)
    assert not planned_takedowns.takes_down(policy("old", "always"), last)
    assert not planned_takedowns.takes_down(act(StopContainer, "other"), last)
