"""Documents of kind Source: their manifest, their checks, and the checks over all of them.

The module is imported only while a Source is declared.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from controller.core.manifests.checks.metadata import OWNER_MAX, valid_name
from controller.core.manifests.declaration import Declaration, Manifest
from controller.core.manifests.validation_errors import problem_at
from controller.core.yaml.documents import Document, YamlPath
from controller.model.desired.desired import GitSource
from controller.model.desired.source_spec import SourceSpec
from controller.model.errors import Problem
from controller.model.names import DEFAULT_NAMESPACE, NAMESPACE_MAX, is_dns_label


class SourceManifest(Manifest):
    """A document of kind Source."""

    spec: SourceSpec


def check_source(document: Document, manifest: Manifest) -> Iterator[Problem]:
    """Yield the problems of a Source with valid fields."""
    assert isinstance(manifest, SourceManifest), "only Sources are passed"
    if manifest.metadata.namespace != DEFAULT_NAMESPACE:
        yield problem_at(
            document,
            ("metadata", "namespace"),
            "source.namespace",
            "a Source belongs to no namespace",
            remedy="remove metadata.namespace; spec.namespaces lists what it may declare",
        )
    spec = manifest.spec
    for field, names, length in (
        ("namespaces", spec.namespaces, NAMESPACE_MAX),
        ("owners", spec.owners, OWNER_MAX),
    ):
        yield from _check_names(document, ("spec", field), names, length)


def _check_names(
    document: Document, path: YamlPath, names: Iterable[str], length: int
) -> Iterator[Problem]:
    seen: set[str] = set()
    field = str(path[-1])
    for index, name in enumerate(names):
        if not is_dns_label(name, length=length):
            yield problem_at(
                document,
                (*path, index),
                f"{field.removesuffix('s')}.invalid",
                f"{json.dumps(name[:80])} is not a valid name",
                expected=f"lower-case letters, digits and '-' inside, at most {length} characters",
                remedy=valid_name(name, length),
            )
        elif name in seen:
            message = f"{name} is listed twice in spec.{field}"
            yield problem_at(
                document, (*path, index), "source.duplicate", message, remedy="remove one of them"
            )
        seen.add(name)


def sharing_conflicts(
    sources: Iterable[Declaration],
) -> Iterator[tuple[Declaration, YamlPath, str]]:
    """Yield each Source that lists a namespace of another, with the place and a message.

    Sources with ``shared: true`` may list the same namespaces.
    """
    listed: dict[str, list[tuple[Declaration, int]]] = {}
    for source in sources:
        for index, namespace in enumerate(spec_of(source).namespaces):
            listed.setdefault(namespace, []).append((source, index))
    for namespace, claims in listed.items():
        if all(spec_of(source).shared for source, _ in claims):
            continue
        for source, index in claims:
            other = next((each for each, _ in claims if each.key != source.key), None)
            if other is not None:
                message = f"Source {other.key.name} also lists namespace {namespace}"
                yield source, ("spec", "namespaces", index), message


def spec_of(declaration: Declaration) -> SourceSpec:
    """Return the spec of a Source's declaration."""
    assert isinstance(declaration.spec, SourceSpec), "only Sources are passed"
    return declaration.spec


def git_source(declaration: Declaration) -> GitSource:
    """Return a declared Source as a value."""
    return GitSource(declaration.key, declaration.owner, spec_of(declaration), declaration.source)
