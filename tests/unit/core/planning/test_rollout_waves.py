"""What a service's slots get: whole plans, as text."""

import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from controller.core.drift.actions import Judge
from controller.core.drift.availability import Availability, AvailabilityWord
from controller.core.planning.context import order_of
from controller.core.planning.slot_plan import next_name
from controller.model.desired.desired import Restarting, Service
from controller.model.desired.plan import ConnectNetwork, StopContainer
from controller.model.desired.spec.service import Order
from controller.model.names import Key
from controller.model.observed import Container, HostPort
from controller.model.records import Verdict
from tests.plans import flat_text
from tests.worlds import (
    INGRESS,
    ISOLATED,
    WEB,
    allow,
    container,
    declared,
    deny,
    engine,
    perform,
    plan,
    service,
)

PORT: dict[str, Any] = {"ports": [{"container": 80, "host": 8080}]}
NO = {"restart": "no"}
ON_FAILURE = {"restart": "on-failure", "restart_max": 10}


def squeezed(text: str) -> str:
    """The text without its alignment: columns are compared in test_text."""
    lines = (re.sub(r" +", " ", line.strip()) for line in text.strip().splitlines())
    return "\n".join(lines)


def check(
    wanted,
    *containers: Container,
    gives: str,
    judge: Judge = allow,
    backoff: dict[tuple[Key, int], str] | None = None,
    prunable: frozenset[Key] | None = None,
    controller_restarts: frozenset[tuple[Key, int]] = frozenset(),
    availability: dict[str, Availability] | None = None,
    replace_reasons: dict[str, str] | None = None,
    paused: str = "",
) -> None:
    """The plan for one service is this text, and can be performed."""
    networks = (ISOLATED, INGRESS) if wanted.spec.ports else (ISOLATED,)
    desired, observed = declared(wanted), engine(*containers, networks=networks)
    made = plan(
        desired,
        observed,
        judge=judge,
        backoff=backoff,
        prunable=prunable,
        controller_restarts=controller_restarts,
        availability=availability,
        replace_reasons=replace_reasons,
        paused={WEB: paused} if paused else None,
    )
    assert squeezed(flat_text(made)) == squeezed(gives)
    perform(made, observed)


def test_a_service_as_declared_needs_nothing():
    check(service(replicas=2), container(), container(slot=2), gives="nothing to do")


def test_missing_slots_are_created_and_started_at_once():
    check(
        service(replicas=3),
        container(slot=2),
        gives="""
        1 create-container web.1-bbbbbbbb  slot 1 is missing  allow
        2 start-container web.1-bbbbbbbb  slot 1 is missing  allow
        3 create-container web.3-bbbbbbbb  slot 3 is missing  allow
        4 start-container web.3-bbbbbbbb  slot 3 is missing  allow
        """,
    )


def test_a_stale_replica_is_stopped_after_its_successor_is_available_and_named():
    check(
        service(),
        container(rev="a"),
        gives="""
        1 create-container web.1-bbbbbbbb revision is aaaaaaaa, want bbbbbbbb allow
        2 start-container web.1-bbbbbbbb revision is aaaaaaaa, want bbbbbbbb allow
        3 wait web.1-bbbbbbbb must be up for 10s
        4 disconnect-network web.1-bbbbbbbb takes the name web on platform-network allow
        5 connect-network web.1-bbbbbbbb takes the name web on platform-network allow
        6 update-container web.1-aaaaaaaa revision is aaaaaaaa, want bbbbbbbb allow
        7 stop-container web.1-aaaaaaaa revision is aaaaaaaa, want bbbbbbbb allow
        8 remove-container web.1-aaaaaaaa revision is aaaaaaaa, want bbbbbbbb allow
        """,
    )


def test_with_a_fixed_port_the_successor_is_created_before_and_started_after_the_stop():
    check(
        service(**PORT),
        container(rev="a"),
        gives="""
        1 create-container web.1-bbbbbbbb revision is aaaaaaaa, want bbbbbbbb allow
        2 update-container web.1-aaaaaaaa revision is aaaaaaaa, want bbbbbbbb allow
        3 stop-container web.1-aaaaaaaa revision is aaaaaaaa, want bbbbbbbb allow
        4 start-container web.1-bbbbbbbb revision is aaaaaaaa, want bbbbbbbb allow
        5 wait web.1-bbbbbbbb must be up for 10s
        6 remove-container web.1-aaaaaaaa revision is aaaaaaaa, want bbbbbbbb allow
        """,
    )


def test_slots_are_replaced_one_after_the_other_and_missing_ones_come_first():
    made = plan(
        declared(service(replicas=3)), engine(container(rev="a"), container(slot=2, rev="a"))
    )
    assert [(a.verb, a.target) for a in made.actions] == [
        ("create-container", "web.3-bbbbbbbb"),
        ("start-container", "web.3-bbbbbbbb"),
        ("wait", "web.3-bbbbbbbb"),
        ("create-container", "web.1-bbbbbbbb"),
        ("start-container", "web.1-bbbbbbbb"),
        ("wait", "web.1-bbbbbbbb"),
        ("disconnect-network", "web.1-bbbbbbbb"),
        ("connect-network", "web.1-bbbbbbbb"),
        ("update-container", "web.1-aaaaaaaa"),
        ("stop-container", "web.1-aaaaaaaa"),
        ("remove-container", "web.1-aaaaaaaa"),
        ("create-container", "web.2-bbbbbbbb"),
        ("start-container", "web.2-bbbbbbbb"),
        ("wait", "web.2-bbbbbbbb"),
        ("disconnect-network", "web.2-bbbbbbbb"),
        ("connect-network", "web.2-bbbbbbbb"),
        ("update-container", "web.2-aaaaaaaa"),
        ("stop-container", "web.2-aaaaaaaa"),
        ("remove-container", "web.2-aaaaaaaa"),
    ]


def test_a_stale_replica_that_is_down_is_removed_after_its_successor_runs():
    check(
        service(**PORT),
        container(rev="a", state="exited"),
        gives="""
        1 create-container web.1-bbbbbbbb revision is aaaaaaaa, want bbbbbbbb allow
        2 start-container web.1-bbbbbbbb revision is aaaaaaaa, want bbbbbbbb allow
        3 wait web.1-bbbbbbbb must be up for 10s
        4 remove-container web.1-aaaaaaaa revision is aaaaaaaa, want bbbbbbbb allow
        """,
    )


def test_an_altered_replica_is_replaced_under_the_next_name():
    check(
        service(),
        container(settings={"memory": 128 << 20, "cpuset": "0"}),
        gives="""
        1 create-container web.1-bbbbbbbb.2 memory is 128Mi, admitted 512Mi; cpuset is 0, admitted unset allow
        2 start-container web.1-bbbbbbbb.2 memory is 128Mi, admitted 512Mi; cpuset is 0, admitted unset allow
        3 wait web.1-bbbbbbbb.2 must be up for 10s
        4 disconnect-network web.1-bbbbbbbb.2 takes the name web on platform-network allow
        5 connect-network web.1-bbbbbbbb.2 takes the name web on platform-network allow
        6 update-container web.1-bbbbbbbb memory is 128Mi, admitted 512Mi; cpuset is 0, admitted unset allow
        7 stop-container web.1-bbbbbbbb memory is 128Mi, admitted 512Mi; cpuset is 0, admitted unset allow
        8 remove-container web.1-bbbbbbbb memory is 128Mi, admitted 512Mi; cpuset is 0, admitted unset allow
        """,
    )


def leaving(*containers: Container, **spec) -> Service:
    """The service, of which somebody asked for other containers than these."""
    ids = frozenset(each.id for each in containers)
    return replace(service(**spec), restarting=Restarting(ids, "uid:0"))


