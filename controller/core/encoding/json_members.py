"""Typed readers of parsed JSON whose shape is not guaranteed, such as records of older versions.

A missing member, or a value of another type, reads as empty. No reader raises.

A ``Payload`` declares each member of a JSON object once, for readers and writers::

    class Source(Payload):
        file: str = text("file")
        line: int = number("line")

    Source(file="web.yaml", line=3).members    # {"file": "web.yaml", "line": 3}
    Source.read({"file": "web.yaml"}).line     # 0
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Self, TypeVar, cast, dataclass_transform

T = TypeVar("T")
P = TypeVar("P", bound="Payload")


def mapping_of(value: object) -> Mapping[str, Any]:
    """Return a JSON object, or an empty mapping for any other value."""
    # The test of an abstract class takes longer than all else here, and records have dictionaries.
    return value if type(value) is dict or isinstance(value, Mapping) else {}


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


#: Decodes JSON without ``NaN`` and ``Infinity``. Raises ValueError, or RecursionError for deep nesting.
DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def parse_json(data: bytes) -> Any:
    """Return the JSON value in some bytes.

    Raises:
        ValueError: the bytes are no JSON, or nested too deeply.
    """
    try:
        return DECODER.decode(data.decode())
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def parse_object(data: bytes) -> dict[str, Any]:
    """Return the JSON object in some bytes; an empty one for any other content."""
    try:
        value = parse_json(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def list_of(value: object) -> list[Any]:
    """Return a JSON array, or an empty list for any other value."""
    return [*value] if isinstance(value, list | tuple) else []


def texts_of(value: object) -> tuple[str, ...]:
    """Return the items of a JSON array as strings, or () for any other value."""
    return tuple(map(str, list_of(value)))


def text_member(members: Mapping[str, Any], name: str) -> str:
    """Return a member that is a string, or ''."""
    return _text_of(members.get(name))


def mapping_member(members: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a member that is a JSON object, or an empty mapping."""
    return mapping_of(members.get(name))


def fields_of(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass, in order.

    ``asdict`` also copies the values of the fields, and takes more than three times as long.
    """
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def only_set(**members: object) -> dict[str, Any]:
    """Return the members without null, empty, zero and false values."""
    return {name: value for name, value in members.items() if value}


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Payload:
    """A JSON object with a typed attribute for each member.

    The constructor takes the members to write, and writes nothing else. ``read`` copies nothing.
    """

    def __init__(self, **values: object) -> None:
        self.members: dict[str, Any] = {}
        for attribute, value in values.items():
            declared: _Member = getattr(type(self), attribute)
            if value or not declared.optional:
                self.members[declared.name] = declared.write(value)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.members})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.members == other.members

    __hash__ = None  # type: ignore[assignment]

    def __or__(self, other: P) -> P:
        """Return the members of both as the class of *other*, which takes precedence."""
        return other.read(self.members | other.members)

    def __bool__(self) -> bool:
        return bool(self.members)

    @classmethod
    def read(cls, members: object) -> Self:
        """Return a parsed JSON object with types; any other value reads as an empty object."""
        payload = cls.__new__(cls)  # without the search for values to write
        payload.members = cast("dict[str, Any]", mapping_of(members))
        return payload


class _Member:
    """The descriptor of a member."""

    def __init__(
        self,
        name: str,
        read: Callable[[Any], object],
        write: Callable[[Any], object],
        *,
        optional: bool,
    ) -> None:
        self.name = name
        self.read = read
        self.write = write
        self.optional = optional

    def __get__(self, payload: Payload | None, _owner: type[Payload]) -> object:
        return self if payload is None else self.read(payload.members.get(self.name))


def member(
    name: str,
    read: Callable[[object], T],
    write: Callable[[T], object] = lambda value: value,
    *,
    optional: bool = False,
) -> T:
    """Declare a member; an empty value of an *optional* member is not written."""
    return cast("T", _Member(name, read, write, optional=optional))


def text(name: str, *, optional: bool = False) -> str:
    """Declare a string; '' if absent."""
    return member(name, _text_of, optional=optional)


def number(name: str, *, optional: bool = False) -> int | None:
    """Declare an integer; None if absent."""
    return member(name, lambda value: value if type(value) is int else None, optional=optional)


def flag(name: str, *, default: bool = False, optional: bool = False) -> bool:
    """Declare a boolean."""
    return member(
        name, lambda value: value if isinstance(value, bool) else default, optional=optional
    )


def texts(name: str, *, optional: bool = False) -> tuple[str, ...]:
    """Declare an array of strings; () if absent."""
    return member(name, texts_of, list, optional=optional)


def mapping(name: str, *, optional: bool = False) -> Mapping[str, Any]:
    """Declare an object with any members; empty if absent."""
    return member(name, mapping_of, dict, optional=optional)


def nested(name: str, kind: type[P], *, optional: bool = False) -> P:
    """Declare an object with declared members."""
    return member(name, kind.read, lambda value: value.members, optional=optional)


def items(name: str, kind: type[P], *, optional: bool = False) -> tuple[P, ...]:
    """Declare an array of objects with declared members."""
    return member(
        name,
        lambda value: tuple(map(kind.read, list_of(value))),
        lambda value: [item.members for item in value],
        optional=optional,
    )


def _text_of(value: object) -> str:
    return value if isinstance(value, str) else ""
