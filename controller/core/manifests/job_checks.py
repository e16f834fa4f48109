"""Checks of jobs, of the jobs that rollouts name, and of the dependencies of services.

Checks of the jobs that a rollout names (``rollout.before`` and ``rollout.after``).

Checks of a Job's document beyond its schema, and of jobs with services of their namespace.

The dependencies of services (``dependsOn``, jobs of rollouts), checked over all documents together.

A service with an invalid dependency is left unchanged: an undeclared name, a cycle, a condition
that can never become true. A service that names a service with a broken document is valid. The
broken document blinds only its own resource, and its running containers still count for the
condition.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping

from controller.core.encoding import graph
from controller.core.manifests.cron_schedule import fault_of, zone_of
from controller.core.manifests.declaration import Declaration, valid_name
from controller.core.manifests.object_checks import exclusive_volumes
from controller.core.manifests.service_checks import check_service
from controller.core.manifests.validation_errors import FieldProblem, did_you_mean
from controller.core.yaml.documents import YamlPath
from controller.model.desired.spec.service import (
    FROM_SERVICE,
    NOT_OF_A_JOB,
    DependencyCondition,
    JobSpec,
    RestartPolicy,
    ServiceSpec,
    Trigger,
)
from controller.model.errors import Problem, Severity
from controller.model.names import JOB_NAME_MAX, SERVICE_NAME_MAX, Key, is_dns_label, job_key

PHASES = ("before", "after")
CODE = "rollout.job"


def hooks_of(key: Key, spec: ServiceSpec) -> Iterator[tuple[YamlPath, Key]]:
    """Yield the path and the key of each job that a rollout names."""
    for phase in PHASES:
        for index, name in enumerate(getattr(spec.rollout, phase)):
            yield ("spec", "rollout", phase, index), job_key(key.namespace, name)


def jobs_before(key: Key, spec: ServiceSpec) -> dict[Key, YamlPath]:
    """Return the jobs before a service, each with the path in the document."""
    return {job: path for path, job in hooks_of(key, spec) if "before" in path}


def check_hooks(
    workloads: Mapping[Key, Declaration],
    *,
    broken: Collection[Key],
    blind: bool,
    unread: Collection[str] = (),
) -> Iterator[Problem]:
    """Yield the problems of services with jobs around their rollouts.

    *broken* are keys of documents with errors. *blind*: an unreadable document possibly declares any
    job; *unread* are namespaces of which an unreadable Compose project possibly declares any.
    """
    for key, declaration in workloads.items():
        assert isinstance(declaration.spec, ServiceSpec), "only workloads are passed"
        named: set[Key] = set()
        for path, job in hooks_of(key, declaration.spec):
            if job in named:
                remedy = "name each job once: a revision asks a job for one success"
                message = f"the rollout names {job.name} twice"
                yield declaration.problem(path, CODE, message, remedy)
            elif job in workloads:
                yield from _check_job(declaration, path, workloads[job])
            elif job in broken or blind or job.namespace in unread:
                yield _broken(declaration, path, job)
            else:
                yield _undeclared(declaration, path, job, workloads)
            named.add(job)


def _check_job(declaration: Declaration, path: YamlPath, job: Declaration) -> Iterator[Problem]:
    spec = job.spec
    assert isinstance(spec, JobSpec), "found by the key of a job"
    if spec.trigger is not Trigger.ROLLOUT:
        message = f"{job.key} ({job.place}) has another trigger than Rollout"
        yield declaration.problem(path, CODE, message, "write trigger: Rollout there")
    if job.owner != declaration.owner:
        message = (
            f"{job.key} ({job.place}) belongs to {json.dumps(job.owner)}, and the service to "
            f"{json.dumps(declaration.owner)}"
        )
        yield declaration.problem(path, CODE, message, "give both the same owner")


def _broken(declaration: Declaration, path: YamlPath, job: Key) -> Problem:
    message = f"the document of {job} has errors, or can't be read: no new revision starts"
    remedy = "correct that document or file"
    return declaration.problem(path, CODE, message, remedy, severity=Severity.WARNING)


def _undeclared(
    declaration: Declaration, path: YamlPath, job: Key, known: Iterable[Key]
) -> Problem:
    names = sorted(k.name for k in known if (k.kind, k.namespace) == ("Job", job.namespace))
    remedy = did_you_mean(job.name, names) or (
        f"declare a document of kind Job called {job.name}, with trigger: Rollout, in this namespace"
    )
    return declaration.problem(path, CODE, f"{job} is not declared", remedy)


#: Fields about a schedule alone, with their names in documents.
_OF_A_SCHEDULE = {
    "time_zone": "timeZone",
    "concurrency_policy": "concurrencyPolicy",
    "starting_deadline": "startingDeadline",
}


def check_job(name: str, spec: JobSpec) -> Iterator[FieldProblem]:
    """Yield the problems of a Job with valid fields."""
    yield from check_service(spec)
    if JOB_NAME_MAX < len(name) <= SERVICE_NAME_MAX:
        yield FieldProblem(
            ("metadata", "name"),
            "name.invalid",
            f"metadata.name {json.dumps(name)} has {len(name)} characters; the name of a Job has at "
            f"most {JOB_NAME_MAX}",
            expected=f"at most {JOB_NAME_MAX} characters: the number of each run follows the name",
            remedy=valid_name(name, JOB_NAME_MAX),
        )
    yield from _schedule(spec)
    if spec.image == FROM_SERVICE and (spec.trigger is not Trigger.ROLLOUT or spec.schedule):
        yield FieldProblem(
            ("spec", "image"),
            "job.image",
            "image is {fromService: true}, and no service asks for the runs of this job",
            remedy="write trigger: Rollout, or name an image",
        )
    yield from _completions(spec)
    for field, remedy in NOT_OF_A_JOB.items():
        if field in spec.model_fields_set:
            yield FieldProblem(
                ("spec", field),
                "job.field",
                f"spec.{field} is no field of a Job",
                remedy=remedy,
                at_key=True,
            )


def _completions(spec: JobSpec) -> Iterator[FieldProblem]:
    if spec.parallelism > spec.completions:
        yield FieldProblem(
            ("spec", "parallelism"),
            "job.completions",
            f"spec.parallelism is {spec.parallelism}, and only {spec.completions} "
            f"{'run' if spec.completions == 1 else 'runs'} must succeed: no more go on at a time",
            expected="at most spec.completions",
            remedy=f"set completions: {spec.parallelism}, or a lower parallelism",
        )
    for volume, index in exclusive_volumes(spec).items() if spec.parallelism > 1 else ():
        yield FieldProblem(
            ("spec", "mounts", index),
            "volume.exclusive",
            f"volume {volume} can be written to by one run only, and parallelism is {spec.parallelism}",
            remedy="set parallelism: 1, or readOnly: true, or shared: true if the program can share it",
        )


def _schedule(spec: JobSpec) -> Iterator[FieldProblem]:
    written = spec.model_fields_set
    if spec.schedule is None:
        for field, name in _OF_A_SCHEDULE.items():
            if field in written:
                yield FieldProblem(
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
        yield FieldProblem(("spec", "trigger"), "job.schedule", message, remedy=remedy)
    if fault := fault_of(spec.schedule):
        yield FieldProblem(
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
        yield FieldProblem(("spec", "timeZone"), "job.zone", f"{error}", remedy=remedy)


def check_shared_names(declarations: Iterable[Declaration]) -> Iterator[Problem]:
    """Yield the jobs and services of one name in a namespace: containers are found by the name."""
    by_name: dict[tuple[str, str], dict[str, Declaration]] = {}
    for declaration in declarations:
        key = declaration.key
        by_name.setdefault((key.namespace, key.name), {})[key.kind] = declaration
    for kinds in by_name.values():
        for kind, other in (("Job", "Service"), ("Service", "Job")):
            if kind in kinds and other in kinds:
                message = f"{kinds[other].key} ({kinds[other].place}) has the same name"
                remedy = "rename one of them; until then nothing is changed for either"
                yield kinds[kind].problem(("metadata", "name"), "job.name", message, remedy)


#: The kind that a dependency could mean instead.
_OTHER = {"Service": "Job", "Job": "Service"}
#: The number of names shown of a long cycle.
SHOWN = 10


def dependencies_of(key: Key, spec: ServiceSpec) -> dict[Key, DependencyCondition]:
    """Return the dependencies of a service or job, each with its condition.

    The service with the shared namespaces comes last, unless ``dependsOn`` names the service.
    """
    found = {Key(d.kind, key.namespace, d.name): d.condition for d in spec.depends_on}
    if (shared := shared_service(key, spec)) is not None:
        found.setdefault(shared, DependencyCondition.STARTED)
    return found


def needs_of(key: Key, spec: ServiceSpec) -> Iterator[Key]:
    """Yield the dependencies of a service or job, and the jobs that its rollout names."""
    yield from dependencies_of(key, spec)
    yield from (job for _, job in hooks_of(key, spec))


def shared_service(key: Key, spec: ServiceSpec) -> Key | None:
    """Return the service whose namespaces a service shares; None without any."""
    return None if spec.shares is None else spec.shares.key_in(key.namespace)


def _path_of(spec: ServiceSpec, index: int, *member: str) -> YamlPath:
    """Return the place of a dependency in its document."""
    if index < len(spec.depends_on):
        return ("spec", "dependsOn", index, *member)
    return ("spec", "shares", "service")


def find_flaws(
    services: Mapping[Key, Declaration],
    *,
    broken: Collection[Key],
    blind: bool,
    unread: Collection[str] = (),
) -> Iterator[Problem]:
    """Yield the problems of the dependencies of *services*.

    *broken* are keys of documents with errors, also those of *services* that are left unchanged.
    *blind*: an unreadable file or document possibly declares any resource; *unread* are namespaces of
    which an unreadable Compose project possibly declares any.
    """
    edges = {
        key: dependencies_of(key, service_spec(declaration))
        for key, declaration in services.items()
    }
    errors = [*_cycles(services, edges)]
    errors += check_hooks(services, broken=broken, blind=blind, unread=unread)
    for key, others in edges.items():
        for index, (other, condition) in enumerate(others.items()):
            if other in services:
                path = _path_of(service_spec(services[key]), index, "condition")
                errors += _condition(services[key], path, services[other], condition)
            elif other not in broken and not blind and other.namespace not in unread:
                errors.append(_undeclared_dependency(services[key], index, other, services))
    yield from errors
    faults = (e for e in errors if e.severity is Severity.ERROR)
    unsound = {*broken, *(fault.key for fault in faults if fault.key)}
    sound = services.keys() - unsound
    for key in sound:
        yield from _broken_dependencies(services[key], edges[key], sound, unsound)


def find_undeclared(
    declarations: Iterable[Declaration], *, known: Collection[Key]
) -> Iterator[Problem]:
    """Yield the undeclared dependencies of documents with other errors."""
    for declaration in declarations:
        for index, other in enumerate(dependencies_of(declaration.key, service_spec(declaration))):
            if other not in known and is_dns_label(other.name, length=SERVICE_NAME_MAX):
                yield _undeclared_dependency(declaration, index, other, known)


def _undeclared_dependency(
    declaration: Declaration, index: int, other: Key, services: Iterable[Key]
) -> Problem:
    path = _path_of(service_spec(declaration), index, "name")
    message, remedy = f"{other} is not declared", _suggestion(other, declaration.key, services)
    return declaration.problem(path, "dependency.undeclared", message, remedy)


def _broken_dependencies(
    declaration: Declaration,
    others: Iterable[Key],
    sound: Collection[Key],
    unsound: Collection[Key],
) -> Iterator[Problem]:
    for index, other in enumerate(others):
        if other in sound:
            continue
        what = "has errors" if other in unsound else "may be in a file that can't be read"
        yield declaration.problem(
            _path_of(service_spec(declaration), index, "name"),
            "dependency.broken",
            f"the document of {other} {what}: only its running containers count",
            "correct that document or file",
            severity=Severity.WARNING,
        )


def service_spec(declaration: Declaration) -> ServiceSpec:
    """Return the spec of a Service."""
    assert isinstance(declaration.spec, ServiceSpec), "only Services are passed"
    return declaration.spec


def _cycles(
    services: Mapping[Key, Declaration], edges: Mapping[Key, Mapping[Key, DependencyCondition]]
) -> Iterator[Problem]:
    jobs = {key: jobs_before(key, service_spec(each)) for key, each in services.items()}
    waits = {key: [*edges[key], *jobs[key]] for key in edges}
    for group in graph.cycles(waits):
        inside = {key: [other for other in waits[key] if other in group] for key in group}
        places: dict[Key, tuple[tuple[Key, ...], int]] = {}  # (cycle, index in it) of each key
        for key in sorted(group):
            if key not in places:
                cycle = graph.shortest_path(inside, key, key)[:-1]
                places = {k: (cycle, at) for at, k in enumerate(cycle)} | places
            cycle, at = places[key]
            onward = cycle[(at + 1) % len(cycle)]
            path: YamlPath = jobs[key].get(onward, ())
            if onward in edges[key]:
                path = _path_of(service_spec(services[key]), [*edges[key]].index(onward), "name")
            yield services[key].problem(
                path,
                "dependency.cycle",
                f"dependencies form a cycle: {_format_cycle(cycle, at, services)}",
                "remove one of these dependencies; until then nothing is changed for any of the services",
            )


def _format_cycle(cycle: tuple[Key, ...], at: int, services: Mapping[Key, Declaration]) -> str:
    """Return a cycle as seen from one of its members, with the places of the others.

    Example: ``a -> b -> a (also web.yaml:12)``.
    """
    count = len(cycle)
    names = [cycle[(at + step) % count].name for step in range(min(count, SHOWN))]
    gap = ["…"] if count > SHOWN else []
    others = [cycle[(at + step) % count] for step in range(1, min(count, 6))]
    places = [services[key].place for key in others]
    also = f" (also {', '.join(places)})" if places else ""
    return " -> ".join([*names, *gap, cycle[at].name]) + also


def _condition(
    declaration: Declaration, path: YamlPath, other: Declaration, condition: DependencyCondition
) -> Iterator[Problem]:
    spec, place = service_spec(other), other.place
    severity = Severity.ERROR
    if isinstance(spec, JobSpec):
        if spec.trigger is Trigger.ROLLOUT:
            message = f"{other.key} ({place}) runs for rollouts, so it never completes by itself"
            remedy = "name it in spec.rollout.before, or give it another trigger"
        elif condition is DependencyCondition.COMPLETED:
            return
        else:
            message = f"{other.key} ({place}) is a job, which ends"
            remedy = "write condition: Completed"
    elif condition is DependencyCondition.HEALTHY and spec.healthcheck is None:
        # The image can have a check. It is known once a container runs.
        message = (
            f"{other.key} ({place}) has no healthcheck: it becomes Healthy by its image's alone"
        )
        remedy = "add a healthcheck there, or write condition: Started here"
        severity = Severity.WARNING
    elif condition is DependencyCondition.COMPLETED and spec.restart.policy is RestartPolicy.ALWAYS:
        message = f"{other.key} ({place}) is restarted whenever it ends, so it never completes"
        remedy = "write restart: {policy: OnFailure} there, or condition: Started here"
    else:
        return
    yield declaration.problem(path, "dependency.condition", message, remedy, severity=severity)


def _suggestion(other: Key, own: Key, services: Iterable[Key]) -> str:
    services = tuple(services)
    kind, namespace = other.kind, other.namespace
    same = (key for key in services if (key.kind, key.namespace) == (kind, namespace))
    known = sorted(key.name for key in same if key != own)
    meant = did_you_mean(other.name, known)
    kind = f"declare a document of kind {other.kind} called {other.name} in this namespace"
    if any(key == Key(_OTHER[other.kind], other.namespace, other.name) for key in services):
        return f"write kind: {_OTHER[other.kind]}"
    return meant or kind
