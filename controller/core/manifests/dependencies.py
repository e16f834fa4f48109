"""The dependencies of services (``dependsOn``, jobs of rollouts), checked over all documents together.

A service with an invalid dependency is left unchanged: an undeclared name, a cycle, a condition
that can never become true. A service that names a service with a broken document is valid. The
broken document blinds only its own resource, and its running containers still count for the
condition.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from controller.core.encoding import graph
from controller.core.manifests.declaration import Declaration
from controller.core.manifests.jobs.hook_checks import check_hooks, jobs_before
from controller.core.manifests.validation_errors import did_you_mean
from controller.core.yaml.documents import YamlPath
from controller.model.desired.spec.job import JobSpec, Trigger
from controller.model.desired.spec.rollout import DependencyCondition, RestartPolicy
from controller.model.desired.spec.service import ServiceSpec
from controller.model.errors import Problem, Severity
from controller.model.names import SERVICE_NAME_MAX, Key, is_dns_label

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
                errors.append(_undeclared(services[key], index, other, services))
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
                yield _undeclared(declaration, index, other, known)


def _undeclared(
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
