"""Changes of mappings: a copy is changed, or an open mapping itself, which has a single holder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar, overload

from controller.model.mappings.parted import PartedMap

_K = TypeVar("_K")
_V = TypeVar("_V")


class OpenDict(dict[_K, _V]):
    """A mapping with a single holder: ``having`` and ``without`` change the mapping in place."""

    __slots__ = ()


def having(mapping: Mapping[str, _V], key: str, value: _V) -> Mapping[str, _V]:
    """Return a copy of a mapping with a key added or replaced; an open mapping itself is changed."""
    if isinstance(mapping, PartedMap):
        return mapping.changed(added={key: value})
    if not isinstance(mapping, OpenDict):
        return {**mapping, key: value}
    mapping[key] = value
    return mapping


@overload
def without(mapping: dict[str, _V], key: str) -> dict[str, _V]: ...


@overload
def without(mapping: Mapping[str, _V], key: str) -> Mapping[str, _V]: ...


def without(mapping: Mapping[str, _V], key: str) -> Mapping[str, _V]:
    """Return a copy of a mapping without a key; an open mapping itself is changed."""
    if isinstance(mapping, PartedMap):
        return mapping.changed((key,))
    changed = mapping if isinstance(mapping, OpenDict) else dict(mapping)
    changed.pop(key, None)
    return changed
