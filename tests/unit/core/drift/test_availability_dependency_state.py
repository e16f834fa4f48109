"""What a dependency must be before its dependents are started, and who goes before whom."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.core.drift.availability import FAILED, outlived
from controller.core.planning.service_order import KnownServices
from controller.model.desired.desired import Desired, OverrideReason, Service
from controller.model.desired.plan import Blocked, NeedsOperator, Plan, Wait
from controller.model.names import service_key
from controller.model.observed import ContainerState, Observed
from tests.worlds import begun, container, declared, deny, engine, plan, service

DB = service_key("default", "db")
API = service_key("default", "api")
HEALTHCHECK = {"exec": ["check"]}
TASKS = {"restart": "on-failure", "restart_max": 10}


def on(name: str, condition: str = "Started") -> dict[str, str]:
    return {"name": name, "condition": condition}


def api(condition: str = "Started", *, rev: str = "b", **spec: Any) -> Service:
    return service("api", rev, dependsOn=[on("db", condition)], **spec)


def lines(desired: Desired, observed: Observed, **more: Any) -> list[str]:
    """What a pass does now of a plan, an action a line: of a wait what it waits for."""
    return told(begun(plan(desired, observed, **more)))


def told(made: Plan) -> list[str]:
    return [
        f"{a.verb} {a.target}" + (f": {a.cause}" if a.verb == "wait" else "") for a in made.actions
    ]


def db(rev: str = "b", **spec: Any) -> Service:
    return service("db", rev, **{"healthcheck": HEALTHCHECK, **spec})


def the_wait(made: Plan) -> Wait:
    """The one action of a plan that only waits."""
    (wait,) = made.actions
    assert isinstance(wait, Wait)
    return wait


CREATED = ["create-container api.1-bbbbbbbb", "start-container api.1-bbbbbbbb"]
DB_CREATED = ["create-container db.1-bbbbbbbb", "start-container db.1-bbbbbbbb"]
HEALTHY = container("db", health="healthy")
TASK = container("db", state="exited", admitted=TASKS)
PAST = "2026-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("condition", "spec", "there", "said"),
    [
        ("Started", {}, [container("db")], ""),
        ("Started", {}, [], "waiting for db to start"),
        ("Started", {}, [container("db", state="created")], "waiting for db to start"),
        ("Started", {}, [container("db", state="restarting")], "waiting for db to start (db.1-bbbbbbbb is restarting)"),
        ("Started", {}, [container("db", state="exited", exit_code=3)], "waiting for db to start (db.1-bbbbbbbb is exited)"),
        ("Started", {}, [container("db", health="unhealthy")], ""),
        # One of its replicas is enough: the others' troubles aren't its dependents'.
        ("Started", {"replicas": 2}, [container("db", 2)], ""),
        ("Healthy", {"replicas": 2}, [container("db", 1, health="starting"), container("db", 2, health="healthy")], ""),
        ("Healthy", {}, [container("db", health="starting")], "waiting for db to be healthy (db.1-bbbbbbbb is starting)"),
        ("Healthy", {}, [container("db", health="unhealthy")], "waiting for db to be healthy (db.1-bbbbbbbb is unhealthy)"),
        ("Healthy", {}, [container("db", state="exited", health="healthy")], "waiting for db to be healthy (db.1-bbbbbbbb is exited)"),
        ("Healthy", {}, [HEALTHY], ""),
        # An old replica serves what is started, too.
        ("Healthy", {}, [container("db", rev="a", health="healthy")], ""),
        # Tasks.
        ("Completed", {"restart": {"policy": "OnFailure"}}, [TASK], ""),
        ("Completed", {"restart": {"policy": "OnFailure"}}, [container("db", admitted=TASKS)], "waiting for db to complete (db.1-bbbbbbbb is running)"),
        ("Completed", {"restart": {"policy": "OnFailure"}, "replicas": 2}, [TASK], "waiting for db to complete (db.1-bbbbbbbb is exited)"),
        # One that we stopped with exit 0 didn't complete.
        ("Completed", {"restart": {"policy": "OnFailure"}}, [container("db", state="exited", admitted={"restart": "no"})], "waiting for db to complete (db.1-bbbbbbbb is exited)"),
        ("Completed", {"restart": {"policy": "OnFailure"}}, [replace(TASK, exit_code=1, finished_at=PAST, restart_count=10)], "db can't complete: db.1-bbbbbbbb exited with 1"),
        ("Completed", {"restart": {"policy": "OnFailure"}}, [replace(TASK, exit_code=1, finished_at=PAST, restart_count=3)], "waiting for db to complete (db.1-bbbbbbbb is exited)"),
        ("Completed", {"restart": {"policy": "Never"}}, [container("db", state="exited", exit_code=1, admitted={"restart": "no"})], "db can't complete: db.1-bbbbbbbb exited with 1"),
        ("Completed", {"restart": {"policy": "Never"}}, [container("db", state="exited", exit_code=137, oom_killed=True, admitted={"restart": "no"})], "db can't complete: db.1-bbbbbbbb was killed: out of memory (limit 512Mi); raise spec.resources.memory"),
        ("Started", {"restart": {"policy": "Never"}}, [container("db", state="exited", admitted={"restart": "no"})], ""),
        ("Started", {"restart": {"policy": "Never"}}, [container("db", state="exited", exit_code=1, admitted={"restart": "no"})], "db can't start: db.1-bbbbbbbb exited with 1"),
        ("Healthy", {"restart": {"policy": "Never"}, "replicas": 2}, [container("db", state="exited", admitted={"restart": "no"})], "waiting for db to be healthy (db.1-bbbbbbbb is exited)"),
        ("Healthy", {"restart": {"policy": "Never"}}, [container("db", state="exited", admitted={"restart": "no"})], "db can't be healthy: db.1-bbbbbbbb exited with 0"),
        # The check may be that of the image.
        ("Healthy", {"healthcheck": None}, [container("db")], "db can't be healthy: neither its document nor its image has a healthcheck"),
        ("Healthy", {"healthcheck": None}, [container("db", health="starting")], "waiting for db to be healthy (db.1-bbbbbbbb is starting)"),
        ("Healthy", {"healthcheck": None}, [HEALTHY], ""),
        ("Healthy", {"healthcheck": None}, [container("db", state="created")], "waiting for db to be healthy"),
        # Nobody but a person brings it up.
        ("Started", {"state": "Stopped"}, [container("db")], "db can't start: it is declared Stopped"),
        ("Started", {"replicas": 0}, [container("db")], "db can't start: it is scaled to 0"),
    ],
)  # fmt: skip
def test_a_service_is_started_once_what_it_depends_on_is_as_it_says(condition, spec, there, said):
    desired = declared(api(condition), db(**spec))
    made = begun(plan(desired, engine(), only=API, known_services=KnownServices(engine(*there))))
    done = [a.cause if a.verb == "wait" else f"{a.verb} {a.target}" for a in made.actions]
    assert done == ([said] if said else CREATED)
    codes = {getattr(action, "code", "") for action in made.actions}
    assert codes == {FAILED if " can't " in said else ""}


def test_a_stopped_slot_waits_as_a_missing_one_does():
    desired = declared(api("Healthy"), db())
    down = container("api", state="exited")
    assert lines(desired, engine(down, container("db"))) == [
        "wait api: waiting for db to be healthy (db.1-bbbbbbbb is running)"
    ]


@pytest.mark.parametrize(
    "there",
    [
        [],
        [container("db", state="exited")],
        [container("db", health="unhealthy")],
        [container("db", state="restarting")],
    ],
)
def test_what_runs_is_left_alone_whatever_becomes_of_its_dependency(there):
    desired = declared(api("Healthy"), db())
    observed = engine(container("api"), *there)
    assert not any(" api" in line for line in lines(desired, observed))


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (container("db", health="healthy"), "waiting for db to be healthy (it is being replaced)"),
        (container("db", rev="c", health="starting"), "waiting for db to be healthy (db.1-cccccccc is starting)"),
        (container("db", rev="c", health="healthy"), ""),
    ],
)  # fmt: skip
def test_a_rollout_waits_for_that_of_its_dependency(there, said):
    desired = declared(api("Healthy", rev="c"), db("c"))
    first, *_ = lines(
        desired, engine(container("api")), only=API, known_services=KnownServices(engine(there))
    )
    assert first == (f"wait api: {said}" if said else "create-container api.1-cccccccc")


def test_an_outdated_slot_is_replaced_only_once_its_dependencies_are_ready_and_the_others_after_it():
    desired = declared(api("Healthy", rev="c", replicas=2), db())
    old = engine(container("api"), container("api", 2), container("db", health="starting"))
    assert lines(desired, old) == [
        "wait api: waiting for db to be healthy (db.1-bbbbbbbb is starting)"
    ]


@pytest.mark.parametrize("rev", ["b", "c"], ids=["as declared", "its predecessor"])
@pytest.mark.parametrize("there", [container("db", state="restarting"), container("db", slot=2)])
def test_what_serves_is_put_back_in_place_whatever_becomes_of_its_dependency(rev, there):
    desired = declared(api("Healthy", rev="b"), db())
    serves = container("api", rev=rev, state="paused", settings={"memory": 1, "memory_swap": 1})
    around = KnownServices(engine(serves, there))
    made = begun(plan(desired, engine(serves), only=API, known_services=around))
    assert [action.verb for action in made.actions][:2] == ["unpause-container", "update-container"]
    whole = plan(desired, engine(serves, there)).actions
    assert [a.target for a in whole if a.verb == "unpause-container"] == [serves.name]
    stalled = KnownServices(engine(serves), stalled={DB: "image is refused"})
    made = plan(desired, engine(serves), only=API, known_services=stalled)
    assert made.actions[0].verb == "unpause-container"


def failing(**around: Any) -> str:
    """Why api can't be started while db is missing, with this known of others."""
    desired = declared(api(), db())
    wait = the_wait(
        plan(desired, engine(), only=API, known_services=KnownServices(engine(), **around))
    )
    assert isinstance(wait, NeedsOperator)
    assert wait.code == FAILED
    return wait.cause


