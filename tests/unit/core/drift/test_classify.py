"""The words for how a replica differs, and why."""

from dataclasses import replace
from typing import Any

import pytest

from controller.core.drift.classify import (
    DRIFT_RULES,
    Drift,
    ReplicaState,
    alterations,
    cause_of,
    drift_of,
    is_healable,
    restart_of,
    short_revision,
    slot_of,
    why_stopped,
)
from controller.model.desired.desired import Restarting, Service
from controller.model.observed import Container, Ending
from tests.worlds import container, revision, service

NO = {"restart": "no"}
TASK = service(restart={"policy": "Never"})
STOPPED = service(state="Stopped")
LEAVING = replace(service(), restarting=Restarting(frozenset({container().id}), "uid:0"))


def check(there: Container, wanted: Service | None, word: str, cause: str, *, blind=False):
    """A container beside what is declared has this word, for this reason."""
    replica = ReplicaState(there, wanted, blind)
    assert (drift_of(replica).value, cause_of(replica)) == (word, cause)


@pytest.mark.parametrize(
    ("there", "wanted", "word", "cause"),
    [
        (container(), None, "orphan", "web is no longer declared"),
        (container(slot=2), service(), "orphan", "slot 2 is beyond replicas 1"),
        (container(slot=0), service(), "orphan", "slot 0 is beyond replicas 1"),
        (container(rev="a"), service(), "stale", "revision is aaaaaaaa, want bbbbbbbb"),
        (
            container(rev="a", state="paused"),
            service(),
            "stale",
            "revision is aaaaaaaa, want bbbbbbbb",
        ),
        (container(), LEAVING, "stale", "restart asked by uid:0"),
        (container(rev="a"), LEAVING, "stale", "revision is aaaaaaaa, want bbbbbbbb"),
        (container(attempt=2), LEAVING, "in-sync", "web.1-bbbbbbbb.2 is as declared"),
        (
            container(state="exited"),
            replace(LEAVING, spec=TASK.spec),
            "stale",
            "restart asked by uid:0",
        ),
        (
            container(state="exited"),
            replace(LEAVING, spec=STOPPED.spec),
            "in-sync",
            "web.1-bbbbbbbb is as declared",
        ),
        (container(state="paused"), service(), "altered", "it is paused"),
        (container(state="dead"), service(), "altered", "it is dead"),
        # What a stop for good takes, the start brings back.
        (
            container(state="exited", settings=NO, exit_code=2),
            service(),
            "stopped",
            "web.1-bbbbbbbb exited with 2, and should run",
        ),
        (
            container(state="exited", settings={"restart": "on-failure"}),
            service(),
            "altered",
            "restart is on-failure, admitted always",
        ),
        (
            container(state="exited", settings={"memory": 0}),
            service(),
            "altered",
            "memory is unlimited, admitted 512Mi",
        ),
        (
            container(state="exited", exit_code=2),
            service(),
            "stopped",
            "web.1-bbbbbbbb was stopped on the engine's own socket: it exited with 2",
        ),
        (
            container(state="restarting"),
            service(),
            "stopped",
            "the engine is restarting web.1-bbbbbbbb, which exited with 0",
        ),
        (container(state="removing"), service(), "stopped", "web.1-bbbbbbbb is being removed"),
        (container(health="unhealthy"), service(), "unhealthy", "web.1-bbbbbbbb is unhealthy"),
        (container(health="starting"), service(), "in-sync", "web.1-bbbbbbbb is as declared"),
        (container(), service(), "in-sync", "web.1-bbbbbbbb is as declared"),
        (
            container(state="exited", settings=NO, exit_code=9),
            TASK,
            "in-sync",
            "web.1-bbbbbbbb is as declared",
        ),
        (
            container(),
            STOPPED,
            "altered",
            "web.1-bbbbbbbb is running, state Stopped is declared",
        ),
        (
            container(rev="a", state="restarting"),
            STOPPED,
            "altered",
            "web.1-aaaaaaaa is restarting, state Stopped is declared",
        ),
        (container(rev="a", state="exited"), STOPPED, "in-sync", "web.1-aaaaaaaa is as declared"),
    ],
)
def test_each_difference_has_its_word_and_its_cause(there, wanted, word, cause):
    check(there, wanted, word, cause)


