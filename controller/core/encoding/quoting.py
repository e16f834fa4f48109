"""Text of a request inside a message: quoted, escaped and shortened."""

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
