"""The plan of a job: a run that is due, its only start, and the containers that are kept."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from controller.core.jobs import memory as jobs
from controller.core.jobs.decision import JobTime, seconds
from controller.core.planning import planner
from controller.core.planning.context import PlanContext
from controller.model.desired.desired import Desired, Service
from controller.model.desired.plan import CreateContainer, NeedsOperator, Plan
from controller.model.desired.spec.service import JobSpec
from controller.model.names import job_key, run_name
from controller.model.observed import (
    NO_RUNS,
    Container,
    ContainerState,
    JobMemory,
    JobRun,
    Observed,
)
from tests.worlds import IMAGE, NAMES, allow, container, declared, deny, engine, revision, service

JOB = job_key("default", "migrate")
AT = "2026-03-01T12:00:00.000Z"
NOW = JobTime(seconds(AT) + 1, seconds(AT) + 1)


def job(rev: str = "b", **spec: object) -> Service:
    text = json.dumps({"image": IMAGE, **spec})
    one = service("migrate", rev)
    return replace(one, key=JOB, spec=JobSpec.model_validate_json(text))


def run(number: int, state: str = "exited", rev: str = "b", **fields: Any) -> Container:
    """Return the container of a run; its id is ``c`` and its number."""
    name = run_name("default", "migrate", number=number, revision=revision(rev))
    made = container("migrate", 1, rev, state, admitted={"name": name, "restart": "no"}, **fields)
    return replace(made, id=f"c{number}", key=JOB, slot=number)


def ran(
    *outcomes: jobs.Outcome | None,
    rev: str = "b",
    label: str = "",
    occasion: str = jobs.ON_CHANGE,
    memory: JobMemory = NO_RUNS,
) -> JobMemory:
    """Return the memory after runs with these outcomes; None for a run that goes on."""
    for number, outcome in enumerate(outcomes, memory.last + 1):
        run = JobRun(number, revision(rev), occasion, f"c{number}", AT)
        memory = jobs.create(memory, run, label)
        memory = jobs.start(memory, f"c{number}", AT)
        if outcome is not None:
            memory = jobs.end(memory, f"c{number}", time=AT, outcome=outcome, why="exited")
    return memory


def seen(memory: JobMemory, *containers: Container) -> Observed:
    return replace(engine(*containers), jobs={JOB: memory})


def plan(desired: Desired, observed: Observed, *, now: JobTime = NOW, judge=allow) -> Plan:
    return planner.plan(
        desired,
        observed,
        networks=NAMES,
        judge=judge,
        prunable=planner.keys(desired, observed),
        blocked=(),
        policy_digest="policy",
        context=PlanContext(now=now),
    )


def steps(made: Plan) -> list[str]:
    return [f"{action.verb} {action.target}" for action in made.of(JOB)]


def test_a_revision_without_a_run_gets_one_that_is_started_once() -> None:
    made = plan(declared(job()), seen(NO_RUNS))
    name = "migrate.run-1-bbbbbbbb"
    assert steps(made) == [f"create-container {name}", f"start-container {name}"]
    (create,) = (action for action in made.of(JOB) if isinstance(action, CreateContainer))
    assert (create.slot, create.occasion, create.with_alias) == (1, jobs.ON_CHANGE, False)
    assert steps(plan(declared(job()), seen(ran(None), run(1, "created")))) == [
        f"start-container {name}"
    ]


def test_a_run_that_goes_on_or_has_ended_needs_nothing() -> None:
    for observed in (
        seen(ran(None), run(1, "running")),
        seen(ran("succeeded"), run(1)),
        seen(ran("succeeded")),
        seen(ran("succeeded"), run(1, settings={"memory": 1})),
    ):
        assert steps(plan(declared(job()), observed)) == []


def test_a_run_of_an_earlier_revision_is_not_replaced() -> None:
    made = plan(declared(job("d")), seen(ran("succeeded"), run(1)))
    name = "migrate.run-2-dddddddd"
    assert steps(made) == [f"create-container {name}", f"start-container {name}"]
    going = plan(declared(job("d")), seen(ran(None), run(1, "running")))
    assert steps(going) == []


def test_a_run_beyond_its_deadline_is_stopped() -> None:
    late = JobTime(NOW.wall_s, NOW.steady_s + 60)
    observed = seen(ran(None), run(1, "running"))
    made = plan(declared(job(activeDeadline="30s")), observed, now=late)
    assert steps(made) == ["stop-container migrate.run-1-bbbbbbbb"]


def test_an_end_that_the_broker_has_not_recorded_is_awaited() -> None:
    for observed in (seen(ran(None), run(1)), seen(ran(None))):
        assert steps(plan(declared(job()), observed)) == ["wait migrate.run-1-bbbbbbbb"]


def test_a_held_job_is_shown_and_waits_for_a_person() -> None:
    held = jobs.hold(NO_RUNS, revision("b"), time=AT, why="is held")
    (action,) = plan(declared(job()), seen(held)).of(JOB)
    assert isinstance(action, NeedsOperator)
    assert (action.code, action.cause) == (
        "job.held",
        "is held; trimtab run-job default/migrate runs it",
    )
    waiting = service(dependsOn=[{"kind": "Job", "name": "migrate", "condition": "Completed"}])
    (first, *_) = plan(declared(job(), waiting), seen(held)).of(waiting.key)
    assert isinstance(first, NeedsOperator)
    assert first.cause == "migrate can't complete: is held"


def test_a_failed_run_waits_for_its_pause() -> None:
    observed = seen(ran("failed"), run(1))
    assert steps(plan(declared(job()), observed)) == ["wait migrate"]
    later = JobTime(NOW.wall_s + 60, NOW.steady_s + 60)
    assert steps(plan(declared(job()), observed, now=later))[0].startswith("create-container")


def test_containers_beyond_keep_and_ttl_are_removed_the_oldest_first() -> None:
    observed = seen(ran("succeeded", "succeeded", "succeeded"), run(1), run(2), run(3))
    kept = plan(declared(job(keep={"succeeded": 1})), observed)
    assert steps(kept) == [
        "remove-container migrate.run-1-bbbbbbbb",
        "remove-container migrate.run-2-bbbbbbbb",
    ]
    later = JobTime(NOW.wall_s + 60, NOW.steady_s + 60)
    over = plan(declared(job(ttl="30s")), observed, now=later)
    assert [step.split()[0] for step in steps(over)] == ["remove-container"] * 3


THREE: dict[str, Any] = {"completions": 3, "parallelism": 2}


def test_as_many_runs_are_made_as_go_on_at_a_time_each_with_the_label() -> None:
    made = plan(declared(job(**THREE)), seen(NO_RUNS))
    first, second = "migrate.run-1-bbbbbbbb", "migrate.run-2-bbbbbbbb"
    assert steps(made) == [
        f"create-container {first}",
        f"start-container {first}",
        f"create-container {second}",
        f"start-container {second}",
    ]
    denied = plan(declared(job(**THREE)), seen(NO_RUNS), judge=deny("create-container"))
    assert steps(denied) == [f"create-container {first}"]
    one = seen(ran("succeeded", None, label="3/2"), run(1), run(2, "running"))
    assert steps(plan(declared(job(**THREE)), one))[0] == "create-container migrate.run-3-bbbbbbbb"
    two = seen(ran("succeeded", "succeeded", None, label="3/2"), run(3, "running"))
    assert steps(plan(declared(job(**THREE)), two)) == []


def test_the_runs_of_an_occasion_that_has_failed_are_stopped_or_removed() -> None:
    memory = ran("failed", None, None, label="3/3")
    observed = seen(memory, run(2, "running"), run(3, "created"))
    made = plan(declared(job(**THREE, backoffLimit=0)), observed)
    assert steps(made) == [
        "stop-container migrate.run-2-bbbbbbbb",
        "remove-container migrate.run-3-bbbbbbbb",
    ]


def test_the_containers_of_an_occasion_are_kept_together() -> None:
    memory = ran("succeeded", "failed", "succeeded", label="2/1")
    memory = ran("succeeded", "succeeded", label="2/1", occasion="manual:a", memory=memory)
    observed = seen(memory, *(run(number) for number in range(1, 6)))
    made = plan(declared(job(**THREE, keep={"succeeded": 1, "failed": 1})), observed)
    assert steps(made) == [
        "remove-container migrate.run-1-bbbbbbbb",
        "remove-container migrate.run-3-bbbbbbbb",
    ]


def test_a_container_without_a_settled_create_is_left_alone() -> None:
    unknown = replace(run(1), admitted=None)
    assert not any(
        "remove" in step for step in steps(plan(declared(job()), seen(NO_RUNS, unknown)))
    )


def test_a_denied_run_is_shown_and_nothing_else() -> None:
    made = plan(declared(job()), seen(NO_RUNS), judge=deny("create-container"))
    assert steps(made) == ["create-container migrate.run-1-bbbbbbbb"]
    assert made.of(JOB)[0].verdict.decision == "deny"


def test_the_containers_of_an_undeclared_job_are_removed() -> None:
    made = plan(declared(), seen(ran(None), run(1, "running")))
    assert steps(made) == [
        "stop-container migrate.run-1-bbbbbbbb",
        "remove-container migrate.run-1-bbbbbbbb",
    ]


def test_a_service_waits_for_the_job_that_it_depends_on() -> None:
    web = service("web", dependsOn=[{"kind": "Job", "name": "migrate", "condition": "Completed"}])
    desired = declared(job(backoffLimit=0), web)

    def words(memory: JobMemory, state: str = "exited") -> list[tuple[str, str]]:
        made = plan(desired, seen(memory, run(1, state)))
        return [(action.verb, action.cause) for action in made.of(web.key)]

    ((verb, cause), *_) = words(ran(None), "running")
    assert verb == "wait"
    assert cause.startswith("waiting for migrate to complete")
    ((verb, cause),) = words(ran("failed"))
    assert verb == "wait"
    assert cause.startswith("migrate can't complete: run 1 exited")
    assert [verb for verb, _ in words(ran("succeeded"))] == ["create-container", "start-container"]


def test_the_state_of_each_container_is_handled() -> None:
    for state in ContainerState:
        for memory in (ran(None), ran("succeeded"), ran("failed")):
            made = plan(declared(job()), seen(memory, run(1, state.value)))
            creates = [a for a in made.of(JOB) if isinstance(a, CreateContainer)]
            assert creates == [], f"{state} made a second run"
