"""Typed readers of parsed JSON whose shape is not guaranteed, such as records of older versions.

A missing member, or a value of another type, reads as empty. No reader raises.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def mapping_of(value: object) -> Mapping[str, Any]:
    """Return a JSON object, or an empty mapping for any other value."""
    return value if isinstance(value, Mapping) else {}


def list_of(value: object) -> list[Any]:
    """Return a JSON array, or an empty list for any other value."""
    return [*value] if isinstance(value, list | tuple) else []


def texts_of(value: object) -> tuple[str, ...]:
    """Return the items of a JSON array as strings, or () for any other value."""
    return tuple(map(str, list_of(value)))


def text_member(members: Mapping[str, Any], name: str) -> str:
    """Return a member that is a string, or ''."""
    value = members.get(name)
    return value if isinstance(value, str) else ""


def mapping_member(members: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a member that is a JSON object, or an empty mapping."""
    return mapping_of(members.get(name))
