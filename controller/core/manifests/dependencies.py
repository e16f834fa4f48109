"""What services say of one another with ``dependsOn``, checked over all documents together.

A service whose own words can't hold (a name that nothing declares, a cycle, a condition that never
comes true) stands back. One that names a service whose document is broken doesn't: a bad document
blinds only what it may have declared, and what runs of it still counts (``order``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from controller.core.encoding import graph
from controller.core.encoding.yaml import YamlPath
from controller.core.manifests.parse import Declaration
from controller.core.manifests.problems import did_you_mean
from controller.model.desired.spec import DependencyCondition, RestartPolicy, ServiceSpec
from controller.model.errors import Severity
from controller.model.names import SERVICE_NAME_MAX, Key, is_dns_label, service_key

#: So many names of a long cycle are written out.
SHOWN = 10


@dataclass(frozen=True, slots=True)
class DependencyFlaw:
    """Something wrong at one place of a declaration."""

    declaration: Declaration
    path: YamlPath
    code: str
    message: str
    remedy: str
    severity: Severity = Severity.ERROR


def dependencies_of(key: Key, spec: ServiceSpec) -> dict[Key, DependencyCondition]:
    """Return what a service depends on, and what must be true of each."""
    return {service_key(key.namespace, d.name): d.condition for d in spec.depends_on}


def flaws(
    services: Mapping[Key, Declaration], *, broken: Collection[Key], blind: bool
) -> Iterator[DependencyFlaw]:
    """Yield what is wrong with the dependencies of *services*.

    *broken* are keys whose documents have errors, among them those of *services* that stand back.
    *blind*: a file or document that couldn't be read may declare anything.
    """
    edges = {key: dependencies_of(key, _spec(one)) for key, one in services.items()}
    errors = [*_cycles(services, edges)]
    for key, others in edges.items():
        for index, (other, condition) in enumerate(others.items()):
            path: YamlPath = ("spec", "dependsOn", index)
            if other in services:
                errors += _condition(services[key], path, services[other], condition)
            elif other not in broken and not blind:
                errors.append(_undeclared(services[key], index, other, services))
    yield from errors
    unsound = {*broken, *(flaw.declaration.key for flaw in errors)}
    for key in edges.keys() - unsound:
        yield from _unsound(services[key], edges[key], services.keys() - unsound, unsound)


def undeclared(
    declarations: Iterable[Declaration], *, known: Collection[Key]
) -> Iterator[DependencyFlaw]:
    """Yield the dependencies of documents with other errors that no document declares."""
    for one in declarations:
        for index, other in enumerate(dependencies_of(one.key, _spec(one))):
            if other not in known and is_dns_label(other.name, length=SERVICE_NAME_MAX):
                yield _undeclared(one, index, other, known)


def _undeclared(
    declaration: Declaration, index: int, other: Key, services: Iterable[Key]
) -> DependencyFlaw:
    path: YamlPath = ("spec", "dependsOn", index, "name")
    message, remedy = f"{other} is not declared", _suggestion(other, declaration.key, services)
    return DependencyFlaw(declaration, path, "dependency.undeclared", message, remedy)


def _unsound(
    declaration: Declaration,
    others: Iterable[Key],
    sound: Collection[Key],
    unsound: Collection[Key],
) -> Iterator[DependencyFlaw]:
    for index, other in enumerate(others):
        if other in sound:
            continue
        what = "has errors" if other in unsound else "may be in a file that can't be read"
        yield DependencyFlaw(
            declaration,
            ("spec", "dependsOn", index, "name"),
            "dependency.broken",
            f"the document of {other} {what}: only its running containers count",
            "correct that document or file",
            Severity.WARNING,
        )


def _spec(declaration: Declaration) -> ServiceSpec:
    assert isinstance(declaration.spec, ServiceSpec), "only Services are passed"
    return declaration.spec


def _cycles(
    services: Mapping[Key, Declaration], edges: Mapping[Key, Mapping[Key, DependencyCondition]]
) -> Iterator[DependencyFlaw]:
    for ring in graph.cycles(edges):
        inside = {key: [other for other in edges[key] if other in ring] for key in ring}
        places: dict[Key, tuple[tuple[Key, ...], int]] = {}  # in a circle, each told once
        for key in sorted(ring):
            if key not in places:
                circle = graph.shortest_path(inside, key, key)[:-1]
                places = {k: (circle, at) for at, k in enumerate(circle)} | places
            circle, at = places[key]
            onward = circle[(at + 1) % len(circle)]
            index = list(edges[key]).index(onward)
            yield DependencyFlaw(
                services[key],
                ("spec", "dependsOn", index, "name"),
                "dependency.cycle",
                f"dependencies form a cycle: {_written(circle, at, services)}",
                "remove one of these dependencies; until then nothing is changed for any of the services",
            )


def _written(circle: tuple[Key, ...], at: int, services: Mapping[Key, Declaration]) -> str:
    """Return a circle as seen from one of its members, and where the others are declared."""
    count = len(circle)
    names = [circle[(at + step) % count].name for step in range(min(count, SHOWN))]
    gap = ["…"] if count > SHOWN else []
    others = [circle[(at + step) % count] for step in range(1, min(count, 6))]
    places = [f"{services[key].source.file}:{services[key].source.line}" for key in others]
    also = f" (also {', '.join(places)})" if places else ""
    return " -> ".join([*names, *gap, circle[at].name]) + also


def _condition(
    declaration: Declaration, path: YamlPath, other: Declaration, condition: DependencyCondition
) -> Iterator[DependencyFlaw]:
    spec, place = _spec(other), f"{other.source.file}:{other.source.line}"
    if condition is DependencyCondition.HEALTHY and spec.healthcheck is None:
        message = f"{other.key} ({place}) has no healthcheck, so it never becomes Healthy"
        remedy = "add a healthcheck there, or write condition: Started here"
    elif condition is DependencyCondition.COMPLETED and spec.restart.policy is RestartPolicy.ALWAYS:
        message = f"{other.key} ({place}) is restarted whenever it ends, so it never completes"
        remedy = "write restart: {policy: OnFailure} there, or condition: Started here"
    else:
        return
    yield DependencyFlaw(declaration, (*path, "condition"), "dependency.condition", message, remedy)


def _suggestion(other: Key, own: Key, services: Iterable[Key]) -> str:
    known = sorted(key.name for key in services if key.namespace == other.namespace and key != own)
    meant = did_you_mean(other.name, known)
    return meant or f"declare a document of kind Service called {other.name} in this namespace"