@pytest.mark.parametrize("wanted", [None, service(), service("web", "c")])
def test_blindness_comes_before_every_other_word(wanted):
    cause = "web.1-bbbbbbbb is left as it is: its document can't be read"
    check(container(slot=1, state="dead"), wanted, "blind", cause, blind=True)


def test_every_word_for_a_container_has_a_rule_and_the_last_one_matches_all():
    assert {drift for drift, _ in DRIFT_RULES} == set(Drift) - {Drift.MISSING}
    assert DRIFT_RULES[-1][1](ReplicaState(container(), None))


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"name": "other"}, "name is other, admitted web.1-bbbbbbbb"),
        ({"memory": 128 << 20}, "memory is 128Mi, admitted 512Mi"),
        ({"memory": 1000}, "memory is 1000B, admitted 512Mi"),
        ({"memory_swap": -1}, "memory swap is unlimited, admitted 1Gi"),
        ({"memory_reservation": 1 << 30}, "memory reservation is 1Gi, admitted unlimited"),
        ({"nano_cpus": 1_500_000_000}, "nano cpus is 1.5, admitted 0.5"),
        ({"nano_cpus": 0}, "nano cpus is unlimited, admitted 0.5"),
        ({"cpu_quota": 50_000}, "cpu quota is 50000, admitted 0"),
        ({"cpu_period": 9}, "cpu period is 9, admitted 0"),
        ({"cpu_shares": 9}, "cpu shares is 9, admitted 0"),
        ({"cpuset": "0-1"}, "cpuset is 0-1, admitted unset"),
        ({"pids": 0}, "pids is unlimited, admitted 256"),
        ({"restart": "no"}, "restart is no, admitted always"),
        ({"restart_max": 3}, "restart max is 3, admitted 0"),
        ({"others": ("BlkioWeight=300",)}, "others is BlkioWeight=300, admitted none"),
        ({"networks": ()}, "networks is none, admitted platform-network"),
        (
            {"networks": ("bridge", "platform-network")},
            "networks is bridge+platform-network, admitted platform-network",
        ),
    ],
)
def test_every_field_that_can_be_changed_from_outside_is_named(changed, sentence):
    admitted = {"memory_swap": 1 << 30, "nano_cpus": 500_000_000, "pids": 256}
    (found,) = alterations(container(admitted=admitted, settings=changed))
    assert found.why == sentence


def test_a_name_of_another_s_is_an_alteration_and_none_of_its_own_is_not():
    def whys(*aliases: str) -> list[str]:
        there = container(aliases=(("platform-network", aliases), ("bridge", ("x",))))
        return [each.why for each in alterations(there)]

    assert whys("web") == whys() == []
    assert whys("db", "web", "api") == ["it answers to api and db on platform-network"]


def test_a_container_without_its_place_in_a_network_is_altered_and_cannot_be_healed():
    there = container(cut_off=("platform-network",))
    (found,) = alterations(there)
    assert found.why == "the engine has no place for it on platform-network"
    assert not is_healable(there)


