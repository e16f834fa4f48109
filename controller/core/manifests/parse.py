"""Parse a document of a file to a declaration, or to problems at their places.

A problem states the fault, the expectation and the remedy. It does not repeat texts of the user
that are possibly secret. A broken document with readable kind, namespace and name blinds only its
own key. Any other broken document possibly declares any resource.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from controller.core.manifests.declaration import (
    Declaration,
    Manifest,
    ParsedDocument,
    check_metadata,
    check_volume,
)
from controller.core.manifests.job_checks import check_job
from controller.core.manifests.revision_hash import revision_of
from controller.core.manifests.service_checks import check_moved, check_service, moved_of
from controller.core.manifests.validation_errors import (
    FieldProblem,
    did_you_mean,
    dotted,
    explain,
    value_path,
    without_errors,
    word_for,
)
from controller.core.yaml.documents import MAX_PROBLEMS, Document, YamlPath, compose_all
from controller.model.desired.desired import TRACED, SourceLocation
from controller.model.desired.spec.mounts import ConfigSpec, SecretSpec, VolumeSpec
from controller.model.desired.spec.network import NetworkSpec
from controller.model.desired.spec.notification import NotificationSpec
from controller.model.desired.spec.service import JobSpec, ReleaseSpec, ServiceSpec
from controller.model.errors import Problem, Severity
from controller.model.names import (
    API_VERSION,
    DEFAULT_NAMESPACE,
    NAMESPACE_MAX,
    SERVICE_NAME_MAX,
    Key,
    is_dns_label,
)

if TYPE_CHECKING:
    from controller.core.manifests.source_document import SourceManifest

#: The removal of one error can cause another, such as an empty healthcheck.
REPAIRS_MAX = 4


class ServiceManifest(Manifest):
    """A document of kind Service."""

    spec: ServiceSpec


class JobManifest(Manifest):
    """A document of kind Job."""

    spec: JobSpec


class NetworkManifest(Manifest):
    """A document of kind Network."""

    spec: NetworkSpec = NetworkSpec.model_construct()


class VolumeManifest(Manifest):
    """A document of kind Volume."""

    spec: VolumeSpec = VolumeSpec.model_construct()


class ConfigManifest(Manifest):
    """A document of kind Config."""

    spec: ConfigSpec


class SecretManifest(Manifest):
    """A document of kind Secret."""

    spec: SecretSpec


class ReleaseManifest(Manifest):
    """A document of kind Release."""

    spec: ReleaseSpec


class NotificationManifest(Manifest):
    """A document of kind Notification."""

    spec: NotificationSpec


ResourceManifest = (
    ServiceManifest
    | JobManifest
    | NetworkManifest
    | VolumeManifest
    | ConfigManifest
    | SecretManifest
    | ReleaseManifest
    | NotificationManifest
)
AnyManifest: TypeAlias = "ResourceManifest | SourceManifest"
MANIFESTS: Mapping[str, type[ResourceManifest]] = {
    "Service": ServiceManifest,
    "Job": JobManifest,
    "Network": NetworkManifest,
    "Volume": VolumeManifest,
    "Config": ConfigManifest,
    "Secret": SecretManifest,
    "Release": ReleaseManifest,
    "Notification": NotificationManifest,
}
#: The kind of a Git source. Its module is imported for the first such document.
SOURCE_KIND = "Source"
KINDS = (*MANIFESTS, SOURCE_KIND)


def read_text(text: str, file: str) -> tuple[ParsedDocument, ...]:
    """Parse each document of a file. Never raises."""
    return tuple(parse_document(document) for document in compose_all(text, file))


def parse_document(document: Document) -> ParsedDocument:
    """Parse one document. Never raises."""
    key = _readable_key(document)
    problems = [
        replace(fault.problem, field=dotted(fault.path) if fault.path else "")
        for fault in document.faults
    ]
    declaration = None
    if document.readable:
        declaration, errors = _declare(document)
        problems += errors
    partial = None
    if any(problem.severity is Severity.ERROR for problem in problems):
        declaration, partial = None, declaration
    # A broken Release possibly declares any resource of its namespace.
    blinds = key if key is not None and key.kind != "Release" else None
    return ParsedDocument(
        declaration,
        tuple(
            replace(problem, key=key if declaration else blinds)
            for problem in _limit_problems(document, problems)
        ),
        declaration.key if declaration else blinds,
        partial=partial,
        moved=moved_of(document, blinds or key),
        nodes=document.nodes,
    )


def _limit_problems(document: Document, problems: list[Problem]) -> list[Problem]:
    if len(problems) <= MAX_PROBLEMS:
        return problems
    message, remedy = "there are more problems in this document", "correct those above first"
    place = document.place
    last = Problem("problem.more", message, document.file, place.line, remedy=remedy)
    return [*problems[:MAX_PROBLEMS], last]


def _readable_key(document: Document) -> Key | None:
    """Return the key of a document with valid kind, namespace and name."""
    names = ("metadata", "name"), ("metadata", "namespace")
    places: tuple[YamlPath, ...] = ((), ("kind",), ("metadata",), *names)
    if any(fault.path in places for fault in document.faults):
        return None
    match document.value:
        case {"kind": str(kind), "metadata": {"name": str(name), **others}}:
            namespace = others.get("namespace", DEFAULT_NAMESPACE)
        case _:
            return None
    if (
        kind not in KINDS
        or not is_dns_label(name, length=SERVICE_NAME_MAX)
        or not isinstance(namespace, str)
        or not is_dns_label(namespace, length=NAMESPACE_MAX)
    ):
        return None
    return Key(kind, namespace, name)


def _declare(document: Document) -> tuple[Declaration | None, list[Problem]]:
    """Return the declaration of a readable document, or None, and its problems."""
    value = document.value
    if not isinstance(value, dict):
        expected = "a mapping with apiVersion, kind, metadata and spec"
        message = f"the document is {word_for(value)}; expected {expected}"
        remedy = "write those four keys, or move a file that isn't for trimtab elsewhere"
        problem = FieldProblem((), "document.type", message, expected=expected, remedy=remedy)
        return None, [problem.at(document)]
    kind = value.get("kind")
    model = manifest_of(kind) if isinstance(kind, str) else None
    if model is None:
        return None, [_unknown_kind(value).at(document)]
    manifest, details = _validate(model, value)
    problems = [
        explain(document, model, detail)
        for detail in details[: MAX_PROBLEMS + 1]
        if not _is_hidden(detail)
    ]
    wrong = {dotted(value_path(value, detail["loc"])) for detail in details}
    remaining: object = value
    for _ in range(REPAIRS_MAX):
        if manifest is not None or not isinstance(remaining, dict):
            break
        # Check the valid parts further, so one run reports all problems.
        remaining = without_errors(remaining, details)
        manifest, details = _validate(model, remaining)
    if manifest is None:
        return None, problems
    checks = (found.at(document) for found in _checks(manifest) if dotted(found.path) not in wrong)
    return _declaration(document, manifest), [*problems, *islice(checks, MAX_PROBLEMS + 1)]


def manifest_of(kind: str) -> type[AnyManifest] | None:
    """Return the model of a kind, None for an unknown kind."""
    if kind != SOURCE_KIND:
        return MANIFESTS.get(kind)
    from controller.core.manifests.source_document import SourceManifest

    return SourceManifest


def _validate(
    model: type[AnyManifest], value: object
) -> tuple[AnyManifest | None, list[ErrorDetails]]:
    try:
        return model.model_validate_json(json.dumps(value)), []
    except ValidationError as error:
        return None, error.errors(include_url=False)


def _checks(manifest: AnyManifest) -> Iterator[FieldProblem]:
    """Yield the problems of a manifest with valid types."""
    yield from check_metadata(manifest.metadata)
    yield from check_moved(manifest.kind, manifest.metadata)
    if isinstance(manifest, ServiceManifest):
        yield from check_service(manifest.spec)
    if isinstance(manifest, JobManifest):
        yield from check_job(manifest.metadata.name, manifest.spec)
    if isinstance(manifest, VolumeManifest):
        yield from check_volume(manifest.metadata)
    if manifest.kind == SOURCE_KIND:
        from controller.core.manifests.source_document import check_source

        yield from check_source(manifest)


def _declaration(document: Document, manifest: AnyManifest) -> Declaration:
    metadata = manifest.metadata
    key = Key(manifest.kind, metadata.namespace, metadata.name)
    spec = manifest.spec
    return Declaration(
        key=key,
        owner=metadata.owner,
        labels=tuple(sorted(metadata.labels.items())),
        spec=spec,
        revision=revision_of(metadata.owner, key, spec) if isinstance(spec, ServiceSpec) else "",
        source=SourceLocation(
            document.file,
            document.place.line,
            lines=_lines(document),
            text=document.text,
            places=document.places,
        ),
        document=document,
        moved=moved_of(document, key),
    )


def _lines(document: Document) -> tuple[tuple[str, int], ...]:
    """Return the lines of the fields in TRACED."""
    lines = ((name, document.lines.get(("spec", *name.split(".")))) for name in TRACED)
    return tuple((name, line) for name, line in lines if line is not None)


def _unknown_kind(value: dict[str, object]) -> FieldProblem:
    kind = value.get("kind")
    if value.get("apiVersion") != API_VERSION:
        version = value.get("apiVersion")
        message = "apiVersion is missing" if version is None else f"apiVersion is {_short(version)}"
        expected = f"apiVersion: {API_VERSION}"
        remedy = _foreign_document_remedy(value)
        path: YamlPath = ("apiVersion",)
        return FieldProblem(path, "apiversion", message, expected=expected, remedy=remedy)
    expected = ", ".join(KINDS[:-1]) + f" or {KINDS[-1]}"
    message = "kind is missing" if kind is None else f"kind {_short(kind)} is unknown"
    remedy = did_you_mean(str(kind), KINDS) or "write kind: Service"
    return FieldProblem(("kind",), "kind.unknown", message, expected=expected, remedy=remedy)


def _foreign_document_remedy(value: dict[str, object]) -> str:
    """Return the remedy for another tool's document."""
    if isinstance(value.get("services"), dict) and "kind" not in value:
        return "this looks like a compose file: call it compose.yaml, in a folder of its own"
    return f"write apiVersion: {API_VERSION}, or move a file that isn't for trimtab elsewhere"


def _short(value: object) -> str:
    return json.dumps(value)[:80] if isinstance(value, str) else word_for(value)


def _is_hidden(detail: ErrorDetails) -> bool:
    """Return True if another reported error causes this error.

    A list with items is too short only after the removal of the invalid ones.
    """
    return detail["type"] == "too_short" and bool(detail.get("input"))
