"""The documents of a proven commit as the requests that the controller may send for them.

``render`` uses the functions by which the controller plans, so equal files give equal bytes. Kinds that
aren't rendered have a reason instead of a request: Releases, Compose projects, Secrets, adopted volumes
and networks, and jobs with the image of a service.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import assert_never

from controller.core.encoding.yaml import MAX_BYTES, decode, too_big
from controller.core.engine_api import create_body, translate
from controller.core.engine_api.comparable_fields import LIMITS
from controller.core.jobs.memory import MANUAL, ON_CHANGE, SCHEDULE
from controller.core.jobs.rollout_hooks import occasion_of
from controller.core.manifests.combine import SourceReading, combine, source_key
from controller.core.manifests.declaration import Declaration, FolderReading, ParsedDocument
from controller.core.manifests.parse import read_text
from controller.core.planning.images_networks_volumes import Prerequisites
from controller.core.proofs.requests import CreateShape, shape_of, shape_of_create
from controller.model.desired.desired import (
    Desired,
    GitSource,
    Network,
    Service,
    SourceIdentity,
    SourceLocation,
    Volume,
)
from controller.model.desired.plan import AnyAction, CreateNetwork, CreateVolume, DeliverFiles
from controller.model.desired.source_spec import SourceSpec
from controller.model.desired.spec.files import ConfigSpec
from controller.model.desired.spec.job import FROM_SERVICE, JobSpec, Trigger
from controller.model.desired.spec.rollout import RunState
from controller.model.desired.spec.service import ReleaseSpec
from controller.model.errors import Problem
from controller.model.files.delivery import FILE_BYTES_MAX
from controller.model.names import NetworkNames
from controller.model.observed import Observed

#: Files that the controller reads as Compose projects, never as documents.
_COMPOSE = re.compile(r"(?:.*/)?(?:docker-)?compose[^/]*\.ya?ml")
_SUFFIXES = (".yaml", ".yml")
#: Problems of a service without which nothing can be created, whatever the engine has.
_UNCREATABLE = frozenset({"network.undeclared", "network.not-adopted", "volume.not-adopted"})
#: Longer files are refused by their length, so no more bytes are needed.
RENDERED_MAX = max(MAX_BYTES, FILE_BYTES_MAX) + 1
_LIMITS = (*LIMITS.values(), "RestartPolicy")


@dataclass(frozen=True, slots=True)
class RenderScope:
    """What is rendered: the source with its namespaces, and the policy's names of networks."""

    source: str
    namespaces: tuple[str, ...]
    networks: NetworkNames


def render(files: Mapping[str, bytes], scope: RenderScope) -> dict[str, object]:
    """Return the requests for the documents among *files*, in the form of ``Rendering.read``."""
    documents = [*_documents(files, scope.source)]
    desired = _desired(documents, scope)
    made = _Rendered(desired, scope)
    for workload in desired.workloads:
        made.add_workload(workload)
    resources: list[Network | Volume] = [*desired.networks, *desired.volumes]
    for resource in resources:
        for action in made.prerequisites.declared(resource):
            made.add_object(action, resource.source.file)
    for document in documents:
        if document.declaration is not None and isinstance(document.declaration.spec, ReleaseSpec):
            made.unsupported[str(document.declaration.key)] = "Releases aren't rendered"
    return {
        "entries": made.entries,
        "objects": made.objects,
        "unsupported": made.unsupported,
        "broken": sorted(str(k) for k in desired.blind_keys if k.namespace in scope.namespaces),
        "blind": any(scoped.blind for scoped in desired.scopes if scoped.name == scope.source),
    }


class _Rendered:
    """The requests so far."""

    def __init__(self, desired: Desired, scope: RenderScope) -> None:
        self.prerequisites = Prerequisites(desired, Observed(scope.source), scope.networks)
        self._desired = desired
        self.entries: dict[str, dict[str, object]] = {}
        #: By ``network:NAME``, ``volume:NAME`` and ``files:KIND/NAMESPACE/NAME``: the shapes of the
        #: bodies, each with the document's key and file.
        self.objects: dict[str, dict[str, list[str]]] = {}
        self.unsupported: dict[str, str] = {}
        self._networks = scope.networks

    def add_workload(self, workload: Service) -> None:
        reason = self._reason_against(workload)
        if reason:
            self.unsupported[str(workload.key)] = reason
            return
        is_job = workload.key.kind == "Job"
        body = create_body.create_body(
            workload,
            slot=1,
            image=workload.spec.image,
            networks=self._networks,
            with_alias=not is_job,
            occasion="change" if is_job else "",
        )
        shape = shape_of_create(json.loads(json.dumps(body)))
        assert shape is not None, "a rendered create has the form of a create"
        entry = _entry(workload, shape, body) | {"occasions": _occasions(workload, self._desired)}
        self.entries[str(workload.key)] = entry
        for action in self.prerequisites.missing(workload, creating=True):
            self.add_object(action, workload.source.file)

    def _reason_against(self, workload: Service) -> str:
        """Return why a workload isn't rendered; '' for none."""
        if any(delivery.kind == "secret" for delivery in workload.deliveries):
            return "Secrets aren't supported"
        if workload.spec.image == FROM_SERVICE:
            return "jobs with the image of a service aren't supported"
        if workload.moved:
            return "moves aren't supported"
        for problem in self.prerequisites.problems(workload, creating=True):
            if problem.code in _UNCREATABLE:
                return problem.message
        return ""

    def add_object(self, action: AnyAction, file: str) -> None:
        match action:
            case CreateNetwork():
                name, body = f"network:{action.target}", translate.network_body(action)
            case CreateVolume():
                name, body = f"volume:{action.target}", translate.volume_body(action)
            case DeliverFiles():
                place = f"{action.kind}/{action.object.namespace}/{action.target}"
                name, body = f"files:{place}", translate.files_body(action)
            case _:
                return
        shape = shape_of(body)
        assert shape is not None, "a rendered body is canonical JSON"
        self.objects.setdefault(name, {}).setdefault(shape, [str(action.object), file])