def test_a_dependency_that_a_person_must_act_on_fails_its_dependents_with_its_cause():
    assert failing(stalled={DB: "image is refused"}) == "db can't start: image is refused"
    assert len(failing(stalled={DB: "x" * 1000})) == 300


@pytest.mark.parametrize(("condition", "said"), [("Started", "start"), ("Healthy", "be healthy")])
def test_a_dependency_in_a_crash_loop_fails_its_dependents_also_while_it_runs(condition, said):
    desired = declared(api(condition), db(replicas=2))
    running = KnownServices(engine(container("db"), container("db", 2, health="starting")))
    looping = frozenset({(DB, 1), (DB, 2)})
    wait = the_wait(
        plan(desired, engine(), only=API, known_services=running, controller_restarts=looping)
    )
    assert isinstance(wait, NeedsOperator)
    assert (wait.cause, wait.code) == (f"db can't {said}: it keeps failing", FAILED)
    one = plan(
        desired,
        engine(),
        only=API,
        known_services=running,
        controller_restarts=frozenset({(DB, 1)}),
    )
    assert next(a.verb for a in one.actions) == (
        "wait" if said == "be healthy" else "create-container"
    )
    serves = KnownServices(engine(container("db", health="healthy")))
    made = lines(declared(api("Healthy"), db()), engine(), only=API, known_services=serves,
                 controller_restarts=frozenset({(DB, 1)}))  # fmt: skip
    assert made == CREATED


