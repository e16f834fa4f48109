"""The JSON Schema of documents, from the models that validate them, with the texts of their fields.

Editors use the schema. The parser does not: some rules, such as the notation of durations, are only in
the models.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

from pydantic import BaseModel

from controller.core.manifests.parse import KINDS, AnyManifest, manifest_of
from controller.model.names import API_VERSION

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_COMMENT = re.compile(r"^\s*#: ?(.*)$")
_INLINE = re.compile(r"  # (.+)$")


def schema_of_kind(kind: str, model: type[AnyManifest]) -> dict[str, Any]:
    """Return the JSON Schema of a kind."""
    schema = _described(model)
    schema["properties"]["kind"] = {"const": kind}
    schema["properties"]["apiVersion"] = {"const": API_VERSION}
    return {"$schema": DIALECT, **schema, "title": f"trimtab {kind}"}


def schema_of_all() -> dict[str, Any]:
    """Return one JSON Schema for documents of every kind."""
    definitions: dict[str, Any] = {}
    branches = []
    for kind in KINDS:
        model = manifest_of(kind)
        assert model is not None, "KINDS lists known kinds"
        schema = schema_of_kind(kind, model)
        definitions |= schema.pop("$defs", {})
        schema.pop("$schema")
        branches.append(
            {"if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]}, "then": schema}
        )
    return {
        "$schema": DIALECT,
        "title": "trimtab documents",
        "type": "object",
        "required": ["apiVersion", "kind", "metadata"],
        "properties": {
            "apiVersion": {"const": API_VERSION},
            "kind": {"enum": [*KINDS]},
        },
        "allOf": branches,
        "$defs": definitions,
    }


def _described(model: type[BaseModel]) -> dict[str, Any]:
    """Return the schema of a model, with the comments of its fields as descriptions."""
    schema = model.model_json_schema(by_alias=True)
    known = {each.__name__: each for each in _models(model)}
    for name, definition in (*schema.get("$defs", {}).items(), (model.__name__, schema)):
        owner = known.get(name)
        if owner is None:
            continue
        texts = _field_texts(owner)
        for field, info in owner.model_fields.items():
            member = definition.get("properties", {}).get(info.alias or field)
            if member is None:
                continue
            member.pop("title", None)
            if member.get("type") == "string" and isinstance(member.get("default"), int):
                del member["default"]  # a quantity, which documents write with a unit
            if field in texts:
                member.setdefault("description", texts[field])
    return schema


def _models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Yield a model and all models in its fields."""
    seen: set[type[BaseModel]] = set()
    waiting: list[object] = [model]
    while waiting:
        each = waiting.pop()
        waiting += getattr(each, "__args__", ())
        origin = getattr(each, "__origin__", None)
        if origin is not None:
            waiting.append(origin)
        if isinstance(each, type) and issubclass(each, BaseModel) and each not in seen:
            seen.add(each)
            yield each
            waiting += [info.annotation for info in each.model_fields.values()]


@cache
def _field_texts(model: type[BaseModel]) -> dict[str, str]:
    """Return the comments of a model's fields, by their names in Python."""
    found: dict[str, str] = {}
    for owner in reversed(model.__mro__):
        if owner in (object, BaseModel) or owner.__module__ not in sys.modules:
            continue
        try:
            lines = inspect.getsource(owner).splitlines()
        except (OSError, TypeError):
            continue  # a model without source, such as one that is made at run time
        found |= _comments(lines)
    return found


def _comments(lines: list[str]) -> dict[str, str]:
    """Return the comments of the fields in a class: the lines ``#:`` above, or the comment behind."""
    tree = ast.parse("\n".join(line[_indent(lines) :] for line in lines))
    found: dict[str, str] = {}
    (body,) = (node for node in tree.body if isinstance(node, ast.ClassDef))
    for node in body.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        above: list[str] = []
        for line in reversed(lines[: node.lineno - 1]):
            match = _COMMENT.match(line)
            if match is None:
                break
            above.insert(0, match[1])
        behind = _INLINE.search(lines[(node.end_lineno or node.lineno) - 1])
        text = " ".join(above) or (behind[1] if behind else "")
        if text:
            found[node.target.id] = text.replace("``", "")
    return found


def _indent(lines: list[str]) -> int:
    return len(lines[0]) - len(lines[0].lstrip())
