"""The documents of a proven commit as the requests that the controller may send for them.

``render`` uses the functions by which the controller plans, so equal files give equal bytes. A workload
that isn't rendered has a reason instead of a request. An adopted volume or network is never created.

The contents of Secrets are known to the broker alone: the first rendering names the Secrets, and
the next one has their contents.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import assert_never

from controller.core.charts.releases import RenderLimit
from controller.core.compose.translation.scope import ComposeSettings
from controller.core.encoding.json_values import canonical
from controller.core.engine_api import create_body, translate
from controller.core.engine_api.requests import RequestBody
from controller.core.files.mounts import revision_contents
from controller.core.jobs.memory import MANUAL, ON_CHANGE, SCHEDULE
from controller.core.jobs.rollout_hooks import job_for, occasion_of
from controller.core.manifests.combine import SourceReading, combine, source_key
from controller.core.manifests.declaration import FolderReading
from controller.core.manifests.revision_hash import revision_of
from controller.core.planning.context import declared_moves
from controller.core.planning.deliveries import bind_secrets, has_secret_files
from controller.core.planning.images_networks_volumes import Prerequisites
from controller.core.proofs.documents import DocumentScope, read_documents
from controller.core.proofs.rendering import CreateShape, every_key, shape_of, shape_of_create
from controller.model.desired import plan
from controller.model.desired.desired import (
    Desired,
    GitSource,
    Network,
    Secret,
    Service,
    SourceIdentity,
    SourceLocation,
    Volume,
)
from controller.model.desired.source_spec import SourceSpec
from controller.model.desired.spec.service import FROM_SERVICE, JobSpec, RunState, Trigger
from controller.model.names import Key, NetworkNames
from controller.model.observed import Observed

#: Problems of a service without which nothing can be created, whatever the engine has.
_UNCREATABLE = frozenset({"network.undeclared"})


@dataclass(frozen=True, slots=True)
class RenderScope:
    """The scope of a rendering: the source with its namespaces, and choices of the policy."""

    source: str
    namespaces: tuple[str, ...]
    networks: NetworkNames
    #: The name of the exported folder, which names a Compose project in the folder itself.
    folder: str = ""
    #: The policy's choices for Compose projects.
    compose: ComposeSettings = field(default_factory=ComposeSettings)
    #: The former names of services by their keys, as the broker's inventory has them.
    formers: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)


def render(
    files: Mapping[str, bytes],
    scope: RenderScope,
    charts: Mapping[str, bytes] | None = None,
    contents: Mapping[str, str] | None = None,
    limit: RenderLimit = nullcontext,
) -> dict[str, object]:
    """Return the requests for the documents among *files*, in the form of ``Rendering.read``.

    Args:
        files: the files of the documents' folder, by their paths in the folder.
        scope: the source, and choices of the policy.
        charts: the files of the charts, by their paths in the folder of the charts.
        contents: the content ids of the Secrets, by their keys. None: the Secrets are returned.
        limit: bounds the rendering of one Release.
    """
    documents = DocumentScope(scope.source, scope.folder, scope.compose, limit)
    reading = read_documents(files, charts or {}, documents)
    declared = _desired(reading, scope)
    known = {Key.parse(key): content for key, content in (contents or {}).items()}
    desired = bind_secrets(declared, known)
    made = _Rendered(desired, scope)
    for workload in desired.workloads:
        made.add_workload(workload)
    for secret in desired.secrets:
        made.add_secret(secret)
    resources: list[Network | Volume] = [*desired.networks, *desired.volumes]
    for resource in resources:
        for action in made.prerequisites.declared(resource):
            made.add_object(action, resource.source)
    return {
        "entries": made.entries,
        "objects": made.objects,
        "unsupported": {**made.unsupported, **_unopened(declared, desired)},
        "secrets": {} if contents is not None else _sources(desired),
        "broken": sorted(
            [
                *(str(key) for key in desired.blind_keys if key.namespace in scope.namespaces),
                *(every_key(name) for name in desired.blind_namespaces & {*scope.namespaces}),
            ]
        ),
        "blind": any(scoped.blind for scoped in desired.scopes if scoped.name == scope.source),
    }


class _Rendered:
    """The requests so far."""

    def __init__(self, desired: Desired, scope: RenderScope) -> None:
        self.prerequisites = Prerequisites(desired, Observed(scope.source), scope.networks)
        self._desired = desired
        # What DIR declares is unknown: it keeps no container of the source where it is.
        scopes = tuple(each for each in desired.scopes if each.name == scope.source)
        self._own = replace(desired, scopes=scopes)
        self.entries: dict[str, dict[str, object]] = {}
        #: By name (``Rendering.objects``): the shapes of the bodies, each with the document's key and file.
        self.objects: dict[str, dict[str, list[str]]] = {}
        self.unsupported: dict[str, str] = {}
        self._scope = scope
        resources: list[Network | Volume] = [*desired.networks, *desired.volumes]
        self._adopted = {each.key for each in resources if each.spec.engine_name}

    def add_workload(self, workload: Service) -> None:
        reason = self._reason_against(workload)
        if reason:
            self.unsupported[str(workload.key)] = reason
            return
        if workload.spec.image == FROM_SERVICE:
            for service in _services_of(workload, self._desired):
                # Each service has runs of its own, by its image and for its revision alone.
                name = f"{workload.key}@{service.key.name}"
                self._add_entry(name, job_for(workload, service), [occasion_of(service)])
            return
        self._add_entry(str(workload.key), workload, _occasions(workload, self._desired))

    def _add_entry(self, name: str, workload: Service, occasions: list[str]) -> None:
        shape = _shape(self._create(workload))
        runs = {
            "occasions": occasions,
            "schedule": _schedule(workload),
            "completions": shape.completions,
        }
        shapes = {"shapes": list(self._shapes(workload, shape))}
        self.entries[name] = _entry(workload, shape) | runs | shapes
        for move in declared_moves(self._own, workload):
            self.add_object(move, workload.source)
        for action in self.prerequisites.missing(workload, creating=True):
            self.add_object(action, workload.source)

    def _create(self, workload: Service) -> RequestBody:
        is_job = workload.key.kind == "Job"
        return create_body.create_body(
            workload,
            slot=1,
            image=workload.spec.image,
            networks=self._scope.networks,
            with_alias=not is_job,
            occasion="change" if is_job else "",
        )

    def _shapes(self, workload: Service, own: CreateShape) -> Iterator[list[object]]:
        """Yield the permitted creates of a document (``RenderedShape``), first the create of the present name."""
        yield [own.shape, own.base, False]
        if workload.key.kind == "Job":
            return
        has_late = has_secret_files(workload)
        named = [replace(workload, revision=each) for each in self._kept_revisions(workload)]
        for each in named:
            shape = _shape(self._create(each))
            yield [shape.shape, shape.base, False]
        for each in [workload, *named] if has_late else []:
            shape = _shape(self._create(replace(each, has_late_secrets=True)))
            yield [shape.shape, shape.base, True]

    def _kept_revisions(self, service: Service) -> Iterator[str]:
        """Yield the other revisions under which the containers of a service can go on.

        All are digests of the document under a former name.
        """
        key, spec, owner = service.key, service.spec, service.owner
        claimed = (each.name for each in service.moved)
        formers = dict.fromkeys([*claimed, *self._scope.formers.get(str(key), ())])
        contents = revision_contents(service.deliveries, service.bound_names)
        formers.pop(key.name, None)
        for name in formers:
            yield revision_of(owner, key._replace(name=name), spec, contents)

    def add_secret(self, secret: Secret) -> None:
        """Add the source that the broker may be asked to open."""
        shape = shape_of({"owner": secret.owner, "source": dict(secret.declared)})
        assert shape is not None, "a declared source is canonical JSON"
        name = f"secret:{secret.key.namespace}/{secret.key.name}"
        self.objects[name] = {shape: [str(secret.key), _file_of(secret.source)]}

    def _reason_against(self, workload: Service) -> str:
        """Return why a workload isn't rendered; '' for none."""
        for problem in self.prerequisites.problems(workload, creating=True):
            if problem.code in _UNCREATABLE:
                return problem.message
        return ""

    def add_object(self, action: plan.AnyAction, source: SourceLocation) -> None:
        if action.object in self._adopted:
            return
        match action:
            case plan.CreateNetwork():
                name, body = f"network:{action.target}", translate.network_body(action)
            case plan.CreateVolume():
                name, body = f"volume:{action.target}", translate.volume_body(action)
            case plan.DeliverFiles():
                place = f"{action.kind}/{action.object.namespace}/{action.target}"
                name, body = f"files:{place}", translate.files_body(action)
            case plan.MoveService():
                name, body = f"move:{action.object}", translate.move_body(action)
            case _:
                return
        shape = shape_of(body)
        assert shape is not None, "a rendered body is canonical JSON"
        self.objects.setdefault(name, {}).setdefault(shape, [str(action.object), _file_of(source)])


