"""Releases rendered by their charts: templates with default values and a schema of the values.

A chart is read whole first, and rendered without any reads. An error in the chart, in a
Release's values or in the rendered documents is a problem with its place. Problems never repeat
values.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from pydantic import ValidationError as ModelError
from referencing import Registry

from controller.core.charts.templates import render_template
from controller.core.manifests.declaration import Declaration, ParsedDocument
from controller.core.manifests.parse import parse_document
from controller.core.manifests.validation_errors import dotted, explain, problem_at
from controller.core.yaml.documents import (
    MAX_PROBLEMS,
    Document,
    YamlFault,
    compose_all,
)
from controller.core.yaml.documents import YamlPath as ValuePath
from controller.model.desired.spec.fields import Model
from controller.model.desired.spec.service import ReleaseSpec
from controller.model.errors import Problem
from controller.model.names import SERVICE_NAME_MAX, is_dns_label

MAX_RELEASES = 200
MAX_TEMPLATES = 100
#: Characters that one Release renders to.
MAX_RENDERED = 2 * 1024 * 1024

CHART, VALUES, SCHEMA, TEMPLATES = "Chart.yaml", "values.yaml", "values.schema.json", "templates"


class ChartFile(Model):
    """The fields of Chart.yaml."""

    api_version: Literal["trimtab/v1"]
    name: str
    version: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """The texts of a chart. A chart with problems is unusable."""

    name: str
    #: The printable name of the folder.
    place: str = ""
    #: Pairs of a printable file name and a text.
    files: tuple[tuple[str, str], ...] = ()
    problems: tuple[Problem, ...] = ()
    #: The resolved path of the folder; '' for an unusable chart.
    top: str = ""

    def text(self, name: str) -> str | None:
        """Return the text of a file in the chart's folder, None for a missing file."""
        return dict(self.files).get(f"{self.place}/{name}")

    def templates(self) -> Iterator[tuple[str, str]]:
        """Yield (name, text) of each template."""
        prefix = f"{self.place}/{TEMPLATES}/"
        return ((name, text) for name, text in self.files if name.startswith(prefix))


def unnamed(name: str) -> Chart | None:
    """Return the chart with the problem of its name; None for a possible name."""
    if is_dns_label(name, length=SERVICE_NAME_MAX):
        return None
    expected = f"lower-case letters, digits and '-', at most {SERVICE_NAME_MAX} characters"
    problem = Problem("chart.missing", "no chart can have that name", expected=expected)
    return Chart(name, problems=(problem,))


def too_many_templates(place: str) -> Problem:
    """Return the problem of a chart with too many templates; *place* is its folder's name."""
    message = f"a chart has at most {MAX_TEMPLATES} templates"
    return Problem("chart.too-many", message, f"{place}/{TEMPLATES}")


def render_release(release: Declaration, chart: Chart) -> tuple[ParsedDocument, ...]:
    """Return the documents that a Release renders to, with their problems. Never raises.

    Each document gets the Release's namespace and owner.
    """
    rendered = render_texts(release, chart)
    if not isinstance(rendered, dict):
        # Without a key the document possibly declares anything; its problems are the Release's.
        problems = tuple(replace(problem, key=release.key) for problem in rendered)
        return (ParsedDocument(None, problems, None),)
    documents: list[ParsedDocument] = []
    for file, text in rendered.items():
        for document in compose_all(text, file):
            parsed = parse_document(_with_metadata(document, release))
            declaration = parsed.declaration
            if declaration is not None:
                source = replace(declaration.source, release=_describe(release))
                declaration = replace(declaration, source=source)
            problems = _attribute(parsed.problems, release)
            documents.append(ParsedDocument(declaration, problems, parsed.key, release.key))
    return tuple(documents)


