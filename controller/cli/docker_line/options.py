"""Options of the docker command as its own parser reads them, and the values that they take.

Closed, like the gate's bodies: an option that isn't in a table is an error that names it, never
skipped over. No I/O: variables and files are the caller's to give.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

Kind = Literal["flag", "text", "list"]
Table = Mapping[str, "Option"]

_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")
_BYTES = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kmgtp]?)i?b?", re.ASCII | re.IGNORECASE)
_UNITS = {unit: 1024**power for power, unit in enumerate(["", "k", "m", "g", "t", "p"])}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h)")
_NANOSECONDS = {
    "ns": 1,
    "us": 1000,
    "µs": 1000,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_DECIMAL = re.compile(r"[0-9]+(\.[0-9]*)?|\.[0-9]+", re.ASCII)
_WHOLE = re.compile(r"[+-]?[0-9]+", re.ASCII)


class LineError(ValueError):
    """The line isn't one that the docker command would take; the text says what is wrong."""


@dataclass(frozen=True, slots=True)
class Option:
    """An option: its long name, and whether it takes no value, one, or one each time."""

    name: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Given:
    """The options that were given and the words after them."""

    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    words: tuple[str, ...] = ()

    def has(self, name: str) -> bool:
        """Tell whether an option was given."""
        return name in self.values

    def all(self, name: str) -> tuple[str, ...]:
        """Return every value of an option."""
        return self.values.get(name, ())

    def text(self, name: str) -> str:
        """Return the last value of an option, '' without one."""
        return self.all(name)[-1] if self.has(name) else ""

    def flag(self, name: str) -> bool:
        """Tell whether a flag was given, and not as false."""
        return self.text(name) == "true"

    def whole(self, name: str) -> int:
        """Return a whole number, 0 without one."""
        return whole(self.text(name), name) if self.has(name) else 0


def table(rows: str) -> Table:
    """Return a table of options from lines ``[LETTER] NAME KIND``; also of older names ``NAME=NEW``."""
    found: dict[str, Option] = {}
    for row in filter(None, map(str.strip, rows.splitlines())):
        *letter, names, kind = row.split()
        name, _, new = names.partition("=")
        assert kind in {"flag", "text", "list"}, f"no kind of an option: {row}"
        option = Option(new or name, kind)  # type: ignore[arg-type] # asserted above
        found |= {f"--{name}": option, **{f"-{short}": option for short in letter}}
    return found


def read(words: Sequence[str], options: Table, *, anywhere: bool = True) -> Given:
    """Read options; with *anywhere* also those after the first other word.

    Raises:
        LineError: an option isn't in the table, or has no value.
    """
    values: dict[str, tuple[str, ...]] = {}
    left, rest = list(words), []
    while left:
        word = left.pop(0)
        if word == "--":
            rest += left
            break
        if not word.startswith("-") or word == "-":
            rest.append(word)
            if not anywhere:
                rest += left
                break
        elif word.startswith("--"):
            _long(word, left, options, values)
        else:
            _cluster(word, left, options, values)
    return Given(values, tuple(rest))


def _long(word: str, left: list[str], options: Table, values: dict[str, tuple[str, ...]]) -> None:
    name, equals, value = word.partition("=")
    option = _known(options, name)
    if option.kind == "flag":
        _note(values, option, _truth(value, name) if equals else "true")
    else:
        _note(values, option, value if equals else _next(left, name))


def _cluster(
    word: str, left: list[str], options: Table, values: dict[str, tuple[str, ...]]
) -> None:
    """Read ``-itd``, ``-eA=1`` and ``-e=A=1``: flags, and at the end one that takes a value."""
    letters = word[1:]
    while letters:
        name, letters = f"-{letters[0]}", letters[1:]
        option = _known(options, name)
        if option.kind == "flag":
            if letters.startswith("="):
                _note(values, option, _truth(letters[1:], name))
                return
            _note(values, option, "true")
            continue
        _note(values, option, letters.removeprefix("=") if letters else _next(left, name))
        return


def _known(options: Table, name: str) -> Option:
    if name not in options:
        raise LineError(f"unknown option {name}")
    return options[name]


def _next(left: list[str], name: str) -> str:
    if not left:
        raise LineError(f"the option {name} needs a value")
    return left.pop(0)


def _note(values: dict[str, tuple[str, ...]], option: Option, value: str) -> None:
    before = values.get(option.name, ()) if option.kind == "list" else ()
    values[option.name] = (*before, value)


def _truth(text: str, name: str) -> str:
    if text not in (*_TRUE, *_FALSE):
        raise LineError(f"the option {name} is true or false, not {text!r}")
    return "true" if text in _TRUE else "false"


# Values


def whole(text: str, name: str) -> int:
    """Return a whole number.

    Raises:
        LineError: it isn't one.
    """
    if not _WHOLE.fullmatch(text):
        raise LineError(f"--{name} {text!r}: expected a whole number")
    return int(text)


def count_of_bytes(text: str, name: str) -> int:
    """Return bytes as ``512m`` or ``1.5g`` mean them.

    Raises:
        LineError: it is no size.
    """
    match = _BYTES.fullmatch(text)
    if match is None:
        raise LineError(f"--{name} {text!r}: expected a size such as 512m")
    return int(Fraction(match[1]) * _UNITS[match[2].lower()])


def nano_cpus(text: str) -> int:
    """Return nano-CPUs of a decimal number of CPUs.

    Raises:
        LineError: it is no number, or too precise.
    """
    if not _DECIMAL.fullmatch(text):
        raise LineError(f"--cpus {text!r}: expected a number such as 1.5")
    nano = Fraction(text.rstrip(".") if text.endswith(".") else text) * 10**9
    if nano.denominator != 1:
        raise LineError(f"--cpus {text!r}: more than nine digits after the point")
    return int(nano)


def nanoseconds(text: str, name: str) -> int:
    """Return nanoseconds of a duration such as ``1m30s``.

    Raises:
        LineError: it is no duration.
    """
    parts = _DURATION.findall(text)
    if text == "0":
        return 0
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise LineError(f"--{name} {text!r}: expected a duration such as 1m30s")
    return int(sum(Fraction(f"0{n}".rstrip(".")) * _NANOSECONDS[unit] for n, unit in parts))


def pairs(values: Sequence[str]) -> dict[str, str]:
    """Return ``KEY=VALUE`` texts as a mapping; one without a value has an empty one."""
    return {key: value for key, _, value in (text.partition("=") for text in values)}


def fields(text: str, name: str) -> list[tuple[str, str]]:
    """Return the ``KEY[=VALUE]`` fields of a comma-separated value, keys in lower case.

    Raises:
        LineError: quotes don't match.
    """
    try:
        (row,) = csv.reader([text], strict=True)
    except (csv.Error, ValueError) as error:
        raise LineError(f"--{name} {text!r}: expected KEY=VALUE, separated by commas") from error
    split = [item.partition("=") for item in row]
    return [(key.strip().lower(), value) for key, _, value in split]