def test_a_failed_dependency_is_told_along_the_chain():
    web = service("web", dependsOn=[on("api")])
    made = plan(declared(web, api(), db(state="Stopped")), engine())
    failed = {a.target: (a.cause, a.code) for a in made.actions if isinstance(a, NeedsOperator)}
    assert failed == {
        "api.1-bbbbbbbb": ("db can't start: it is declared Stopped", FAILED),
        "web.1-bbbbbbbb": ("api can't start: db can't start: it is declared Stopped", FAILED),
    }


def test_of_several_the_failed_one_is_told_and_what_waits_for_it_hangs_on_all():
    wanted = service("api", dependsOn=[on("db"), on("log"), on("web")])
    desired = declared(wanted, db(), service("log", replicas=0), service("web"))
    there = KnownServices(engine(container("web")))
    wait = the_wait(plan(desired, engine(), only=API, known_services=there))
    assert wait.cause == "log can't start: it is scaled to 0"
    assert {key.name for key in wait.on} == {"db", "log"}


@pytest.mark.parametrize(
    ("condition", "there", "said"),
    [
        ("Started", [container("db")], ""),
        ("Started", [], "db can't start: its document can't be read"),
        ("Healthy", [container("db")], "db can't be healthy: its document can't be read"),
        ("Healthy", [HEALTHY], ""),
        ("Completed", [TASK], ""),
        ("Completed", [container("db", state="exited")], "db can't complete: its document can't be read"),
    ],
)  # fmt: skip
def test_what_runs_of_a_dependency_counts_while_its_document_cannot_be_read(condition, there, said):
    desired = declared(api(condition), blind_keys=[DB])
    made = lines(desired, engine(*there), only=API)
    assert made == ([f"wait api.1-bbbbbbbb: {said}"] if said else CREATED)


