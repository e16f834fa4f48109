"""Builders of canonical projects, for tests of their translation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from controller.core.compose.project import ComposeProject, Place, TreePath
from controller.core.compose.translation.documents import (
    Translation,
    parsed_documents,
    translate,
)
from controller.core.compose.translation.scope import FoundPath
from controller.core.compose.translation.settings import ComposeSettings
from controller.core.manifests.check_together import resolve
from controller.core.yaml.documents import Document, compose_all
from controller.model.desired.desired import Desired

FILE = FoundPath("file")


def canonical(text: str, *, name: str = "shop") -> ComposeProject:
    """Return the project of a text in canonical form, with the places of its values."""
    (document,) = compose_all(text, "compose.yaml")
    tree = document.value
    assert isinstance(tree, dict)
    places = dict(_places(document, (), tree))
    return ComposeProject(name, ".", {"name": name, **tree}, places, (), ("compose.yaml",))


def _places(document: Document, path: TreePath, value: object) -> Iterator[tuple[TreePath, Place]]:
    at = document.locate_key(path)
    yield path, Place(document.file, at.line, at.column)
    if isinstance(value, dict):
        for key, member in value.items():
            yield from _places(document, (*path, key), member)
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _places(document, (*path, index), item)


def translation(
    text: str,
    *,
    settings: ComposeSettings | None = None,
    files: Mapping[str, FoundPath] | None = None,
    name: str = "shop",
) -> Translation:
    """Return the documents of a text in canonical form. All *files* of the project are known."""
    known = files or {}
    return translate(
        canonical(text, name=name),
        settings or ComposeSettings(),
        lambda path, **_: known.get(path, FoundPath("absent")),
    )


def trees(text: str, **options: Any) -> dict[str, Any]:
    """Return the spec of each document, by KIND/NAME."""
    found = {}
    for document in translation(text, **options).documents:
        value: Any = document.value
        found[f"{value['kind']}/{value['metadata']['name']}"] = value.get("spec", {})
    return found


def service(body: str, **options: Any) -> dict[str, Any]:
    """Return the spec of the service *web*, whose attributes are *body*, with an image."""
    return dict(trees(project_of(body), **options)["Service/web"])


def project_of(body: str) -> str:
    """Return a project with the service *web*; *body* has its attributes from the fourth line on."""
    lines = "".join(f"    {line}\n" for line in body.strip().splitlines())
    return f"services:\n  web:\n    image: nginx:1.27\n{lines}"


def problems(text: str, **options: Any) -> list[str]:
    """Return the problems of a text as ``LINE severity code: message``."""
    return [
        f"{p.line} {p.severity.value} {p.code}: {p.message}"
        for p in desired(text, **options).problems
    ]


def desired(text: str, **options: Any) -> Desired:
    """Return the desired state of a text in canonical form."""
    documents, others = parsed_documents(translation(text, **options))
    return resolve(documents, problems=others)