def render_texts(release: Declaration, chart: Chart) -> dict[str, str] | tuple[Problem, ...]:
    """Return the text of each template of a Release, or the problems. Never raises."""
    assert isinstance(release.spec, ReleaseSpec), "only a Release is rendered"
    if chart.problems:
        return _unusable(release, chart.problems)
    chart_file, problems = _parse_chart_file(chart)
    defaults, default_problems = _parse_defaults(chart)
    problems += default_problems
    if chart_file is None or problems:
        return _unusable(release, problems)
    values = merge(defaults.value if defaults else {}, release.spec.values)
    problems = _check_values(release, chart, defaults, values)
    if problems:
        return tuple(problems)
    context = {
        "release": {
            "name": release.key.name,
            "namespace": release.key.namespace,
            "owner": release.owner,
        },
        "values": values,
        "chart": {
            "name": chart_file.name,
            "version": chart_file.version,
            "description": chart_file.description,
        },
    }
    texts: dict[str, str] = {}
    for file, template in chart.templates():
        result = render_template(template, file, context)
        if isinstance(result, Problem):
            problems.append(result)
        else:
            texts[file] = result
    if sum(map(len, texts.values())) > MAX_RENDERED:
        message = f"the chart gives more than {MAX_RENDERED // 1024} KiB"
        problems.append(Problem("chart.template", message, chart.place))
    return _attribute(tuple(problems), release) if problems else texts


def merge(defaults: object, values: object) -> object:
    """Return *values* over *defaults*: mappings are merged by member, other values replaced."""
    if isinstance(defaults, Mapping) and isinstance(values, Mapping):
        return {
            **defaults,
            **{key: merge(defaults.get(key), value) for key, value in values.items()},
        }
    return values


def _unusable(
    release: Declaration, problems: tuple[Problem, ...] | list[Problem]
) -> tuple[Problem, ...]:
    assert isinstance(release.spec, ReleaseSpec), "only a Release is rendered"
    first = problems[0]
    where = f" ({first.file}:{first.line})" if first.line else ""
    message = f"chart {release.spec.chart!r} can't be used: {first.message}{where}"
    remedy = first.remedy or "see the chart's problems, and `trimtab render`"
    path = ("spec", "chart")
    own = problem_at(release.document, path, "chart.unusable", message, remedy=remedy)
    return (own, *(problem for problem in problems if problem.file))


def _attribute(problems: tuple[Problem, ...], release: Declaration) -> tuple[Problem, ...]:
    """Add the Release to the messages, because line numbers are of the rendered text."""
    suffix = f" (rendered for {_describe(release)})"
    return tuple(replace(problem, message=problem.message + suffix) for problem in problems)


def _describe(release: Declaration) -> str:
    return f"{release.key}, {release.place}"


def _with_metadata(document: Document, release: Declaration) -> Document:
    """Return a rendered document with the namespace and owner of its Release."""
    value = document.value
    metadata = value.get("metadata") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(metadata, dict):
        return document
    faults = list(document.faults)
    if value.get("kind") == "Release":
        problem = problem_at(
            document, ("kind",), "release.nested", "a chart can't hold another Release"
        )
        faults.append(YamlFault(("kind",), problem))
    required = {"namespace": release.key.namespace, "owner": release.owner}
    for name, value_required in required.items():
        if metadata.get(name, value_required) != value_required:
            message = f"metadata.{name} isn't the Release's, which is {value_required}"
            path: ValuePath = ("metadata", name)
            remedy = f"leave it out, or write {{{{ release.{name} }}}}"
            problem = problem_at(document, path, f"release.{name}", message, remedy=remedy)
            faults.append(YamlFault(path, problem))
    value = {**value, "metadata": {**metadata, **required}}
    return replace(document, value=value, faults=tuple(faults))


