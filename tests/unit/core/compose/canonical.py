"""Builders of projects in long form, for tests of their translation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.core.compose.attributes import read_values
from controller.core.compose.nodes import MAX_NODES, ReadingReport, read_yaml
from controller.core.compose.nodes import project_of as project_of_nodes
from controller.core.compose.project import ComposeProject
from controller.core.compose.translation.documents import Translation, parsed_documents, translate
from controller.core.compose.translation.scope import ComposeSettings, FoundPath
from controller.core.manifests.check_together import resolve
from controller.core.yaml.loading import NodeAllowance
from controller.model.desired.desired import Desired

FILE = FoundPath("file")


def canonical(text: str, *, name: str = "shop") -> ComposeProject:
    """Return the project of a text in long form, with the places of its values."""
    report = ReadingReport()
    ((root, _),) = read_yaml(text.encode(), "compose.yaml", NodeAllowance(MAX_NODES), report)
    read_values(root, report)
    assert report.problems == ()
    root.members["name"] = root.at(name)
    return project_of_nodes(root, name)


def translation(
    text: str,
    *,
    settings: ComposeSettings | None = None,
    files: Mapping[str, FoundPath] | None = None,
    name: str = "shop",
) -> Translation:
    """Return the documents of a project. All *files* of the project are known."""
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
    """Return the desired state of a text in long form."""
    documents, others = parsed_documents(translation(text, **options))
    return resolve(documents, problems=others)
