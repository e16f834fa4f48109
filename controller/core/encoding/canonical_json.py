"""Canonical JSON (RFC 8785) and digests of it: equal values have equal bytes.

Floats are refused, because trimtab needs none. Integers beyond 2^53 are written as strings
(RFC 8785, appendix D), so every JSON reader sees the same number.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping

MAX_SAFE_INTEGER = 2**53
_SEQUENCES = (list, tuple)
_OBJECTS = (dict, Mapping)
# ``normalize`` builds the value, so there is no cycle to check for.
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False)


def canonical(value: object) -> bytes:
    """Return the canonical bytes of a JSON value.

    Raises:
        TypeError: *value* contains a float, or a value outside JSON.
    """
    return encode(normalize(value))


def canonical_by_item(value: object) -> bytes:
    """Return the same bytes as ``canonical``, encoded item by item.

    The encoder is one call into C. For thousands of items, the call would keep the interpreter from
    all other threads.

    Raises:
        TypeError: as ``canonical``.
    """
    return b"".join(_pieces(value))


def _pieces(value: object) -> Iterator[bytes]:
    """Yield the canonical bytes of a value: lists in objects are encoded item by item."""
    if isinstance(value, _OBJECTS):
        for number, key in enumerate(_sort_keys(value)):
            yield b"%b%b:" % (b"," if number else b"{", canonical(key))
            yield from _pieces(value[key])
        yield b"}" if value else b"{}"
    elif isinstance(value, _SEQUENCES):
        for number, item in enumerate(value):
            yield b"%b%b" % (b"," if number else b"[", canonical(item))
        yield b"]" if value else b"[]"
    else:
        yield canonical(value)


def encode(value: object) -> bytes:
    """Return the canonical bytes of a result of ``normalize``."""
    return _ENCODER.encode(value).encode()


def digest(value: object) -> str:
    """Return the lower-case hex SHA-256 of a value's canonical bytes."""
    return hashlib.sha256(canonical(value)).hexdigest()


def normalize(value: object) -> object:
    """Return a value as a reader of its canonical bytes sees it, with sorted keys.

    Raises:
        TypeError: as ``canonical``.
    """
    # The most frequent types come first, and a plain text costs no call: every record passes here
    # while a request waits.
    if isinstance(value, str):
        return str.__str__(value)  # without the class of an enumeration
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER else str(int(value))
    if isinstance(value, _SEQUENCES):
        return [item if type(item) is str else normalize(item) for item in value]
    if isinstance(value, _OBJECTS):
        members = ((key, value[key]) for key in _sort_keys(value))
        return {
            str.__str__(key): member if type(member) is str else normalize(member)
            for key, member in members
        }
    raise TypeError(f"not a canonical JSON value: {type(value).__name__}")


def _sort_keys(keys: Iterable[str]) -> list[str]:
    """Return keys in the order of RFC 8785: by UTF-16 code units.

    For ASCII keys this is the order by code points.
    """
    ordered = sorted(keys)
    if "".join(ordered).isascii():
        return ordered
    return sorted(ordered, key=lambda key: key.encode("utf-16-be"))
