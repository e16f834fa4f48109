"""Releases rendered by their charts: templates with default values and a schema of the values.

A chart is read whole first, and rendered without any reads. An error in the chart, in a
Release's values or in the rendered documents is a problem with its place. Problems never repeat
values.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from itertools import islice
from typing import Literal

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from pydantic import ValidationError as ModelError
from referencing import Registry

from controller.core.charts.chart import (
    CHART,
    MAX_RENDERED,
    SCHEMA,
    VALUES,
    Chart,
    RenderedTexts,
    RenderLimit,
    RenderLimitError,
    attributed,
    documents_of,
    limit_problem,
    unusable,
)
from controller.core.charts.templates import line_of, render_template
from controller.core.manifests.declaration import Declaration, ParsedDocument
from controller.core.manifests.validation_errors import dotted, explain, problem_at
from controller.core.yaml.documents import MAX_PROBLEMS, Document, compose_all
from controller.core.yaml.documents import YamlPath as ValuePath
from controller.model.desired.spec.fields import Model
from controller.model.desired.spec.service import ReleaseSpec
from controller.model.errors import Problem


class ChartFile(Model):
    """The fields of Chart.yaml."""

    api_version: Literal["trimtab/v1"]
    name: str
    version: str
    description: str = ""


def render_release(
    release: Declaration, chart: Chart, limit: RenderLimit = nullcontext
) -> tuple[ParsedDocument, ...]:
    """Return the documents that a Release renders to, with their problems. Never raises."""
    return documents_of(release, render_texts(release, chart, limit))


def render_texts(
    release: Declaration, chart: Chart, limit: RenderLimit = nullcontext
) -> RenderedTexts:
    """Return the text of each template of a Release, or the problems. Never raises.

    *limit* bounds the time: it raises ``RenderLimitError`` in the rendering.
    """
    assert isinstance(release.spec, ReleaseSpec), "only a Release is rendered"
    if chart.problems:
        return unusable(release, chart.problems)
    try:
        with limit():
            return _render_texts(release, release.spec, chart)
    except (RenderLimitError, MemoryError) as error:
        return attributed((limit_problem(error, chart.place),), release)


def _render_texts(release: Declaration, spec: ReleaseSpec, chart: Chart) -> RenderedTexts:
    chart_file, problems = _parse_chart_file(chart)
    defaults, default_problems = _parse_defaults(chart)
    problems += default_problems
    if chart_file is None or problems:
        return unusable(release, problems)
    values = merge(defaults.value if defaults else {}, spec.values)
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
    length = 0
    for file, template in chart.templates():
        try:
            result = render_template(template, file, context)
        except (RenderLimitError, MemoryError) as error:
            problems.append(limit_problem(error, file, line_of(error)))
            break
        if isinstance(result, Problem):
            problems.append(result)
            continue
        length += len(result)
        if length > MAX_RENDERED:
            message = f"the chart gives more than {MAX_RENDERED // 1024} KiB"
            problems.append(Problem("chart.template", message, chart.place))
            break
        texts[file] = result
    return attributed(tuple(problems), release) if problems else texts


def merge(defaults: object, values: object) -> object:
    """Return *values* over *defaults*: mappings are merged by member, other values replaced."""
    if isinstance(defaults, Mapping) and isinstance(values, Mapping):
        return {
            **defaults,
            **{key: merge(defaults.get(key), value) for key, value in values.items()},
        }
    return values


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
    except (RenderLimitError, MemoryError) as error:
        return [*attributed((limit_problem(error, file, document.place.line),), release)]
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