@pytest.mark.parametrize(
    ("there", "spec", "said"),
    [
        ([container("db", rev="a")], {}, ""),
        ([container("db")], {"state": "Stopped"}, ""),
        ([], {}, "db can't start: it is suspended"),
    ],
)
def test_a_suspended_dependency_is_what_it_is(there, spec, said):
    held = replace(
        declared(api(), db(**spec)), holds=(OverrideReason(DB, "suspended", "ByCommand", "", ""),)
    )
    for mine in ([], [container("api", rev="a")]):
        first, *_ = lines(held, engine(*mine, *there))
        assert first == (f"wait api.1-bbbbbbbb: {said}" if said else CREATED[0])


# A plan of everything.


def test_a_plan_of_everything_starts_dependencies_first_and_goes_on_where_that_leads():
    assert lines(declared(api(), db()), engine()) == [*DB_CREATED, *CREATED]


def test_a_plan_of_everything_waits_where_only_time_tells():
    made = plan(declared(api("Healthy"), db()), engine())
    assert told(made) == [*DB_CREATED, "wait api: waiting for db to be healthy", *CREATED]


def test_what_starts_behind_a_gate_is_waited_for():
    web = service("web", dependsOn=[on("api")])
    made = plan(declared(web, api("Healthy"), db()), engine())
    assert told(made)[4:] == [
        CREATED[1],
        "wait web: waiting for api to start",
        *(line.replace("api", "web") for line in CREATED),
    ]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"judge": deny("create-container", target="db.1-bbbbbbbb")},
            ".1-bbbbbbbb: db can't start: it may not",
        ),
        ({"backoff": {(DB, 1): "failed once"}}, ": waiting for db to start"),
    ],
)
def test_a_dependency_that_the_plan_does_not_start_is_not_counted_on(more, said):
    made = lines(declared(api(), db()), engine(), **more)
    assert made[-1] == f"wait api{said}"
    assert not any("start-container" in line for line in made)


def test_a_problem_of_a_dependency_fails_its_dependents():
    desired = declared(api(), db(image="team/db:1", pullPolicy="Never"))
    made = plan(desired, engine())
    assert the_wait(made).cause.startswith("db can't start: team/db:1 isn't here")


# Who goes before whom.

GONE = [f"{verb}-container api.1-bbbbbbbb" for verb in ("update", "stop", "remove")]
DB_GONE = [line.replace("api", "db") for line in GONE]
KNOWN = KnownServices(remembered={API: {DB}})
BOTH = engine(container("api"), container("db"), networks=())


