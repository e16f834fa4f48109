"""DIR and the Git sources to one desired state.

A source declares resources of its namespaces and owners only. A resource has one source: a second
declaration is a problem of the newcomer, and the resource stays with the source that serves it.
Problems of a source never concern resources of another source.

The module is imported only while a Source is declared, or was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from controller.core.manifests.check_together import desired_from, resolve
from controller.core.manifests.declaration import Declaration, FolderReading, ParsedDocument
from controller.core.manifests.object_checks import ResourceClaim, claims_of, volume_names
from controller.core.manifests.parse import SOURCE_KIND
from controller.core.manifests.validation_errors import FieldProblem
from controller.model.desired.desired import (
    Declared,
    Desired,
    GitSource,
    SourceIdentity,
    SourceScope,
)
from controller.model.desired.spec.mounts import BindMount
from controller.model.desired.spec.service import ServiceSpec
from controller.model.errors import Problem
from controller.model.host_paths import is_below
from controller.model.names import DEFAULT_NAMESPACE, Key
from controller.model.observed import HostPort

#: The name of DIR among the sources.
DIR = ""
#: Services with their host ports, and the volumes that they write to.
HeldClaims = frozenset[tuple[Key, HostPort | str]]


@dataclass(frozen=True, slots=True)
class SourceReading:
    """One reading of the files that a Git source serves."""

    source: GitSource
    reading: FolderReading

    @property
    def name(self) -> str:
        """The source's name."""
        return self.source.key.name