def test_a_restart_replaces_slot_by_slot_under_the_next_names():
    there = container(), container(slot=2)
    check(
        leaving(*there, replicas=2),
        *there,
        gives="""
        1 create-container web.1-bbbbbbbb.2 restart asked by uid:0 allow
        2 start-container web.1-bbbbbbbb.2 restart asked by uid:0 allow
        3 wait web.1-bbbbbbbb.2 must be up for 10s
        4 disconnect-network web.1-bbbbbbbb.2 takes the name web on platform-network allow
        5 connect-network web.1-bbbbbbbb.2 takes the name web on platform-network allow
        6 update-container web.1-bbbbbbbb restart asked by uid:0 allow
        7 stop-container web.1-bbbbbbbb restart asked by uid:0 allow
        8 remove-container web.1-bbbbbbbb restart asked by uid:0 allow
        9 create-container web.2-bbbbbbbb.2 restart asked by uid:0 allow
        10 start-container web.2-bbbbbbbb.2 restart asked by uid:0 allow
        11 wait web.2-bbbbbbbb.2 must be up for 10s
        12 disconnect-network web.2-bbbbbbbb.2 takes the name web on platform-network allow
        13 connect-network web.2-bbbbbbbb.2 takes the name web on platform-network allow
        14 update-container web.2-bbbbbbbb restart asked by uid:0 allow
        15 stop-container web.2-bbbbbbbb restart asked by uid:0 allow
        16 remove-container web.2-bbbbbbbb restart asked by uid:0 allow
        """,
    )


def test_a_restart_that_was_begun_goes_on_with_the_containers_that_are_left():
    check(
        leaving(container(), container(slot=2), replicas=2),
        container(attempt=2),
        container(slot=2),
        container(slot=2, attempt=2, state="created"),
        gives="""
        1 start-container web.2-bbbbbbbb.2 web.2-bbbbbbbb.2 was never started allow
        2 wait web.2-bbbbbbbb.2 must be up for 10s
        3 update-container web.2-bbbbbbbb restart asked by uid:0 allow
        4 stop-container web.2-bbbbbbbb restart asked by uid:0 allow
        5 remove-container web.2-bbbbbbbb restart asked by uid:0 allow
        """,
    )


def test_a_restart_runs_a_finished_task_again():
    there = container(state="exited", admitted=ON_FAILURE)
    check(
        leaving(there, restart={"policy": "OnFailure"}),
        there,
        gives="""
        1 create-container web.1-bbbbbbbb.2 restart asked by uid:0 allow
        2 remove-container web.1-bbbbbbbb restart asked by uid:0 allow
        3 start-container web.1-bbbbbbbb.2 restart asked by uid:0 allow
        """,
    )


def test_an_altered_replica_that_can_be_put_back_stays_where_it_is():
    check(
        service(),
        container(settings={"memory": 128 << 20, "pids": 64, "restart": "no"}),
        gives="""
        1 update-container web.1-bbbbbbbb  memory is 128Mi, admitted 512Mi; pids is 64, admitted 256  allow
        2 update-container web.1-bbbbbbbb  restart policy is no, want always  allow
        """,
    )


def test_what_somebody_alters_over_and_over_is_left_for_now_but_for_a_network_too_many():
    altered = container(
        state="paused",
        settings={"name": "mine", "pids": 9, "cpuset": "0", "networks": ("bridge",)},
    )
    words = ("pids", "cpuset", "networks", "paused")
    made = plan(
        declared(service()),
        engine(altered),
        contended={(WEB, 1): {word: f"{word} again" for word in words}},
    )
    assert [(action.verb, action.cause) for action in made.actions] == [
        ("disconnect-network", "mine is in the network bridge, and wasn't admitted to it"),
        ("rename-container", "mine is called web.1-bbbbbbbb, and names are final"),
        ("wait", "paused again"),
        ("wait", "cpuset again"),
        ("wait", "pids again"),
        ("wait", "networks again"),
    ]


def test_a_restart_policy_that_somebody_alters_over_and_over_is_left_for_now():
    there = container(settings={"restart": "no"})
    made = plan(
        declared(service()), engine(there), contended={(WEB, 1): {"restart": "restart again"}}
    )
    assert [(action.verb, action.cause) for action in made.actions] == [("wait", "restart again")]


def test_an_altered_replica_that_is_down_is_replaced():
    why = "pids is 64, admitted 256"
    check(
        service(),
        container(state="exited", settings={"pids": 64}),
        gives=f"""
        1 create-container web.1-bbbbbbbb.2  {why}  allow
        2 remove-container web.1-bbbbbbbb  {why}  allow
        3 start-container web.1-bbbbbbbb.2  {why}  allow
        """,
    )


def test_a_network_that_is_gone_is_made_before_it_is_joined_again_and_after_others_are_left():
    made = plan(
        declared(service()),
        engine(container(settings={"networks": ("bridge",)}), networks=()),
    )
    assert [(action.verb, action.target) for action in made.actions] == [
        ("disconnect-network", "web.1-bbbbbbbb"),
        ("create-network", "platform-network"),
        ("connect-network", "web.1-bbbbbbbb"),
    ]


def test_a_network_that_is_not_ours_is_not_joined_and_the_rest_is_put_back():
    foreign = replace(ISOLATED, ours=False)
    altered = container(settings={"networks": (), "pids": 64})
    made = plan(declared(service()), engine(altered, networks=(foreign,)))
    assert [action.verb for action in made.actions] == ["update-container"]
    assert [problem.code for problem in made.problems] == ["network.foreign"]


def test_what_policy_does_not_admit_again_keeps_nothing_else_from_being_put_back():
    altered = container(state="paused", settings={"pids": 64, "restart": "no"})
    made = plan(declared(service()), engine(altered), judge=deny("unpause-container"))
    assert [(action.verb, action.verdict.decision) for action in made.actions] == [
        ("unpause-container", "deny"),
        ("update-container", "allow"),
        ("update-container", "allow"),
    ]


def test_a_replica_whose_admission_is_unknown_is_replaced():
    why = "the inventory lacks its admitted settings"
    check(
        service(),
        container(known=False, state="created"),
        gives=f"""
        1 create-container web.1-bbbbbbbb.2  {why}  allow
        2 remove-container web.1-bbbbbbbb  {why}  allow
        3 start-container web.1-bbbbbbbb.2  {why}  allow
        """,
    )


def test_a_paused_replica_is_thawed():
    check(
        service(),
        container(state="paused"),
        gives="""
        1 unpause-container web.1-bbbbbbbb  web.1-bbbbbbbb is paused  allow
        """,
    )


def test_a_dead_replica_is_replaced_and_removed_without_a_stop():
    check(
        service(),
        container(state="dead"),
        gives="""
        1 create-container web.1-bbbbbbbb.2 it is dead allow
        2 remove-container web.1-bbbbbbbb it is dead allow
        3 start-container web.1-bbbbbbbb.2 it is dead allow
        """,
    )


def test_a_replacement_that_was_begun_is_finished_with_what_is_there():
    check(
        service(),
        container(rev="a"),
        container(state="created"),
        gives="""
        1 start-container web.1-bbbbbbbb web.1-bbbbbbbb was never started allow
        2 wait web.1-bbbbbbbb must be up for 10s
        3 update-container web.1-aaaaaaaa revision is aaaaaaaa, want bbbbbbbb allow
        4 stop-container web.1-aaaaaaaa revision is aaaaaaaa, want bbbbbbbb allow
        5 remove-container web.1-aaaaaaaa revision is aaaaaaaa, want bbbbbbbb allow
        """,
    )


def test_a_stop_first_replacement_that_was_begun_stops_before_it_starts():
    check(
        service(**PORT),
        container(rev="a", settings=NO, admitted=NO),
        container(state="created"),
        gives="""
        1 stop-container web.1-aaaaaaaa revision is aaaaaaaa, want bbbbbbbb allow
        2 start-container web.1-bbbbbbbb web.1-bbbbbbbb was never started allow
        3 wait web.1-bbbbbbbb must be up for 10s
        4 remove-container web.1-aaaaaaaa revision is aaaaaaaa, want bbbbbbbb allow
        """,
    )