@pytest.mark.parametrize(
    ("there", "healable"),
    [
        (container(), False),
        (container(settings={"memory": 1 << 30, "memory_swap": 2 << 30}), True),
        (container(state="paused"), True),
        (container(state="paused", settings={"name": "x", "networks": ()}), True),
        (container(settings={"restart": "no"}), True),
        # One that is down is made anew, and what was stopped for a violation stays as it is.
        (container(state="exited", settings={"pids": 4}), False),
        (container(state="restarting", settings={"pids": 4}), False),
        (container(settings={"pids": 4}, violation="r1"), False),
        (container(known=False), False),
        # No update unsets what wasn't there.
        (container(settings={"cpu_shares": 4}), False),
        (container(settings={"cpuset": "0"}), False),
        (container(settings={"memory_reservation": 1 << 20}), False),
        (container(settings={"others": ("BlkioWeight=300",)}), False),
        (container(admitted={"pids": 0}, settings={"pids": 9}), False),
        (container(admitted={"cpu_shares": 512}, settings={"cpu_shares": 4}), True),
        # Nor does an engine change the way in which CPUs are limited.
        (container(settings={"nano_cpus": 2_000_000_000}), True),
        (container(settings={"nano_cpus": 0, "cpu_quota": 50_000}), False),
        (container(admitted={"nano_cpus": 0, "cpu_quota": 9}, settings={"cpu_quota": 8}), True),
        # All or nothing: half of it would be a restart later.
        (container(settings={"pids": 4, "cpu_shares": 4}), False),
    ],
)
def test_what_an_engine_can_put_back_is_healed_where_it_stands(there, healable):
    assert is_healable(there) is healable


def test_what_is_as_admitted_has_no_alterations():
    assert alterations(container()) == ()
    assert alterations(container(state="exited")) == ()


@pytest.mark.parametrize(
    ("policy", "controller_restarts", "engines"),
    [
        ("Always", False, ("always", 0)),
        ("OnFailure", False, ("on-failure", 10)),
        ("Never", False, ("no", 0)),
        ("Always", True, ("no", 0)),
    ],
)
def test_the_engine_is_told_the_restart_policy_unless_the_slot_was_taken_over(
    policy, controller_restarts, engines
):
    assert (
        restart_of(service(restart={"policy": policy}), controller_restarts=controller_restarts)
        == engines
    )


def test_a_task_that_never_restarts_exited_and_was_not_stopped_on_purpose():
    there = container(state="exited", settings=NO, exit_code=1)
    cause = "web.1-bbbbbbbb exited with 1, restart policy is Never"
    assert why_stopped(there, TASK) == cause


def ended(by: str, **more: str) -> Ending:
    return Ending("c", "container.stop", by, 1000, "2026-01-01T00:00:00Z", **more)


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        (
            {"ending": ended("operator")},
            "was stopped by uid:1000 through the gate, restart policy is Always",
        ),
        ({}, "was stopped on the engine's own socket: it exited with 0"),
        ({"settings": NO, "admitted": NO}, "was stopped on purpose, and should run"),
        (
            {"settings": NO, "admitted": NO, "ending": ended("controller"), "exit_code": 3},
            "was stopped on purpose, and should run",
        ),
        ({"settings": NO, "admitted": NO, "exit_code": 1}, "exited with 1, and should run"),
        (
            {"settings": NO, "admitted": NO, "exit_code": 137, "oom_killed": True},
            "was killed: out of memory (limit 512Mi); raise spec.resources.memory, and should run",
        ),
    ],
)
def test_who_stopped_it_is_told_as_far_as_anybody_knows(fields, cause):
    there = container(state="exited", **fields)
    assert why_stopped(there, service()) == f"web.1-bbbbbbbb {cause}"


def test_what_the_broker_ended_is_altered_whatever_else_is_so():
    breach = ended("broker", reason="effective.mount: tmpfs / is mounted at /x")
    cause = "web.1-bbbbbbbb was ended by the broker: effective.mount: tmpfs / is mounted at /x"
    down: dict[str, Any] = {"state": "exited", "violation": "v1", "ending": breach}
    check(container(settings=NO, **down), service(), "altered", cause)
    # Also where nothing else tells it from one that may be started again.
    check(container(settings=NO, admitted=NO, **down), service(), "altered", cause)
    unknown = "web.1-bbbbbbbb was ended by the broker, since it didn't run as admitted"
    check(container(state="exited", violation="v1"), service(), "altered", unknown)


def test_a_revision_is_shortened_to_the_digits_that_names_carry():
    assert short_revision(revision("c")) == "cccccccc"


