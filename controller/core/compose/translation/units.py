"""Quantities of Compose in the notation of documents: durations and bytes."""

from __future__ import annotations

import re
from typing import Final

from controller.model.quantities import KIB, format_bytes, format_duration_ms, parse_size

_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h|d|w)", re.ASCII)
_MS: Final = {
    "ns": 1e-6,
    "us": 1e-3,
    "µs": 1e-3,
    "ms": 1.0,
    "s": 1e3,
    "m": 60e3,
    "h": 3600e3,
    "d": 86_400e3,
    "w": 604_800e3,
}
#: The digits of a number that is converted; a longer one is a problem of the document.
_DIGITS_MAX: Final = 40


def duration_ms(value: object) -> int | None:
    """Return the milliseconds in a duration such as ``1m30s``; None for another value."""
    text = str(value).strip()
    if text == "0":
        return 0
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return round(sum(float(number) * _MS[unit] for number, unit in parts))


def duration_text(value: object) -> str | None:
    """Return a duration as documents have it, such as ``90s``; None for another value."""
    count = duration_ms(value)
    return None if count is None else format_duration_ms(count)


def byte_count(value: object) -> int | None:
    """Return the bytes in a size such as ``64m`` or ``67108864``; None for another value."""
    return parse_size(str(value).strip())


def byte_text(value: object) -> str | None:
    """Return a size as documents have it, such as ``64Mi``, rounded up to 1 KiB; None for another value."""
    count = byte_count(value)
    return None if count is None else format_bytes(-(-count // KIB) * KIB or KIB)


def whole_number(value: object) -> int | None:
    """Return the number that decimal digits write, such as a port; None for another value."""
    text = str(value)
    is_number = text.isascii() and text.isdecimal() and len(text) <= _DIGITS_MAX
    return int(text) if is_number else None