def test_a_predecessor_goes_when_its_successor_runs():
    check(
        service(),
        container(rev="a", settings=NO, admitted=NO),
        container(),
        gives="""
        1 stop-container web.1-aaaaaaaa  revision is aaaaaaaa, want bbbbbbbb  allow
        2 remove-container web.1-aaaaaaaa  revision is aaaaaaaa, want bbbbbbbb  allow
        """,
    )


def test_a_start_that_failed_is_tried_again():
    check(
        service(),
        container(state="created", error="no such file"),
        gives="1 start-container web.1-bbbbbbbb  web.1-bbbbbbbb failed to start: no such file  allow",
    )


@pytest.mark.parametrize(
    ("policy", "settings", "exit_code", "gives"),
    [
        (
            "Always",
            {},
            0,
            "1 start-container web.1-bbbbbbbb  web.1-bbbbbbbb was stopped on the engine's own socket: it exited with 0  allow",
        ),
        (
            "OnFailure",
            ON_FAILURE,
            3,
            "1 start-container web.1-bbbbbbbb  web.1-bbbbbbbb was stopped on the engine's own socket: it exited with 3  allow",
        ),
        ("OnFailure", ON_FAILURE, 0, "nothing to do"),
        ("Never", NO, 3, "nothing to do"),
        ("Never", NO, 0, "nothing to do"),
    ],
)
def test_an_exit_is_healed_by_the_restart_policy(policy, settings, exit_code, gives):
    check(
        service(restart={"policy": policy}),
        container(state="exited", settings=settings, admitted=settings, exit_code=exit_code),
        gives=gives,
    )


def test_what_never_restarts_is_still_started_once():
    check(
        service(restart={"policy": "Never"}),
        container(state="created", settings=NO, admitted=NO),
        gives="1 start-container web.1-bbbbbbbb  web.1-bbbbbbbb was never started  allow",
    )


def test_a_finished_task_stays_though_it_was_altered():
    check(
        service(restart={"policy": "Never"}),
        container(state="exited", settings={**NO, "memory": 1 << 20}, admitted=NO),
        gives="nothing to do",
    )


def test_a_finished_task_of_another_revision_runs_anew():
    check(
        service(restart={"policy": "Never"}),
        container(rev="a", state="exited", settings=NO, admitted=NO),
        gives="""
        1 create-container web.1-bbbbbbbb revision is aaaaaaaa, want bbbbbbbb allow
        2 start-container web.1-bbbbbbbb revision is aaaaaaaa, want bbbbbbbb allow
        3 wait web.1-bbbbbbbb must be up for 10s
        4 remove-container web.1-aaaaaaaa revision is aaaaaaaa, want bbbbbbbb allow
        """,
    )


def test_a_finished_task_lets_its_stale_predecessor_go():
    check(
        service(restart={"policy": "Never"}),
        container(rev="a"),
        container(state="exited", settings=NO, admitted=NO),
        gives="""
        1 update-container web.1-aaaaaaaa  revision is aaaaaaaa, want bbbbbbbb  allow
        2 stop-container web.1-aaaaaaaa  revision is aaaaaaaa, want bbbbbbbb  allow
        3 remove-container web.1-aaaaaaaa  revision is aaaaaaaa, want bbbbbbbb  allow
        """,
    )


def test_what_is_declared_stopped_is_stopped_for_good_and_stays():
    check(
        service(state="Stopped"),
        container(),
        gives="""
        1 update-container web.1-bbbbbbbb  web.1-bbbbbbbb is running, state Stopped is declared  allow
        2 stop-container web.1-bbbbbbbb  web.1-bbbbbbbb is running, state Stopped is declared  allow
        """,
    )


def test_a_stopped_service_creates_starts_and_replaces_nothing():
    check(
        service(state="Stopped", replicas=4),
        container(rev="a", state="exited", settings=NO, admitted=NO),
        container(slot=2, state="created"),
        container(slot=3, state="dead"),
        gives="nothing to do",
    )


def test_what_is_declared_stopped_and_down_must_not_come_back_with_the_engine():
    check(
        service(state="Stopped"),
        container(state="exited"),
        gives="1 update-container web.1-bbbbbbbb  web.1-bbbbbbbb is down, state Stopped is declared  allow",
    )


def test_a_stop_that_the_prune_guard_holds_back_is_not_planned():
    check(
        service(state="Stopped", replicas=2),
        container(),
        container(slot=2, state="exited"),
        prunable=frozenset(),
        gives="1 update-container web.2-bbbbbbbb  web.2-bbbbbbbb is down, state Stopped is declared  allow",
    )


def test_what_was_stopped_on_purpose_is_started_and_gets_its_restart_policy_back():
    check(
        service(),
        container(state="exited", settings=NO, admitted=NO),
        gives="""
        1 start-container web.1-bbbbbbbb  web.1-bbbbbbbb was stopped on purpose, and should run  allow
        2 update-container web.1-bbbbbbbb  restart policy is no, want always  allow
        """,
    )


def test_a_task_that_was_stopped_on_purpose_with_exit_0_is_not_finished():
    check(
        service(restart={"policy": "OnFailure"}),
        container(state="exited", settings=NO, admitted=NO, exit_code=0),
        gives="""
        1 start-container web.1-bbbbbbbb  web.1-bbbbbbbb was stopped on purpose, and should run  allow
        2 update-container web.1-bbbbbbbb  restart policy is no, want on-failure  allow
        """,
    )


def test_a_restart_policy_that_a_stop_of_ours_left_is_given_back():
    check(
        service(),
        container(settings=NO, admitted=NO),
        gives="1 update-container web.1-bbbbbbbb  restart policy is no, want always  allow",
    )


def test_slots_beyond_the_replicas_go_last():
    check(
        service(replicas=1),
        container(rev="a"),
        container(slot=2, rev="a", state="exited"),
        gives="""
        1 create-container web.1-bbbbbbbb revision is aaaaaaaa, want bbbbbbbb allow
        2 start-container web.1-bbbbbbbb revision is aaaaaaaa, want bbbbbbbb allow
        3 wait web.1-bbbbbbbb must be up for 10s
        4 disconnect-network web.1-bbbbbbbb takes the name web on platform-network allow
        5 connect-network web.1-bbbbbbbb takes the name web on platform-network allow
        6 update-container web.1-aaaaaaaa revision is aaaaaaaa, want bbbbbbbb allow
        7 stop-container web.1-aaaaaaaa revision is aaaaaaaa, want bbbbbbbb allow
        8 remove-container web.1-aaaaaaaa revision is aaaaaaaa, want bbbbbbbb allow
        9 remove-container web.2-aaaaaaaa slot 2 is beyond replicas 1 allow
        """,
    )


def test_thinning_out_needs_no_word_of_the_prune_guard_but_scaling_to_0_does():
    check(
        service(replicas=1),
        container(),
        container(slot=2, state="exited"),
        prunable=frozenset(),
        gives="1 remove-container web.2-bbbbbbbb  slot 2 is beyond replicas 1  allow",
    )
    check(service(replicas=0), container(), prunable=frozenset(), gives="nothing to do")
    check(
        service(replicas=0),
        container(state="exited"),
        prunable=frozenset({WEB}),
        gives="1 remove-container web.1-bbbbbbbb  slot 1 is beyond replicas 0  allow",
    )


def test_of_two_in_a_slot_the_one_that_was_started_first_is_kept():
    check(
        service(),
        container(started_at="2026-01-01T00:00:02Z"),
        container(attempt=2, started_at="2026-01-01T00:00:01Z"),
        container(attempt=3, state="created"),
        gives="""
        1 update-container web.1-bbbbbbbb  slot 1 is filled by web.1-bbbbbbbb.2  allow
        2 stop-container web.1-bbbbbbbb  slot 1 is filled by web.1-bbbbbbbb.2  allow
        3 remove-container web.1-bbbbbbbb  slot 1 is filled by web.1-bbbbbbbb.2  allow
        4 remove-container web.1-bbbbbbbb.3  slot 1 is filled by web.1-bbbbbbbb.2  allow
        """,
    )