def slot(*there: Container, wanted: Service | None = None) -> tuple[str, tuple[str, ...], str, str]:
    found = slot_of(1, there, wanted or service())
    keep = found.current.name if found.current else ""
    return keep, tuple(c.name for c in found.extra), found.drift.value, found.why


def test_an_empty_slot_is_missing():
    assert slot() == ("", (), "missing", "slot 1 is missing")
    gone = slot_of(1, (), service(), missing_cause="web.1-bbbbbbbb was removed from outside")
    assert gone.why == "slot 1 is missing: web.1-bbbbbbbb was removed from outside"


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({"state": "running"}, {"state": "restarting"}),
        ({"state": "restarting"}, {"state": "exited"}),
        ({"state": "exited"}, {"state": "created"}),
        ({"state": "created"}, {"state": "dead"}),
        ({"state": "created"}, {"state": "removing"}),
        ({"state": "paused"}, {"state": "restarting"}),
        ({"state": "created"}, {"settings": {"cpuset": "0"}}),
        # What can be put back where it stands serves on.
        ({"settings": {"pids": 4}}, {"state": "created"}),
        ({"started_at": "2026-01-02T00:00:00Z"}, {"settings": {"pids": 4}}),
        ({"state": "created"}, {"rev": "a"}),
        (
            {"started_at": "2026-01-01T00:00:01Z"},
            {"started_at": "2026-01-01T00:00:02Z"},
        ),
        (
            {"state": "exited", "started_at": "2026-01-01T00:00:01Z"},
            {"state": "exited", "started_at": ""},
        ),
    ],
)
def test_the_best_of_several_is_kept_whatever_their_names_and_order(better, worse):
    first, second = container(attempt=2, **better), container(attempt=1, **worse)
    assert slot(first, second)[:2] == (first.name, (second.name,))
    assert slot(second, first)[:2] == (first.name, (second.name,))
    first, second = container(attempt=1, **better), container(attempt=2, **worse)
    assert slot(second, first)[:2] == (first.name, (second.name,))


def test_what_was_stopped_for_one_that_must_be_replaced_in_its_turn_is_not_kept():
    def kept(*others: Container) -> Container | None:
        ill = container(attempt=2, health="unhealthy")
        return slot_of(1, (*others, ill), service(), {ill.id: "it is unhealthy again"}).current

    before = container(state="exited", settings=NO, admitted=NO)
    successor = container(attempt=3, state="created")
    assert kept() is None
    assert kept(before) is None
    assert kept(before, successor) is successor


def test_of_equals_the_first_by_name_is_kept():
    assert slot(container(attempt=2), container())[:2] == (
        "web.1-bbbbbbbb",
        ("web.1-bbbbbbbb.2",),
    )


def test_the_cause_of_a_replacement_names_what_serves_and_of_that_the_wanted_revision():
    stale, altered = container(rev="a"), container(settings={"cpuset": "4"})
    down = container(attempt=2, state="dead")
    assert slot(stale, altered, down)[2:] == ("altered", "cpuset is 4, admitted unset")
    assert slot(stale, down)[2:] == ("stale", "revision is aaaaaaaa, want bbbbbbbb")
    assert slot(down, container(rev="a", state="exited"))[2:] == ("altered", "it is dead")


def test_others_are_in_the_order_in_which_they_were_started():
    late = container(rev="a", started_at="2026-01-03T00:00:00Z")
    early = container(rev="c", started_at="2026-01-01T00:00:00Z")
    never = container(rev="d", state="created")
    assert slot(never, late, early)[1] == (early.name, late.name, never.name)
    assert slot(never, late, container(), early)[1] == (early.name, late.name, never.name)


def test_the_alive_others_are_those_with_a_process():
    states = ("running", "paused", "restarting", "exited", "created", "dead", "removing")
    there = tuple(container(rev=rev, state=s) for rev, s in zip("cdef012", states, strict=True))
    alive = {c.state.value for c in slot_of(1, there, service()).alive}
    assert alive == {"running", "paused", "restarting"}


