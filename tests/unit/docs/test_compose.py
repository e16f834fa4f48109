"""docs/compose.md has every attribute of the Compose Specification, and docs/schema what documents are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from controller.core.compose import schema
from controller.core.compose.attributes import ROWS, attribute_at
from tools import docs

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "compose.md"
ROW = re.compile(r"^\| `([^`]+)` \| ([a-z ]+) \| (.*) \|$", re.MULTILINE)
SPECIFICATION = Path(schema.__file__).parent / "compose-spec.json"


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
    found = set(attributes(json.loads(SPECIFICATION.read_text("utf-8"))))
    assert sorted(path for path in found if attribute_at(path) is None) == []


def rows_of_the_page() -> dict[str, tuple[str, str]]:
    """Return what docs/compose.md says of each attribute: its treatment, and the text."""
    table = PAGE.read_text("utf-8").partition("## Every attribute")[2]
    return {path: (word, text) for path, word, text in ROW.findall(table)}


def test_the_page_says_of_every_attribute_what_becomes_of_it() -> None:
    page = rows_of_the_page()
    parents = tuple(path.removesuffix("**") for path in page if path.endswith(".**"))
    named = {path.removesuffix(".**") for path in page}
    missing = [r.path for r in ROWS if r.path not in named and not r.path.startswith(parents)]
    assert missing == []
    assert sorted(named - {row.path for row in ROWS}) == []


def test_the_page_says_of_refused_attributes_what_a_problem_says() -> None:
    told = {path.removesuffix(".**"): row for path, row in rows_of_the_page().items()}
    for row in ROWS:
        if row.refusal:
            assert told[row.path] == ("refused", f"{row.refusal}. Instead: {row.remedy}"), row.path
        elif row.warning:
            assert told[row.path] == ("by policy", row.warning), row.path
        elif row.path in told:
            assert told[row.path][0] in ("as compose", "by policy"), row.path


def test_the_schema_is_that_of_today() -> None:
    assert docs.SCHEMA.read_text("utf-8") == docs.schema_text(), "run make docs"
