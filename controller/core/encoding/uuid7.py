"""The time in a UUIDv7, such as the id of an intent (RFC 9562, section 5.7)."""

from __future__ import annotations

import re

_UUID7 = re.compile(
    r"([0-9a-f]{8})-([0-9a-f]{4})-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.ASCII
)


def timestamp_s(identifier: str) -> float | None:
    """Return the time of a UUIDv7 in seconds since the epoch; None for any other text."""
    match = _UUID7.fullmatch(identifier)
    return int(match[1] + match[2], 16) / 1000 if match else None
