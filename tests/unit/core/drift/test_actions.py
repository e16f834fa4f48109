"""Moves: which actions belong together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from controller.core.drift.actions import atomic_groups
from controller.model.desired.plan import AnyAction
from controller.model.observed import Container
from tests.worlds import ISOLATED, container, declared, engine, plan, service

NEW, OLD = "web.1-bbbbbbbb", "web.1-aaaaaaaa"


def planned(*containers: Container, **spec: Any) -> tuple[AnyAction, ...]:
    return plan(declared(service(**spec)), engine(*containers)).actions


def together(*actions: AnyAction) -> list[list[str]]:
    """The stretches of more than one action."""
    found = atomic_groups(actions)
    assert [action for stretch in found for action in stretch] == list(actions), "all, in order"
    return [[f"{a.verb} {a.target}" for a in stretch] for stretch in found if len(stretch) > 1]


def test_what_is_stopped_for_a_successor_is_one_stretch_with_its_start() -> None:
    actions = planned(container(rev="a"), rollout={"order": "StopFirst"})
    assert together(*actions) == [
        [f"update-container {OLD}", f"stop-container {OLD}", f"start-container {NEW}"]
    ]


def test_a_stop_begins_the_stretch_where_the_restart_policy_is_taken_away_already() -> None:
    down_for_good = container(rev="a", settings={"restart": "no"})
    actions = planned(down_for_good, rollout={"order": "StopFirst"})
    assert together(*actions) == [[f"stop-container {OLD}", f"start-container {NEW}"]]


def test_a_restart_in_place_ends_with_the_restart_policy_that_it_took_away() -> None:
    check = {"exec": ["/check"]}
    actions = planned(container(health="unhealthy"), healthcheck=check)
    assert together(*actions) == [
        [
            f"update-container {NEW}",
            f"stop-container {NEW}",
            f"start-container {NEW}",
            f"update-container {NEW}",
        ]
    ]


def test_leaving_a_network_is_one_stretch_with_joining_it_again() -> None:
    actions = planned(container(rev="a"))
    assert together(*actions) == [
        [f"disconnect-network {NEW}", f"connect-network {NEW}"],
        # Its restart policy isn't taken away alone; what removes it may wait.
        [f"update-container {OLD}", f"stop-container {OLD}"],
    ]


def test_a_hand_over_of_an_address_is_one_stretch() -> None:
    old = container(rev="a")
    new = replace(container(rev="b"), aliases=(("platform-network", ()),))
    networks = (replace(ISOLATED, has_slot_addresses=True),)
    desired = declared(service(rollout={"minHealthy": "0s"}))
    actions = plan(desired, engine(old, new, networks=networks)).actions
    assert together(*actions)[0] == [
        f"disconnect-network {OLD}",
        f"disconnect-network {NEW}",
        f"connect-network {NEW}",
    ]
    assert [f"{a.verb} {a.target}" for a in actions][3] == f"connect-network {OLD}"


def test_what_the_engine_is_just_restarting_ends_before_the_hand_over() -> None:
    old = container(rev="a", state="restarting")
    new = replace(container(rev="b"), aliases=(("platform-network", ()),))
    networks = (replace(ISOLATED, has_slot_addresses=True),)
    desired = declared(service(rollout={"minHealthy": "0s"}))
    actions = plan(desired, engine(old, new, networks=networks)).actions
    assert [f"{a.verb} {a.target}" for a in actions] == [
        f"update-container {OLD}",
        f"stop-container {OLD}",
        f"disconnect-network {NEW}",
        f"connect-network {NEW}",
        f"remove-container {OLD}",
    ]


def test_what_cannot_leave_the_network_keeps_the_address_until_its_end() -> None:
    """As with engine 26.1 and what outlived it: the successor has another address until then."""
    there, astray = (("platform-network", "10.208.0.2"),), (("platform-network", "10.208.4.9"),)
    old = replace(container(rev="a"), cut_off=("platform-network",), slot_addresses=there)
    new = replace(container(rev="b"), addresses=there, slot_addresses=there)
    networks = (replace(ISOLATED, has_slot_addresses=True),)
    desired = declared(service(rollout={"minHealthy": "0s"}))

    def planned_for(*containers: Container) -> list[str]:
        actions = plan(desired, engine(*containers, networks=networks)).actions
        return [f"{a.verb} {a.target}" for a in actions]

    moves = [f"disconnect-network {NEW}", f"connect-network {NEW}"]
    ends = [f"update-container {OLD}", f"stop-container {OLD}", f"remove-container {OLD}"]
    nameless = replace(new, aliases=(("platform-network", ()),), addresses=astray)
    assert planned_for(old, nameless) == [*moves, *ends]
    assert planned_for(old, new) == [*moves, *ends]
    moved = replace(new, addresses=astray)
    assert planned_for(old, moved) == ends
    assert planned_for(moved) == moves
