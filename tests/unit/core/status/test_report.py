"""What is reported of each resource."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.core.planning.context import SlotPause
from controller.core.planning.quarantine import Quarantine, QuarantineLeft
from controller.core.status.facts import Failure, SlotTrouble, StatusInputs
from controller.core.status.report import report
from controller.model.desired.desired import Desired, Restarting
from controller.model.desired.plan import Blocked, Plan
from controller.model.errors import Act, Problem, Severity
from controller.model.names import service_key
from controller.model.observed import Ending, Image, Observed, ObservedNetwork, ObservedVolume
from controller.model.records import Verdict
from tests.worlds import (
    IMAGE,
    IMAGE_ID,
    NAMES,
    WEB,
    container,
    declared,
    deny,
    engine,
    network,
    plan,
    release,
    revision,
    service,
    volume,
)

NOW = "2026-03-01T12:00:00Z"
NO = {"restart": "no"}
Resource = dict[str, Any]
BREACH = Ending(
    "c1", "container.kill", "broker", -1, NOW, "effective.mount: tmpfs / is mounted at /x"
)


def all_ready(value: dict[str, Any]) -> bool:
    return all(
        condition["status"] == "True"
        for resource in value["resources"]
        for condition in resource["conditions"]
        if condition["type"] == "Ready"
    )


def world(
    desired: Desired, observed: Observed, *, planned: Any = None, **more: Any
) -> StatusInputs:
    made = plan(desired, observed, **(planned or {}))
    return StatusInputs(desired=desired, observed=observed, plan=made, networks=NAMES, **more)


def resources(one: StatusInputs, *, previous: Any = None, now: str = NOW) -> list[Resource]:
    found = report(one, previous=previous, now=now)["resources"]
    assert isinstance(found, list)
    return found


def only(one: StatusInputs, **more: Any) -> Resource:
    (found,) = resources(one, **more)
    return found


def said(resource: Resource) -> dict[str, tuple[str, str, str]]:
    return {c["type"]: (c["status"], c["reason"], c["message"]) for c in resource["conditions"]}


@pytest.mark.parametrize(
    ("spec", "order", "why"),
    [
        (
            {"ports": [{"container": 5432, "host": 15432}]},
            "StopFirst",
            "host port 15432 can't be held by two containers",
        ),
        (
            {"mounts": [{"type": "volume", "source": "data", "target": "/data"}]},
            "StopFirst",
            "volume data can't be held by two containers",
        ),
        ({"rollout": {"order": "StopFirst"}}, "StopFirst", "declared"),
    ],
)
def test_the_order_of_a_rollout_is_told_with_what_chose_it(
    spec: dict[str, Any], order: str, why: str
):
    one = world(declared(service(**spec)), engine(container()))
    assert only(one)["rollout"] == {"order": order, "why": why}


def test_what_nothing_declares_has_no_order_of_a_rollout():
    assert "rollout" not in only(world(declared(), engine(container())))


def test_between_a_change_of_its_document_and_the_pass_on_it_a_service_progresses():
    one = world(declared(service()), engine(container()), generations={WEB: (4, 3)})
    told = said(only(one))
    assert told["Ready"][0] == "True"
    due = "its document has changed; a pass is due"
    assert told["Progressing"] == ("True", "Waiting", due)


def test_a_service_as_declared_is_ready_in_the_shape_of_the_contract():
    there = container(restart_count=2, health="healthy")
    one = world(declared(service()), engine(there), generations={WEB: (4, 4)})
    assert report(one, previous=None, now=NOW) == {
        "resources": [
            {
                "kind": "Service",
                "namespace": "default",
                "name": "web",
                "owner": "team",
                "desired": 1,
                "ready": 1,
                "revision": revision("b"),
                "image": IMAGE,
                "digest": IMAGE_ID,
                "generation": 4,
                "observedGeneration": 4,
                "rollout": {
                    "order": "StartFirst",
                    "why": "no host port and no exclusive volume forbids it",
                },
                "conditions": [
                    {
                        "type": "Ready",
                        "status": "True",
                        "reason": "AsDeclared",
                        "message": "1 of 1 ready",
                        "since": NOW,
                    },
                    {
                        "type": "Progressing",
                        "status": "False",
                        "reason": "NothingToDo",
                        "message": "",
                        "since": NOW,
                    },
                    {
                        "type": "Degraded",
                        "status": "False",
                        "reason": "AsDeclared",
                        "message": "",
                        "since": NOW,
                    },
                    {
                        "type": "Stalled",
                        "status": "False",
                        "reason": "NothingToDo",
                        "message": "",
                        "since": NOW,
                    },
                ],
                "slots": [
                    {
                        "slot": 1,
                        "container": "web.1-bbbbbbbb",
                        "state": "running",
                        "health": "healthy",
                        "restarts": 2,
                        "id": there.id,
                        "started": there.started_at,
                    }
                ],
            }
        ],
        "problems": [],
    }


def test_before_the_first_look_nothing_is_said_of_the_engine():
    for looked, reason in ((False, "NotSeen"), (True, "EngineUnavailable")):
        one = StatusInputs(declared(service()), None, Plan(), NAMES, looked=looked)
        assert said(only(one))["Ready"][:2] == ("Unknown", reason)


def test_a_missing_slot_makes_it_progress_and_degrades_it():
    found = only(world(declared(service(replicas=2)), engine(container(slot=2))))
    assert (found["desired"], found["ready"]) == (2, 1)
    assert said(found) == {
        "Ready": (
            "False",
            "Acting",
            "create-container web.1-bbbbbbbb: slot 1 is missing",
        ),
        "Progressing": (
            "True",
            "Acting",
            "create-container web.1-bbbbbbbb: slot 1 is missing",
        ),
        "Degraded": ("True", "TooFew", "1 of 2 running"),
        "Stalled": ("False", "NothingToDo", ""),
    }
    assert [(row["slot"], row["container"], row["state"]) for row in found["slots"]] == [
        (1, "", "missing"),
        (2, "web.2-bbbbbbbb", "running"),
    ]
    assert (found["slots"][0]["health"], found["slots"][0]["restarts"]) == ("", 0)


def test_a_stale_replica_serves_and_is_not_ready():
    found = only(world(declared(service()), engine(container(rev="a"))))
    assert (found["ready"], said(found)["Degraded"][0]) == (0, "False")
    assert said(found)["Ready"][:2] == ("False", "Acting")
    assert found["slots"][0]["container"] == "web.1-aaaaaaaa"
    assert found["earlier"] == 1


def test_another_revision_serves_no_longer_once_the_declared_one_does_or_it_is_ill():
    def earlier(*there: Any) -> Any:
        return only(world(declared(service()), engine(*there))).get("earlier", 0)

    assert earlier(container(state="created"), container(rev="a")) == 1
    assert earlier(container(), container(rev="a")) == 0
    assert earlier(container(rev="a", health="unhealthy")) == 0
    assert earlier(container(rev="a", state="exited")) == 0
    assert earlier(container(rev="a", slot=3)) == 0


def test_a_replica_that_is_being_restarted_serves_until_its_successor_is_there():
    old = container()
    restarting = replace(service(), restarting=Restarting(frozenset({old.id}), "uid:0"))

    def ready_of(*there: Any) -> int:
        found = only(world(declared(restarting), engine(*there)))
        count: int = found["ready"] + found.get("earlier", 0)
        return count

    assert ready_of(old) == 1
    for health in ("starting", "unhealthy"):
        assert ready_of(old, container(health=health, attempt=2)) == 1
    assert ready_of(replace(old, health="unhealthy")) == 0
    assert ready_of(container(state="created", attempt=2)) == 0


def test_what_serves_is_shown_before_a_successor_that_does_not_run_yet():
    def shown(*there: Any) -> list[str]:
        found = only(world(declared(service()), engine(*there)))
        return [row["container"] for row in found["slots"]]

    assert shown(container(state="created"), container(rev="a")) == ["web.1-aaaaaaaa"]
    assert shown(container(), container(rev="a")) == ["web.1-bbbbbbbb"]
    assert shown(container(state="exited"), container(rev="a", state="exited")) == [
        "web.1-bbbbbbbb"
    ]
    assert shown(container(rev="a", state="exited")) == ["web.1-aaaaaaaa"]


def test_slots_beyond_the_replicas_are_shown_and_do_not_count():
    found = only(world(declared(service()), engine(container(), container(slot=3))))
    assert (found["desired"], found["ready"]) == (1, 1)
    assert [row["slot"] for row in found["slots"]] == [1, 3]
    assert said(found)["Ready"] == ("True", "AsDeclared", "1 of 1 ready")
    beyond = only(world(declared(service()), engine(container(slot=3))))
    assert said(beyond)["Degraded"] == ("True", "TooFew", "0 of 1 running")


def test_a_service_declared_stopped_is_ready_when_nothing_runs():
    down = container(state="exited", settings=NO, admitted=NO)
    found = only(world(declared(service(state="Stopped", replicas=2)), engine(down)))
    assert (found["desired"], found["ready"]) == (0, 0)
    assert said(found)["Ready"] == ("True", "AsDeclared", "")
    desired = declared(service(state="Stopped"))
    up = only(world(desired, engine(container()), planned={"prunable": frozenset()}))
    assert said(up)["Ready"] == ("False", "NotStopped", "1 still up, state Stopped is declared")
    assert up["ready"] == 0


def test_a_task_that_ended_well_is_ready_and_one_that_did_not_has_failed():
    task = declared(service(restart={"policy": "Never"}))
    ended: dict[str, Any] = {"state": "exited", "settings": NO, "admitted": NO}
    good = only(world(task, engine(container(**ended))))
    assert (good["ready"], said(good)["Ready"][0], said(good)["Degraded"][0]) == (
        1,
        "True",
        "False",
    )
    bad = only(world(task, engine(container(exit_code=3, **ended))))
    assert said(bad)["Ready"] == ("False", "Failed", "web.1-bbbbbbbb exited with 3")
    why = "0 of 1 running; web.1-bbbbbbbb exited with 3"
    assert said(bad)["Degraded"] == ("True", "TooFew", why)


def test_an_unhealthy_predecessor_degrades_where_nothing_else_serves_in_its_slot():
    ill = container(rev="a", health="unhealthy", complaint="port 80 gave no answer")
    found = only(world(declared(service()), engine(ill)))
    why = "web.1-aaaaaaaa is unhealthy: port 80 gave no answer"
    assert said(found)["Degraded"] == ("True", "Unhealthy", why)
    for other in (container(), container(rev="c")):
        found = only(world(declared(service()), engine(ill, other)))
        assert said(found)["Degraded"][0] == "False"


def test_an_unhealthy_replica_degrades_and_is_not_ready():
    found = only(world(declared(service()), engine(container(health="unhealthy"))))
    assert (found["ready"], said(found)["Degraded"]) == (
        0,
        ("True", "Unhealthy", "web.1-bbbbbbbb is unhealthy"),
    )
    complaint = "port 8080 answered with status 503"
    ill = container(health="unhealthy", complaint=complaint)
    told = said(only(world(declared(service()), engine(ill))))["Degraded"][2]
    assert told == f"web.1-bbbbbbbb is unhealthy: {complaint}"


def test_a_slot_that_waits_says_for_what():
    desired, observed = declared(service()), engine(container(state="exited", exit_code=1))
    held = {"backoff": {(WEB, 1): "failed 2 times, not before 12:00"}}
    found = only(world(desired, observed, planned=held))
    waiting = ("Waiting", "failed 2 times, not before 12:00")
    assert said(found)["Progressing"] == ("True", *waiting)
    assert said(found)["Ready"] == ("False", *waiting)


def test_what_waits_for_others_names_their_keys():
    db = service("db", replicas=0)
    api = service("api", dependsOn=[{"name": "db"}])
    web = service("web", dependsOn=[{"name": "api"}])
    rows = report(world(declared(db, api, web), engine()), previous=None, now=NOW)["resources"]
    assert isinstance(rows, list)
    waits = {row["name"]: row.get("waitsFor") for row in rows}
    assert waits == {"db": None, "api": ["Service/default/db"], "web": ["Service/default/api"]}


def test_the_next_try_of_each_slot_and_of_a_failed_action_is_an_instant_with_its_reason():
    pauses = {
        (WEB, 1): SlotPause("failed 3 times in a row (it exited with 1)", 1772366440.0),
        (WEB, 2): SlotPause("memory altered again and again", 1772366500.0),
        (service_key("default", "x"), 3): SlotPause("of another service", 1.0),
    }
    troubles = {slot: SlotTrouble(pause=pause) for slot, pause in pauses.items()}
    one = world(declared(service(replicas=3)), engine(), troubles=troubles)
    found = only(one)
    first = {
        "at": "2026-03-01T12:00:40Z",
        "reason": "failed 3 times in a row (it exited with 1)",
    }
    assert found["nextTry"] == first
    assert [row.get("nextTry") for row in found["slots"]] == [
        first,
        {"at": "2026-03-01T12:01:40Z", "reason": "memory altered again and again"},
        None,
    ]
    refused = Failure(Act.RETRY, "image.notfound", "no such image", retry_at=1772366430.0)
    assert only(replace(one, failures={WEB: refused}))["nextTry"] == {
        "at": "2026-03-01T12:00:30Z",
        "reason": "image.notfound: no such image",
    }
    assert "nextTry" not in only(world(declared(service()), engine(container())))


def test_a_crash_loop_is_named_with_its_slots():
    often = "5 times in 10 min"
    looping = dict.fromkeys(
        ((WEB, 2), (WEB, 1), (service_key("default", "x"), 3)), SlotTrouble(crash_looping=often)
    )
    found = only(world(declared(service(replicas=2)), engine(), troubles=looping))
    failing = f"slot 1 failed {often}; slot 2 failed {often}"
    assert said(found)["CrashLoop"] == ("True", "KeepsFailing", failing)
    assert said(found)["Ready"][:2] == ("False", "KeepsFailing")
    stopped = declared(service(state="Stopped"))
    assert "CrashLoop" not in said(only(world(stopped, engine(), troubles=looping)))


def test_a_crash_loop_says_why_the_last_failure_was_one_also_while_it_runs_again():
    why = "was killed: out of memory (limit 64Mi); raise spec.resources.memory"
    one = world(
        declared(service(replicas=2)),
        engine(container(restart_count=5), container(slot=2, state="exited", exit_code=3)),
        troubles={
            (WEB, 1): SlotTrouble(why, crash_looping="8 times in a row"),
            (WEB, 2): SlotTrouble("exited with 2"),
        },
    )
    found = only(one)
    assert said(found)["CrashLoop"][2] == f"slot 1 failed 8 times in a row: {why}"
    assert [slot["cause"] for slot in found["slots"]] == [why, "exited with 3"]


def test_what_is_altered_again_and_again_is_named_by_slot_and_field():
    contended = {
        (WEB, 2): SlotTrouble(contended=("memory", "memory_swap")),
        (service_key("default", "x"), 1): SlotTrouble(contended=("pids",)),
    }
    found = only(world(declared(service(replicas=2)), engine(), troubles=contended))
    assert said(found)["Contended"] == (
        "True",
        "AlteredAgain",
        (
            "altered again and again: slot 2: memory, memory swap (find out who else changes it; "
            "trimtab repairs it after growing pauses)"
        ),
    )
    assert "Contended" not in said(only(world(declared(service()), engine())))
    ended = {
        (WEB, 1): SlotTrouble(contended=("memory", "removed", "stopped")),
        (WEB, 2): SlotTrouble(contended=("removed",)),
    }
    assert said(only(world(declared(service()), engine(), troubles=ended)))["Contended"][2] == (
        "altered again and again: slot 1: memory; ended from outside again and again: "
        "slot 1: its container is removed and stopped; slot 2: its container is removed (find out who "
        "else changes it; trimtab repairs it after growing pauses)"
    )


def test_what_policy_denies_is_stalled_and_violates_it():
    desired = declared(service())
    found = only(world(desired, engine(), planned={"judge": deny("create-container")}))
    why = ("some.rule", "it may not (ask somebody)")
    assert said(found)["Stalled"] == ("True", *why)
    assert said(found)["PolicyViolation"] == ("True", *why)
    assert said(found)["Ready"] == ("False", *why)
    assert said(found)["Progressing"] == ("False", "NothingToDo", "")


def test_what_runs_and_is_not_admitted_any_more_is_ready_and_violates_the_policy():
    verdict = Verdict("deny", (), "too much memory")
    found = only(world(declared(service()), engine(container()), violations={WEB: verdict}))
    assert said(found)["PolicyViolation"] == ("True", "denied", "too much memory")
    assert said(found)["Ready"][0] == "True"
    assert said(found)["Stalled"][0] == "False"


def test_what_is_let_through_for_now_is_a_warning_and_holds_nothing_back():
    verdict = Verdict("audit-deny", ("resources.memory",), "too much memory", "ask for less")
    found = only(world(declared(service()), engine(container()), violations={WEB: verdict}))
    why = ("True", "resources.memory", "too much memory (ask for less)")
    assert said(found)["PolicyWarning"] == why
    assert "PolicyViolation" not in said(found)
    assert said(found)["Ready"][0] == "True"
    assert said(found)["Stalled"][0] == "False"


def test_a_problem_of_a_resource_stalls_it_and_a_warning_does_not():
    wanted = service(pullPolicy="Never")
    found = only(world(declared(wanted), engine(images={})))
    message = f"{IMAGE} isn't here, and pullPolicy is Never"
    remedy = f"load {IMAGE} onto the engine, or set pullPolicy: IfNotPresent"
    assert said(found)["Stalled"] == ("True", "image.absent", f"{message} ({remedy})")
    for problem, status in [
        (Problem("x", "m", key=WEB), "True"),
        (Problem("x", "m", key=WEB, severity=Severity.WARNING), "False"),
        (Problem("x", "m", key=service_key("default", "other")), "False"),
        (Problem("x", "m"), "False"),
    ]:
        desired = declared(service(), problems=(problem,))
        stalled = said(only(world(desired, engine(container()))))["Stalled"]
        assert stalled == (status, *(("x", "m") if status == "True" else ("NothingToDo", "")))


@pytest.mark.parametrize(
    ("act", "condition", "reason", "message"),
    [
        (Act.STALLED, "Stalled", "name.foreign", "the name is taken"),
        (Act.RETRY, "Progressing", "Retrying", "name.foreign: the name is taken"),
        (Act.WAITING, "Progressing", "Waiting", "name.foreign: the name is taken"),
    ],
)
def test_a_failed_pass_says_who_acts_next(act, condition, reason, message):
    failure = Failure(act, "name.foreign", "the name is taken")
    found = only(world(declared(service()), engine(), failures={WEB: failure}))
    assert said(found)[condition] == ("True", reason, message)
    assert said(found)["Ready"] == ("False", reason, message)
    stalled = said(found)["Stalled"][0]
    assert stalled == ("True" if condition == "Stalled" else "False")


def test_a_rollout_that_failed_is_paused_and_waits_for_a_person():
    why = "web.1-cccccccc was unhealthy"
    failed = {WEB: why, service_key("default", "x"): "another"}
    found = only(world(declared(service()), engine(container()), failed=failed))
    assert said(found)["Paused"] == ("True", "rollout.failed", why)
    assert said(found)["Stalled"] == (
        "True",
        "rollout.failed",
        f"{why} (change its document, or try the same again: trimtab resume web)",
    )
    other = only(world(declared(service("api")), engine(container("api")), failed=failed))
    assert "Paused" not in said(other)


def test_what_the_broker_ended_violates_the_policy_and_names_the_record():
    ended = container(state="exited", effective="violation", violation="v1", ending=BREACH)
    found = only(world(declared(service()), engine(ended)))
    cause = "was ended by the broker: effective.mount: tmpfs / is mounted at /x"
    remedy = "(see 'trimtab journal show v1'; find out who else changes it)"
    assert said(found)["PolicyViolation"] == (
        "True",
        "effective.violated",
        f"web.1-bbbbbbbb {cause} {remedy}",
    )
    (row,) = found["slots"]
    assert (row["effective"], row["violation"], row["cause"]) == ("violation", "v1", cause)


def test_a_crash_loop_of_violations_is_stalled_also_while_the_next_container_runs():
    cause = "was ended by the broker: effective.mount: tmpfs / is mounted at /x"
    one = world(
        declared(service()),
        engine(container()),
        troubles={
            (WEB, 1): SlotTrouble(cause, crash_looping="5 times in 10 min", breach="v1"),
        },
    )
    told = said(only(one))
    remedy = "(see 'trimtab journal show v1'; find out who else changes it)"
    message = f"the last container of slot 1 {cause} {remedy}"
    assert told["Stalled"] == ("True", "effective.violated", message)
    assert told["PolicyViolation"] == ("True", "effective.violated", message)
    assert told["CrashLoop"][2] == f"slot 1 failed 5 times in 10 min: {cause}"


def test_the_gravest_hindrance_says_why_something_is_not_ready():
    desired = declared(service(), problems=(Problem("x", "m", key=WEB),))
    blocked = (Blocked(WEB, "PrunePending", "would go", "approve"),)
    looping = {(WEB, 1): SlotTrouble(crash_looping="5 times in 10 min")}
    everything = world(desired, engine(), planned={"blocked": blocked}, troubles=looping)
    assert said(only(everything))["Ready"][1] == "PrunePending"
    assert said(only(world(desired, engine(), troubles=looping)))["Ready"][1] == "x"
    calm = declared(service())
    assert said(only(world(calm, engine(), troubles=looping)))["Ready"][1] == "KeepsFailing"


def test_what_is_blocked_is_pending_and_among_the_problems():
    blocked = tuple(Blocked(key, "PrunePending", "would go", "approve") for key in (WEB,))
    one = world(
        declared(), engine(container()), planned={"blocked": blocked, "prunable": frozenset()}
    )
    found = only(one)
    pending = ("PrunePending", "would go (approve)")
    assert said(found)["PrunePending"] == ("True", *pending)
    assert said(found)["Ready"] == ("False", *pending)
    assert (found["desired"], found["ready"], found["owner"], found["image"]) == (
        0,
        1,
        "team",
        IMAGE,
    )
    assert found["revision"] == revision("b")
    assert found["slots"][0]["container"] == "web.1-bbbbbbbb"
    problems = report(one, previous=None, now=NOW)["problems"]
    assert isinstance(problems, list)
    assert [(p["code"], p["message"]) for p in problems] == [
        ("PrunePending", "Service/default/web: would go")
    ]


def test_what_is_being_removed_is_not_ready_until_it_is_gone():
    found = only(world(declared(), engine(container(state="exited"), container(slot=2))))
    assert said(found)["Ready"] == (
        "False",
        "Acting",
        "remove-container web.1-bbbbbbbb: web is no longer declared",
    )
    assert [row["slot"] for row in found["slots"]] == [1, 2]
    idle = world(declared(), engine(container()), planned={"prunable": frozenset()})
    assert said(only(idle))["Ready"] == (
        "False",
        "NotDeclared",
        "nothing declares it any more",
    )
    assert resources(world(declared(), engine(container(origin="client")))) == []


def test_what_cannot_be_read_is_unknown():
    desired = declared(blind_keys=[WEB, service_key("default", "never-made")])
    found = only(world(desired, engine(container())))
    assert said(found)["Ready"] == (
        "Unknown",
        "Blind",
        "its document can't be read: it is left as it is",
    )
    assert said(found)["Degraded"] == ("Unknown", "NotSeen", "")
    both = declared(service(), blind_keys=[WEB])
    assert said(only(world(both, engine(container()))))["Ready"][1] == "Blind"


def test_without_the_engine_everything_is_unknown_and_nothing_is_shown():
    desired = declared(service(), network("back"), volume("data"), release("r", WEB))
    one = replace(world(desired, engine(container())), observed=None)
    found = resources(one)
    assert [(r["kind"], said(r)["Ready"][:2], r["slots"], r["digest"]) for r in found] == [
        ("Network", ("Unknown", "EngineUnavailable"), [], ""),
        ("Release", ("False", "NotReady"), [], ""),
        ("Service", ("Unknown", "EngineUnavailable"), [], ""),
        ("Volume", ("Unknown", "EngineUnavailable"), [], ""),
    ]
    assert {said(r)["Degraded"] for r in found} == {("Unknown", "NotSeen", "")}


BACK = ObservedNetwork("n", "back", ours=True, origin="controller", internal=True)
DATA = ObservedVolume("data", ours=True, origin="controller")


def test_networks_and_volumes_are_ready_when_they_are_there_as_declared():
    desired = declared(network("back"), volume("data"))

    def states(
        *networks: ObservedNetwork, volumes: tuple[ObservedVolume, ...] = ()
    ) -> list[tuple[int, str]]:
        one = world(desired, engine(networks=networks, volumes=volumes))
        return [(r["ready"], said(r)["Ready"][0]) for r in resources(one)]

    assert states(BACK, volumes=(DATA,)) == [(1, "True"), (1, "True")]
    assert states() == [(0, "False"), (0, "False")]
    wrong = replace(BACK, internal=False)
    assert states(wrong, volumes=(replace(DATA, ours=False),)) == [(0, "False"), (0, "False")]
    (found, _) = resources(world(desired, engine(networks=(BACK,), volumes=(DATA,))))
    assert (found["kind"], found["owner"], found["desired"], found["image"]) == (
        "Network",
        "team",
        1,
        "",
    )


def test_a_volume_has_the_size_that_the_engine_holds():
    def size(*options: tuple[str, str]) -> object:
        seen = engine(volumes=(replace(DATA, options=options),))
        return resources(world(declared(volume("data")), seen))[0].get("sizeBytes")

    assert size(("size", "10g")) == 10 << 30
    assert size() is None


def test_an_absent_network_or_volume_is_not_counted_in_containers():
    found = resources(world(declared(network("back"), volume("data")), engine()))
    assert [said(each)["Degraded"] for each in found] == [
        ("True", "TooFew", "no network on the host as declared"),
        ("True", "TooFew", "no volume on the host as declared"),
    ]


def test_a_release_is_ready_when_all_that_it_rendered_to_is():
    api = service_key("default", "api")
    desired = declared(service(), service("api"), release("chain", WEB, api))

    def found(*there: Any) -> Resource:
        return resources(world(desired, engine(*there)))[0]

    partly, wholly = found(container()), found(container(), container("api"))
    assert (partly["kind"], partly["desired"], partly["ready"]) == ("Release", 2, 1)
    assert said(partly)["Ready"] == ("False", "NotReady", "1 of 2 ready")
    assert said(partly)["Degraded"] == ("True", "TooFew", "1 of 2 running")
    assert (wholly["ready"], said(wholly)["Ready"][0]) == (2, "True")


@pytest.mark.parametrize(
    ("images", "pins", "digest"),
    [
        ({IMAGE: Image("sha256:i", "sha256:d")}, {}, "sha256:d"),
        ({IMAGE: Image("sha256:i")}, {}, "sha256:i"),
        ({IMAGE: Image("sha256:i")}, {revision("b"): Image("sha256:p", "sha256:q")}, "sha256:q"),
        ({IMAGE: None}, {}, ""),
        ({}, {}, ""),
    ],
)
def test_the_digest_is_that_of_the_pin_before_that_of_the_reference(images, pins, digest):
    observed = engine(container(), images=images, pins=pins)
    assert only(world(declared(service()), observed))["digest"] == digest


def test_resources_come_by_key():
    desired = declared(service("b"), service("a"), volume("v"), network("n"), release("r", WEB))
    found = resources(world(desired, engine(container("old"), container("x", rev="c"))))
    assert [f"{r['kind']}/{r['name']}" for r in found] == [
        "Network/n",
        "Release/r",
        "Service/a",
        "Service/b",
        "Service/old",
        "Service/x",
        "Volume/v",
    ]


def since(resource: Resource) -> dict[str, str]:
    return {c["type"]: c["since"] for c in resource["conditions"]}


def test_a_condition_keeps_its_instant_as_long_as_its_status_holds():
    desired = declared(service())
    up, gone = world(desired, engine(container())), world(desired, engine())
    first = report(up, previous=None, now="t1")
    second = report(up, previous=first, now="t2")
    assert second == first
    third = report(gone, previous=second, now="t3")
    assert since(third["resources"][0]) == {  # type: ignore[index]
        "Ready": "t3",
        "Progressing": "t3",
        "Degraded": "t3",
        "Stalled": "t1",
    }
    # Another reason of the same status changes nothing.
    stuck = replace(gone, failures={WEB: Failure(Act.RETRY, "x", "y")})
    fourth = report(stuck, previous=third, now="t4")
    assert since(fourth["resources"][0])["Ready"] == "t3"  # type: ignore[index]


def test_another_resources_instants_are_not_taken_over():
    first = report(
        world(declared(service("api")), engine(container("api"))), previous=None, now="t1"
    )
    found = only(world(declared(service()), engine(container())), previous=first, now="t2")
    assert set(since(found).values()) == {"t2"}


def test_every_problem_is_told_once_the_controllers_own_first():
    own, shared = Problem("engine.down", "no answer"), Problem("x", "bad", file="a.yaml", line=2)
    desired = declared(service(pullPolicy="Never"), problems=(shared,))
    one = world(desired, engine(images={}), problems=(own,))
    problems = report(one, previous=None, now=NOW)["problems"]
    assert isinstance(problems, list)
    assert [p["code"] for p in problems] == ["engine.down", "x", "image.absent"]


def test_what_is_in_quarantine_is_as_it_should_be_and_says_until_when():
    there = container(state="exited", admitted=NO)
    kept = Quarantine(86_400.0, {there.id: QuarantineLeft(60.0, "2026-03-02T00:00:00Z")})
    one = world(declared(), engine(there, networks=()), planned={"quarantine": kept})
    until = "quarantined until 2026-03-02T00:00:00Z, then removed"
    told = said(only(one))
    assert told["Ready"] == ("True", "Quarantined", until)
    assert told["Quarantined"] == ("True", "Pruned", until)
    assert told["Progressing"] == ("False", "NothingToDo", "")


def test_what_is_about_to_be_put_away_is_not_ready_yet():
    kept = {"quarantine": Quarantine(86_400.0)}
    told = said(only(world(declared(), engine(container(), networks=()), planned=kept)))
    assert told["Ready"][:2] == ("False", "Acting")
    assert "Quarantined" not in told


def test_a_moved_service_says_that_its_containers_answer_to_the_former_name() -> None:
    moved = replace(container("api"), key=WEB, former="api")
    one = only(world(declared(service()), engine(moved)))
    assert said(one)["Ready"][0] == "True"
    assert said(one)["Moved"] == (
        "True",
        "AnswersToFormerName",
        "its container answers to api until the next replacement (trimtab restart web)",
    )
    assert "Moved" not in said(only(world(declared(service()), engine(container()))))
