"""Quantities as written in files: bytes (``Ki Mi Gi``) and durations (``ms s m h``); instants.

Documents and policies have no other notation: no decimal prefixes, no strings without a unit, no
compound durations. ``parse_size`` reads the notation of Docker and Compose.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

KIB = 1024
_BYTES = re.compile(r"([0-9]{1,18})(Ki|Mi|Gi)", re.ASCII)
_BYTE_UNITS = {"Ki": KIB, "Mi": 1024**2, "Gi": 1024**3}
#: The grammar of go-units' RAMInBytes, of each version that the engine and Compose had.
_SIZE = re.compile(
    r"([0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40}) ?([kmgtp]?)i?b?", re.ASCII | re.IGNORECASE
)
_SIZE_UNITS = {"": 1, "k": KIB, "m": KIB**2, "g": KIB**3, "t": KIB**4, "p": KIB**5}
#: A size is below: the engine holds sizes in 64 bits with a sign.
_SIZE_END = 2**63
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


def parse_size(text: str) -> int | None:
    """Return the bytes of a size in Docker's notation, such as ``64m`` or ``1.5g``; None for another text.

    Each unit is a power of 1024. A part of a byte is cut off, as the engine does.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        return None
    count = int(float(match[1]) * _SIZE_UNITS[match[2].lower()])
    return count if count < _SIZE_END else None


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


def format_elapsed_ms(count: int) -> str:
    """Return a measured time for people: ``11 ms``, ``3.4 s``, ``42 s``, ``2 min 5 s``."""
    if count < 1000:
        return f"{count} ms"
    if count < 9950:
        return f"{count / 1000:.1f} s"
    seconds = round(count / 1000)
    return f"{seconds} s" if seconds < 60 else f"{seconds // 60} min {seconds % 60} s"


def format_instant(seconds: float) -> str:
    """Return an instant, in seconds since the epoch, as RFC 3339 in UTC, to the second."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
