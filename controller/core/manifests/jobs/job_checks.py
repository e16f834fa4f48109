"""Checks of a Job's document beyond its schema, and of jobs with services of their namespace."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from controller.core.manifests.checks.claims import exclusive_volumes
from controller.core.manifests.checks.metadata import valid_name
from controller.core.manifests.checks.service import check_service
from controller.core.manifests.declaration import Declaration
from controller.core.manifests.jobs.schedule import fault_of, zone_of
from controller.core.manifests.validation_errors import problem_at
from controller.core.yaml.documents import Document
from controller.model.desired.spec.job import FROM_SERVICE, NOT_OF_A_JOB, JobSpec, Trigger
from controller.model.errors import Problem
from controller.model.names import JOB_NAME_MAX, SERVICE_NAME_MAX, Key

#: Fields about a schedule alone, with their names in documents.
_OF_A_SCHEDULE = {
    "time_zone": "timeZone",
    "concurrency_policy": "concurrencyPolicy",
    "starting_deadline": "startingDeadline",
}


def check_job(document: Document, name: str, spec: JobSpec) -> Iterator[Problem]:
    """Yield the problems of a Job with valid fields."""
    yield from check_service(document, spec)
    if JOB_NAME_MAX < len(name) <= SERVICE_NAME_MAX:
        yield problem_at(
            document,
            ("metadata", "name"),
            "name.invalid",
            f"metadata.name {json.dumps(name)} has {len(name)} characters; the name of a Job has at "
            f"most {JOB_NAME_MAX}",
            expected=f"at most {JOB_NAME_MAX} characters: the number of each run follows the name",
            remedy=valid_name(name, JOB_NAME_MAX),
        )
    yield from _schedule(document, spec)
    if spec.image == FROM_SERVICE and (spec.trigger is not Trigger.ROLLOUT or spec.schedule):
        yield problem_at(
            document,
            ("spec", "image"),
            "job.image",
            "image is {fromService: true}, and no service asks for the runs of this job",
            remedy="write trigger: Rollout, or name an image",
        )
    yield from _completions(document, spec)
    for field, remedy in NOT_OF_A_JOB.items():
        if field in spec.model_fields_set:
            yield problem_at(
                document,
                ("spec", field),
                "job.field",
                f"spec.{field} is no field of a Job",
                remedy=remedy,
                at_key=True,
            )


def _completions(document: Document, spec: JobSpec) -> Iterator[Problem]:
    if spec.parallelism > spec.completions:
        yield problem_at(
            document,
            ("spec", "parallelism"),
            "job.completions",
            f"spec.parallelism is {spec.parallelism}, and only {spec.completions} "
            f"{'run' if spec.completions == 1 else 'runs'} must succeed: no more go on at a time",
            expected="at most spec.completions",
            remedy=f"set completions: {spec.parallelism}, or a lower parallelism",
        )
    for volume, index in exclusive_volumes(spec).items() if spec.parallelism > 1 else ():
        yield problem_at(
            document,
            ("spec", "mounts", index),
            "volume.exclusive",
            f"volume {volume} can be written to by one run only, and parallelism is {spec.parallelism}",
            remedy="set parallelism: 1, or readOnly: true, or shared: true if the program can share it",
        )


def _schedule(document: Document, spec: JobSpec) -> Iterator[Problem]:
    written = spec.model_fields_set
    if spec.schedule is None:
        for field, name in _OF_A_SCHEDULE.items():
            if field in written:
                yield problem_at(
                    document,
                    ("spec", name),
                    "job.schedule",
                    f"spec.{name} is about a schedule, and the job has none",
                    remedy='add schedule: "0 3 * * *", or remove it',
                    at_key=True,
                )
        return
    if "trigger" in written:
        message = "a job has either a trigger or a schedule"
        remedy = "remove trigger; 'trimtab run-job' runs any job by hand"
        yield problem_at(document, ("spec", "trigger"), "job.schedule", message, remedy=remedy)
    if fault := fault_of(spec.schedule):
        yield problem_at(
            document,
            ("spec", "schedule"),
            "job.schedule",
            f"spec.schedule {json.dumps(spec.schedule[:80])} can't be used: {fault}",
            expected="minute, hour, day of month, month and day of week",
            remedy='write it like "0 3 * * *": each night at 3',
        )
    try:
        zone_of(spec.time_zone)
    except ValueError as error:
        remedy = "write a name such as Europe/Berlin, or UTC"
        yield problem_at(document, ("spec", "timeZone"), "job.zone", f"{error}", remedy=remedy)


def check_shared_names(declarations: Iterable[Declaration]) -> Iterator[Problem]:
    """Yield the jobs and services of one name in a namespace: containers are found by the name."""
    by_name: dict[tuple[str, str], dict[str, Declaration]] = {}
    for declaration in declarations:
        key = declaration.key
        by_name.setdefault((key.namespace, key.name), {})[key.kind] = declaration
    for kinds in by_name.values():
        for kind, other in (("Job", "Service"), ("Service", "Job")):
            if kind in kinds and other in kinds:
                yield _shared_name(kinds[kind], kinds[other].key, kinds[other].place)


def _shared_name(declaration: Declaration, other: Key, place: str) -> Problem:
    message = f"{other} ({place}) has the same name"
    remedy = "rename one of them; until then nothing is changed for either"
    return declaration.problem(("metadata", "name"), "job.name", message, remedy)
