"""Plans of services with jobs around their rollouts."""

from __future__ import annotations

from dataclasses import replace

from controller.core.drift.actions import Judge
from controller.core.jobs.rollout_hooks import RolloutStanding
from controller.core.planning.service_order import HOOK_FAILED, KnownServices
from controller.model.desired.desired import Desired
from controller.model.desired.plan import Barrier, NeedsOperator, Plan
from controller.model.names import Key
from controller.model.observed import Container, JobMemory, Observed
from tests.unit.core.jobs.test_rollout_hooks import JOBS, MIGRATE, NEW, PINNED, SERVING, SHOP, ran
from tests.worlds import WEB, allow, container, declared, deny, engine, plan

OLD = container("web", 1, "a")
DESIRED = replace(declared(SHOP), jobs=JOBS)


def seen(*containers: Container, memory: JobMemory | None = None) -> Observed:
    known = {} if memory is None else {MIGRATE: memory}
    return replace(engine(*containers), pins=PINNED, jobs=known)


def steps(made: Plan) -> list[str]:
    return [f"{action.verb} {action.target}" for action in made.actions]


def planned(
    observed: Observed,
    standing: RolloutStanding | None = NEW,
    *,
    only: Key | None = WEB,
    desired: Desired = DESIRED,
    judge: Judge = allow,
) -> Plan:
    rollouts = {} if standing is None else {WEB: standing}
    known = KnownServices(observed, rollouts=rollouts)
    return plan(desired, observed, only=only, known_services=known, judge=judge)


def test_the_first_container_is_created_before_the_job_and_nothing_starts_or_stops() -> None:
    made = planned(seen(OLD))
    (wait,) = [action for action in made.actions if isinstance(action, Barrier) and action.on]
    assert wait.on == (MIGRATE,)
    before = steps(made)[: made.actions.index(wait)]
    assert before == ["create-container web.1-bbbbbbbb"]
    assert "start-container web.1-bbbbbbbb" in steps(made)


def test_a_created_container_waits_and_starts_after_the_job() -> None:
    created = container("web", 1, "b", "created")
    waiting = planned(seen(OLD, created))
    assert isinstance(waiting.actions[0], Barrier)
    done = planned(seen(OLD, created, memory=ran("succeeded")))
    assert steps(done)[0] == "start-container web.1-bbbbbbbb"


def test_the_plan_of_everything_has_the_run_between_creation_and_start() -> None:
    made = planned(seen(OLD), None, only=None)
    order = steps(made)
    run = "migrate.run-1-dddddddd"
    assert order[:4] == [
        "create-container web.1-bbbbbbbb",
        f"create-container {run}",
        f"start-container {run}",
        "wait web",
    ]
    assert order.index("start-container web.1-bbbbbbbb") == 4


def test_the_pass_of_a_job_makes_the_run_that_a_rollout_asks_for() -> None:
    observed = seen(OLD, container("web", 1, "b", "created"))
    run = "migrate.run-1-dddddddd"
    expected = [f"create-container {run}", f"start-container {run}"]
    assert steps(planned(observed, only=MIGRATE)) == expected
    assert steps(planned(observed, None, only=MIGRATE)) == []
    assert steps(planned(seen(OLD, container("web", 1, "b")), only=MIGRATE)) == []


def test_a_failed_job_stops_nothing_and_needs_a_person() -> None:
    made = planned(seen(OLD, memory=ran("failed")))
    (wait,) = made.actions
    assert isinstance(wait, NeedsOperator)
    assert wait.code == HOOK_FAILED


def test_a_refused_container_asks_for_no_job() -> None:
    made = planned(seen(OLD), None, only=None, judge=deny("create-container"))
    assert steps(made) == ["create-container web.1-bbbbbbbb"]


def test_a_service_that_serves_waits_for_the_job_after_its_rollout() -> None:
    serving = seen(container("web", 1, "b"), memory=ran("succeeded"))
    assert steps(planned(serving)) == []
    (wait,) = planned(serving, SERVING).actions
    assert isinstance(wait, Barrier)
    assert wait.cause.startswith("waiting for the job smoke of rollout.after")
