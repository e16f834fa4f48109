"""Canonical JSON (RFC 8785) and digests over it: the same value is the same bytes, always.

Floats are refused, since nothing of ours needs them; integers beyond 2^53 are written as strings
(RFC 8785, appendix D), so that every JSON reader sees the same number.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping

MAX_SAFE_INTEGER = 2**53
# What it is given was just made by ``normalize``: there is no circle in it.
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False)


def canonical(value: object) -> bytes:
    """Return the canonical bytes of a JSON value.

    Raises:
        TypeError: *value* holds something that isn't JSON, or a float.
    """
    return encode(normalize(value))


def encode(value: object) -> bytes:
    """Return the canonical bytes of what ``normalize`` returned."""
    return _ENCODER.encode(value).encode()


def digest(value: object) -> str:
    """Return the lower-case hex SHA-256 of a value's canonical bytes."""
    return hashlib.sha256(canonical(value)).hexdigest()


def normalize(value: object) -> object:
    """Return a value as a reader of its canonical bytes sees it, with its keys in order.

    Raises:
        TypeError: as ``canonical``.
    """
    # What is met most comes first: it is called for all, and every record is waited for.
    if isinstance(value, str):
        return str.__str__(value)  # without the class of an enumeration
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER else str(int(value))
    if isinstance(value, list | tuple):
        return [normalize(item) for item in value]
    if isinstance(value, dict | Mapping):
        return {str.__str__(key): normalize(value[key]) for key in _ordered(value)}
    raise TypeError(f"not a canonical JSON value: {type(value).__name__}")


def _ordered(keys: Iterable[str]) -> list[str]:
    """Return keys as RFC 8785 sorts them: by UTF-16 code units, which is by code points in ASCII."""
    ordered = sorted(keys)
    if "".join(ordered).isascii():
        return ordered
    return sorted(ordered, key=lambda key: key.encode("utf-16-be"))
