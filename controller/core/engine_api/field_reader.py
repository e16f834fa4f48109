"""A reader of JSON objects by declared tables of fields.

A table is closed. An undeclared key with an unset value is dropped. With any other value it is
refused, because it could be a field of an unknown API version. Keys are compared exactly. A key
that matches a known key only after folding case or Unicode is refused, because the engine folds.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Any

from controller.core.encoding.json_values import fold
from controller.core.engine_api.requests import Finding

INT64_MAX = 2**63 - 1
TEXT_MAX = 4096
LIST_MAX = 1024


class Posture(StrEnum):
    """How a field is treated."""

    ALLOW = "allow"  # forwarded unchanged, with a checked type
    CONSTRAIN = "constrain"  # forwarded within bounds
    MUTATE = "mutate"  # replaced or completed by the gate
    DENY = "deny"  # refused unless unset
    DROP = "drop"  # without effect here, not forwarded


class WrongError(ValueError):
    """The value cannot be read; the text is the expectation."""


#: Returns the typed value of a JSON value other than null.
ValueReader = Callable[[object], object]


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """A field of a body: type, treatment, the reason of the treatment, and the refusing rule."""

    posture: Posture
    name: str
    read: ValueReader
    why: str
    #: The attribute of the typed request with the same value. None: the value has another form
    #: there, or is not part of the request.
    attribute: str | None = None
    rule: str = "body.field"
    remedy: str = ""
    #: The zero value of the type has a meaning of its own; it is not "unset".
    keep_zero: bool = False
    #: Another spelling of the name that ordinary clients send; the engine accepts any.
    spelling: str | None = None


def is_unset(value: object) -> bool:
    """Return True if clients mean "unset" by a value: null, "", 0, false, [] or {}."""
    return value is None or value in ("", [], {}) or value is False or _is_zero(value)


def _is_zero(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value == 0


@dataclass(slots=True)
class FindingCollector:
    """Collects the findings of a body, place by place."""

    findings: list[Finding] = field(default_factory=list)

    def add(self, rule: str, path: str, reason: str, remedy: str = "") -> None:
        self.findings.append(Finding(rule, path, reason, remedy))

    def all(self) -> tuple[Finding, ...]:
        """Return all findings, in the order of the body's table."""
        return tuple(self.findings)