@dataclass(slots=True)
class _Combination:
    """The documents to resolve, and what else the readings had."""

    documents: dict[str, list[ParsedDocument]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    #: Rejected declarations, by source.
    rejected: dict[str, set[Key]] = field(default_factory=dict)

    def reject(self, name: str, declaration: Declaration, problem: FieldProblem) -> None:
        """Leave a declaration out, with a problem that concerns the source alone."""
        key = source_key(name) if name else None
        self.problems.append(replace(problem.at(declaration.document), key=key))
        self.rejected.setdefault(name, set()).add(declaration.key)


def source_key(name: str) -> Key:
    """Return the key of a Source."""
    return Key(SOURCE_KIND, DEFAULT_NAMESPACE, name)


def held_claims(desired: Desired) -> HeldClaims:
    """Return the host ports and written volumes of the services of a desired state."""
    return frozenset(
        (service.key, claim.resource)
        for service in desired.workloads
        for claim in claims_of(service.spec, service.volume_name)
    )


def combine(
    directory: FolderReading,
    sources: Iterable[SourceReading],
    serving: Mapping[Key, str],
    *,
    held: HeldClaims = frozenset(),
    top: str = "",
) -> Desired:
    """Return the desired state of DIR and its sources.

    *serving* has the source of each known resource, by name; ``''`` is DIR. *held* are the claims
    before, of ``held_claims``. *top* is the path of DIR without links.
    """
    sources = tuple(sources)
    own = desired_from(directory)
    made = _Combination({DIR: list(directory.documents)})
    for each in sources:
        made.documents[each.name] = list(_confined(each, made, top))
    blind = {DIR: own.blind}
    for each in sources:
        confined = replace(each.reading, documents=tuple(made.documents[each.name]))
        blind[each.name] = confined.blind
    unread = {
        name: frozenset(each.blind_namespace for each in documents if each.blind_namespace)
        for name, documents in made.documents.items()
    }
    broken = frozenset(key.name for key in own.blind_keys if key.kind == SOURCE_KIND)
    _settle_doubles(made, serving, {**dict.fromkeys(broken, True), **blind}, unread)
    _settle_claims(made, serving, held)
    documents = [document for each in made.documents.values() for document in each]
    problems = [*directory.problems, *([directory.busy] if directory.busy else [])]
    for each in sources:
        problems += (_owned(problem, each) for problem in each.reading.problems)
    desired = resolve(
        documents, identity=directory.identity, problems=problems, blind=any(blind.values())
    )
    scopes = tuple(
        replace(scope, blind_namespaces=unread.get(scope.name, frozenset()))
        for scope in _scopes(directory, own, sources, made, blind, serving)
    )
    foreign = _foreign_keys(made, scopes)
    merged = dict.fromkeys((*desired.problems, *made.problems))
    return replace(
        desired,
        problems=tuple(sorted(merged, key=lambda p: (p.file, p.line, p.column, p.code))),
        blind_keys=desired.blind_keys | foreign,
        scopes=scopes,
    )


def _confined(each: SourceReading, made: _Combination, top: str) -> Iterator[ParsedDocument]:
    """Yield the documents of a source that its Source permits."""
    spec = each.source.spec
    for document in each.reading.documents:
        declaration = document.declaration
        if declaration is None:
            key = document.key
            place = document.namespace if key is None else key.namespace
            is_source = key is not None and key.kind == SOURCE_KIND
            if document.blind or (place in spec.namespaces and not is_source):
                known = (each for each in document.moved if each.namespace in spec.namespaces)
                yield replace(document, moved=tuple(known))
            else:  # it can't declare that resource, so it blinds nothing
                made.problems += (_owned(problem, each) for problem in document.problems)
        elif (problem := _not_permitted(each, declaration, top)) is not None:
            made.reject(each.name, declaration, problem)
        else:
            yield document


def _not_permitted(each: SourceReading, declaration: Declaration, top: str) -> FieldProblem | None:
    """Return why a Source doesn't permit a declaration; None if it does."""
    spec, key = each.source.spec, declaration.key
    if key.kind == SOURCE_KIND:
        return FieldProblem(
            ("kind",),
            "source.nested",
            "a Git source can't declare Sources",
            remedy="declare it in the instance's own directory",
        )
    if key.namespace not in spec.namespaces:
        return FieldProblem(
            ("metadata", "namespace"),
            "source.foreign",
            f"Source {each.name} doesn't list namespace {key.namespace}",
            expected=f"one of {', '.join(spec.namespaces)}",
            remedy="declare the resource in a listed namespace, or list the namespace in the Source",
        )
    if spec.owners and declaration.owner not in spec.owners:
        return FieldProblem(
            ("metadata", "owner"),
            "source.foreign",
            f"Source {each.name} doesn't list owner {declaration.owner}",
            expected=f"one of {', '.join(spec.owners)}",
            remedy="write a listed owner, or list the owner in the Source",
        )
    if (index := _mount_of_directory(declaration, top)) is not None:
        return FieldProblem(
            ("spec", "mounts", index, "source"),
            "source.folder",
            "a folder of the instance's own directory is no Git source's to mount",
            remedy="mount a volume, or a folder elsewhere",
        )
    return None


def _mount_of_directory(declaration: Declaration, top: str) -> int | None:
    """Return the index of a mount of DIR, or of a part of it."""
    mounts = getattr(declaration.spec, "mounts", ()) if top else ()
    return next(
        (
            index
            for index, mount in enumerate(mounts)
            if isinstance(mount, BindMount) and is_below(mount.source, top)
        ),
        None,
    )


def _owned(problem: Problem, each: SourceReading) -> Problem:
    """Return a problem of a source's reading as a problem of the source alone."""
    return replace(problem, key=each.source.key)


def _settle_doubles(
    made: _Combination,
    serving: Mapping[Key, str],
    blind: Mapping[str, bool],
    unread: Mapping[str, frozenset[str]],
) -> None:
    """Leave each resource with one source; several newcomers all stay, as doubles.

    *unread* are the namespaces of the Compose projects of each source that can't be read.
    """
    claims: dict[Key, list[str]] = {}
    for name, documents in made.documents.items():
        for key in _keys(documents):
            claims.setdefault(key, []).append(name)
    for key, names in claims.items():
        holder = serving.get(key)
        may_declare = holder is not None and (
            blind.get(holder, blind[DIR]) or key.namespace in unread.get(holder, ())
        )
        if holder not in names and not may_declare:
            holder = DIR if DIR in names and len(names) > 1 else None
        if holder is None or names == [holder]:
            continue
        for name in names:
            if name != holder:
                _drop(made, name, key, holder)


def _drop(made: _Combination, name: str, key: Key, holder: str) -> None:
    """Leave a source's documents of a key out: the resource stays with another source."""
    kept = []
    for document in made.documents[name]:
        if key not in _keys([document]):
            kept.append(document)
        elif document.declaration is not None:
            problem = FieldProblem(
                ("metadata", "name"),
                "source.conflict",
                f"{key} is already served by {f'Source {holder}' if holder else 'DIR'}",
                remedy="remove one of the documents",
            )
            made.reject(name, document.declaration, problem)
        else:
            key_of = source_key(name) if name else None
            made.problems += (replace(problem, key=key_of) for problem in document.problems)
    made.documents[name] = kept


def _settle_claims(made: _Combination, serving: Mapping[Key, str], held: HeldClaims) -> None:
    """Leave a host port or an exclusive volume with the service that had it, else with the service
    that is known: another source can't disturb that service.
    """
    claims: dict[object, list[_SourceClaim]] = {}
    for name, documents in made.documents.items():
        for document in documents:
            for claim in _claims_of(name, document):
                claims.setdefault(claim.claim.group, []).append(claim)
    rejected: set[int] = set()
    for group in claims.values():
        known = [claim for claim in group if serving.get(claim.declaration.key) == claim.name]
        having = [c for c in known if (c.declaration.key, c.claim.resource) in held]
        for claim in group:
            before = [] if claim in having else having if claim in known else [*having, *known]
            holder = next((each for each in before if each.conflicts(claim)), None)
            if holder is None:
                continue
            problem = FieldProblem(
                claim.claim.path,
                "source.conflict",
                f"{claim.place} belongs to {holder.declaration.key} of "
                f"{f'Source {holder.name}' if holder.name else 'DIR'}",
                remedy=claim.remedy,
            )
            made.reject(claim.name, claim.declaration, problem)
            rejected.add(id(claim.declaration))
    for name, documents in made.documents.items():
        made.documents[name] = [each for each in documents if id(each.declaration) not in rejected]


@dataclass(frozen=True, slots=True)
class _SourceClaim:
    """A service of a source that declares a host port, or writes to a volume."""

    name: str
    declaration: Declaration
    claim: ResourceClaim

    def conflicts(self, other: _SourceClaim) -> bool:
        """Return True if both can't have the resource, and are of different sources."""
        return self.name != other.name and self.claim.conflicts(other.claim)

    @property
    def place(self) -> str:
        port = self.claim.resource
        protocol = f"/{port.protocol}" if isinstance(port, HostPort) else ""
        return f"{self.claim.name}{protocol}"

    @property
    def remedy(self) -> str:
        is_port = isinstance(self.claim.resource, HostPort)
        return "choose another port" if is_port else "set readOnly: true, or choose another volume"


def _claims_of(name: str, document: ParsedDocument) -> Iterator[_SourceClaim]:
    declaration = document.declaration
    if declaration is None or not isinstance(declaration.spec, ServiceSpec):
        return
    for claim in claims_of(declaration.spec, volume_names(declaration.key.namespace, {})):
        yield _SourceClaim(name, declaration, claim)


def _keys(documents: Iterable[ParsedDocument]) -> Iterator[Key]:
    """Yield the keys of resources that documents declare, or may declare."""
    for document in documents:
        key = document.declaration.key if document.declaration is not None else document.key
        if key is not None and key.kind != SOURCE_KIND:
            yield key


def _scopes(
    directory: FolderReading,
    own: Desired,
    sources: tuple[SourceReading, ...],
    made: _Combination,
    blind: Mapping[str, bool],
    serving: Mapping[Key, str],
) -> tuple[SourceScope, ...]:
    """Return DIR, the declared sources, and the sources without a sound document."""
    declared = {name: frozenset(_keys(documents)) for name, documents in made.documents.items()}
    taken = frozenset(key for keys in declared.values() for key in keys)
    remembered: dict[str, set[Key]] = {}
    for key, name in serving.items():
        if key not in taken:
            remembered.setdefault(name, set()).add(key)

    def keys_of(name: str) -> frozenset[Key]:
        return declared.get(name, frozenset()) | remembered.get(name, set())

    scopes = [SourceScope(DIR, directory.identity, blind[DIR], None, keys_of(DIR))]
    for each in sources:
        spec = each.source.spec
        scopes.append(
            SourceScope(
                each.name,
                each.reading.identity,
                blind[each.name],
                frozenset(spec.namespaces),
                keys_of(each.name),
                Declared.SUSPENDED if spec.suspend else Declared.ACTIVE,
            )
        )
    broken = {key.name for key in own.blind_keys if key.kind == SOURCE_KIND}
    lost = broken | remembered.keys() - {scope.name for scope in scopes}
    for name in sorted(lost - {scope.name for scope in scopes}):
        is_broken = name in broken
        scopes.append(
            SourceScope(
                name,
                SourceIdentity(path=f"Source {name}", present=True, documents=1),
                blind=is_broken or own.blind,
                namespaces=None if is_broken else frozenset(),
                keys=keys_of(name),
                declared=Declared.BROKEN if is_broken else Declared.REMOVED,
            )
        )
    return tuple(scopes)


def _foreign_keys(made: _Combination, scopes: tuple[SourceScope, ...]) -> frozenset[Key]:
    """Return the rejected resources that no other source declares or declared."""
    elsewhere = {key: scope.name for scope in scopes for key in scope.keys}
    return frozenset(
        key
        for name, keys in made.rejected.items()
        for key in keys
        if key.kind != SOURCE_KIND and elsewhere.get(key, name) == name
    )
