"""The actions of one job: make due runs, start each once, and remove old containers.

An ended run is never drift: nothing starts or replaces the container. ``core.jobs.decision``
decides on due runs by the broker's memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from controller.core.drift.actions import (
    ContainerHandle,
    judged_sequence,
    judged_whole,
    stop_for_good,
    with_verdicts,
)
from controller.core.drift.classify import ALIVE
from controller.core.jobs.decision import (
    JobDecision,
    JobTime,
    JobWord,
    NewRun,
    RolloutRun,
    decide,
    seconds,
)
from controller.core.jobs.memory import HELD, ON_CHANGE
from controller.core.planning.context import ServiceContext
from controller.core.planning.images_networks_volumes import Prerequisites
from controller.model.desired.desired import Service
from controller.model.desired.plan import AnyAction, CreateContainer, Delay, NeedsOperator
from controller.model.desired.spec.service import JobSpec
from controller.model.errors import Problem
from controller.model.names import run_name
from controller.model.observed import Container, ContainerState, JobMemory, JobRun
from controller.model.records import Precondition


@dataclass(slots=True)
class JobPlan:
    """The actions and the problems of one job."""

    actions: list[AnyAction] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def job_spec(job: Service) -> JobSpec:
    """Return the spec of a job."""
    assert isinstance(job.spec, JobSpec), f"{job.key} is no job"
    return job.spec


def plan_job(
    context: ServiceContext, memory: JobMemory, now: JobTime, asked: Iterable[RolloutRun] = ()
) -> JobPlan:
    """Return the actions for one declared job, in order. Rollouts of services have *asked* for runs."""
    job, plan = context.service, JobPlan()
    decision = decide(job_spec(job), job.revision, memory, now, asked)
    containers = {container.id: container for container in context.containers}
    for run in memory.open_runs:
        container = containers.get(run.container)
        if container is not None:
            plan.actions += _open_run(container, run, decision, context)
        else:
            # Removed from outside. The broker records that at the next look at the job.
            name = run_name(
                job.key.namespace, job.key.name, number=run.number, revision=run.revision
            )
            plan.actions.append(_awaited_end(run, name, context))
    for container, cause in surplus(job_spec(job), context.containers, memory, now):
        removal = [ContainerHandle.of(container).remove(cause)]
        plan.actions += with_verdicts(removal, context.judge)
    if decision.word is JobWord.WAITING:
        cause = decision.message
        plan.actions.append(Delay(object=job.key, target=job.key.name, cause=cause))
    if decision.word is JobWord.HELD:
        name, shown = job.key.name, f"{job.key.namespace}/{job.key.name}"
        cause = f"{decision.message}; trimtab run-job {shown} runs it"
        plan.actions.append(NeedsOperator(object=job.key, target=name, cause=cause, code=HELD))
    for new in decision.runs:
        if not _begin(new, context, plan):
            break
    return plan


def _open_run(
    container: Container, run: JobRun, decision: JobDecision, context: ServiceContext
) -> list[AnyAction]:
    """Return the actions on the container of a run without a known end."""
    if container.state is ContainerState.CREATED and not container.error:
        if run.number in decision.overdue:  # the occasion has failed before this run began
            removal = ContainerHandle.of(container).remove(decision.message)
            return with_verdicts([removal], context.judge)
        start = ContainerHandle.of(container).start(f"run {run.number} has not begun yet")
        return with_verdicts([start], context.judge)
    if container.state in ALIVE:
        if run.number not in decision.overdue:
            return []
        stops = stop_for_good(container, context.service, decision.message)
        return judged_sequence(stops, context.judge)
    return [_awaited_end(run, container.name, context)]


def _awaited_end(run: JobRun, name: str, context: ServiceContext) -> Delay:
    """Return the wait for the record of a run's end: the broker makes it when it reads the container."""
    cause = f"the end of run {run.number} is being recorded"
    return Delay(object=context.key, target=name, slot=run.number, cause=cause)


def _begin(new: NewRun, context: ServiceContext, plan: JobPlan) -> bool:
    """Plan the create and the start of a run; return False if a further run has to wait."""
    job, prerequisites = new.job or context.service, context.prerequisites
    name = run_name(job.key.namespace, job.key.name, number=new.number, revision=job.revision)
    problems = prerequisites.problems(job, creating=True)
    if problems:
        plan.problems += problems
        return False
    if (blocker := context.blockers.start) is not None:
        plan.actions.append(blocker.wait(context.key, target=name, slot=new.number))
        return False
    if (conflict := context.resource_conflict or context.network_remake) is not None:
        wait = conflict.wait(context.key, target=name, slot=new.number)
        plan.actions.append(wait)
        return False
    create = _creation(job, new, name, prerequisites)
    start = ContainerHandle.to_create(create).start(new.cause)
    actions = [*prerequisites.missing(job, creating=True), create, start]
    judged, is_allowed = judged_whole(actions, context.judge)
    for action in judged if is_allowed else ():
        prerequisites.record_created(action)
    plan.actions += judged
    return is_allowed


def first_run(job: Service, memory: JobMemory, prerequisites: Prerequisites) -> CreateContainer:
    """Return the create of the next run for a revision of a job, as if the run were due."""
    new = NewRun(memory.last + 1, ON_CHANGE, "adopted as found")
    name = run_name(job.key.namespace, job.key.name, number=new.number, revision=job.revision)
    return _creation(job, new, name, prerequisites)


def _creation(
    job: Service, new: NewRun, name: str, prerequisites: Prerequisites
) -> CreateContainer:
    return CreateContainer(
        object=job.key,
        target=name,
        cause=new.cause,
        slot=new.number,
        precondition=Precondition(absent=name),
        service=job,
        image=prerequisites.images.of(job),
        with_alias=False,
        occasion=new.occasion,
    )


def surplus(
    spec: JobSpec, containers: Iterable[Container], memory: JobMemory, now: JobTime
) -> list[tuple[Container, str]]:
    """Return the containers of ended runs that are not kept, each with the cause.

    Of a job with several completions the containers of an occasion are kept together.
    """
    runs = {run.container: run for run in memory.runs}
    keep = {"succeeded": spec.keep.succeeded, "failed": spec.keep.failed}
    groups: dict[str, set[object]] = {"succeeded": set(), "failed": set()}
    removed: list[tuple[Container, str]] = []
    for container in sorted(containers, key=lambda c: -c.slot):
        run = runs.get(container.id)
        if container.state in ALIVE or (run is not None and not run.ended):
            continue
        if run is None and container.admitted is None:
            continue  # the broker's recovery will settle its create
        if run is None:
            removed.append((container, f"run {container.slot} is no longer remembered"))
            continue
        kept = "succeeded" if run.outcome == "succeeded" else "failed"
        group = _kept_with(run, memory)
        if group not in groups[kept] and len(groups[kept]) >= keep[kept]:
            removed.append((container, f"keep.{kept} is {keep[kept]}"))
            continue
        groups[kept].add(group)
        if spec.ttl is not None and seconds(run.ended) + spec.ttl / 1000 <= now.steady_s:
            removed.append((container, "its ttl is over"))
    return removed[::-1]


def _kept_with(run: JobRun, memory: JobMemory) -> object:
    """Return what the containers that are kept together with a run's have in common."""
    occasion = memory.occasion(run.revision, run.occasion)
    is_alone = occasion is None or occasion.completions == 1
    return run.number if is_alone else (run.revision, run.occasion)
