"""Releases rendered by their charts: templates with default values and a schema of the values.

A chart is read whole first, and rendered without any reads. An error in the chart, in a
Release's values or in the rendered documents is a problem with its place. Problems never repeat
values.

Charts as read, and the documents that Releases render to. Nothing here renders.

A chart is read whole first, and rendered without any reads.

A Release and its chart as the request to the chart worker, and the worker's answer in parts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from pydantic import ValidationError as ModelError
from referencing import Registry

from controller.core.charts.templates import line_of, render_template
from controller.core.manifests.declaration import Declaration, ParsedDocument
from controller.core.manifests.parse import parse_document, read_text
from controller.core.manifests.validation_errors import FieldProblem, dotted, explain
from controller.core.yaml.documents import MAX_PROBLEMS, Document, YamlFault, YamlPath, compose_all
from controller.core.yaml.documents import YamlPath as ValuePath
from controller.model.desired.spec.fields import Model
from controller.model.desired.spec.service import ReleaseSpec
from controller.model.errors import Problem
from controller.model.names import SERVICE_NAME_MAX, is_dns_label

MAX_RELEASES = 200
MAX_TEMPLATES = 100
#: Bytes of a chart's files together.
MAX_CHART_BYTES = 4 * 1024 * 1024
#: Characters that one Release renders to, and values, with aliases expanded.
MAX_RENDERED = 2 * 1024 * 1024
MAX_RENDERED_VALUES = 200_000

CHART, VALUES, SCHEMA, TEMPLATES = "Chart.yaml", "values.yaml", "values.schema.json", "templates"

#: The code of a Release that takes too much time or memory, and of a Release that a later reading renders.
TOO_COSTLY, DEFERRED = "chart.too-costly", "chart.deferred"
_COSTLY_REMEDY = (
    "simplify the chart at this place: patterns, references and uniqueItems of the schema,"
    " loops and nested values of the templates"
)
_DEFERRED_REMEDY = "nothing to do here; correct the Releases with chart.too-costly"

#: The texts of a Release's templates by file, or its problems.
RenderedTexts = dict[str, str] | tuple[Problem, ...]


class RenderLimitError(BaseException):
    """The time of a Release is used up. No ``Exception``, because libraries handle those."""

    def __init__(self, seconds: float, *, is_shortened: bool = False) -> None:
        super().__init__(f"{seconds:g} s of processor time")
        #: Earlier Releases of the same reading took the time.
        self.is_shortened = is_shortened


#: Returns the context in which one Release is rendered, within limits.
RenderLimit = Callable[[], AbstractContextManager[None]]


def limit_problem(error: RenderLimitError | MemoryError, file: str, line: int = 0) -> Problem:
    """Return the problem of a Release that reached a limit of time or memory at *file*."""
    if isinstance(error, RenderLimitError) and error.is_shortened:
        message = f"the Release takes more than {error}, and others took the time of this reading"
        return Problem(DEFERRED, message, file, line, remedy=_DEFERRED_REMEDY)
    much = f"more than {error}" if isinstance(error, RenderLimitError) else "too much memory"
    message = f"rendering takes {much} here"
    return Problem(TOO_COSTLY, message, file, line, remedy=_COSTLY_REMEDY)


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

    @property
    def size(self) -> int:
        """The number of characters of all files."""
        return sum(len(text) for _, text in self.files)

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


def too_big_chart(place: str) -> Problem:
    """Return the problem of a chart with too many bytes; *place* is its folder's name."""
    message = f"a chart has at most {MAX_CHART_BYTES // 1024**2} MiB"
    return Problem("chart.too-many", message, place)