def _shape(body: RequestBody) -> CreateShape:
    shape = shape_of_create(json.loads(json.dumps(body)))
    assert shape is not None, "a rendered create has the form of a create"
    return shape


def _sources(desired: Desired) -> dict[str, str]:
    """Return the source of each Secret with its owner, in the form of ``core.secrets.declared``."""
    return {
        str(each.key): canonical({"owner": each.owner, "source": dict(each.declared)}).decode()
        for each in desired.secrets
    }


def _unopened(declared: Desired, bound: Desired) -> dict[str, str]:
    """Return the reason against each service or job with a Secret of unknown content."""
    known = {each.key for each in bound.workloads}
    opened = {each.key.name for each in bound.secrets if each.content}
    reasons = {}
    for workload in declared.workloads:
        named = {each.name for each in workload.deliveries if each.kind == "secret"}
        if workload.key not in known and (missing := sorted(named - opened)):
            reasons[str(workload.key)] = f"the Secret {missing[0]} can't be opened"
    return reasons


def _file_of(source: SourceLocation) -> str:
    """Return the file of a resource. A chart lies beside the documents' folder."""
    if not source.release:
        return source.file
    name, _, path = source.file.partition(":")
    return f"{name}:../{path}"


def _entry(workload: Service, shape: CreateShape) -> dict[str, object]:
    stopped = workload.spec.state is RunState.STOPPED
    return {
        "file": _file_of(workload.source),
        "reference": shape.reference,
        "endpoints": {network: list(aliases) for network, aliases in shape.endpoints},
        "updates": shape.updates,
        "replicas": 0 if stopped else workload.spec.replicas,
    }


