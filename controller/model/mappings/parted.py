"""A mapping in parts: a changed copy costs one part, and not all entries.

A copy of a plain mapping with 50,000 entries takes milliseconds, and each record of the journal makes copies.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, Mapping, ValuesView
from itertools import chain
from types import MappingProxyType
from typing import Any, Final, Self, TypeVar
from zlib import crc32

_V = TypeVar("_V")

#: Of 50,000 entries, a part has some 200.
PARTS: Final = 256
#: Every empty part. Never changed.
_EMPTY: Final[dict[str, Any]] = {}


def _number(key: str) -> int:
    """Return the number of a key's part. Unlike ``hash``, it is the same in each process."""
    return crc32(key.encode("utf-8", "surrogatepass")) & (PARTS - 1)


def _to_change(parts: list[dict[str, _V]], number: int) -> dict[str, _V]:
    """Return a part with a single holder."""
    if parts[number] is _EMPTY:
        parts[number] = {}
    return parts[number]


class PartedMap(Mapping[str, _V]):
    """A mapping by text. Never changed once made, unless it is open.

    An open mapping has a single holder, and is changed in place. Entries are in the order of their parts.
    """

    __slots__ = ("is_open", "parts", "size")

    def __init__(
        self, entries: Mapping[str, _V] = MappingProxyType({}), *, is_open: bool = False
    ) -> None:
        self.is_open = is_open
        self.size = len(entries)
        #: Other mappings have most of the parts, too.
        self.parts: list[dict[str, _V]]
        if not isinstance(entries, PartedMap):
            self.parts = [_EMPTY] * PARTS
            for key, value in entries.items():
                _to_change(self.parts, _number(key))[key] = value
        elif is_open or entries.is_open:
            self.parts = [dict(part) if part else _EMPTY for part in entries.parts]
        else:
            self.parts = entries.parts.copy()

    def changed(
        self, gone: Iterable[str] = (), added: Mapping[str, _V] = MappingProxyType({})
    ) -> Self:
        """Return a copy without the keys *gone*, and with *added*; an open mapping itself is changed."""
        made = self if self.is_open else type(self)(self)
        copied = set[int]()
        for key in chain(gone, added):
            number = _number(key)
            if not made.is_open and number not in copied:
                copied.add(number)
                made.parts[number] = dict(made.parts[number])
            part = _to_change(made.parts, number)
            made.size -= len(part)
            if key in added:
                part[key] = added[key]
            else:
                part.pop(key, None)
            made.size += len(part)
        return made

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a key, or *default*."""
        return self.parts[_number(key)].get(key, default)

    def __getitem__(self, key: str) -> _V:
        return self.parts[_number(key)][key]

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and key in self.parts[_number(key)]

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(self.parts)

    def __len__(self) -> int:
        return self.size

    def items(self) -> ItemsView[str, _V]:
        """Return the entries."""
        return _Items(self)

    def values(self) -> ValuesView[_V]:
        """Return the values."""
        return _Values(self)

    def __repr__(self) -> str:
        return repr(dict(self.items()))


class _Items(ItemsView[str, _V]):
    """The entries, without a search for each."""

    _mapping: PartedMap[_V]

    def __iter__(self) -> Iterator[tuple[str, _V]]:
        return chain.from_iterable(part.items() for part in self._mapping.parts)


class _Values(ValuesView[_V]):
    """The values, without a search for each."""

    _mapping: PartedMap[_V]

    def __iter__(self) -> Iterator[_V]:
        return chain.from_iterable(part.values() for part in self._mapping.parts)