def documents_of(release: Declaration, rendered: RenderedTexts) -> tuple[ParsedDocument, ...]:
    """Return the documents that a Release rendered to, with their problems. Never raises.

    Each document gets the Release's namespace and owner.
    """
    if not isinstance(rendered, dict):
        # Without a key the document possibly declares anything; its problems are the Release's.
        problems = tuple(replace(problem, key=release.key) for problem in rendered)
        return (ParsedDocument(None, problems, None),)
    documents: list[ParsedDocument] = []
    for file, text in rendered.items():
        if sum(each.nodes for each in documents) > MAX_RENDERED_VALUES:
            message = f"the chart gives more than {MAX_RENDERED_VALUES} values"
            problem = Problem("chart.template", message, file, key=release.key)
            return (ParsedDocument(None, attributed((problem,), release), None),)
        for document in compose_all(text, file):
            parsed = parse_document(_with_metadata(document, release))
            declaration = parsed.declaration
            if declaration is not None:
                source = replace(declaration.source, release=described(release))
                declaration = replace(declaration, source=source)
            problems = attributed(parsed.problems, release)
            read = ParsedDocument(
                declaration, problems, parsed.key, release.key, nodes=parsed.nodes
            )
            documents.append(read)
    return tuple(documents)


def attributed(problems: tuple[Problem, ...], release: Declaration) -> tuple[Problem, ...]:
    """Add the Release to the messages, because line numbers are of the rendered text."""
    suffix = f" (rendered for {described(release)})"
    return tuple(replace(problem, message=problem.message + suffix) for problem in problems)


def described(release: Declaration) -> str:
    """Return the Release with the place of its document."""
    return f"{release.key}, {release.place}"


def unusable(
    release: Declaration, problems: tuple[Problem, ...] | list[Problem]
) -> tuple[Problem, ...]:
    """Return the problem of a Release without a usable chart, and the chart's own problems."""
    assert isinstance(release.spec, ReleaseSpec), "only a Release is rendered"
    first = problems[0]
    where = f" ({first.file}:{first.line})" if first.line else ""
    message = f"chart {release.spec.chart!r} can't be used: {first.message}{where}"
    remedy = first.remedy or "see the chart's problems, and `trimtab render`"
    path = ("spec", "chart")
    own = FieldProblem(path, "chart.unusable", message, remedy=remedy).at(release.document)
    return (own, *(problem for problem in problems if problem.file))


def _with_metadata(document: Document, release: Declaration) -> Document:
    """Return a rendered document with the namespace and owner of its Release."""
    value = document.value
    metadata = value.get("metadata") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(metadata, dict):
        return document
    faults = list(document.faults)
    if value.get("kind") == "Release":
        problem = FieldProblem(
            ("kind",), "release.nested", "a chart can't hold another Release"
        ).at(document)
        faults.append(YamlFault(("kind",), problem))
    required = {"namespace": release.key.namespace, "owner": release.owner}
    for name, value_required in required.items():
        if metadata.get(name, value_required) != value_required:
            message = f"metadata.{name} isn't the Release's, which is {value_required}"
            path: YamlPath = ("metadata", name)
            remedy = f"leave it out, or write {{{{ release.{name} }}}}"
            problem = FieldProblem(path, f"release.{name}", message, remedy=remedy).at(document)
            faults.append(YamlFault(path, problem))
    value = {**value, "metadata": {**metadata, **required}}
    return replace(document, value=value, faults=tuple(faults))


#: Characters of a text in one part: fewer than ``framed_child.PART_MAX`` bytes with every escape.
_PART_CHARACTERS = 16 * 1024
_PLACE = ("line", "column")
_TEXTS = ("code", "message", "file", "expected", "remedy", "field")


@dataclass(frozen=True, slots=True)
class RenderRequest:
    """One request: JSON, and the texts of the chart."""

    body: dict[str, Any]
    texts: tuple[bytes, ...]


def request_of(release: Declaration, chart: Chart) -> RenderRequest:
    """Return the request for a Release. The chart has no problems."""
    texts = [text.encode(errors="surrogateescape") for _, text in chart.files]
    body = {
        "document": release.document.text,
        "file": release.document.file,
        "line": release.document.line,
        "name": chart.name,
        "place": chart.place,
        "files": [[name, len(text)] for (name, _), text in zip(chart.files, texts, strict=True)],
    }
    return RenderRequest(body, tuple(texts))