def test_a_replica_that_the_engine_restarts_is_waited_for():
    check(
        service(),
        container(state="restarting"),
        container(rev="a"),
        gives="1 wait web.1-bbbbbbbb  the engine is restarting web.1-bbbbbbbb, which exited with 0",
    )


def test_a_name_that_is_being_freed_is_waited_for():
    check(
        service(),
        container(state="removing"),
        gives="1 wait web.1-bbbbbbbb  web.1-bbbbbbbb is being removed",
    )


def test_a_stale_replica_that_is_being_removed_holds_nothing_up():
    check(
        service(),
        container(rev="a", state="removing"),
        gives="""
        1 create-container web.1-bbbbbbbb revision is aaaaaaaa, want bbbbbbbb allow
        2 start-container web.1-bbbbbbbb revision is aaaaaaaa, want bbbbbbbb allow
        3 wait web.1-bbbbbbbb must be up for 10s
        4 wait web.1-aaaaaaaa web.1-aaaaaaaa is being removed
        """,
    )


@pytest.mark.parametrize(
    ("there", "target"),
    [
        ((), "web.1-bbbbbbbb"),
        ((container(state="exited"),), "web.1-bbbbbbbb"),
        ((container(rev="a"),), "web.1-bbbbbbbb"),
        ((container(settings={"cpuset": "0"}),), "web.1-bbbbbbbb.2"),
        ((container(state="restarting"),), "web.1-bbbbbbbb"),
    ],
)
def test_a_slot_in_backoff_waits_and_nothing_is_stopped_for_it(there, target):
    check(
        service(),
        *there,
        backoff={(WEB, 1): "failed 3 times, not before 12:00"},
        gives=f"1 wait {target}  failed 3 times, not before 12:00",
    )


def test_backoff_of_one_slot_leaves_running_and_other_slots_alone():
    check(
        service(replicas=2),
        container(),
        backoff={(WEB, 1): "later", (WEB, 3): "later"},
        gives="""
        1 create-container web.2-bbbbbbbb  slot 2 is missing  allow
        2 start-container web.2-bbbbbbbb  slot 2 is missing  allow
        """,
    )


def test_no_slot_is_replaced_while_another_cannot_go_on():
    check(
        service(replicas=3),
        container(state="exited", exit_code=1),
        container(slot=2, rev="a"),
        container(slot=3, rev="a"),
        backoff={(WEB, 1): "later"},
        gives="""
        1 wait web.1-bbbbbbbb  later
        2 wait web.2-aaaaaaaa  slot 1 goes first
        3 wait web.3-aaaaaaaa  slot 1 goes first
        """,
    )


@pytest.mark.parametrize("stuck", [{"health": "unhealthy"}, {"state": "exited", "exit_code": 1}])
def test_an_unhealthy_slot_is_mended_though_another_cannot_go_on(stuck: dict[str, Any]):
    check(
        service(replicas=4),
        container(**stuck),
        container(slot=2, health="unhealthy"),
        container(slot=3, health="unhealthy"),
        container(slot=4, rev="a"),
        backoff={(WEB, 1): "later"},
        gives="""
        1 wait web.1-bbbbbbbb  later
        2 update-container web.2-bbbbbbbb  web.2-bbbbbbbb is unhealthy  allow
        3 stop-container web.2-bbbbbbbb  web.2-bbbbbbbb is unhealthy  allow
        4 start-container web.2-bbbbbbbb  web.2-bbbbbbbb is unhealthy  allow
        5 update-container web.2-bbbbbbbb  restart policy is no, want always  allow
        6 wait web.3-bbbbbbbb  slot 2 goes first
        7 wait web.4-aaaaaaaa  slot 1 goes first
        """,
    )


def test_an_unhealthy_slot_waits_for_one_that_is_being_mended_also_where_a_third_is_stuck():
    check(
        service(replicas=3),
        container(state="exited", exit_code=1),
        container(slot=2, health="starting"),
        container(slot=3, health="unhealthy"),
        backoff={(WEB, 1): "later"},
        gives="""
        1 wait web.1-bbbbbbbb  later
        2 wait web.3-bbbbbbbb  slot 2 goes first
        """,
    )


def test_a_slot_whose_successor_runs_is_cleared_though_another_cannot_go_on():
    check(
        service(replicas=2),
        container(state="exited", exit_code=1),
        container(slot=2),
        container(slot=2, rev="a", settings=NO, admitted=NO),
        backoff={(WEB, 1): "later"},
        gives="""
        1 wait web.1-bbbbbbbb  later
        2 stop-container web.2-aaaaaaaa  revision is aaaaaaaa, want bbbbbbbb  allow
        3 remove-container web.2-aaaaaaaa  revision is aaaaaaaa, want bbbbbbbb  allow
        """,
    )


def test_a_denied_replacement_keeps_the_next_slot_from_being_replaced():
    check(
        service(replicas=2),
        container(rev="a"),
        container(slot=2, rev="a"),
        judge=deny("create-container", target="web.1-bbbbbbbb"),
        gives="""
        1 create-container web.1-bbbbbbbb  revision is aaaaaaaa, want bbbbbbbb  deny some.rule
        reason: it may not
        remedy: ask somebody
        2 wait web.2-aaaaaaaa  slot 1 goes first
        """,
    )


def test_a_stuck_slot_does_not_keep_missing_ones_from_being_created():
    check(
        service(replicas=2),
        backoff={(WEB, 1): "later"},
        gives="""
        1 wait web.1-bbbbbbbb  later
        2 create-container web.2-bbbbbbbb  slot 2 is missing  allow
        3 start-container web.2-bbbbbbbb  slot 2 is missing  allow
        """,
    )


@pytest.mark.parametrize("verb", ["create-container", "start-container"])
@pytest.mark.parametrize("spec", [{}, PORT])
def test_nothing_is_done_for_a_successor_that_policy_denies(verb, spec):
    check(
        service(**spec),
        container(rev="a"),
        judge=deny(verb),
        gives=f"""
        1 {verb} web.1-bbbbbbbb  revision is aaaaaaaa, want bbbbbbbb  deny some.rule
        reason: it may not
        remedy: ask somebody
        """,
    )


def test_a_stop_that_policy_denies_leaves_a_stop_first_successor_uncreated():
    check(
        service(**PORT),
        container(rev="a"),
        judge=deny("stop-container"),
        gives="""
        1 stop-container web.1-aaaaaaaa  revision is aaaaaaaa, want bbbbbbbb  deny some.rule
        reason: it may not
        remedy: ask somebody
        """,
    )


def test_what_follows_a_denied_action_is_left_out_and_other_slots_go_on():
    check(
        service(replicas=0),
        container(),
        container(slot=2),
        judge=deny("stop-container", target="web.1-bbbbbbbb"),
        gives="""
        1 update-container web.1-bbbbbbbb  slot 1 is beyond replicas 0  allow
        2 stop-container web.1-bbbbbbbb  slot 1 is beyond replicas 0  deny some.rule
        reason: it may not
        remedy: ask somebody
        3 update-container web.2-bbbbbbbb  slot 2 is beyond replicas 0  allow
        4 stop-container web.2-bbbbbbbb  slot 2 is beyond replicas 0  allow
        5 remove-container web.2-bbbbbbbb  slot 2 is beyond replicas 0  allow
        """,
    )


def test_a_denied_pull_is_shown_once_and_nothing_is_created():
    made = plan(declared(service(replicas=2)), engine(images={}), judge=deny("pull-image"))
    assert [(a.verb, a.verdict.decision) for a in made.actions] == [("pull-image", "deny")]


def test_a_verdict_that_only_audits_stops_nothing():
    made = plan(
        declared(service()),
        engine(),
        judge=lambda _: Verdict("audit-deny", ("some.rule",)),
    )
    assert [a.verb for a in made.actions] == ["create-container", "start-container"]


TAKEN = frozenset({(WEB, 1)})


