"""Canonical JSON (RFC 8785) and digests over it: the same value is the same bytes, always.

Floats are refused, since nothing of ours needs them; integers beyond 2^53 are written as strings
(RFC 8785, appendix D), so that every JSON reader sees the same number.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

MAX_SAFE_INTEGER = 2**53


def canonical(value: object) -> bytes:
    """Return the canonical bytes of a JSON value.

    Raises:
        TypeError: *value* holds something that isn't JSON, or a float.
    """
    return json.dumps(_normal(value), ensure_ascii=False, separators=(",", ":")).encode()


def digest(value: object) -> str:
    """Return the lower-case hex SHA-256 of a value's canonical bytes."""
    return hashlib.sha256(canonical(value)).hexdigest()


def _normal(value: object) -> object:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return value if -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER else str(value)
    if isinstance(value, Mapping):
        # RFC 8785 sorts by UTF-16 code units, which differs from code points above U+FFFF.
        keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
        return {key: _normal(value[key]) for key in keys}
    if isinstance(value, list | tuple):
        return [_normal(item) for item in value]
    raise TypeError(f"not a canonical JSON value: {type(value).__name__}")