@dataclass(frozen=True, slots=True)
class Values:
    """The typed values of an object's set fields."""

    values: Mapping[str, object]

    def text(self, name: str) -> str:
        """Return a text, '' if unset."""
        value = self.values.get(name, "")
        assert isinstance(value, str), f"{name} was declared as something else than text"
        return value

    def whole(self, name: str) -> int | None:
        """Return a whole number, None if unset."""
        value = self.values.get(name)
        assert value is None or isinstance(value, int), f"{name} isn't declared as a number"
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts, () if unset."""
        return tuple(str(item) for item in self.items(name))

    def items(self, name: str) -> tuple[object, ...]:
        """Return a list, () if unset."""
        value = self.values.get(name, ())
        assert isinstance(value, tuple), f"{name} isn't declared as a list"
        return value

    def members(self, name: str) -> dict[str, object]:
        """Return an object, {} if unset."""
        value = self.values.get(name, {})
        assert isinstance(value, dict), f"{name} isn't declared as an object"
        return value

    def attributes(self, table: Sequence[Field]) -> dict[str, Any]:
        """Return the set fields that a typed request has unchanged, by their attributes."""
        return {
            entry.attribute: self.values[entry.name]
            for entry in table
            if entry.attribute is not None and entry.name in self.values
        }


def members_of(table: Sequence[Field], request: object) -> dict[str, Any]:
    """Return the set attributes of a typed request as members of a body."""
    values = {
        entry: getattr(request, entry.attribute) for entry in table if entry.attribute is not None
    }
    return {
        entry.name: list(value) if isinstance(value, tuple) else value
        for entry, value in values.items()
        if value or (entry.keep_zero and value is not None)
    }


@dataclass(frozen=True, slots=True)
class _Index:
    """The folded names of a table, computed once."""

    known: Mapping[str, Field]
    legacy: frozenset[str]
    folded: Mapping[str, str]


@lru_cache(maxsize=256)
def _index(table: tuple[Field, ...], legacy: str) -> _Index:
    known = {name: entry for entry in table for name in (entry.name, entry.spelling) if name}
    names = {name: entry.name for name, entry in known.items()}
    old = legacy.split()
    return _Index(known, frozenset(old), {fold(n): names.get(n, n) for n in [*known, *old]})


def read_object(
    table: Sequence[Field],
    value: object,
    path: str,
    findings: FindingCollector,
    *,
    legacy: str = "",
) -> Values:
    """Return the set fields of an object.

    Invalid fields are added to *findings* and count as unset. *legacy* has the names (space
    separated) that the engine once read at this place; a set one is refused with a reason of its
    own.
    """
    if value is None:
        return Values({})
    if not isinstance(value, dict):
        findings.add("body.type", path or "body", "expected an object")
        return Values({})
    index = _index(tuple(table), legacy)
    known, folded = index.known, index.folded
    values: dict[str, object] = {}
    for key, member in value.items():
        where = f"{path}.{key}" if path else key
        if key in known:
            _read_field(known[key], member, where, values, findings)
        elif key in index.legacy:
            if not is_unset(member):
                reason = "the engine once read HostConfig's fields here, beside HostConfig"
                findings.add("body.legacy", where, reason, f"put it into HostConfig.{key}")
        elif (meant := folded.get(fold(key))) is not None:
            findings.add("body.key", where, "a known key in another spelling", f"write {meant}")
        elif not is_unset(member):
            findings.add("body.unknown", where, "a field that this gate doesn't know")
    return Values(values)


def _read_field(
    entry: Field, member: object, where: str, values: dict[str, object], findings: FindingCollector
) -> None:
    if member is None:
        return
    try:
        value = entry.read(member)
    except WrongError as error:
        rule = entry.rule if entry.posture is Posture.DENY else "body.type"
        findings.add(rule, where, f"expected {error}", entry.remedy)
        return
    if not entry.keep_zero and (is_unset(member) or value == {}):
        return
    if entry.posture is Posture.DENY:
        findings.add(entry.rule, where, entry.why, entry.remedy)
    elif entry.posture is not Posture.DROP:
        values[entry.name] = value


# Readers. Each takes a JSON value other than null and returns a typed value or raises WrongError.


def flag(value: object) -> bool:
    """Read true or false."""
    if not isinstance(value, bool):
        raise WrongError("true or false")
    return value


def whole(value: object) -> int:
    """Read a 64-bit integer."""
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > INT64_MAX:
        raise WrongError("a 64-bit whole number")
    return value


def whole_or_all(value: object) -> int:
    """Read a 64-bit integer whose zero means no limit, as -1 does."""
    return whole(value) or -1


def free_text(value: object) -> str:
    """Read a text without NUL, possibly with line breaks (arguments, scripts)."""
    if not isinstance(value, str) or not is_unicode(value) or "\0" in value:
        raise WrongError("a text without NUL")
    return value


def text(value: object) -> str:
    """Read a text of one printable line."""
    line = free_text(value)
    if len(line) > TEXT_MAX or not is_one_line(line):
        raise WrongError(f"a line of at most {TEXT_MAX} printable characters")
    return line


def list_of(read: ValueReader, *, most: int = LIST_MAX) -> ValueReader:
    """Return a reader of lists with *read* for the items."""

    def read_list(value: object) -> tuple[object, ...]:
        if not isinstance(value, list) or len(value) > most:
            raise WrongError(f"a list of at most {most}")
        return tuple(read(item) for item in value)

    return read_list


def command(value: object) -> object:
    """Read a list of texts, or one text as a list of one: the engine accepts both."""
    return (free_text(value),) if isinstance(value, str) else list_of(free_text)(value)


def map_of(read: ValueReader, *, most: int = LIST_MAX) -> ValueReader:
    """Return a reader of objects with *read* for the members, null members included."""

    def read_map(value: object) -> dict[str, object]:
        if not isinstance(value, dict) or len(value) > most:
            raise WrongError(f"an object of at most {most} members")
        return {text(key): read(member) for key, member in value.items()}

    return read_map


def an_object(value: object) -> object:
    """Read an object with a table of its own."""
    if not isinstance(value, dict):
        raise WrongError("an object")
    return value


def structure(value: object) -> object:
    """Read an object of fixed members. An object of unset members equals an empty one."""
    if not isinstance(value, dict):
        raise WrongError("an object")
    return {key: member for key, member in value.items() if not is_unset(member)}


def anything(value: object) -> object:
    """Read any JSON value. The value is checked elsewhere, or refused if set."""
    return value


texts = list_of(free_text)
lines = list_of(text)
members = map_of(anything)
text_members = map_of(free_text)


def is_unicode(value: str) -> bool:
    """Return True if a text has no lone surrogate."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_one_line(value: str) -> bool:
    """Return True if a text has no control, line separator or invisible direction mark."""
    if value.isascii():
        return value.isprintable()  # the same result, without a look at each character
    return not any(unicodedata.category(c) in {"Cc", "Cf", "Zl", "Zp", "Cs"} for c in set(value))