def test_in_a_slot_that_was_taken_over_the_engine_restarts_nothing():
    check(
        service(),
        container(),
        controller_restarts=TAKEN,
        gives="1 update-container web.1-bbbbbbbb  restart policy is always, want no  allow",
    )
    check(
        service(),
        container(settings=NO, admitted=NO),
        controller_restarts=TAKEN,
        gives="nothing to do",
    )
    check(
        service(),
        container(state="exited", settings=NO, admitted=NO, exit_code=1),
        controller_restarts=TAKEN,
        gives="1 start-container web.1-bbbbbbbb  web.1-bbbbbbbb exited with 1, and the controller restarts it  allow",
    )


def test_a_restart_of_the_engine_is_taken_over_while_it_is_at_it():
    check(
        service(),
        container(state="restarting"),
        controller_restarts=TAKEN,
        backoff={(WEB, 1): "later"},
        gives="""
        1 update-container web.1-bbbbbbbb  restart policy is always, want no  allow
        2 wait web.1-bbbbbbbb  later
        """,
    )


def test_what_is_created_in_a_slot_that_was_taken_over_is_not_the_engines_to_restart():
    check(
        service(),
        controller_restarts=TAKEN,
        gives="""
        1 create-container web.1-bbbbbbbb  slot 1 is missing  allow
        2 start-container web.1-bbbbbbbb  slot 1 is missing  allow
        3 update-container web.1-bbbbbbbb  restart policy is always, want no  allow
        """,
    )


def test_a_task_that_ends_well_in_a_slot_that_was_taken_over_is_finished():
    check(
        service(restart={"policy": "OnFailure"}),
        container(state="exited", settings=NO, admitted=NO, exit_code=0),
        controller_restarts=TAKEN,
        gives="1 update-container web.1-bbbbbbbb  restart policy is no, want on-failure  allow",
    )
    check(
        service(restart={"policy": "OnFailure"}),
        container(state="exited", settings=NO, admitted=NO, exit_code=2),
        controller_restarts=TAKEN,
        gives="1 start-container web.1-bbbbbbbb  web.1-bbbbbbbb exited with 2, and the controller restarts it  allow",
    )


def test_a_stop_takes_as_long_as_the_container_was_created_with():
    def graces(wanted, *there: Container) -> list[int]:
        made = plan(declared(*wanted), engine(*there))
        return [a.grace_s for a in made.actions if isinstance(a, StopContainer)]

    slow = service(stopGracePeriod="30s", stopSignal="SIGINT")
    assert graces([slow], container(rev="a", stop_grace_s=7)) == [7]
    assert graces([slow], container(rev="a", stop_grace_s=0)) == [0]
    assert graces([slow], container(rev="a")) == [30]
    assert graces([], container(stop_grace_s=60)) == [60]
    assert graces([], container()) == [10]


def test_a_container_is_acted_on_by_id_and_a_planned_one_by_its_name():
    made = plan(declared(service()), engine(container(rev="a")))
    said = [
        (a.verb, a.slot, p.absent, p.id, p.revision[:4])
        for a in made.actions
        for p in [a.precondition]
    ]
    assert said == [
        ("create-container", 1, "web.1-bbbbbbbb", "", ""),
        ("start-container", 1, "", "", "v2:b"),
        ("wait", 1, "", "", ""),
        ("disconnect-network", 1, "", "", "v2:b"),
        ("connect-network", 1, "", "", "v2:b"),
        ("update-container", 1, "", "id:web.1-aaaaaaaa", "v2:a"),
        ("stop-container", 1, "", "id:web.1-aaaaaaaa", "v2:a"),
        ("remove-container", 1, "", "id:web.1-aaaaaaaa", "v2:a"),
    ]


def volume_mount(**fields: object) -> dict[str, object]:
    return {"mounts": [{"type": "volume", "source": "data", "target": "/data", **fields}]}


@pytest.mark.parametrize(
    ("spec", "order"),
    [
        ({}, Order.START_FIRST),
        ({"ports": [{"container": 80}]}, Order.START_FIRST),
        (PORT, Order.STOP_FIRST),
        (volume_mount(), Order.STOP_FIRST),
        (volume_mount(readOnly=True), Order.START_FIRST),
        (volume_mount(shared=True), Order.START_FIRST),
        ({"mounts": [{"type": "tmpfs", "target": "/t", "size": "1Mi"}]}, Order.START_FIRST),
        ({"rollout": {"order": "StopFirst"}}, Order.STOP_FIRST),
        ({"rollout": {"order": "StartFirst"}, **volume_mount()}, Order.START_FIRST),
    ],
)
def test_ports_and_exclusive_volumes_decide_the_order_unless_it_is_given(spec, order):
    assert order_of(service(**spec)) is order


@pytest.mark.parametrize(
    ("there", "name"),
    [
        ((), "web.1-bbbbbbbb"),
        ((container(slot=2), container(rev="a")), "web.1-bbbbbbbb"),
        ((container(),), "web.1-bbbbbbbb.2"),
        ((container(attempt=3),), "web.1-bbbbbbbb.4"),
        ((container(attempt=10), container(attempt=9)), "web.1-bbbbbbbb.11"),
        # Renamed from outside: the name that it was given counts still.
        ((container(settings={"name": "other"}),), "web.1-bbbbbbbb.2"),
        ((container(settings={"name": "web.1-bbbbbbbb.7"}),), "web.1-bbbbbbbb.8"),
        ((container(attempt=3, settings={"name": "other"}),), "web.1-bbbbbbbb.4"),
        # Renamed while the inventory doesn't know it: only their number is known.
        ((container(settings={"name": "other"}, known=False),), "web.1-bbbbbbbb.2"),
        # Another slot's holds a name that isn't its own.
        ((container(slot=2, settings={"name": "web.1-bbbbbbbb"}),), "web.1-bbbbbbbb.2"),
        ((container(settings={"name": "web.1-bbbbbbbb.x"}),), "web.1-bbbbbbbb.2"),
    ],
)
def test_the_next_name_follows_the_highest_attempt_of_slot_and_revision(there, name):
    assert next_name(service(), 1, there) == name


def test_a_name_that_would_be_too_long_takes_the_first_free_number():
    namespace, of = "n" * 20, "s" * 27
    there = [container(of, 999, attempt=n, namespace=namespace) for n in (1, 2, 9)]
    name = next_name(service(of, namespace=namespace, replicas=999), 999, there)
    assert name == f"{namespace}.{of}.999-bbbbbbbb.3"
    assert len(name) == 63


# Gates and waves

SETTLING = Availability(AvailabilityWord.SETTLING, "must be up for 10s", 5.0)


def test_a_successor_that_is_not_available_yet_is_waited_for():
    check(
        service(),
        container(rev="a"),
        container(aliases=(("platform-network", ()),)),
        availability={"id:web.1-bbbbbbbb": SETTLING},
        gives="""
        1 wait web.1-bbbbbbbb must be up for 10s
        2 disconnect-network web.1-bbbbbbbb takes the name web on platform-network allow
        3 connect-network web.1-bbbbbbbb takes the name web on platform-network allow
        4 update-container web.1-aaaaaaaa revision is aaaaaaaa, want bbbbbbbb allow
        5 stop-container web.1-aaaaaaaa revision is aaaaaaaa, want bbbbbbbb allow
        6 remove-container web.1-aaaaaaaa revision is aaaaaaaa, want bbbbbbbb allow
        """,
    )


def test_a_successor_that_is_available_is_named_and_its_predecessor_goes():
    check(
        service(),
        container(rev="a"),
        container(aliases=(("platform-network", ()),)),
        gives="""
        1 disconnect-network web.1-bbbbbbbb takes the name web on platform-network allow
        2 connect-network web.1-bbbbbbbb takes the name web on platform-network allow
        3 update-container web.1-aaaaaaaa revision is aaaaaaaa, want bbbbbbbb allow
        4 stop-container web.1-aaaaaaaa revision is aaaaaaaa, want bbbbbbbb allow
        5 remove-container web.1-aaaaaaaa revision is aaaaaaaa, want bbbbbbbb allow
        """,
    )


