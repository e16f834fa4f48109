"""Texts, paths and values of requests and documents inside a message."""

from __future__ import annotations

import json

#: Longest text of one reason, in characters.
REASON_MAX = 600


def quote(text: str) -> str:
    """Return a text of a request in double quotes, with escapes outside printable ASCII."""
    return json.dumps(text)


def shorten(text: str, most: int = REASON_MAX) -> str:
    """Return at most *most* characters of a text, with an ellipsis at the cut."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def path_text(path: tuple[str | int, ...]) -> str:
    """Return the path of a value in a document: ``spec.ports[0].host``; '' for the document."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def kind_of(value: object) -> str:
    """Return the name of a value's kind in a document."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case _:
            return "a mapping"