def read_request(body: Mapping[str, Any], raw: bytes) -> tuple[Declaration, Chart]:
    """Return the Release and the chart of a request."""
    files, at = [], 0
    for name, length in body["files"]:
        text = raw[at : at + length].decode(errors="surrogateescape")
        files.append((name, text))
        at += length
    # The lines of problems count from the beginning of the file.
    document = "\n" * (body["line"] - 1) + body["document"]
    (parsed,) = read_text(document, body["file"])
    assert parsed.declaration is not None, "only a Release without errors is rendered"
    return parsed.declaration, Chart(body["name"], body["place"], tuple(files))


def parts_of(rendered: RenderedTexts) -> Iterator[dict[str, Any]]:
    """Yield an answer in parts."""
    if not isinstance(rendered, dict):
        for problem in rendered:
            texts = {name: getattr(problem, name) for name in _TEXTS}
            yield {"problem": texts | {name: getattr(problem, name) for name in _PLACE}}
        return
    for file, text in rendered.items():
        for at in range(0, max(len(text), 1), _PART_CHARACTERS):
            yield {"file": file, "text": text[at : at + _PART_CHARACTERS]}


def read_parts(answer: Mapping[str, Any]) -> RenderedTexts:
    """Return the texts, or the problems, of an answer.

    Raises:
        ValueError: the answer has another form.
    """
    texts: dict[str, list[str]] = {}
    problems: list[Problem] = []
    try:
        for part in answer["parts"]:
            if "problem" in part:
                problems.append(_problem(part["problem"]))
            else:
                texts.setdefault(_text(part["file"]), []).append(_text(part["text"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"a part of another form: {error!r:.100}") from None
    return tuple(problems) or {file: "".join(parts) for file, parts in texts.items()}


def _problem(value: Mapping[str, Any]) -> Problem:
    line, column = (value[name] for name in _PLACE)
    if not isinstance(line, int) or not isinstance(column, int):
        raise TypeError("a place")
    code, message, file, expected, remedy, field = (_text(value[name]) for name in _TEXTS)
    return Problem(code, message, file, line, column, expected, remedy, field=field)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


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
        return None, [FieldProblem((), "chart.invalid", f"{CHART} is no mapping").at(document)]
    try:
        chart_file = ChartFile.model_validate_json(json.dumps(document.value))
    except ModelError as error:
        details = error.errors(include_url=False)[:MAX_PROBLEMS]
        return None, [explain(document, ChartFile, detail) for detail in details]
    if chart_file.name != chart.name:
        message = f"the chart calls itself {chart_file.name!r}, and its folder {chart.name!r}"
        return None, [FieldProblem(("name",), "chart.invalid", message).at(document)]
    return chart_file, []


def _parse_defaults(chart: Chart) -> tuple[Document | None, list[Problem]]:
    file, text = f"{chart.place}/{VALUES}", chart.text(VALUES)
    document, problems = _compose_single(text or "", file)
    if document is not None and not isinstance(document.value, dict):
        problems.append(FieldProblem((), "chart.invalid", f"{VALUES} is no mapping").at(document))
    return document, problems


def _compose_single(text: str, file: str) -> tuple[Document | None, list[Problem]]:
    """Return the single document of a file, None for an empty file, and its problems."""
    documents = compose_all(text, file)
    problems = [fault.problem for document in documents for fault in document.faults]
    if len(documents) > 1:
        message = "one document is all that this file may hold"
        problems.append(FieldProblem((), "chart.invalid", message).at(documents[1]))
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
        return [FieldProblem((), "chart.schema", f"{SCHEMA} is no object").at(document)]
    try:
        Draft202012Validator.check_schema(schema)
        # An empty registry: a reference in a schema never causes a download.
        validator = Draft202012Validator(schema, registry=Registry())
        errors = list(islice(validator.iter_errors(values), MAX_PROBLEMS))
    except SchemaError as error:
        message = f"the schema is wrong: {error.message[:300]}"
        return [FieldProblem(tuple(error.absolute_path), "chart.schema", message).at(document)]
    except (RenderLimitError, MemoryError) as error:
        return [*attributed((limit_problem(error, file, document.place.line),), release)]
    except Exception as error:  # noqa: BLE001 - no schema is allowed to stop the load
        message = f"the schema can't be used: {type(error).__name__}"
        return [FieldProblem((), "chart.schema", message).at(document)]
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