def test_a_successor_that_is_left_alone_is_named_at_once():
    check(
        service(),
        container(aliases=(("platform-network", ()),)),
        availability={"id:web.1-bbbbbbbb": SETTLING},
        gives="""
        1 disconnect-network web.1-bbbbbbbb takes the name web on platform-network allow
        2 connect-network web.1-bbbbbbbb takes the name web on platform-network allow
        """,
    )


def test_a_failed_rollout_replaces_nothing_more_and_fills_what_is_empty():
    check(
        service(replicas=2),
        container(rev="a"),
        paused="the rollout failed: it is unhealthy",
        gives="""
        1 create-container web.2-bbbbbbbb slot 2 is missing allow
        2 start-container web.2-bbbbbbbb slot 2 is missing allow
        3 wait web.1-aaaaaaaa the rollout failed: it is unhealthy
        """,
    )


@pytest.mark.parametrize(
    ("spec", "waves"),
    [
        ({}, [[1], [2], [3]]),
        ({"rollout": {"maxUnavailable": 2}}, [[1, 2], [3]]),
        ({"rollout": {"parallelism": 3}}, [[1, 2, 3]]),
        ({"rollout": {"order": "StopFirst", "maxUnavailable": 2}}, [[1, 2], [3]]),
        ({"rollout": {"order": "StopFirst", "parallelism": 3}}, [[1], [2], [3]]),
    ],
)
def test_as_many_slots_are_replaced_at_a_time_as_may(spec, waves):
    stale = (container(slot=slot, rev="a") for slot in (1, 2, 3))
    made = plan(declared(service(replicas=3, **spec)), engine(*stale))
    found: list[list[int]] = [[]]
    for before, after in pairwise(made.actions):
        if after.verb == "create-container" and before.verb == "remove-container":
            found.append([])
        if after.verb == "start-container":
            found[-1].append(after.slot)
    assert found == waves


def test_no_wave_begins_while_a_slot_that_is_on_its_way_needs_the_room():
    check(
        service(replicas=2),
        container(),
        container(slot=2, rev="a"),
        availability={"id:web.1-bbbbbbbb": SETTLING},
        gives="""
        1 wait web.1-bbbbbbbb must be up for 10s
        2 create-container web.2-bbbbbbbb revision is aaaaaaaa, want bbbbbbbb allow
        3 start-container web.2-bbbbbbbb revision is aaaaaaaa, want bbbbbbbb allow
        4 wait web.2-bbbbbbbb must be up for 10s
        5 disconnect-network web.2-bbbbbbbb takes the name web on platform-network allow
        6 connect-network web.2-bbbbbbbb takes the name web on platform-network allow
        7 update-container web.2-aaaaaaaa revision is aaaaaaaa, want bbbbbbbb allow
        8 stop-container web.2-aaaaaaaa revision is aaaaaaaa, want bbbbbbbb allow
        9 remove-container web.2-aaaaaaaa revision is aaaaaaaa, want bbbbbbbb allow
        """,
    )


# Health


def test_an_unhealthy_replica_is_restarted():
    check(
        service(),
        container(health="unhealthy"),
        gives="""
        1 update-container web.1-bbbbbbbb web.1-bbbbbbbb is unhealthy allow
        2 stop-container web.1-bbbbbbbb web.1-bbbbbbbb is unhealthy allow
        3 start-container web.1-bbbbbbbb web.1-bbbbbbbb is unhealthy allow
        4 update-container web.1-bbbbbbbb restart policy is no, want always allow
        """,
    )


def test_an_unhealthy_replica_that_was_cut_off_is_joined_again_and_asked_anew_before_a_restart():
    check(
        service(),
        container(health="unhealthy", settings={"networks": ()}),
        gives="""
        1 connect-network web.1-bbbbbbbb web.1-bbbbbbbb isn't in its network platform-network allow
        """,
    )


def test_unhealthy_replicas_are_restarted_one_after_the_other():
    made = plan(
        declared(service(replicas=2)),
        engine(container(health="unhealthy"), container(slot=2, health="unhealthy")),
    )
    assert [a.target for a in made.actions if a.verb in ("stop-container", "wait")] == [
        "web.1-bbbbbbbb",
        "web.1-bbbbbbbb",
        "web.2-bbbbbbbb",
    ]


def test_an_unhealthy_replica_of_a_failed_rollout_is_restarted_and_nothing_more():
    made = plan(
        declared(service(replicas=2)),
        engine(container(health="unhealthy"), container(slot=2, rev="a")),
        paused={WEB: "it failed"},
    )
    assert [(a.verb, a.target) for a in made.actions] == [
        ("update-container", "web.1-bbbbbbbb"),
        ("stop-container", "web.1-bbbbbbbb"),
        ("start-container", "web.1-bbbbbbbb"),
        ("update-container", "web.1-bbbbbbbb"),
        ("wait", "web.2-aaaaaaaa"),
    ]


def test_a_replica_that_is_unhealthy_again_is_replaced_and_stopped_before():
    check(
        service(),
        container(health="unhealthy"),
        replace_reasons={"id:web.1-bbbbbbbb": "web.1-bbbbbbbb is unhealthy again"},
        gives="""
        1 create-container web.1-bbbbbbbb.2 web.1-bbbbbbbb is unhealthy again allow
        2 update-container web.1-bbbbbbbb web.1-bbbbbbbb is unhealthy again allow
        3 stop-container web.1-bbbbbbbb web.1-bbbbbbbb is unhealthy again allow
        4 start-container web.1-bbbbbbbb.2 web.1-bbbbbbbb is unhealthy again allow
        5 wait web.1-bbbbbbbb.2 must be up for 10s
        6 remove-container web.1-bbbbbbbb web.1-bbbbbbbb is unhealthy again allow
        """,
    )


def test_a_successor_that_is_unhealthy_in_its_turn_is_replaced_by_a_fresh_one():
    no, again = {"restart": "no"}, "web.1-bbbbbbbb.2 is unhealthy again"
    check(
        service(),
        container(state="exited", settings=no, admitted=no),
        container(attempt=2, health="unhealthy"),
        replace_reasons={"id:web.1-bbbbbbbb.2": again},
        gives=f"""
        1 create-container web.1-bbbbbbbb.3 {again} allow
        2 remove-container web.1-bbbbbbbb {again} allow
        3 update-container web.1-bbbbbbbb.2 {again} allow
        4 stop-container web.1-bbbbbbbb.2 {again} allow
        5 start-container web.1-bbbbbbbb.3 {again} allow
        6 wait web.1-bbbbbbbb.3 must be up for 10s
        7 remove-container web.1-bbbbbbbb.2 {again} allow
        """,
    )


CUT_OFF = "the engine has no place for it on platform-network"


def test_a_successor_without_its_place_is_stopped_and_replaced_while_its_predecessor_serves():
    check(
        service(),
        container(rev="a"),
        container(cut_off=("platform-network",)),
        gives=f"""
        1 create-container web.1-bbbbbbbb.2 {CUT_OFF} allow
        2 update-container web.1-bbbbbbbb {CUT_OFF} allow
        3 stop-container web.1-bbbbbbbb {CUT_OFF} allow
        4 start-container web.1-bbbbbbbb.2 {CUT_OFF} allow
        5 wait web.1-bbbbbbbb.2 must be up for 10s
        6 disconnect-network web.1-bbbbbbbb.2 takes the name web on platform-network allow
        7 connect-network web.1-bbbbbbbb.2 takes the name web on platform-network allow
        8 update-container web.1-aaaaaaaa revision is aaaaaaaa, want bbbbbbbb allow
        9 stop-container web.1-aaaaaaaa revision is aaaaaaaa, want bbbbbbbb allow
        10 remove-container web.1-aaaaaaaa revision is aaaaaaaa, want bbbbbbbb allow
        11 remove-container web.1-bbbbbbbb {CUT_OFF} allow
        """,
    )