@pytest.mark.parametrize(
    "desired",
    [declared(), declared(api(replicas=0), db(replicas=0))],
)
def test_those_that_depend_on_another_go_before_it(desired):
    assert lines(desired, BOTH, known_services=KNOWN) == [*GONE, *DB_GONE]


def test_a_whole_set_is_stopped_the_dependents_first():
    made = lines(declared(api(state="Stopped"), db(state="Stopped")), BOTH)
    assert made == [*GONE[:2], *DB_GONE[:2]]


def test_without_anything_remembered_they_go_by_name():
    turned = engine(container("db"), container("web"), networks=())
    assert lines(declared(), turned)[0] == "update-container db.1-bbbbbbbb"
    known = KnownServices(remembered={service_key("default", "web"): {DB}})
    assert lines(declared(), turned, known_services=known)[0] == "update-container web.1-bbbbbbbb"


def test_alone_a_dependency_waits_until_its_dependents_are_gone():
    db = engine(container("db"), networks=())
    around, going = KnownServices(BOTH, remembered={API: {DB}}), frozenset({API, DB})
    assert lines(declared(), db, only=DB, known_services=around, prunable=going) == [
        "wait db: waiting for api to be gone, which depends on it"
    ]
    down = engine(container("api", state="exited"), container("db"), networks=())
    gone = replace(around, observed=down)
    assert lines(declared(), db, only=DB, known_services=gone, prunable=going) == DB_GONE


def test_one_that_had_long_enough_to_go_waits_for_nobody_who_had_that_as_well():
    db = engine(container("db"), networks=())
    waits = ["wait db: waiting for api to be gone, which depends on it"]
    for overdue, gives in (({DB, API}, DB_GONE), ({DB}, waits), ({API}, waits)):
        around = KnownServices(BOTH, remembered={API: {DB}}, overdue=frozenset(overdue))
        told = lines(declared(), db, only=DB, known_services=around, prunable=frozenset({API, DB}))
        assert told == gives


def test_it_waits_for_nobody_who_stays():
    db = engine(container("db"), networks=())
    around = KnownServices(BOTH, remembered={API: {DB}})
    stays = declared(service("api"))
    going = frozenset({API, DB})
    assert lines(stays, db, only=DB, known_services=around, prunable=going) == DB_GONE


def test_it_waits_for_whom_the_guard_holds_back():
    db = engine(container("db"), networks=())
    around = KnownServices(BOTH, remembered={API: {DB}})
    held_back = (Blocked(API, "PrunePending", "too many would go", "approve it"),)
    assert lines(
        declared(), db, only=DB, known_services=around, prunable=frozenset({DB}), blocked=held_back
    ) == ["wait db: waiting for api to be gone, which depends on it"]


def test_it_waits_for_whom_the_guard_has_no_word_on_yet():
    db = engine(container("db"), networks=())
    around, going = KnownServices(BOTH, remembered={API: {DB}}), frozenset({DB})
    assert lines(declared(), db, only=DB, known_services=around, prunable=going) == [
        "wait db: waiting for api to be gone, which depends on it"
    ]
    foreign = replace(container("api"), origin="client")
    around = replace(around, observed=engine(foreign, container("db"), networks=()))
    assert lines(declared(), db, only=DB, known_services=around, prunable=going) == DB_GONE


def test_what_is_suspended_does_not_go_and_nobody_waits_for_it():
    held = replace(declared(), holds=(OverrideReason(API, "suspended", "ByCommand", "", ""),))
    assert lines(held, BOTH, known_services=KNOWN) == DB_GONE


def test_a_removal_that_policy_refuses_keeps_what_it_depends_on():
    refused = deny("stop-container", target="api.1-bbbbbbbb")
    assert lines(declared(), BOTH, known_services=KNOWN, judge=refused) == [
        *GONE[:2],
        "wait db: waiting for api to be gone, which depends on it",
    ]


