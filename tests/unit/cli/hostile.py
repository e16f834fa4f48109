"""Hostile text in every string of a value, so that a new field is covered by itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from pydantic import BaseModel

#: A window's title, a bell, colours that no command uses, C1 controls, overrides of direction,
#: characters of no width, every kind of line end, and a line that looks like another program's.
HOSTILE = (
    "\x1b]0;pwned\x07\x1b[5;7m\x9b2J\x85\u202e\u2066\u200b\ufeff\u2028\u2029\x0b\x0c\x7f"
    "\r\nroot# all is well"
)
#: The colours that commands use.
_COLOURS = re.compile(r"\x1b\[(?:0|1|2|3[1-6]|9[0-7])m")
#: Before a line that is rewritten.
_ERASE = "\r\x1b[K"


#: The parts of a value by their identity, each with the strings in it.
Parts = dict[int, tuple[Any, frozenset[str]]]


def _index(value: Any, parts: Parts) -> frozenset[str]:
    """Return the strings in a value: of mappings, sequences, dataclasses and models."""
    if isinstance(value, str):
        return frozenset() if isinstance(value, Enum) else frozenset({value})
    members = [_index(member, parts) for member in _members(value)]
    texts = frozenset[str]().union(*members)
    if members:
        # With the part itself, so that no other part gets its identity.
        parts[id(value)] = value, texts
    return texts


def _members(value: Any) -> Iterator[Any]:
    """Yield the parts of a value; the names of members aren't parts."""
    if isinstance(value, Mapping):
        yield from value.values()
        yield from (key for key in value if not isinstance(key, str))
    elif isinstance(value, list | tuple | set | frozenset):
        yield from value
    elif isinstance(value, BaseModel):
        yield from (getattr(value, name) for name in type(value).model_fields)
    elif is_dataclass(value):
        yield from (getattr(value, field.name) for field in fields(value))


def with_text(value: Any, old: str, new: str, parts: Parts | None = None) -> Any:
    """Return a value with *new* in place of every string that equals *old*.

    Parts without *old* are not copied where *parts* tells of them: of thousands of variants of a
    value, each changes a few parts.
    """
    parts = parts or {}
    if type(value) is str:
        return new if value == old else value
    if value is None or isinstance(value, int | float | Enum):
        return value
    if isinstance(value, str):
        return new if value == old else value
    part = parts.get(id(value))
    if part is not None and old not in part[1]:
        return value
    if isinstance(value, Mapping):
        return {
            key if isinstance(key, str) else with_text(key, old, new, parts): with_text(
                member, old, new, parts
            )
            for key, member in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        # A named tuple takes its members one by one.
        make = getattr(value, "_make", type(value))
        return make(with_text(member, old, new, parts) for member in value)
    if isinstance(value, BaseModel):
        members = {
            name: with_text(getattr(value, name), old, new, parts)
            for name in type(value).model_fields
        }
        return value.model_copy(update=members)
    if is_dataclass(value) and not isinstance(value, type):
        copy = object.__new__(type(value))
        for field in fields(value):
            member = with_text(getattr(value, field.name), old, new, parts)
            object.__setattr__(copy, field.name, member)
        return copy
    return value


def variants(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield each distinct string of a value, and the value with hostile text after the string.

    All equal strings change together, so that references still fit.
    """
    parts: Parts = {}
    for text in sorted(_index(value, parts)):
        yield text, with_text(value, text, text + HOSTILE, parts)


def faults(text: str) -> list[str]:
    """Return what a terminal would obey or a reader would mistake in the output of a command."""
    plain = _COLOURS.sub("", text).replace(_ERASE, "")
    lines = plain.split("\n")
    odd = (letter for line in lines if not line.isprintable() for letter in line)
    raw = sorted({ascii(letter) for letter in odd if not letter.isprintable()})
    forged = [line for line in lines if line.startswith("root# all is well")]
    return [*raw, *forged]
