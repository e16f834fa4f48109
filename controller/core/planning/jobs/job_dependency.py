"""The state of a job, as the services and jobs see it that depend on its completion."""

from __future__ import annotations

from controller.core.drift.dependency_state import CAUSE_MAX, DependencyStatus
from controller.core.jobs.decision import JobTime, JobWord, decide
from controller.model.desired.desired import Service
from controller.model.desired.spec.job import JobSpec
from controller.model.names import Key
from controller.model.observed import JobMemory


def job_status(
    key: Key, job: Service | None, memory: JobMemory, now: JobTime
) -> tuple[DependencyStatus, str]:
    """Return the status of a job as a dependency, and the cause if the status is not MET.

    Any run of the job's revision that succeeded completes the job, also one by request.
    """
    done = [o.revision for o in memory.occasions if o.outcome == "succeeded"]
    if job is None:
        # Dependents of an unreadable document go on if the job ran.
        if done:
            return DependencyStatus.MET, ""
        return DependencyStatus.FAILED, f"{key.name} can't complete: its document can't be read"
    assert isinstance(job.spec, JobSpec), f"{key} is no job"
    if job.revision in done:
        return DependencyStatus.MET, ""
    decision = decide(job.spec, job.revision, memory, now)
    if decision.word is JobWord.FAILED and decision.next_run is not None:
        why = f"waiting for {key.name} to complete ({decision.message})"
        return DependencyStatus.WAITING, why[:CAUSE_MAX]
    if decision.word in (JobWord.FAILED, JobWord.SUSPENDED):
        cause = f"{key.name} can't complete: {decision.message}"
        return DependencyStatus.FAILED, cause[:CAUSE_MAX]
    why = f" ({decision.message})" if decision.message else ""
    return DependencyStatus.WAITING, f"waiting for {key.name} to complete{why}"[:CAUSE_MAX]