def _occasions(workload: Service, desired: Desired) -> list[str]:
    """Return the beginnings of the occasions for which a job has runs; none for a service.

    The broker itself knows whether an operator asked for a run (``core.jobs.memory``).
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
            # Of the declared revisions alone.
            return [MANUAL, *map(occasion_of, _services_of(workload, desired))]
        case _:
            assert_never(spec.trigger)


def _schedule(workload: Service) -> list[object] | None:
    spec = workload.spec
    if not isinstance(spec, JobSpec) or spec.schedule is None:
        return None
    return [spec.schedule, spec.time_zone, spec.starting_deadline // 1000]


def _services_of(job: Service, desired: Desired) -> Iterator[Service]:
    """Yield the services with a rollout that names a job."""
    for service in desired.services:
        rollout = service.spec.rollout
        is_near = service.key.namespace == job.key.namespace
        if is_near and job.key.name in (*rollout.before, *rollout.after):
            yield service


def _desired(reading: FolderReading, scope: RenderScope) -> Desired:
    """Return the desired state of the source alone."""
    spec = {"git": _GIT, "namespaces": list(scope.namespaces)}
    source = GitSource(
        source_key(scope.source),
        "operator",
        SourceSpec.model_validate_json(json.dumps(spec)),
        SourceLocation(""),
    )
    # Unknown, not empty: nothing is concluded from other documents.
    others = FolderReading((), SourceIdentity("DIR", present=True), absent=True)
    return combine(others, [SourceReading(source, reading)], {})


#: The repository of a Source matters to the fetcher alone.
_GIT = {"url": "file:///proof", "ref": {"branch": "main"}}
