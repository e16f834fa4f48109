"""The code blocks of a page of the documentation, by the heading that they stand under."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def blocks(page: str, language: str = "yaml") -> dict[str, str]:
    """Return the blocks of docs/*page* in one language; two under one heading are one text."""
    found: dict[str, list[str]] = {}
    for section in re.split(r"^##+ ", (DOCS / page).read_text(), flags=re.MULTILINE)[1:]:
        heading = section.partition("\n")[0]
        pattern = rf"^```{language}\n(.*?)^```$"
        if texts := re.findall(pattern, section, re.MULTILINE | re.DOTALL):
            found[heading] = texts
    return {heading: "---\n".join(texts) for heading, texts in found.items()}


def rows(page: str) -> dict[str, list[list[str]]]:
    """Return the rows of docs/*page*'s tables whose first cell is a name in code.

    A cell is the words in it that are code or paths, or its only word.
    """
    found: dict[str, list[list[str]]] = {}
    for name, rest in re.findall(
        r"^\| `([a-z]+)` \|(.*)\|$", (DOCS / page).read_text(), re.MULTILINE
    ):
        found[name] = [re.findall(r"[\w/_-]+", cell) for cell in rest.split(" | ")]
    return found