def test_a_replica_that_nobody_reaches_by_name_is_stopped_before_the_next_one_starts():
    check(
        service(),
        container(cut_off=("platform-network",)),
        gives=f"""
        1 create-container web.1-bbbbbbbb.2 {CUT_OFF} allow
        2 update-container web.1-bbbbbbbb {CUT_OFF} allow
        3 stop-container web.1-bbbbbbbb {CUT_OFF} allow
        4 start-container web.1-bbbbbbbb.2 {CUT_OFF} allow
        5 wait web.1-bbbbbbbb.2 must be up for 10s
        6 remove-container web.1-bbbbbbbb {CUT_OFF} allow
        """,
    )


def test_a_replica_that_serves_on_another_network_is_stopped_after_its_successor_is_available():
    both = {"networks": ("platform-network", "platform-network.other")}
    there = container(cut_off=("platform-network",), settings=both, admitted=both)
    check(
        service(),
        there,
        gives=f"""
        1 create-container web.1-bbbbbbbb.2 {CUT_OFF} allow
        2 start-container web.1-bbbbbbbb.2 {CUT_OFF} allow
        3 wait web.1-bbbbbbbb.2 must be up for 10s
        4 disconnect-network web.1-bbbbbbbb.2 takes the name web on platform-network allow
        5 connect-network web.1-bbbbbbbb.2 takes the name web on platform-network allow
        6 update-container web.1-bbbbbbbb {CUT_OFF} allow
        7 stop-container web.1-bbbbbbbb {CUT_OFF} allow
        8 remove-container web.1-bbbbbbbb {CUT_OFF} allow
        """,
    )


def test_an_unhealthy_task_that_is_never_restarted_is_left_alone():
    check(
        service(restart={"policy": "Never"}),
        container(health="unhealthy", settings=NO, admitted=NO),
        gives="nothing to do",
    )


def test_what_is_left_of_earlier_tries_goes_before_the_next_one_starts():
    check(
        service(),
        container(rev="a"),
        container(known=False, state="exited"),
        gives="""
        1 create-container web.1-bbbbbbbb.2 revision is aaaaaaaa, want bbbbbbbb allow
        2 remove-container web.1-bbbbbbbb the inventory lacks its admitted settings allow
        3 start-container web.1-bbbbbbbb.2 revision is aaaaaaaa, want bbbbbbbb allow
        4 wait web.1-bbbbbbbb.2 must be up for 10s
        5 disconnect-network web.1-bbbbbbbb.2 takes the name web on platform-network allow
        6 connect-network web.1-bbbbbbbb.2 takes the name web on platform-network allow
        7 update-container web.1-aaaaaaaa revision is aaaaaaaa, want bbbbbbbb allow
        8 stop-container web.1-aaaaaaaa revision is aaaaaaaa, want bbbbbbbb allow
        9 remove-container web.1-aaaaaaaa revision is aaaaaaaa, want bbbbbbbb allow
        """,
    )


def test_a_successor_that_was_overtaken_goes_before_the_next_one_starts():
    check(
        service(),
        container(rev="a"),
        container(rev="c"),
        availability={"id:web.1-cccccccc": SETTLING},
        gives="""
        1 create-container web.1-bbbbbbbb revision is aaaaaaaa, want bbbbbbbb allow
        2 update-container web.1-cccccccc revision is cccccccc, want bbbbbbbb allow
        3 stop-container web.1-cccccccc revision is cccccccc, want bbbbbbbb allow
        4 remove-container web.1-cccccccc revision is cccccccc, want bbbbbbbb allow
        5 start-container web.1-bbbbbbbb revision is aaaaaaaa, want bbbbbbbb allow
        6 wait web.1-bbbbbbbb must be up for 10s
        7 disconnect-network web.1-bbbbbbbb takes the name web on platform-network allow
        8 connect-network web.1-bbbbbbbb takes the name web on platform-network allow
        9 update-container web.1-aaaaaaaa revision is aaaaaaaa, want bbbbbbbb allow
        10 stop-container web.1-aaaaaaaa revision is aaaaaaaa, want bbbbbbbb allow
        11 remove-container web.1-aaaaaaaa revision is aaaaaaaa, want bbbbbbbb allow
        """,
    )


def test_a_successor_that_was_overtaken_stays_while_what_it_was_to_succeed_is_frozen():
    frozen = container(rev="a", state="paused")
    overtaken = container(rev="c", aliases=(("platform-network", ()),))
    made = plan(declared(service()), engine(frozen, overtaken))
    verbs = [(a.verb, a.target) for a in made.actions]
    begins = verbs.index(("start-container", "web.1-bbbbbbbb"))
    assert all(verb != "stop-container" for verb, _ in verbs[:begins])
    assert ("stop-container", "web.1-cccccccc") in verbs[begins:]


@pytest.mark.parametrize(
    "unreached",
    [
        container(rev="a", aliases=(("platform-network", ()),)),
        container(rev="a", settings={"networks": ()}),
    ],
)
def test_of_two_that_serve_the_one_that_no_name_leads_to_goes_first(unreached: Container):
    made = plan(declared(service()), engine(unreached, container(rev="c")))
    assert [a.target for a in made.actions if a.verb == "stop-container"] == [
        "web.1-aaaaaaaa",
        "web.1-cccccccc",
    ]


def test_what_serves_is_not_stopped_for_a_successor_whose_port_is_taken():
    own, wanted = HostPort("127.0.0.1", 8080), HostPort("127.0.0.1", 9090)
    moved = service(ports=[{"container": 80, "host": 9090}])
    there = engine(container(rev="a", ports=(own,)), networks=(ISOLATED, INGRESS))
    taken = replace(there, listening=frozenset({own, wanted}))
    assert [(a.verb, a.cause) for a in plan(declared(moved), taken).actions] == [
        ("wait", "port 9090 on 127.0.0.1 is taken by another program")
    ]
    free = replace(there, listening=frozenset({own}))
    assert plan(declared(moved), free).actions[0].verb == "create-container"


ILL = container(rev="a", health="unhealthy", complaint="port 80 gave no answer")
LATER = {(WEB, 1): "failed once, next try at noon"}
CURED = [
    ("update-container", "web.1-aaaaaaaa"),
    ("stop-container", "web.1-aaaaaaaa"),
    ("start-container", "web.1-aaaaaaaa"),
    ("update-container", "web.1-aaaaaaaa"),
]


def cured(*there: Container, ailing: Container = ILL, **past: Any) -> list[tuple[str, str]]:
    wanted = past.pop("wanted", service())
    made = plan(
        declared(wanted), engine(*there), failing_predecessors=frozenset({ailing.id}), **past
    )
    return [(a.verb, a.target) for a in made.actions]


@pytest.mark.parametrize("order", ["StartFirst", "StopFirst"])
def test_an_unhealthy_predecessor_is_restarted_while_its_successor_cannot_be_had(order: str):
    wanted = service(rollout={"order": order})
    assert cured(ILL, wanted=wanted, backoff=LATER) == [*CURED, ("wait", "web.1-bbbbbbbb")]
    hindered = cured(ILL, wanted=wanted, last_pass_failed=frozenset({WEB}))
    assert hindered[: len(CURED) + 1] == [*CURED, ("create-container", "web.1-bbbbbbbb")]
    made = plan(
        declared(wanted), engine(ILL), failing_predecessors=frozenset({ILL.id}), backoff=LATER
    )
    assert made.actions[0].cause == "web.1-aaaaaaaa is unhealthy: port 80 gave no answer"


def test_it_is_not_where_that_would_help_nobody():
    waits = [("wait", "web.1-bbbbbbbb")]
    # It was started a moment ago.
    assert cured(ILL, ailing=container("other"), backoff=LATER) == waits
    # Its successor is on its way, or runs already.
    assert cured(ILL)[0][0] == "create-container"
    assert ("start-container", "web.1-aaaaaaaa") not in cured(ILL, container(), backoff=LATER)
    # Somebody else serves in its slot.
    other = container(rev="c")
    assert ("start-container", "web.1-aaaaaaaa") not in cured(ILL, other, backoff=LATER)
    never = service(restart={"policy": "Never"})
    assert cured(ILL, wanted=never, backoff=LATER) == waits


