"""A refused attribute leaves its own service as it is; the other services of the project go on."""

from __future__ import annotations

from typing import Any

import pytest

from controller.core.compose.translation.documents import parsed_documents, translate
from controller.core.compose.translation.scope import ComposeSettings, FoundPath
from controller.core.manifests.check_together import resolve
from controller.model.errors import Severity
from tests.unit.core.compose.projects import problems as reading_problems
from tests.unit.core.compose.projects import read

OTHER = "  other:\n    image: x:1\n"


def found(text: str) -> tuple[list[str], list[str]]:
    """Return the names of the declared services of a project, and its errors as CODE: message."""
    project = read(text)
    assert project.valid, reading_problems(project)
    translation = translate(project, ComposeSettings(), lambda _path, **_: FoundPath("absent"))
    documents, others = parsed_documents(translation)
    desired = resolve(documents, problems=others)
    errors = [
        f"{p.line} {p.code}: {p.message}" for p in desired.problems if p.severity is Severity.ERROR
    ]
    assert (desired.blind, desired.blind_namespaces) == (False, frozenset())
    return sorted(service.key.name for service in desired.services), errors


@pytest.mark.parametrize(
    ("body", "attribute"),
    [
        ("models: [llm]", "models"),
        ("models: {llm: {endpoint_var: URL, model_var: MODEL}}", "models"),
        ("use_api_socket: true", "use_api_socket"),
        ("networks: {default: {interface_name: eth9}}", "networks.default.interface_name"),
        ("annotations: {a: b}", "annotations"),
        ("annotations: [a=b]", "annotations"),
        ("credential_spec: {config: gmsa}", "credential_spec"),
        ("credential_spec: {file: my-gmsa.json}", "credential_spec"),
        ("credential_spec: {registry: my-gmsa}", "credential_spec"),
    ],
)
def test_an_attribute_refuses_its_service_alone(body: str, attribute: str) -> None:
    text = (
        f"services:\n  web:\n    image: x:1\n    {body}\n{OTHER}models: {{llm: {{model: a/b}}}}\n"
    )
    names, errors = found(text)
    assert names == ["other"]
    assert [error.partition(" is not supported")[0] for error in errors] == [
        f"4 compose.refused: {attribute}"
    ]


def test_a_service_of_a_provider_is_refused_alone() -> None:
    text = f"services:\n  db:\n    provider: {{type: awesomecloud, options: {{size: 5}}}}\n{OTHER}"
    names, (error,) = found(text)
    assert names == ["other"]
    assert error.startswith("3 compose.refused: provider is not supported: a provider is")


def test_a_model_without_a_service_disturbs_nobody() -> None:
    assert found(f"services:\n{OTHER}models: {{llm: {{model: ai/model}}}}\n") == (["other"], [])


def test_models_of_several_files_merge() -> None:
    base = "services:\n  web: {image: 'x:1', models: [a]}\n"
    over = "services:\n  web: {models: {b: {model_var: M}}}\n"
    project = read({"shop/compose.yaml": base, "shop/compose.override.yaml": over})
    assert project.valid, reading_problems(project)


@pytest.mark.parametrize("word", ["daily", "weekly", "refresh", "every_12h", "every_1w2d"])
def test_a_pull_policy_by_the_clock_looks_at_new_revisions(word: str) -> None:
    project = read(f"services:\n  web:\n    image: x:1\n    pull_policy: {word}\n")
    assert project.valid, reading_problems(project)
    translation = translate(project, ComposeSettings(), lambda _path, **_: FoundPath("absent"))
    (document,) = translation.documents
    value: Any = document.value
    assert value["spec"]["pullPolicy"] == "Always"
    (warning,) = translation.problems
    assert (warning.severity, warning.line) == (Severity.WARNING, 4)
    assert f"pull_policy {word}: the tag is looked up for each new revision" in warning.message


@pytest.mark.parametrize("word", ["hourly", "every_", "every_5", "everything", "daily\n"])
def test_another_pull_policy_is_a_mistake(word: str) -> None:
    project = read(f"services:\n  web:\n    image: x:1\n    pull_policy: {word!r}\n")
    assert [p.code for p in project.problems] == ["compose.value"]


FILES_OF_VARIABLES = """\
services:
  web: {image: 'x:1', configs: [c]}
  lost: {image: 'x:1', configs: [gone]}
  spy: {image: 'x:1', secrets: [s]}
configs:
  c: {environment: TEXT}
  gone: {environment: NONE}
secrets:
  s: {environment: TEXT}
"""


def test_a_config_of_a_variable_is_delivered_and_a_secret_is_refused_with_its_service() -> None:
    project = read({"shop/compose.yaml": FILES_OF_VARIABLES, "shop/.env": "TEXT=hello\n"})
    translation = translate(project, ComposeSettings(), lambda _path, **_: FoundPath("absent"))
    documents, others = parsed_documents(translation)
    desired = resolve(documents, problems=others)
    assert [service.key.name for service in desired.services] == ["web"]
    assert [dict(config.spec.data) for config in desired.configs] == [{"c": "hello"}]
    errors = sorted(
        f"{p.field}: {p.code}" for p in desired.problems if p.severity is Severity.ERROR
    )
    assert errors == [
        "configs.gone.environment: compose.no-value",
        "secrets.s.environment: compose.refused",
        "spec.mounts[0].source: config.broken",
        "spec.mounts[0].source: secret.broken",
    ]
