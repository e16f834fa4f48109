"""Documents of kind Source: their manifest, their checks, and the checks over all of them.

The module is imported only while a Source is declared.

The document of kind Source that ``trimtab up --git URL`` writes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from controller.core.manifests.declaration import OWNER_MAX, Declaration, Manifest, valid_name
from controller.core.manifests.validation_errors import FieldProblem
from controller.core.yaml.documents import YamlPath
from controller.model.desired.desired import GitSource
from controller.model.desired.source_spec import SourceSpec
from controller.model.errors import UsageError
from controller.model.names import DEFAULT_NAMESPACE, NAMESPACE_MAX, is_dns_label

NAME_MAX = 27
#: The owner of the document itself; the resources have owners of their own.
OWNER = "operator"


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """The options of ``up`` about its Source."""

    url: str
    branch: str = "main"
    path: str = "."
    namespaces: tuple[str, ...] = ("default",)
    credentials: str | None = None
    #: The folder of the keys that must have signed the newest commit.
    keys: str | None = None


def name_of(url: str) -> str:
    """Return a name for the source of a repository: the last part of the URL."""
    last = re.split(r"[/:]", url.rstrip("/"))[-1].lower().removesuffix(".git")
    return re.sub(r"[^a-z0-9]+", "-", last)[:NAME_MAX].strip("-") or "source"


def render_source(options: SourceOptions) -> str:
    """Return the document.

    Raises:
        UsageError: an option can't be used.
    """
    git: dict[str, object] = {"url": options.url, "ref": {"branch": options.branch}}
    git |= {"path": options.path}
    if options.credentials is not None:
        git["credentials"] = options.credentials
    spec: dict[str, object] = {"git": git, "namespaces": list(options.namespaces)}
    if options.keys is not None:
        spec["verify"] = {"mode": "head", "keys": options.keys}
    try:
        SourceSpec.model_validate_json(json.dumps(spec))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UsageError(
            "source.options",
            f"spec.{field}: {first['msg']}",
            remedy="see 'trimtab up --help', or write the document yourself (docs/git.md)",
        ) from error
    metadata = {"name": name_of(options.url), "owner": OWNER}
    return (
        "# Written by 'trimtab up --git': the next start with --git writes it again.\n"
        f"apiVersion: trimtab/v1\nkind: Source\nmetadata: {json.dumps(metadata)}\n"
        f"spec: {json.dumps(spec)}\n"
    )


class SourceManifest(Manifest):
    """A document of kind Source."""

    spec: SourceSpec


def check_source(manifest: Manifest) -> Iterator[FieldProblem]:
    """Yield the problems of a Source with valid fields."""
    assert isinstance(manifest, SourceManifest), "only Sources are passed"
    if manifest.metadata.namespace != DEFAULT_NAMESPACE:
        yield FieldProblem(
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
        yield from _check_names(("spec", field), names, length)


def _check_names(path: YamlPath, names: Iterable[str], length: int) -> Iterator[FieldProblem]:
    seen: set[str] = set()
    field = str(path[-1])
    for index, name in enumerate(names):
        if not is_dns_label(name, length=length):
            yield FieldProblem(
                (*path, index),
                f"{field.removesuffix('s')}.invalid",
                f"{json.dumps(name[:80])} is not a valid name",
                expected=f"lower-case letters, digits and '-' inside, at most {length} characters",
                remedy=valid_name(name, length),
            )
        elif name in seen:
            message = f"{name} is listed twice in spec.{field}"
            yield FieldProblem(
                (*path, index), "source.duplicate", message, remedy="remove one of them"
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
