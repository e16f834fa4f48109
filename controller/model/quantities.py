"""Quantities as written in files: bytes (``Ki Mi Gi``) and durations (``ms s m h``); instants.

No other notation parses: no decimal prefixes, no strings without a unit, no compound durations.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

KIB = 1024
_BYTES = re.compile(r"([0-9]{1,18})(Ki|Mi|Gi)", re.ASCII)
_BYTE_UNITS = {"Ki": KIB, "Mi": 1024**2, "Gi": 1024**3}
_DURATION = re.compile(r"([0-9]{1,12})(ms|s|m|h)", re.ASCII)
_DURATION_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}


def parse_bytes(value: object) -> int:
    """Return the number of bytes in a quantity such as ``"512Mi"``.

    Raises:
        ValueError: *value* is not a whole number with the unit Ki, Mi or Gi.
    """
    match = _BYTES.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("expected a whole number with a unit Ki, Mi or Gi, such as 512Mi")
    return int(match[1]) * _BYTE_UNITS[match[2]]


def parse_duration_ms(value: object) -> int:
    """Return the milliseconds in a duration such as ``"10s"``.

    Raises:
        ValueError: *value* is not a whole number with the unit ms, s, m or h.
    """
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("expected a whole number with a unit ms, s, m or h, such as 10s")
    return int(match[1]) * _DURATION_MS[match[2]]


def format_bytes(count: int) -> str:
    """Return *count* in the largest unit that divides it, for ``parse_bytes``."""
    for unit in ("Gi", "Mi", "Ki"):
        if count and count % _BYTE_UNITS[unit] == 0:
            return f"{count // _BYTE_UNITS[unit]}{unit}"
    return f"{count}B"


def format_duration_ms(count: int) -> str:
    """Return *count* in the largest unit that divides it, for ``parse_duration_ms``."""
    for unit in ("h", "m", "s"):
        if count and count % _DURATION_MS[unit] == 0:
            return f"{count // _DURATION_MS[unit]}{unit}"
    return f"{count}ms"


def format_instant(seconds: float) -> str:
    """Return an instant, in seconds since the epoch, as RFC 3339 in UTC, to the second."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
