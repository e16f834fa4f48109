"""Stored forms: dataclasses as JSON objects. The types of the fields declare writer and reader.

A field is a member of its own name, or of the name in ``stored``::

    @dataclass(frozen=True)
    class Course:
        revision: str = ""
        idle_s: Annotated[Milliseconds, stored("idleMs")] = 0.0
        failed: Annotated[str, OPTIONAL] = ""

    FORM = StoredForm(Course, "the course of a rollout")
    FORM.to_json(Course("v2:1", 1.5))              # {"revision": "v2:1", "idleMs": 1500}
    FORM.from_json({"revision": "v2:1"})           # ValueError: not the course of a rollout: …
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cached_property
from typing import Annotated, Any, Generic, TypeVar, get_type_hints

from pydantic import Field, PlainSerializer, PlainValidator, TypeAdapter
from pydantic.fields import FieldInfo

from controller.model.names import Key

T = TypeVar("T")


def stored(name: str) -> Any:
    """Return the annotation of a field with another name in JSON."""
    return Field(alias=name)


#: A member that is not written while empty, and can be missing.
OPTIONAL: Any = Field(exclude_if=lambda value: not value)
#: A member that is not written while None, and can be missing.
NULLABLE: Any = Field(exclude_if=lambda value: value is None)


class StoredForm(Generic[T]):
    """The JSON of a dataclass. All members are required, except optional and nullable ones."""

    def __init__(self, kind: type[T], subject: str) -> None:
        self._kind = kind
        #: The dataclass in words, for the message about another value.
        self._subject = subject

    def to_json(self, value: T) -> dict[str, Any]:
        """Return a value as a JSON object."""
        members: dict[str, Any] = self._adapter.dump_python(value, mode="json", by_alias=True)
        return members

    def from_json(self, value: Any) -> T:
        """Parse the output of ``to_json``. Unknown members are ignored.

        Raises:
            ValueError: *value* has another form.
        """
        try:
            if missing := self._required - value.keys():
                raise ValueError(f"without {', '.join(sorted(missing))}")  # noqa: TRY301 - one message
            return self._adapter.validate_json(json.dumps(value), strict=True)
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"not {self._subject}: {value!r:.200}") from error

    # Made on first use: the adapter takes milliseconds, and few commands need one.

    @cached_property
    def _adapter(self) -> TypeAdapter[T]:
        return TypeAdapter(self._kind)

    @cached_property
    def _required(self) -> frozenset[str]:
        names = set()
        for name, hint in get_type_hints(self._kind, include_extras=True).items():
            marks = [m for m in getattr(hint, "__metadata__", ()) if isinstance(m, FieldInfo)]
            if not any(mark.exclude_if for mark in marks):
                names.add(next((mark.alias for mark in marks if mark.alias), name))
        return frozenset(names)


def _to_seconds(value: object) -> float:
    if type(value) is not int:
        raise ValueError("not a whole number of milliseconds")
    return value / 1000


def _to_keys(texts: Iterable[str]) -> frozenset[Key]:
    if not isinstance(texts, list):
        raise ValueError("not a list of keys")  # noqa: TRY004 - pydantic catches ValueError alone
    return frozenset(map(Key.parse, texts))


#: Seconds, in JSON as whole milliseconds.
Milliseconds = Annotated[
    float, PlainValidator(_to_seconds), PlainSerializer(lambda seconds: round(seconds * 1000))
]
#: Keys, in JSON as a sorted list of texts.
StoredKeys = Annotated[
    frozenset[Key],
    PlainValidator(_to_keys),
    PlainSerializer(lambda keys: [str(key) for key in sorted(keys)]),
]