def test_those_that_are_remembered_in_a_circle_do_not_wait_for_each_other():
    around = KnownServices(BOTH, remembered={API: {DB}, DB: {API}})
    for key, name in ((API, "api"), (DB, "db")):
        alone = engine(container(name), networks=())
        going = frozenset({API, DB})
        assert lines(declared(), alone, only=key, known_services=around, prunable=going)[-1] == (
            f"remove-container {name}.1-bbbbbbbb"
        )


#: 2026-01-01T12:00:00Z, in seconds, and the id of an intent a while after.
NOON = 1767268800.0


def _intent(after_s: float) -> str:
    digits = f"{round((NOON + after_s) * 1000):012x}"
    return f"{digits[:8]}-{digits[8:]}-7000-8000-000000000000"


@pytest.mark.parametrize(
    ("others", "replaced"),
    [
        ([container("db", intent=_intent(60))], True),
        ([container("db", intent=_intent(-60))], False),  # there before
        ([container("db", intent=_intent(9999))], False),  # in the future: the clock was set back
        ([container("db", rev="a", intent=_intent(60))], False),  # not of the declared revision
        (
            [container("db", intent=_intent(60)), container("db", rev="a", intent=_intent(-9))],
            False,  # the predecessor still runs
        ),
        ([container("db", intent=_intent(60), adopted=True)], False),
        ([container("db", state="exited", intent=_intent(60))], False),
        ([], False),
    ],
)
def test_a_dependent_is_replaced_once_its_dependency_was(others: list[Any], replaced: bool) -> None:
    on_db = [{**on("db"), "restart": True}]
    desired = declared(service("api", dependsOn=on_db), service("db"))
    api = container("api", started_at="2026-01-01T12:00:00Z")
    dependent = desired.service(API)
    assert dependent is not None
    seen = engine(api, *others)
    found = outlived(dependent, desired, seen, seen, NOON + 3600)
    assert found == ({api.id: f"db was replaced after {api.name} was started"} if replaced else {})


# Sidecars

SHARES: dict[str, Any] = {"shares": {"service": "db", "network": True}}
NEW_DB = container("db", started_at="2026-01-01T12:00:00Z")


def joined(*others: Any, **more: Any) -> Any:
    """A container of api that joined the containers."""
    started = {"started_at": "2026-01-01T12:00:01Z", "admitted": {"networks": ()}, **more}
    return container("api", shares=tuple(each.id for each in others), **started)


def lost(mine: Any, *others: Any, now: float = NOON + 3600, **spec: Any) -> str:
    desired = declared(service("api", **SHARES, **spec), service("db"))
    dependent = desired.service(API)
    assert dependent is not None
    seen = engine(mine, *others)
    return outlived(dependent, desired, seen, seen, now).get(mine.id, "")


def test_a_sidecar_is_replaced_once_its_container_is_another_or_was_restarted() -> None:
    assert lost(joined(NEW_DB), NEW_DB) == ""
    gone = "the container of db that api.1-bbbbbbbb joined is gone"
    assert lost(joined(container("db", rev="a")), NEW_DB) == gone
    again = replace(NEW_DB, started_at="2026-01-01T12:00:01.5Z")
    assert (
        lost(joined(NEW_DB), again)
        == "db.1-bbbbbbbb was restarted after api.1-bbbbbbbb was started"
    )
    assert lost(joined(NEW_DB, state="exited"), again) != ""


def test_a_sidecar_stays_while_there_is_nothing_to_share_and_while_its_container_serves() -> None:
    down = replace(NEW_DB, state=ContainerState.EXITED)
    assert lost(joined(down), down) == ""
    successor = container("db", rev="c", started_at="2026-01-01T12:30:00Z")
    assert lost(joined(NEW_DB), NEW_DB, successor) == ""
    other_slot = container("db", slot=2)
    assert lost(joined(NEW_DB), NEW_DB, other_slot) == ""
    # The clock was set back since.
    future = replace(NEW_DB, started_at="2026-01-01T14:00:00Z")
    assert lost(joined(NEW_DB), future) == ""


