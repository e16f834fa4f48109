"""Text of a request inside a message: quoted, escaped and shortened."""

from __future__ import annotations

import json

#: Longest text of one reason, in characters.
REASON_MAX = 600


def quote(text: str) -> str:
    """Return a text of a request in double quotes, escaped where it isn't printable ASCII."""
    return json.dumps(text)


def shorten(text: str, most: int = REASON_MAX) -> str:
    """Return at most *most* characters of a text, with a mark where it was cut."""
    return text if len(text) <= most else f"{text[: most - 1]}…"
