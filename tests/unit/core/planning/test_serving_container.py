"""Limits that a document declares otherwise are set in the containers that run."""

from __future__ import annotations

from typing import Any

from controller.core.drift.availability import Availability, AvailabilityWord
from controller.core.drift.classify import Drift, ReplicaState, drift_of
from controller.model.desired.plan import ConnectNetwork, UpdateContainer
from tests.plans import flat_text
from tests.unit.core.planning.test_rollout_waves import check
from tests.worlds import container, declared, deny, engine, plan, service

MORE: dict[str, Any] = {"resources": {"memory": "1Gi", "cpus": 2}}
LESS: dict[str, Any] = {"resources": {"memory": "256Mi"}}
SETTLING = Availability(AvailabilityWord.SETTLING, "must be up for 10s", 10.0)


def test_limits_that_take_no_memory_are_set_in_all_slots_at_once() -> None:
    check(
        service(replicas=2, **MORE),
        container(),
        container(slot=2),
        gives="""
        1 update-container web.1-bbbbbbbb memory is 512Mi, want 1Gi; cpus is 1, want 2 allow
        2 update-container web.2-bbbbbbbb memory is 512Mi, want 1Gi; cpus is 1, want 2 allow
        """,
    )


def test_swap_follows_the_memory() -> None:
    (update,) = plan(declared(service(**LESS)), engine(container())).actions
    assert isinstance(update, UpdateContainer)
    assert update.limits == {"memory": 256 << 20, "memory_swap": 256 << 20}


def test_memory_is_taken_slot_by_slot() -> None:
    check(
        service(replicas=3, rollout={"parallelism": 3}, **LESS),
        *(container(slot=slot) for slot in (1, 2, 3)),
        gives="""
        1 update-container web.1-bbbbbbbb memory is 512Mi, want 256Mi allow
        2 wait web.1-bbbbbbbb must be up for 10s
        3 update-container web.2-bbbbbbbb memory is 512Mi, want 256Mi allow
        4 wait web.2-bbbbbbbb must be up for 10s
        5 update-container web.3-bbbbbbbb memory is 512Mi, want 256Mi allow
        """,
    )


def test_the_next_slot_waits_until_the_one_before_is_available() -> None:
    less = {"memory": 256 << 20, "memory_swap": 256 << 20}
    first = container(admitted=less)
    check(
        service(replicas=2, **LESS),
        first,
        container(slot=2),
        availability={first.id: SETTLING},
        gives="""
        1 wait web.1-bbbbbbbb must be up for 10s
        2 update-container web.2-bbbbbbbb memory is 512Mi, want 256Mi allow
        """,
    )


def test_a_container_keeps_its_memory_until_it_is_available() -> None:
    only = container()
    check(
        service(**LESS),
        only,
        availability={only.id: SETTLING},
        gives="""
        1 wait web.1-bbbbbbbb must be up for 10s
        2 update-container web.1-bbbbbbbb memory is 512Mi, want 256Mi allow
        """,
    )


def test_a_container_that_isnt_available_gets_more_at_once() -> None:
    only = container()
    check(
        service(**MORE),
        only,
        availability={only.id: SETTLING},
        gives="""
        1 update-container web.1-bbbbbbbb memory is 512Mi, want 1Gi; cpus is 1, want 2 allow
        """,
    )


def test_a_paused_rollout_takes_no_memory_and_heals() -> None:
    check(
        service(**LESS),
        container(settings={"pids": 512}),
        paused="the rollout failed: it died",
        gives="""
        1 update-container web.1-bbbbbbbb pids is 512, admitted 256 allow
        2 wait web.1-bbbbbbbb the rollout failed: it died
        """,
    )


def test_a_stopped_container_gets_its_limits_before_its_start() -> None:
    check(
        service(**LESS),
        container(state="exited"),
        gives="""
        1 update-container web.1-bbbbbbbb memory is 512Mi, want 256Mi allow
        2 start-container web.1-bbbbbbbb web.1-bbbbbbbb was stopped on the engine's own socket: it exited with 0 allow
        """,
    )


def test_another_restart_policy_is_set_in_place() -> None:
    check(
        service(restart={"policy": "OnFailure"}),
        container(),
        gives="1 update-container web.1-bbbbbbbb restart policy is always, want on-failure allow",
    )


def test_a_refused_update_leaves_the_container_as_it_is() -> None:
    check(
        service(**MORE),
        container(),
        judge=deny("update-container"),
        gives="""
        1 update-container web.1-bbbbbbbb memory is 512Mi, want 1Gi; cpus is 1, want 2 deny some.rule
        reason: it may not
        remedy: ask somebody
        """,
    )


def test_a_stale_container_keeps_its_limits_until_it_is_replaced() -> None:
    text = flat_text(plan(declared(service(**MORE)), engine(container(rev="a"))))
    assert "memory" not in text


def test_other_limits_are_told_apart_from_altered_ones() -> None:
    wanted = service(**MORE)
    pairs = [
        (container(), Drift.LIMITS),
        (container(settings={"memory": 1 << 30, "memory_swap": 1 << 30}), Drift.ALTERED),
        (container(state="exited"), Drift.STOPPED),
        (container(rev="a"), Drift.STALE),
    ]
    for found, drift in pairs:
        assert drift_of(ReplicaState(found, wanted)) is drift


def test_the_spelling_of_a_compose_file_is_the_name_of_the_service() -> None:
    wanted = service("my-web", network={"aliases": ["my_web"]})
    for found, joins in (("my_web", 0), ("other", 1)):
        names = (("platform-network", (found,)),)
        there = container("my-web", aliases=names, admitted_aliases=names)
        actions = plan(declared(wanted), engine(there)).actions
        assert sum(isinstance(each, ConnectNetwork) for each in actions) == joins, actions
