"""Checks of the jobs that a rollout names (``rollout.before`` and ``rollout.after``)."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping

from controller.core.manifests.declaration import Declaration
from controller.core.manifests.validation_errors import did_you_mean
from controller.core.yaml.documents import YamlPath
from controller.model.desired.spec.job import JobSpec, Trigger
from controller.model.desired.spec.service import ServiceSpec
from controller.model.errors import Problem, Severity
from controller.model.names import Key, job_key

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
