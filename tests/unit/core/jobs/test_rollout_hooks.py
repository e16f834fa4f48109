"""The runs that rollouts ask of jobs: before the first start of a revision, and after the last."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from controller.core.jobs import memory as jobs
from controller.core.jobs.decision import JobTime, JobWord, decide, seconds
from controller.core.jobs.rollout_hooks import (
    HookState,
    RolloutHooks,
    RolloutStanding,
    job_for,
    occasion_of,
)
from controller.core.planning.job_plan import job_spec
from controller.model.desired.desired import Service
from controller.model.desired.spec.service import FROM_SERVICE, JobSpec
from controller.model.names import Key, job_key
from controller.model.observed import NO_RUNS, Image, JobMemory, JobRun, Observed
from tests.worlds import IMAGE, IMAGE_ID, WEB, container, declared, engine, revision, service

MIGRATE, SMOKE = job_key("default", "migrate"), job_key("default", "smoke")
AT = "2026-03-01T12:00:00.000Z"
NOW = JobTime(seconds(AT) + 60, seconds(AT) + 60)
SHOP = service("web", "b", rollout={"before": ["migrate"], "after": ["smoke"]})
NEW = RolloutStanding(revision=SHOP.revision)
SERVING = replace(NEW, is_serving=True)
PINNED = {SHOP.revision: Image(IMAGE_ID)}
CREATED = container("web", 1, "b", "created")


def job(key: Key = MIGRATE, **spec: object) -> Service:
    text = json.dumps({"image": IMAGE, "trigger": "Rollout", "backoffLimit": 0, **spec})
    one = service(key.name, "d")
    return replace(one, key=key, spec=JobSpec.model_validate_json(text))


JOBS = (job(), job(SMOKE))


def ran(
    *outcomes: jobs.Outcome | None, rev: str = "d", of: Service = SHOP, label: str = ""
) -> JobMemory:
    """Return the memory of a job after runs for a service; None for a run that goes on."""
    memory = NO_RUNS
    for number, outcome in enumerate(outcomes, 1):
        run = JobRun(number, revision(rev), occasion_of(of), f"c{number}", AT)
        memory = jobs.create(memory, run, label)
        if outcome is not None:
            memory = jobs.end(memory, run.container, time=AT, outcome=outcome, why="exited with 3")
    return memory


def hooks(
    standing: RolloutStanding | None = NEW,
    *containers: Any,
    of: Service = SHOP,
    known: Mapping[Key, JobMemory] | None = None,
    declared_jobs: tuple[Service, ...] = JOBS,
    stalled: Mapping[Key, str] | None = None,
) -> RolloutHooks:
    observed = replace(engine(*containers), pins=PINNED, jobs=dict(known or {}))
    standings = {} if standing is None else {WEB: standing}
    desired = replace(declared(of), jobs=declared_jobs)
    return RolloutHooks(desired, observed, Observed(""), NOW, standings, stalled or {})


def asked(made: RolloutHooks, key: Key = MIGRATE) -> list[str]:
    (one,) = (each for each in made.desired.jobs if each.key == key)
    return [run.service for run in made.asked(one)]


def word(hook: HookState | None) -> str:
    return "" if hook is None else f"{hook.job.name} {hook.word}"


def test_a_new_revision_asks_for_its_job_once_its_container_is_admitted() -> None:
    made = hooks(NEW, CREATED)
    assert word(made.before(SHOP)) == "migrate Waiting"
    assert asked(made) == ["web"]
    assert asked(made, SMOKE) == []
    unpinned = replace(made, observed=replace(made.observed, pins={}))
    assert word(unpinned.before(SHOP)) == "migrate Waiting"
    assert asked(unpinned) == []
    # A pin outlives the containers of an earlier try.
    assert asked(hooks(NEW, container("web", 1, "a"))) == []
    unknown = hooks(None, CREATED)
    assert word(unknown.before(SHOP)) == "migrate Waiting"
    assert asked(unknown) == []


@pytest.mark.parametrize(
    "made",
    [
        hooks(NEW, container("web", 1, "b")),
        hooks(replace(NEW, is_good=True)),
        hooks(of=replace(SHOP, because="pinned")),
        hooks(of=replace(SHOP, spec=SHOP.spec.model_copy(update={"replicas": 0}))),
        hooks(known={MIGRATE: ran("succeeded")}),
        hooks(known={MIGRATE: ran("succeeded", rev="e")}),
    ],
    ids=["started", "good", "rolled back", "nothing to run", "done", "done by another revision"],
)
def test_no_job_is_asked_for_repairs_scaling_restarts_and_rollbacks(made: RolloutHooks) -> None:
    (one,) = made.desired.services
    assert made.before(one) is None
    assert asked(made) == []


def test_a_job_that_failed_is_asked_again_only_by_a_later_try() -> None:
    failed = hooks(known={MIGRATE: ran("failed")})
    hook = failed.before(SHOP)
    assert hook is not None
    assert hook.text == (
        "the job migrate of rollout.before failed: run 1 exited with 3; 1 run failed, and "
        "spec.backoffLimit is 0"
    )
    assert asked(failed) == []
    later = replace(NEW, excused=(("migrate", 1),))
    retried = hooks(later, CREATED, known={MIGRATE: ran("failed")})
    assert word(retried.before(SHOP)) == "migrate Waiting"
    assert asked(retried) == ["web"]
    # Before anything is known about this try, the failure is not one of this try.
    assert word(hooks(None, known={MIGRATE: ran("failed")}).before(SHOP)) == "migrate Waiting"


def test_a_run_that_goes_on_is_awaited() -> None:
    made = hooks(known={MIGRATE: ran(None)})
    hook = made.before(SHOP)
    assert hook is not None
    assert hook.text == "waiting for the job migrate of rollout.before (run 1 in progress)"


def test_a_job_that_cannot_run_needs_a_person() -> None:
    assert word(hooks(declared_jobs=()).before(SHOP)) == "migrate Blocked"
    suspended = hooks(declared_jobs=(job(suspend=True), job(SMOKE)))
    assert word(suspended.before(SHOP)) == "migrate Blocked"
    assert word(hooks(stalled={MIGRATE: "denied"}).before(SHOP)) == "migrate Blocked"


def test_the_job_after_a_rollout_waits_until_the_revision_serves_everywhere() -> None:
    running, done = container("web", 1, "b"), {MIGRATE: ran("succeeded")}
    assert hooks(NEW, running, known=done).due_after(SHOP) is None
    made = hooks(SERVING, running, known=done)
    assert word(made.due_after(SHOP)) == "smoke Waiting"
    assert (asked(made), asked(made, SMOKE)) == ([], ["web"])
    assert hooks(replace(SERVING, has_failed=True), running).due_after(SHOP) is None
    finished = hooks(SERVING, running, known={**done, SMOKE: ran("succeeded")})
    assert finished.due_after(SHOP) is None


def test_jobs_of_a_phase_run_one_after_another() -> None:
    both = service("web", "b", rollout={"before": ["migrate", "smoke"]})
    first = hooks(NEW, CREATED, of=both)
    assert (asked(first), asked(first, SMOKE)) == (["web"], [])
    second = hooks(NEW, CREATED, of=both, known={MIGRATE: ran("succeeded")})
    assert (asked(second), asked(second, SMOKE)) == ([], ["web"])
    assert second.facts(both).failures == (("migrate", 0), ("smoke", 0))


def test_a_job_with_the_image_of_the_service_has_a_revision_for_each_of_its_revisions() -> None:
    own = job()
    assert job_for(own, SHOP) is own
    borrowed = job(image={"fromService": True})
    assert borrowed.spec.image == FROM_SERVICE
    one = job_for(borrowed, SHOP)
    assert (one.spec.image, one.image_revision) == (SHOP.spec.image, SHOP.revision)
    other = job_for(borrowed, service("web", "c"))
    assert len({one.revision, other.revision, borrowed.revision}) == 3


def test_a_job_of_rollouts_stands_as_its_last_run_ended() -> None:
    spec = job().spec
    assert isinstance(spec, JobSpec)

    def stands(memory: JobMemory) -> tuple[JobWord, str]:
        decision = decide(spec, revision("d"), memory, NOW)
        return decision.word, decision.message

    assert stands(NO_RUNS)[0] is JobWord.IDLE
    how = "run 1 exited with 3, for the rollout of web"
    assert stands(ran("failed")) == (JobWord.FAILED, how)
    assert stands(ran("succeeded"))[0] is JobWord.COMPLETE
    assert stands(ran(None))[0] is JobWord.RUNNING


def test_an_operators_request_runs_a_job_of_rollouts_with_an_image_of_its_own() -> None:
    requested = jobs.request(NO_RUNS, "0190b3c4-0000-7000-8000-000000000000")
    for spec, word_ in ((job().spec, JobWord.DUE), (job(image={"fromService": True}).spec, None)):
        assert isinstance(spec, JobSpec)
        decision = decide(spec, revision("d"), requested, NOW)
        assert decision.word is (word_ or JobWord.IDLE)


def test_a_rollout_waits_until_all_runs_of_a_job_have_succeeded() -> None:
    three = job(completions=3, parallelism=2)

    def made(*outcomes: jobs.Outcome | None) -> RolloutHooks:
        known = {MIGRATE: ran(*outcomes, label="3/2")}
        return hooks(NEW, CREATED, known=known, declared_jobs=(three, job(SMOKE)))

    def numbers(one: RolloutHooks) -> list[int]:
        memory = one.observed.jobs[MIGRATE]
        decision = decide(job_spec(three), three.revision, memory, NOW, one.asked(three))
        return [run.number for run in decision.runs]

    begun = made("succeeded", None)
    hook = begun.before(SHOP)
    assert hook is not None
    assert (word(hook), hook.message) == (
        "migrate Waiting",
        "1/3 completed; run 2 in progress",
    )
    assert numbers(begun) == [3]
    assert numbers(made("succeeded", "succeeded")) == [3]
    assert made("succeeded", "succeeded", "succeeded").before(SHOP) is None
    assert word(made("succeeded", "failed").before(SHOP)) == "migrate Failed"
    # The others end first.
    assert word(made("failed", None).before(SHOP)) == "migrate Waiting"