def test_what_served_before_serves_again_while_its_successor_has_to_wait():
    check(
        service(**PORT),
        container(rev="a", state="exited", settings=NO),
        container(state="created"),
        backoff={(WEB, 1): "failed once, next try at noon"},
        gives="""
        1 start-container web.1-aaaaaaaa it serves until web.1-bbbbbbbb can allow
        2 update-container web.1-aaaaaaaa restart policy is no, want always allow
        3 wait web.1-bbbbbbbb failed once, next try at noon
        """,
    )


def test_what_served_before_serves_again_while_an_image_is_pulled():
    wanted = service(image="ghcr.io/platformnetwork/web:2")
    made = plan(declared(wanted), engine(container(rev="a", state="exited", settings=NO)))
    assert [(a.verb, a.target) for a in made.actions][:5] == [
        ("start-container", "web.1-aaaaaaaa"),
        ("update-container", "web.1-aaaaaaaa"),
        ("wait", "web.1-aaaaaaaa"),
        ("pull-image", "ghcr.io/platformnetwork/web:2"),
        ("create-container", "web.1-bbbbbbbb"),
    ]


def test_what_served_before_serves_again_before_another_slot_needs_the_missing_image():
    wanted = service(image="ghcr.io/platformnetwork/web:2", replicas=2)
    made = plan(
        declared(wanted),
        engine(container(rev="a", slot=2, state="exited")),
        last_pass_failed=frozenset({WEB}),
    )
    assert [(a.verb, a.target) for a in made.actions][:3] == [
        ("start-container", "web.2-aaaaaaaa"),
        ("wait", "web.2-aaaaaaaa"),
        ("pull-image", "ghcr.io/platformnetwork/web:2"),
    ]


def test_what_serves_beside_a_successor_that_settles_is_isolated_at_once():
    made = plan(
        declared(service()),
        engine(
            container(rev="a", settings={"networks": ("platform-network", "evil")}),
            container(),
        ),
        availability={
            "id:web.1-bbbbbbbb": Availability(AvailabilityWord.SETTLING, "must be up for 10s")
        },
    )
    first = made.actions[0]
    assert (first.verb, first.target) == ("disconnect-network", "web.1-aaaaaaaa")


def test_what_was_altered_while_it_was_down_is_put_back_before_it_serves_again():
    check(
        service(),
        container(rev="a", state="exited", settings={"memory": 1 << 40, "restart": "no"}),
        backoff={(WEB, 1): "failed once, next try at noon"},
        gives="""
        1 update-container web.1-aaaaaaaa memory is 1024Gi, admitted 512Mi allow
        2 start-container web.1-aaaaaaaa it serves until web.1-bbbbbbbb can allow
        3 update-container web.1-aaaaaaaa restart policy is no, want always allow
        4 wait web.1-bbbbbbbb failed once, next try at noon
        """,
    )


def test_what_no_engine_can_put_back_does_not_serve_again():
    check(
        service(),
        container(rev="a", state="exited", settings={"cpu_shares": 7}),
        backoff={(WEB, 1): "failed once, next try at noon"},
        gives="1 wait web.1-bbbbbbbb failed once, next try at noon",
    )


def test_what_was_cut_off_gets_its_name_back_while_its_successor_has_to_wait():
    made = plan(
        declared(service()),
        engine(container(rev="a", settings={"networks": ()}, aliases=())),
        backoff={(WEB, 1): "later"},
    )
    (joins, _waits) = made.actions
    assert isinstance(joins, ConnectNetwork)
    assert joins.aliases == ("web",)


def test_what_policy_does_not_let_start_does_not_serve_again():
    check(
        service(),
        container(rev="a", state="exited", settings=NO),
        judge=deny("start-container"),
        backoff={(WEB, 1): "later"},
        gives="1 wait web.1-bbbbbbbb later",
    )


def test_the_last_good_one_serves_again_beside_one_that_is_ill_once_its_rollout_is_paused():
    made = plan(
        declared(service(healthcheck={"exec": ["/check"]})),
        engine(container(rev="a", state="exited", settings=NO), container(health="unhealthy")),
        backoff={(WEB, 1): "later"},
        paused={WEB: "the rollout failed"},
    )
    assert (made.actions[0].verb, made.actions[0].target) == ("start-container", "web.1-aaaaaaaa")


def test_the_last_good_one_takes_the_address_back_from_one_that_is_ill():
    """An engine refuses to start a container at an address that another one has."""
    place = (("platform-network", "172.30.0.2"),)
    good = container(rev="a", state="exited", chosen=place, slot_addresses=place)
    ill = container(health="unhealthy", addresses=place, chosen=place, slot_addresses=place)
    made = plan(
        declared(service(healthcheck={"exec": ["/check"]})),
        engine(good, ill, networks=(replace(ISOLATED, has_slot_addresses=True),)),
        backoff={(WEB, 1): "later"},
        paused={WEB: "the rollout failed"},
    )
    assert [(a.verb, a.target) for a in made.actions] == [
        ("disconnect-network", good.name),
        ("connect-network", good.name),
        ("start-container", good.name),
        ("disconnect-network", ill.name),
        ("disconnect-network", good.name),
        ("connect-network", good.name),
        ("connect-network", ill.name),
        ("wait", ill.name),
    ]
    # Without a name at first, since the address goes with the name.
    joins = [a.aliases for a in made.actions if isinstance(a, ConnectNetwork)]
    assert joins == [(), ("web",), ()]


def test_of_several_that_are_up_the_one_that_serves_is_put_back_in_place():
    made = plan(
        declared(service()),
        engine(
            container(rev="a", settings={"networks": ()}, aliases=()),
            container(rev="c", settings={"pids": 7}),
        ),
        backoff={(WEB, 1): "later"},
    )
    assert [(action.verb, action.target) for action in made.actions] == [
        ("update-container", "web.1-cccccccc"),
        ("wait", "web.1-bbbbbbbb"),
    ]


def test_the_last_good_one_serves_again_though_another_was_started_later():
    blue = container(rev="a", state="exited", settings=NO, started_at="2026-01-01T00:00:00Z")
    green = container(rev="c", state="exited", settings=NO, started_at="2026-01-02T00:00:00Z")
    for good, target in (({WEB: blue.revision}, blue.name), ({}, green.name)):
        made = plan(
            declared(service()), engine(blue, green), backoff={(WEB, 1): "later"}, last_good=good
        )
        assert (made.actions[0].verb, made.actions[0].target) == ("start-container", target)


def test_what_is_unhealthy_since_it_was_cut_off_is_not_stopped_first():
    cut_off = container(rev="a", health="unhealthy", settings={"networks": ()}, aliases=())
    made = plan(declared(service()), engine(cut_off))
    verbs = [(action.verb, action.target) for action in made.actions]
    stop = verbs.index(("stop-container", cut_off.name))
    assert verbs.index(("start-container", "web.1-bbbbbbbb")) < stop


def test_a_task_that_served_before_is_not_run_again():
    check(
        service(restart={"policy": "Never"}),
        container(rev="a", state="exited", exit_code=0),
        backoff={(WEB, 1): "failed once, next try at noon"},
        gives="1 wait web.1-bbbbbbbb failed once, next try at noon",
    )


def test_a_network_that_nobody_makes_any_more_is_not_joined() -> None:
    """The old container was cut off from a network that is gone, and has no successor yet."""
    wanted = service(rev="c", network={"mode": "none"})
    cut_off = container(rev="b", settings={"networks": (), "pids": 1})
    made = plan(declared(wanted), engine(cut_off, networks=()), judge=deny("create-container"))
    verbs = [action.verb for action in made.actions]
    assert "connect-network" not in verbs
    assert "update-container" in verbs, "the rest of it is healed"
