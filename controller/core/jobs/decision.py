"""When a job's runs are due, and how the job stands: pure functions of the broker's memory and the time.

A job without a schedule works on one occasion at a time. An occasion in which several runs must succeed
isn't left between two runs. Otherwise an operator's request comes first, then the trigger's own
occasion.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import assert_never

from controller.core.jobs.memory import MANUAL, ON_CHANGE
from controller.core.jobs.progress import (
    JobDecision,
    JobTime,
    JobWord,
    decide_occasion,
    decide_running,
    goes_on,
    how_ended,
    is_between_runs,
    rollout_of,
    seconds,
    unless_suspended,
)
from controller.core.jobs.scheduled import by_schedule
from controller.model.desired.desired import Service
from controller.model.desired.spec.job import FROM_SERVICE, JobSpec, Trigger
from controller.model.observed import JobMemory, JobOccasion


@dataclass(frozen=True, slots=True)
class RolloutRun:
    """A run that the rollout of a service asks for."""

    #: The job as it runs for the service.
    job: Service
    #: The name of the service.
    service: str
    occasion: str
    #: Failed runs of an earlier try, which don't count.
    excused: int = 0


def decide(
    spec: JobSpec,
    revision: str,
    memory: JobMemory,
    now: JobTime,
    asked: Iterable[RolloutRun] = (),
) -> JobDecision:
    """Return how a job stands at *now*. Rollouts of services have *asked* for runs."""
    if spec.schedule is not None:
        return by_schedule(spec, spec.schedule, revision, memory, now)
    occasion = _occasion(spec, revision, memory, now)
    if occasion is not None:
        known = memory.occasion(revision, occasion)
        decision = decide_occasion(spec, memory, known, occasion, now)
    elif spec.trigger is Trigger.ROLLOUT:
        decision = _by_rollouts(spec, memory, now, asked)
    else:
        decision = JobDecision(
            JobWord.IDLE, f"trigger is {spec.trigger.value}: no run was asked for"
        )
    going = memory.open_runs
    if going and decision.word is not JobWord.RUNNING:
        return decide_running(spec, going, now)  # of another occasion, which ends first
    return unless_suspended(spec, decision)


# Rollouts


def attempt(spec: JobSpec, memory: JobMemory, run: RolloutRun, now: JobTime) -> JobDecision:
    """Return how a job stands for the rollout of one service."""
    known = memory.occasion(run.job.revision, run.occasion)
    decision = decide_occasion(spec, memory, known, run.occasion, now, excused=run.excused)
    return replace(decision, runs=tuple(replace(new, job=run.job) for new in decision.runs))


def _by_rollouts(
    spec: JobSpec, memory: JobMemory, now: JobTime, asked: Iterable[RolloutRun]
) -> JobDecision:
    """Return how a job of rollouts stands: a run that is due comes before a pause of another one."""
    decisions = [attempt(spec, memory, run, now) for run in asked]
    for word in (JobWord.RUNNING, JobWord.DUE, JobWord.WAITING):
        for decision in decisions:
            if decision.word is word:
                return decision
    latest = memory.occasions[-1] if memory.occasions else None
    if latest is None:
        return JobDecision(JobWord.IDLE, "trigger is Rollout: no rollout has asked for a run")
    how = f"{how_ended(spec, memory, latest)}, for {rollout_of(latest.name)}"
    return JobDecision(JobWord.COMPLETE if latest.is_complete else JobWord.FAILED, how)


# Looks


def next_look_s(
    spec: JobSpec,
    revision: str,
    memory: JobMemory,
    now: JobTime,
    *,
    containers: frozenset[str] = frozenset(),
    asked: Iterable[RolloutRun] = (),
) -> float | None:
    """Return when time alone changes what a job needs, in seconds from now; None: never.

    *containers* are the ids of the job's containers, for the time at which ``ttl`` ends.
    """
    decision = decide(spec, revision, memory, now, asked)
    waits = [] if decision.until is None else [decision.until - now.wall_s]
    if spec.ttl is not None:
        ends = (seconds(r.ended) for r in memory.runs if r.ended and r.container in containers)
        waits += [end + spec.ttl / 1000 - now.steady_s for end in ends]
    return max(0.0, min(waits)) if waits else None


def _last_request(revision: str, memory: JobMemory) -> JobOccasion | None:
    """Return the last occasion, if an operator asked for it and the revision is the same."""
    latest = memory.occasions[-1] if memory.occasions else None
    if latest is None or latest.revision != revision or not latest.name.startswith(MANUAL):
        return None
    return latest


def _occasion(spec: JobSpec, revision: str, memory: JobMemory, now: JobTime) -> str | None:
    """Return the occasion to work on; None if none has come."""
    if spec.image == FROM_SERVICE:
        return None  # without a service, there is no image
    if (begun := _begun(spec, revision, memory, now)) is not None:
        return begun
    if memory.requests:
        return f"{MANUAL}{memory.requests[0]}"
    asked = _last_request(revision, memory)
    if asked is not None and goes_on(spec, memory, asked, now):
        return asked.name
    match spec.trigger:
        case Trigger.ON_CHANGE:
            # After a run by request, the job stands as that run ended.
            ran = asked is not None and memory.occasion(revision, ON_CHANGE) is not None
            return asked.name if asked is not None and ran else ON_CHANGE
        case Trigger.MANUAL:
            return None if asked is None else asked.name
        case Trigger.ROLLOUT:
            return None
        case _:
            assert_never(spec.trigger)


def _begun(spec: JobSpec, revision: str, memory: JobMemory, now: JobTime) -> str | None:
    """Return the occasion that a request must not interrupt: some of its runs have succeeded or go on."""
    latest = memory.occasions[-1] if memory.occasions else None
    if latest is None or latest.revision != revision:
        return None
    by_trigger = latest.name == ON_CHANGE and spec.trigger is Trigger.ON_CHANGE
    if not by_trigger and not latest.name.startswith(MANUAL):
        return None
    return latest.name if is_between_runs(spec, memory, latest, now) else None
