"""docs/compose.md has every attribute of the Compose Specification, and docs/schema what documents are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from controller.core.compose import forms
from controller.core.compose.attributes.table import attribute_at
from tools import docs

ROOT = Path(__file__).parents[3]
SPECIFICATION = Path(forms.__file__).parent / "compose-spec.json"


def attributes(schema: dict[str, Any]) -> Iterator[str]:
    """Yield the path of each attribute of the specification's schema; ``*`` is a chosen name."""
    definitions = schema["definitions"]

    def walk(node: dict[str, Any], path: str, seen: tuple[str, ...]) -> Iterator[str]:
        if "$ref" in node:
            name = node["$ref"].rpartition("/")[2]
            if name not in seen:
                yield from walk(definitions[name], path, (*seen, name))
            return
        for word in ("oneOf", "anyOf", "allOf"):
            for branch in node.get(word, ()):
                yield from walk(branch, path, seen)
        for name, member in node.get("properties", {}).items():
            inner = f"{path}.{name}" if path else name
            yield inner
            yield from walk(member, inner, seen)
        for pattern, member in node.get("patternProperties", {}).items():
            if not pattern.startswith("^x-"):
                yield from walk(member, f"{path}.*", seen)
        if isinstance(node.get("items"), dict):
            yield from walk(node["items"], path, seen)

    yield from walk(schema, "", ())


def test_every_attribute_of_the_specification_has_a_row() -> None:
    found = sorted(set(attributes(json.loads(SPECIFICATION.read_text("utf-8")))))
    assert len(found) > 250
    assert [path for path in found if attribute_at(path) is None] == []


def test_the_page_has_the_table_of_today() -> None:
    page = docs.COMPOSE.read_text("utf-8")
    assert page == docs.with_attributes(page), "run make docs"


def test_the_schema_is_that_of_today() -> None:
    assert docs.SCHEMA.read_text("utf-8") == docs.schema_text(), "run make docs"
