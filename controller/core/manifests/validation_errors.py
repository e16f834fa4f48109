"""Validation errors as problems: the fault at a place, the expectation, the remedy.

Texts of the user are not repeated, because any of them can be a secret. Keys and numbers are
repeated, and texts in the form of a quantity, a port or a name.
"""

from __future__ import annotations

import copy
import difflib
import json
import typing
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from controller.core.encoding.text import kind_of, path_text
from controller.core.manifests.foreign_fields import (
    duration_remedy,
    form_remedy,
    key_remedy,
    size_remedy,
)
from controller.core.yaml.documents import Document, YamlPath
from controller.model.errors import Problem, Severity
from controller.model.names import API_VERSION
from controller.model.quantities import format_bytes, format_duration_ms

# The expected type for each type error of pydantic.
_EXPECTED = {
    "string_type": "a string",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
#: Examples for missing required fields.
_EXAMPLES = {
    "apiVersion": f"apiVersion: {API_VERSION}",
    "name": "name: my-service",
    "owner": "owner: my-team",
    "image": "image: ghcr.io/team/api:1.4.2",
    "container": "container: 8080",
    "port": "port: 8080",
    "source": "source: my-data",
    "target": "target: /data",
    "size": "size: 64Mi",
    "chart": "chart: my-chart",
    "metadata": "metadata: {name: my-service, owner: my-team}",
    "spec": "spec: {image: ghcr.io/team/api:1.4.2}",
}
_SIZES = {"memory", "memoryReservation", "shm", "disk", "size", "maxSize"}
_DURATIONS = {
    *("interval", "timeout", "startPeriod", "startInterval", "stopGracePeriod"),
    *("minHealthy", "healthDeadline", "progressDeadline"),
}
_MOUNT_TYPES = "bind, volume or tmpfs"


def explain(document: Document, model: type[BaseModel], detail: ErrorDetails) -> Problem:
    """Convert one error of pydantic to a problem."""
    path = value_path(document.value, detail["loc"])
    name, kind = dotted(path), detail["type"]
    if kind == "extra_forbidden":
        return _unknown_key(document, model, path, detail)
    if kind == "missing":
        example = _EXAMPLES.get(str(path[-1]), f"{path[-1]}: …")
        remedy = f"add {example}" + (f" below {dotted(path[:-1])}" if path[:-1] else "")
        message = f"{name} is missing"
        return FieldProblem(path, "field.missing", message, remedy=remedy, at_key=True).at(document)
    code = "field.type" if kind in _EXPECTED else "field.value"
    message, expected, remedy = _explain_value(path, detail)
    return FieldProblem(path, code, message, expected=expected, remedy=remedy).at(document)


def _unknown_key(
    document: Document, model: type[BaseModel], path: YamlPath, detail: ErrorDetails
) -> Problem:
    known = sorted(_known_keys(model, detail["loc"][:-1]))
    parent, key = path[:-1], str(path[-1])
    value = document.value
    is_service = isinstance(value, dict) and value.get("kind") == "Service" and path[0] == "spec"
    remedy = (key_remedy(path) if is_service else "") or did_you_mean(key, known)
    return FieldProblem(
        path,
        "field.unknown",
        f"unknown key {json.dumps(key)}" + (f" in {dotted(parent)}" if parent else ""),
        expected=f"one of {', '.join(known)}" if known else "",
        remedy=remedy,
        at_key=True,
    ).at(document)


def _explain_value(path: YamlPath, detail: ErrorDetails) -> tuple[str, str, str]:
    """Return message, expectation and remedy for an invalid value."""
    name, kind, given = dotted(path), detail["type"], detail.get("input")
    context: Mapping[str, object] = detail.get("ctx") or {}
    match kind:
        case "union_tag_not_found" | "union_tag_invalid":
            return _untyped_mount(name, given)
        case "enum" | "literal_error":
            options = str(context.get("expected", "")).replace("'", "").replace(" or ", ", ")
            remedy = did_you_mean(given, options.split(", ")) if isinstance(given, str) else ""
            return f"{name} is not one of {options}", options, remedy
        case _ if kind in _EXPECTED:
            expected = _EXPECTED[kind]
            return (
                f"{name} is {word_for(given)}; expected {expected}",
                expected,
                _type_remedy(path, detail),
            )
        case "value_error":
            return _explain_refused(path, str(context.get("error", detail["msg"])), given)
        case "greater_than_equal":
            bound = f"at least {_bound(path, context.get('ge'))}"
            return f"{name} is too small", bound, f"write {bound}"
        case "less_than_equal":
            bound = f"at most {_bound(path, context.get('le'))}"
            return f"{name} is too large", bound, f"write {bound}"
        case "too_short":
            return f"{name} is empty", "", "write an item, or leave the field out"
        case _:
            return f"{name} is out of bounds", detail["msg"].removeprefix("Input should be "), ""


def _explain_refused(path: YamlPath, text: str, given: object) -> tuple[str, str, str]:
    """Explain a validator's text: ``expected EXPECTATION``, ``FAULT; expected EXPECTATION`` or other."""
    fault, found, expected = text.rpartition("; expected ")
    if not found:
        if not text.startswith("expected "):
            return f"{dotted(path)}: {text}", "", ""
        expected = text.removeprefix("expected ")
        fault = _fault(expected, given)
    remedy = _value_remedy(path, given) or f"write {expected}"
    return f"{dotted(path)}{_shown_quantity(path, given)} {fault}", expected, remedy


def _untyped_mount(name: str, given: object) -> tuple[str, str, str]:
    if not isinstance(given, dict) or "type" in given:
        remedy = "write type: volume, or type: bind for a path of the host"
        return f"{name}.type is not one of {_MOUNT_TYPES}", _MOUNT_TYPES, remedy
    host = str(given.get("source", "")).startswith("/")
    kind = "bind" if host else "volume" if "source" in given else "tmpfs"
    return f"{name}.type is missing; expected {_MOUNT_TYPES}", _MOUNT_TYPES, f"add type: {kind}"


def _fault(expected: str, given: object) -> str:
    """Return the fault of a text or number. If a unit is expected, the fault is about the unit."""
    if " with a unit " not in expected or not isinstance(given, int | str):
        return "is not valid"
    if isinstance(given, str) and given[:1].isdigit() and not given.isdigit():
        return "has a unit that is not used here"
    return "has no unit" if str(given).isdigit() else "is not valid"


def _shown_quantity(path: YamlPath, given: object) -> str:
    """Return a quantity as written; '' for other values, which can be secret."""
    quantity = path[-1] in _SIZES | _DURATIONS
    if quantity and isinstance(given, str) and len(given) <= 20 and given.isalnum():
        return f" {json.dumps(given)}"
    return f" {given}" if quantity and isinstance(given, int) else ""


def _value_remedy(path: YamlPath, given: object) -> str:
    """Return the remedy for an invalid text of the right type."""
    last = path[-1]
    if last in _SIZES:
        return size_remedy(given) or "write a whole number with its unit, such as 512Mi"
    if last in _DURATIONS:
        return duration_remedy(given) or "write a whole number with its unit, such as 10s"
    if last == "stopSignal" and given in ("TERM", "INT", "QUIT", "HUP", "KILL", "USR1", "USR2"):
        return f"write SIG{given}"
    if last == "image" and isinstance(given, str) and given != given.lower():
        return "write the name in lower case"
    if last == "capAdd":
        return "write capabilities in capitals, such as CHOWN"
    return ""


def _type_remedy(path: YamlPath, detail: ErrorDetails) -> str:
    """Return the remedy for a value of the wrong type."""
    kind, given = detail["type"], detail.get("input")
    if kind == "string_type":
        if given is None:
            return 'write a value, or "" for an empty one'
        scalar = isinstance(given, bool | int | float)
        return f'quote it: "{json.dumps(given)}"' if scalar else ""
    if kind in ("int_type", "float_type", "bool_type"):
        return _unquote_remedy(kind, given)
    return form_remedy(path) if path[:1] == ("spec",) else ""


def _unquote_remedy(kind: str, given: object) -> str:
    """Return the remedy for a quoted number or boolean: the value without quotes."""
    if not isinstance(given, str) or len(given) > 20:
        return ""
    if kind == "bool_type":
        truth = {"true": "true", "yes": "true", "on": "true", "1": "true"}
        truth |= {"false": "false", "no": "false", "off": "false", "0": "false"}
        word = truth.get(given.lower())
        return f"write {word}, without quotes" if word else "write true or false"
    try:
        float(given) if kind == "float_type" else int(given)
    except ValueError:
        return "write a number in digits, such as 2"
    return f"remove the quotes: {given}"


def _bound(path: YamlPath, bound: object) -> object:
    """Return a bound in the unit of the files."""
    if path and path[-1] in _SIZES and isinstance(bound, int):
        return format_bytes(bound)
    if path and path[-1] in _DURATIONS and isinstance(bound, int):
        return format_duration_ms(bound)
    return bound


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """A problem of a field, without its file and line.

    A check of one document's fields yields it and does not need the document.
    """

    path: YamlPath
    code: str
    message: str
    _: KW_ONLY
    expected: str = ""
    remedy: str = ""
    severity: Severity = Severity.ERROR
    at_key: bool = False  # at the field's key, not at its value

    def at(self, document: Document) -> Problem:
        """Return the problem at its place in the document."""
        place = document.locate_key(self.path) if self.at_key else document.locate(self.path)
        return Problem(
            self.code,
            self.message,
            place.file or document.file,
            place.line,
            place.column,
            self.expected,
            self.remedy,
            self.severity,
            field=dotted(self.path) if self.path else "",
        )


def value_path(value: object, location: tuple[str | int, ...]) -> YamlPath:
    """Return a validator's location without names that are not in the value (union members)."""
    path: list[str | int] = []
    for number, part in enumerate(location):
        last = number == len(location) - 1
        if isinstance(value, dict) and (part in value or last):
            path.append(part)
            value = value.get(str(part))
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            path.append(part)
            value = value[part]
    return tuple(path)


#: Substitutes for missing or invalid fields that a document requires.
_SUBSTITUTES: Mapping[YamlPath, object] = {
    ("metadata", "name"): "x",
    ("metadata", "owner"): "x",
    ("spec",): {"image": "x:1"},
    ("spec", "image"): "x:1",
    ("spec", "chart"): "x",
    ("spec", "git"): {"url": "https://example.org/x.git"},
    ("spec", "git", "url"): "https://example.org/x.git",
    ("apiVersion",): API_VERSION,
}


def without_errors(value: dict[str, object], details: list[ErrorDetails]) -> object:
    """Return a document without its invalid parts, so the other parts can be checked.

    The removal of an item also removes the items after it, because their indexes would be wrong.
    """
    whole = copy.deepcopy(value)
    for detail in details:
        path = value_path(value, detail["loc"])
        if not path:
            continue
        if path in _SUBSTITUTES:
            _put_substitute(whole, path)
            continue
        if detail["type"] == "missing":
            path = path[:-1]
        _cut(whole, path)
    for path in _SUBSTITUTES:
        if path[0] in ("metadata", "apiVersion"):
            _put_substitute(whole, path, only_if_absent=True)
    return whole


def _put_substitute(value: object, path: YamlPath, *, only_if_absent: bool = False) -> None:
    *parents, last = path
    for part in parents:
        if not isinstance(value, dict) or not isinstance(value.setdefault(part, {}), dict):
            return
        value = value[part]
    if isinstance(value, dict) and not (only_if_absent and last in value):
        value[last] = _SUBSTITUTES[path]


def _cut(value: object, path: YamlPath) -> None:
    """Remove the member at a path, or an item with all items after it in its list."""
    for index, part in enumerate(path):
        if isinstance(value, list) and isinstance(part, int):
            # An invalid item is removed as a whole.
            del value[part:]
            return
        if not isinstance(value, dict) or part not in value:
            return
        if index == len(path) - 1:
            del value[part]
            return
        value = value[part]


def dotted(path: YamlPath) -> str:
    """Return a path in the notation of messages: ``spec.ports[0].host``."""
    return path_text(path) or "the document"


def word_for(value: object) -> str:
    """Return the kind of a value, without the content of a text."""
    match value:
        case None:
            return "empty"
        case int() | float() if not isinstance(value, bool):
            return f"the number {json.dumps(value)}"
        case _:
            return kind_of(value)


def did_you_mean(word: str, known: typing.Iterable[str], *, cutoff: float = 0.6) -> str:
    """Return the remedy with the closest known word, or ''."""
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=cutoff)
    return f"did you mean {by_lower[close[0]]}?" if close else ""


def _known_keys(model: type[BaseModel], location: tuple[str | int, ...]) -> set[str]:
    """Return the keys of the model at a location."""
    models = {model}
    for part in location:
        if isinstance(part, int):
            continue
        members = {candidate for candidate in models if _tag(candidate) == part}
        if members:
            models = members
            continue
        models = {
            inner
            for candidate in models
            for field in candidate.model_fields.values()
            if field.alias == part
            for inner in _models_in(field.annotation)
        }
    return {
        field.alias or name
        for candidate in models
        for name, field in candidate.model_fields.items()
    }


def _tag(model: type[BaseModel]) -> str:
    """Return the tag of a model that is a member of a union, or ''."""
    field = model.model_fields.get("type")
    options = typing.get_args(field.annotation) if field else ()
    return str(options[0]) if options else ""


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _models_in(argument)