def _parse_chart_file(chart: Chart) -> tuple[ChartFile | None, list[Problem]]:
    file, text = f"{chart.place}/{CHART}", chart.text(CHART)
    if text is None:
        return None, [Problem("chart.missing", f"the chart has no {CHART}", file)]
    document, problems = _compose_single(text, file)
    if document is None or problems:
        return None, problems or [Problem("chart.invalid", f"{CHART} is empty", file)]
    if not isinstance(document.value, dict):
        return None, [problem_at(document, (), "chart.invalid", f"{CHART} is no mapping")]
    try:
        chart_file = ChartFile.model_validate_json(json.dumps(document.value))
    except ModelError as error:
        details = error.errors(include_url=False)[:MAX_PROBLEMS]
        return None, [explain(document, ChartFile, detail) for detail in details]
    if chart_file.name != chart.name:
        message = f"the chart calls itself {chart_file.name!r}, and its folder {chart.name!r}"
        return None, [problem_at(document, ("name",), "chart.invalid", message)]
    return chart_file, []


def _parse_defaults(chart: Chart) -> tuple[Document | None, list[Problem]]:
    file, text = f"{chart.place}/{VALUES}", chart.text(VALUES)
    document, problems = _compose_single(text or "", file)
    if document is not None and not isinstance(document.value, dict):
        problems.append(problem_at(document, (), "chart.invalid", f"{VALUES} is no mapping"))
    return document, problems


def _compose_single(text: str, file: str) -> tuple[Document | None, list[Problem]]:
    """Return the single document of a file, None for an empty file, and its problems."""
    documents = compose_all(text, file)
    problems = [fault.problem for document in documents for fault in document.faults]
    if len(documents) > 1:
        message = "one document is all that this file may hold"
        problems.append(problem_at(documents[1], (), "chart.invalid", message))
    return (documents[0] if documents else None), problems


def _check_values(
    release: Declaration, chart: Chart, defaults: Document | None, values: object
) -> list[Problem]:
    """Return the problems of the values by the chart's schema, if the chart has a schema."""
    file, text = f"{chart.place}/{SCHEMA}", chart.text(SCHEMA)
    if text is None:
        return []
    document, problems = _compose_single(text, file)
    if document is None or problems:
        return problems
    schema = document.value
    if not isinstance(schema, dict):
        return [problem_at(document, (), "chart.schema", f"{SCHEMA} is no object")]
    try:
        Draft202012Validator.check_schema(schema)
        # An empty registry: a reference in a schema never causes a download.
        validator = Draft202012Validator(schema, registry=Registry())
        errors = list(islice(validator.iter_errors(values), MAX_PROBLEMS))
    except SchemaError as error:
        message = f"the schema is wrong: {error.message[:300]}"
        return [problem_at(document, tuple(error.absolute_path), "chart.schema", message)]
    except Exception as error:  # noqa: BLE001 - no schema is allowed to stop the load
        message = f"the schema can't be used: {type(error).__name__}"
        return [problem_at(document, (), "chart.schema", message)]
    return [_value_problem(release, defaults, error) for error in errors]


def _value_problem(
    release: Declaration, defaults: Document | None, error: ValidationError
) -> Problem:
    """Return the problem of a value at its place: in the Release or in the defaults."""
    path: ValuePath = tuple(error.absolute_path)
    name = dotted(("values", *path))
    message, expected = f"{name} doesn't fit the chart's schema", ""
    match error.validator:
        case "required" | "additionalProperties" | "dependentRequired":
            # The messages of these validators contain keys, never values.
            message = f"{name}: {error.message}"
        case _:
            expected = f"{error.validator}: {json.dumps(error.validator_value)[:200]}"
    release_value: object = release.document.value
    is_in_release = _has(release_value, ("spec", "values", *path))
    document = release.document if is_in_release or defaults is None else defaults
    place = document.locate(("spec", "values", *path) if document is release.document else path)
    return Problem(
        "release.values", message, document.file, place.line, place.column, expected=expected
    )


def _has(value: object, path: ValuePath) -> bool:
    """Return True if *value* has a member at *path*."""
    for part in path:
        try:
            value = value[part]  # type: ignore[index]
        except (LookupError, TypeError):
            return False
    return True