HERE = ("platform-network", "10.208.0.2")
SLOTTED: dict[str, Any] = {"slot_addresses": (HERE,), "chosen": (HERE,)}
GUEST: dict[str, Any] = {"holders": ((*HERE, "guest"),)}
ASTRAY: dict[str, Any] = {"addresses": ((HERE[0], "10.208.4.9"),)}
NAMED: dict[str, Any] = {"aliases": ((HERE[0], ("web",)),)}


@pytest.mark.parametrize(
    ("fields", "drift", "cause"),
    [
        (
            {**SLOTTED, **GUEST, "state": "exited", "error": "Address already in use"},
            "altered",
            "its address 10.208.0.2 on platform-network is taken by the container guest",
        ),
        (
            {**SLOTTED, **GUEST, "state": "created"},
            "altered",
            "its address 10.208.0.2 on platform-network is taken by the container guest",
        ),
        # The next container has an address of the engine's choice, and takes its own one back.
        (
            {**SLOTTED, **GUEST, "chosen": (), "state": "exited", "exit_code": 1},
            "stopped",
            "web.1-bbbbbbbb was stopped on the engine's own socket: it exited with 1",
        ),
        (
            {**SLOTTED, **GUEST, **ASTRAY, **NAMED, "chosen": ()},
            "in-sync",
            "web.1-bbbbbbbb is as declared",
        ),
        (
            {**SLOTTED, **ASTRAY, **NAMED, "chosen": ()},
            "altered",
            "it isn't at 10.208.0.2, its address on platform-network",
        ),
    ],
)
def test_a_slot_whose_address_is_taken_runs_at_another_one_meanwhile(
    fields: dict[str, Any], drift: str, cause: str
) -> None:
    check(container(**fields), service(), drift, cause)


def test_a_finished_task_is_not_run_again_for_its_address() -> None:
    done = container(state="exited", settings=NO, **SLOTTED, **GUEST)
    check(done, TASK, "in-sync", "web.1-bbbbbbbb is as declared")


ORDERED = service(restart={"policy": "OnFailure", "boot": "Ordered"})
STOPPED_BY_US = Ending("c", "container.stop", "controller", 9, "2026-01-01T00:01:00Z")


@pytest.mark.parametrize(
    ("wanted", "fields", "finished", "cause"),
    [
        (ORDERED, {"exit_code": 0}, True, "web.1-bbbbbbbb is as declared"),
        # The controller stopped it, and died before its start.
        (
            ORDERED,
            {"exit_code": 0, "ending": STOPPED_BY_US},
            False,
            (
                "web.1-bbbbbbbb exited with 0; trimtab starts it again, as the engine doesn't "
                "(restart.boot is Ordered)"
            ),
        ),
        (
            replace(service(), has_late_secrets=True),
            {"exit_code": 255},
            False,
            (
                "web.1-bbbbbbbb exited with 255; trimtab starts it again, as the engine doesn't "
                "(its Secrets must be there first)"
            ),
        ),
        (
            replace(service(), has_late_secrets=True),
            {"exit_code": 0},
            False,
            (
                "web.1-bbbbbbbb exited with 0: it ended by itself, or was stopped with docker or the engine "
                "(trimtab can't tell which); trimtab starts it again, as the engine doesn't "
                "(its Secrets must be there first)"
            ),
        ),
        (
            replace(service(), has_late_secrets=True),
            {"exit_code": 143, "ending": ended("outside")},
            False,
            (
                "web.1-bbbbbbbb was stopped on the engine's own socket: it exited with 143: ended by "
                "SIGTERM"
            ),
        ),
    ],
)
def test_the_controller_starts_what_the_engine_must_not_start(
    wanted: Service, fields: dict[str, Any], finished: bool, cause: str
) -> None:
    assert restart_of(wanted) == ("no", 0)
    down = container(state="exited", admitted=NO, finished_at="2026-01-01T00:01:00Z", **fields)
    replica = ReplicaState(down, wanted)
    assert (replica.is_finished, cause_of(replica)) == (finished, cause)