def test_a_finished_sidecar_is_not_run_again() -> None:
    finished = joined(NEW_DB, state="exited")
    again = replace(NEW_DB, started_at="2026-01-01T12:30:00Z")
    assert lost(finished, again, restart={"policy": "Never"}) == ""


def test_a_sidecar_starts_after_its_service_and_waits_for_a_running_container() -> None:
    desired = declared(service("api", **SHARES), service("db"))
    assert lines(desired, engine()) == [*DB_CREATED, *CREATED]
    assert lines(desired, engine(container("db", state="restarting"))) == [
        "wait db.1-bbbbbbbb: the engine is restarting db.1-bbbbbbbb, which exited with 0",
        "wait api: waiting for db to start (db.1-bbbbbbbb is restarting)",
    ]
    two = declared(service("api", replicas=2, **SHARES), service("db", replicas=2))
    half = engine(container("db"), container("db", slot=2, state="restarting"))
    assert "wait api.2-bbbbbbbb: waiting for a container of db in slot 2" in lines(two, half)


def test_the_plan_of_a_change_names_the_sidecar_that_follows() -> None:
    desired = declared(service("api", **SHARES), service("db", "c"))
    before = container("db")
    made = plan(desired, engine(joined(before), before))
    (wait,) = (a for a in made.actions if a.object == API)
    assert (wait.verb, wait.cause) == ("wait", "replaced after db, whose namespaces it shares")


def test_a_sidecar_that_lost_its_namespaces_waits_for_no_other_slot() -> None:
    desired = declared(service("api", replicas=2, **SHARES), service("db", "c", replicas=2))
    now = container("db", rev="c"), container("db", slot=2)
    mine = joined(container("db")), joined(now[1], slot=2)
    seen = engine(*mine, *now)
    reasons = {mine[0].id: "gone"}
    made = lines(desired, seen, replace_reasons=reasons)
    assert [line for line in made if "api.1" in line][:4] == [
        "create-container api.1-bbbbbbbb.2",
        "update-container api.1-bbbbbbbb",
        "stop-container api.1-bbbbbbbb",
        "start-container api.1-bbbbbbbb.2",
    ]


def test_an_unhealthy_sidecar_is_not_stopped_while_there_is_nothing_to_share() -> None:
    spec = {"replicas": 2, "healthcheck": HEALTHCHECK, **SHARES}
    desired = declared(service("api", **spec), service("db", replicas=2))
    first, down = container("db"), container("db", slot=2, state="restarting")
    mine = joined(first, health="healthy"), joined(down, slot=2, health="unhealthy")
    waits = "wait api.2-bbbbbbbb: waiting for a container of db in slot 2"
    assert [line for line in lines(desired, engine(*mine, first, down)) if "api" in line] == [waits]
    up = container("db", slot=2)
    assert "stop-container api.2-bbbbbbbb" in lines(desired, engine(*mine, first, up))


def test_a_sidecar_of_an_earlier_revision_without_its_namespaces_is_not_started_meanwhile() -> None:
    desired = declared(service("api", "c", **SHARES), service("db"))
    old = joined(container("db", rev="a"), state="exited")
    reasons = {old.id: "the container of db that api.1-bbbbbbbb joined is gone"}
    failed = {"replace_reasons": reasons, "last_pass_failed": frozenset({API})}
    assert lines(desired, engine(old, NEW_DB), **failed)[:2] == [
        "create-container api.1-cccccccc",
        "start-container api.1-cccccccc",
    ]
    down = engine(joined(NEW_DB, state="exited"), replace(NEW_DB, state=ContainerState.RESTARTING))
    assert not any(line.startswith("start-container api") for line in lines(desired, down))
    two = declared(service("api", "c", replicas=2, **SHARES), service("db", replicas=2))
    half = engine(NEW_DB, joined(container("db", slot=2), slot=2, state="exited"))
    assert "start-container api.2-bbbbbbbb" not in lines(two, half)
