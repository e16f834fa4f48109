"""Problems in words: what was found at a place, what was expected, what to do.

Texts that users wrote are not repeated, since any of them may be a secret; keys, numbers and truth
values are.
"""

from __future__ import annotations

import difflib
import json
import typing
from collections.abc import Iterator, Mapping

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from controller.core.yamltext import Document, Path
from controller.model.errors import Problem, Severity
from controller.model.quantities import format_bytes, format_duration_ms

# What is said of each kind of error that pydantic tells.
_EXPECTED = {
    "string_type": "a text",
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


def explain(document: Document, model: type[BaseModel], detail: ErrorDetails) -> Problem:
    """Return the problem that one error of pydantic's is."""
    path = value_path(document.value, detail["loc"])
    name, kind = dotted(path), detail["type"]
    if kind == "extra_forbidden":
        known = sorted(_known_keys(model, detail["loc"][:-1]))
        return problem_at(
            document,
            path,
            "field.unknown",
            f"unknown key {path[-1]!r}" + (f" in {dotted(path[:-1])}" if path[:-1] else ""),
            expected=f"one of {', '.join(known)}" if known else "",
            remedy=did_you_mean(str(path[-1]), known),
            at_key=True,
        )
    if kind == "missing":
        remedy = f"write {path[-1]}"
        message = f"{name} is missing"
        return problem_at(document, path[:-1], "field.missing", message, remedy=remedy, at_key=True)
    code = "field.type" if kind in _EXPECTED else "field.value"
    message, expected, remedy = _words(path, detail)
    return problem_at(document, path, code, message, expected=expected, remedy=remedy)


def _words(path: Path, detail: ErrorDetails) -> tuple[str, str, str]:
    """Return message, expectation and remedy of a value that doesn't fit."""
    name, kind, given = dotted(path), detail["type"], detail.get("input")
    context: Mapping[str, object] = detail.get("ctx") or {}
    match kind:
        case "union_tag_not_found" | "union_tag_invalid":
            return f"{name} has no type that is known", "type: bind, volume or tmpfs", ""
        case "enum" | "literal_error":
            expected = str(context.get("expected", "")).replace("'", "")
            options = expected.replace(" or ", ", ").split(", ")
            remedy = did_you_mean(given, options) if isinstance(given, str) else ""
            return f"{name} is none of its values", expected, remedy
        case _ if kind in _EXPECTED:
            return f"{name} is {word_for(given)}", _EXPECTED[kind], _quotes(kind, given)
        case "value_error":
            text = str(context.get("error", detail["msg"]))
            if text.startswith("expected "):
                return f"{name} can't be used as it is", text.removeprefix("expected "), ""
            return f"{name}: {text}", "", ""
        case "greater_than_equal":
            return f"{name} is too small", f"at least {_bound(path, context.get('ge'))}", ""
        case "less_than_equal":
            return f"{name} is too large", f"at most {_bound(path, context.get('le'))}", ""
        case "too_short":
            return f"{name} is empty", "", "write an item, or leave the field out"
        case _:
            return f"{name} is out of bounds", detail["msg"].removeprefix("Input should be "), ""


def _bound(path: Path, bound: object) -> object:
    """Return a bound in the unit that users write it in."""
    if path and path[-1] in {"memory", "shm", "size", "maxSize"} and isinstance(bound, int):
        return format_bytes(bound)
    durations = {"interval", "timeout", "startPeriod", "stopGracePeriod"}
    if path and path[-1] in durations and isinstance(bound, int):
        return format_duration_ms(bound)
    return bound


def _quotes(kind: str, given: object) -> str:
    if kind == "string_type" and isinstance(given, bool | int | float):
        return f'put quotes around it: "{json.dumps(given)}"'
    if kind != "string_type" and isinstance(given, str):
        return "remove the quotes, if there are any"
    return ""


def problem_at(
    document: Document,
    path: Path,
    code: str,
    message: str,
    *,
    expected: str = "",
    remedy: str = "",
    severity: Severity = Severity.ERROR,
    at_key: bool = False,
) -> Problem:
    """Return a problem at the place of the value at *path*, or of its key."""
    place = document.locate_key(path) if at_key else document.locate(path)
    return Problem(
        code,
        message,
        document.file,
        place.line,
        place.column,
        expected,
        remedy,
        severity,
        field=dotted(path) if path else "",
    )


def value_path(value: object, location: tuple[str | int, ...]) -> Path:
    """Return a validator's location without the words that aren't in the value (union members)."""
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


def dotted(path: Path) -> str:
    """Return a path as users read it: ``spec.ports[0].host``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "the document"


def word_for(value: object) -> str:
    """Return what kind of value it is, without what a text says."""
    match value:
        case None:
            return "empty"
        case bool():
            return f"the truth value {json.dumps(value)}"
        case int() | float():
            return f"the number {json.dumps(value)}"
        case str():
            return "a text"
        case list():
            return "a list"
        case _:
            return "a mapping"


def did_you_mean(word: str, known: typing.Iterable[str]) -> str:
    """Return the remedy that names the closest of the known words, or ''."""
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return f"did you mean {by_lower[close[0]]}?" if close else ""


def _known_keys(model: type[BaseModel], location: tuple[str | int, ...]) -> set[str]:
    """Return the keys that the model at a location has."""
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
    """Return the member of a union that a model is, or ''."""
    field = model.model_fields.get("type")
    options = typing.get_args(field.annotation) if field else ()
    return str(options[0]) if options else ""


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _models_in(argument)