def _entry(workload: Service, shape: CreateShape, body: Mapping[str, object]) -> dict[str, object]:
    host = body["HostConfig"]
    assert isinstance(host, dict), "a create has a HostConfig"
    stopped = workload.spec.state is RunState.STOPPED
    return {
        "file": workload.source.file,
        "shape": shape.shape,
        "reference": shape.reference,
        "endpoints": {network: list(aliases) for network, aliases in shape.endpoints},
        "updates": {name: host[name] for name in _LIMITS if name in host},
        "replicas": 0 if stopped else workload.spec.replicas,
    }


def _occasions(workload: Service, desired: Desired) -> list[str]:
    """Return the beginnings of the occasions for which a job has runs; none for a service.

    The broker itself knows whether an operator asked for a run (``core.jobs.run_rules``).
    """
    spec = workload.spec
    if not isinstance(spec, JobSpec) or spec.suspend:
        return []
    if spec.schedule is not None:
        return [MANUAL, SCHEDULE]
    match spec.trigger:
        case Trigger.ON_CHANGE:
            return [MANUAL, ON_CHANGE]
        case Trigger.MANUAL:
            return [MANUAL]
        case Trigger.ROLLOUT:
            return [MANUAL, *_rollouts(workload, desired)]
        case _:
            assert_never(spec.trigger)


def _rollouts(job: Service, desired: Desired) -> Iterator[str]:
    """Yield the occasions of the rollouts that name a job: of the declared revisions alone."""
    for service in desired.workloads:
        rollout = service.spec.rollout
        is_near = service.key.kind == "Service" and service.key.namespace == job.key.namespace
        if is_near and job.key.name in (*rollout.before, *rollout.after):
            yield occasion_of(service)


def _desired(documents: list[ParsedDocument], scope: RenderScope) -> Desired:
    """Return the desired state of the source alone."""
    spec = {"git": _GIT, "namespaces": list(scope.namespaces)}
    source = GitSource(
        source_key(scope.source),
        "operator",
        SourceSpec.model_validate_json(json.dumps(spec)),
        SourceLocation(""),
    )
    identity = SourceIdentity("proof", present=True, documents=len(documents))
    reading = FolderReading(tuple(documents), identity)
    # Unknown, not empty: nothing is concluded from other documents.
    others = FolderReading((), SourceIdentity("DIR", present=True), absent=True)
    return combine(others, [SourceReading(source, reading)], {})


#: The repository of a Source matters to the fetcher alone.
_GIT = {"url": "file:///proof", "ref": {"branch": "main"}}


def _documents(files: Mapping[str, bytes], source: str) -> Iterator[ParsedDocument]:
    """Yield the documents of the files, as the controller reads them from the exported folder."""
    for path in sorted(files):
        is_hidden = any(part.startswith(".") for part in path.split("/"))
        if is_hidden or not path.endswith(_SUFFIXES) or _COMPOSE.fullmatch(path):
            continue
        content, name = files[path], f"{source}:{path}"
        if len(content) > MAX_BYTES:
            yield ParsedDocument(None, (too_big(name),), None)
            continue
        folder = posixpath.dirname(path)
        for document in read_text(decode(content), name):
            yield _with_files(document, folder, files)


def _with_files(
    document: ParsedDocument, folder: str, files: Mapping[str, bytes]
) -> ParsedDocument:
    """Return a Config's document with the files that it names."""
    declaration = document.declaration
    if declaration is None or not isinstance(declaration.spec, ConfigSpec):
        return document
    if not declaration.spec.files:
        return document
    found: dict[str, bytes] = {}
    for name, path in declaration.spec.files.items():
        content = files.get(posixpath.normpath(posixpath.join(folder, path)))
        if content is None or path.startswith("/") or len(content) > FILE_BYTES_MAX:
            problem = _missing(declaration, name)
            found_problems = (*document.problems, problem)
            return ParsedDocument(None, found_problems, declaration.key, None, declaration)
        found[name] = content
    read = replace(declaration, files=tuple(sorted(found.items())))
    return replace(document, declaration=read)


def _missing(declaration: Declaration, name: str) -> Problem:
    path = ("spec", "files", name)
    return declaration.problem(path, "config.unreadable", f"{name} isn't in the commit", "")
