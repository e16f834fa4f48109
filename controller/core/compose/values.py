"""Forms of values: how each kind of attribute is read, and what documents have for it.

The references are the ``DecodeMapstructure`` functions of compose-go, go-units, Go's
``time.ParseDuration`` and go-shellwords.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, NoReturn

from controller.core.compose.nodes import (
    ComposeNode,
    NodePath,
    NodeValue,
    ReadingReport,
    fail,
    scalar_text,
)
from controller.core.compose.variables import Cast, to_boolean, to_integer, to_number
from controller.core.encoding.text import kind_of
from controller.model import quantities

_DURATION = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_MAX_NANOSECONDS = 2**63 - 1
#: The digits of a whole number in a duration; a longer one exceeds ``_MAX_NANOSECONDS``.
_DIGITS_MAX = 20
_NS_PER_MS: Final = 1_000_000
_SPACE = " \t\r\n"

#: Returns the value of a node; the value can have any form that the schema permits.
ReadValue = Callable[[ComposeNode, NodePath, ReadingReport], NodeValue]


def _written(value: object) -> object:
    return value or None


@dataclass(frozen=True, slots=True)
class ValueForm:
    """A kind of value."""

    read: ReadValue
    #: Returns what a document has for a value that was read; None for no field.
    write: Callable[[object], object] = _written
    #: Where a string of this form has variables, or none: the value of the string.
    cast: Cast | None = None


def wrong(node: ComposeNode, expected: str, path: NodePath) -> NoReturn:
    """Raise the problem of a value of the wrong kind.

    Raises:
        Fault: always.
    """
    message = f"must be {expected}, not {kind_of(node.value)}"
    fail(node, "compose.type", message, f"write {expected}", path)


def _as_written(node: ComposeNode, _path: NodePath, _report: ReadingReport) -> NodeValue:
    return node.value


def _texts(node: ComposeNode, _path: NodePath, _report: ReadingReport) -> NodeValue:
    """Read a list of strings, or a single string."""
    items = [node] if isinstance(node.value, str) else node.items
    return [item.at(scalar_text(item.value)) for item in items]


def _flag(node: ComposeNode, path: NodePath, _report: ReadingReport) -> NodeValue:
    value = node.value
    return to_boolean(node, value, path) if isinstance(value, str) else value


def _number(node: ComposeNode, path: NodePath, _report: ReadingReport) -> NodeValue:
    value = node.value
    return to_number(node, value, path) if isinstance(value, str) else value


def _integer(node: ComposeNode, path: NodePath, _report: ReadingReport) -> NodeValue:
    value = node.value
    if isinstance(value, str):
        return to_integer(node, value, path)
    if isinstance(value, float) and not value.is_integer():
        wrong(node, "an integer without fraction", path)
    return int(value) if isinstance(value, float) else value


def _natural(node: ComposeNode, path: NodePath, report: ReadingReport) -> NodeValue:
    """Read an integer that is not negative; strings at places with a cast are integers already."""
    if isinstance(node.value, str):
        wrong(node, "an integer", path)
    value = _integer(node, path, report)
    if isinstance(value, int) and value < 0:
        fail(node, "compose.value", "must not be negative", "write 0 or more", path)
    return value


def _device_count(node: ComposeNode, path: NodePath, report: ReadingReport) -> NodeValue:
    is_all = isinstance(node.value, str) and node.value.lower() == "all"
    return -1 if is_all else _integer(node, path, report)


def read_size(node: ComposeNode, path: NodePath, _report: ReadingReport) -> NodeValue:
    """Return a size in bytes, such as ``64m``.

    Raises:
        Fault: the string is not a size.
    """
    text = node.value
    if isinstance(text, float):
        wrong(node, "a size, such as 64m", path)
    if not isinstance(text, str):
        return text
    count = quantities.parse_size(text)
    if count is None:
        fail(node, "compose.value", f"{text!r} is not a size", "write bytes, or 64m, or 1g", path)
    return count


def read_duration(node: ComposeNode, path: NodePath, _report: ReadingReport) -> NodeValue:
    """Return a duration, such as ``1m30s``, in milliseconds.

    Raises:
        Fault: the string is not a duration.
    """
    text = scalar_text(node.value)
    body = text.removeprefix("-").removeprefix("+") if text[:2] not in {"-+", "+-"} else text
    total = 0
    at = 0
    while match := _DURATION.match(body, at):
        if len(match[1].partition(".")[0].lstrip("0")) > _DIGITS_MAX:
            total = _MAX_NANOSECONDS + 1
            break
        total += int(Decimal(match[1]) * _UNITS[match[2]])
        at = match.end()
    if body == "0":
        return 0
    if at != len(body) or not body or total > _MAX_NANOSECONDS:
        remedy = "write a number with a unit, such as 30s or 1m30s"
        fail(node, "compose.value", f"{text!r} is not a duration", remedy, path)
    return round(total / _NS_PER_MS) * (-1 if text.startswith("-") else 1)


def _command(node: ComposeNode, path: NodePath, report: ReadingReport) -> NodeValue:
    """Read a command line, or a list of words."""
    if not isinstance(node.value, str):
        return node.value
    words, cut = split_command(node, node.value, path)
    if cut:
        message = "Compose drops the text from the first ; & | < or > outside quotes"
        remedy = 'write a list: ["sh", "-c", "…"]'
        report.warn(node, "compose.command-cut", message, remedy, path)
    return [node.at(word) for word in words]


def _variables(node: ComposeNode, _path: NodePath, _report: ReadingReport) -> NodeValue:
    """Read a mapping, or a list ``KEY=VALUE``, to strings by name; null is a name without a value."""
    members = dict(node.members)
    for item in node.items:
        key, equals, value = scalar_text(item.value).partition("=")
        members[key] = item.at(value if equals else None)
    return {
        key: each if each.value is None else each.at(scalar_text(each.value))
        for key, each in members.items()
    }


def _mapping(node: ComposeNode, path: NodePath, report: ReadingReport) -> NodeValue:
    """Read strings by name; a name without a value has an empty string."""
    read = _variables(node, path, report)
    assert isinstance(read, dict), "variables by name"
    return {key: each.at(each.text or "") for key, each in read.items()}


def _hosts(node: ComposeNode, path: NodePath, _report: ReadingReport) -> NodeValue:
    """Read extra hosts to the addresses of each host, with commas between them."""
    found: dict[str, ComposeNode] = {}
    for host, value in sorted(_host_addresses(node, path), key=lambda pair: pair[0]):
        if not host or ":" in host or "=" in host:
            remedy = "write HOST=ADDRESS"
            fail(value, "compose.value", f"invalid host {host!r}", remedy, path)
        address = scalar_text(value.value) if value.value is not None else ""
        if len(address) > 2 and address.startswith("[") and address.endswith("]"):
            address = address[1:-1]
        others = (found[host].text or "").split(",") if host in found else []
        found[host] = value.at(",".join(sorted({*others, address})))
    return dict(found)


def _host_addresses(node: ComposeNode, path: NodePath) -> list[tuple[str, ComposeNode]]:
    if isinstance(node.value, dict):
        pairs = node.value.items()
        return [(host, item) for host, value in pairs for item in (value.items or [value])]
    found = []
    for item in node.items:
        line = scalar_text(item.value)
        separator = "=" if "=" in line else ":"
        host, cut, addresses = line.partition(separator)
        if not cut:
            message = f"{line!r} has no address"
            fail(item, "compose.value", message, "write HOST=ADDRESS", path)
        found += [(host, item.at(address)) for address in addresses.split(",")]
    return found


def split_command(node: ComposeNode, line: str, path: NodePath = ()) -> tuple[list[str], bool]:
    """Return the words of a command line, and True if Compose drops the rest of the line.

    Compose stops at ``;``, ``&``, ``|``, ``<`` or ``>`` outside quotes.

    Raises:
        Fault: an open quote, a backslash at the end, or a parenthesis outside quotes.
    """
    words = _Words(line)
    if not words.read():
        # The line can contain the value of a variable, such as a password.
        message = "has an open quote, a backslash at its end, or a parenthesis outside quotes"
        remedy = "close the quote, or write the command as a list"
        fail(node, "compose.command", message, remedy, path)
    return words.words, words.cut


class _Words:
    """One pass over a command line, with the states of go-shellwords."""

    def __init__(self, line: str) -> None:
        self._line = line
        self.words: list[str] = []
        self.cut = False
        self._letters: list[str] = []
        self._begun = False
        #: The open quotes; a backtick can be open around others.
        self._open: set[str] = set()

    def read(self) -> bool:
        """Read the line; return False if the line is invalid."""
        escaped = False
        for letter in self._line:
            if escaped:
                escaped = False
                self._take(letter)
            elif letter == "\\":
                escaped = "'" not in self._open
                if not escaped:
                    self._letters.append(letter)
            elif letter in _SPACE:
                self._space(letter)
            elif letter in ";&|<>" and not self._open:
                self.cut = True
                # A digit before the sign is the number of a file.
                if letter == ">" and self._letters and self._letters[0].isdigit():
                    self._begun = False
                break
            elif not self._quote(letter):
                return False
        self._end_word()
        return not escaped and not self._open

    def _take(self, letter: str) -> None:
        self._letters.append(letter)
        self._begun = True

    def _space(self, letter: str) -> None:
        if self._open:
            self._letters.append(letter)
        else:
            self._end_word()

    def _end_word(self) -> None:
        if self._begun:
            self.words.append("".join(self._letters))
            self._letters, self._begun = [], False

    def _quote(self, letter: str) -> bool:
        """Take a letter that can be a quote; return False if the line is invalid."""
        others = {'"': {"'", "("}, "'": {'"', "("}}.get(letter)
        if others is not None and not self._open & others:
            self._begun = self._begun or letter in self._open
            self._open ^= {letter}
            return True
        if letter == "(" and not self._open & {'"', "'", "`"}:
            if "(" in self._open or self._letters[-1:] != ["$"]:
                return False
            self._open.add("(")
            self._letters.append(letter)
            return True
        if letter == "`" and not self._open & {'"', "'", "("}:
            self._open ^= {"`"}
        elif letter == ")" and not self._open & {'"', "'", "`"}:
            self._open ^= {"("}
        self._take(letter)
        return True


def byte_text(value: object) -> str | None:
    """Return bytes as documents have them, such as ``64Mi``, rounded up to 1 KiB; None for no bytes."""
    count = value if isinstance(value, int) else quantities.parse_size(str(value).strip())
    if not count or count < 0:
        return None
    return quantities.format_bytes(-(-count // quantities.KIB) * quantities.KIB)


def plain_number(value: object) -> object:
    """Return a number as documents have it: whole numbers without a fraction."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _grace(value: object) -> object:
    assert isinstance(value, int), "a duration that was read"
    return quantities.format_duration_ms(-(-value // 1000) * 1000)


WRITTEN: Final = ValueForm(_as_written)
TEXTS: Final = ValueForm(_texts)
FLAG: Final = ValueForm(_flag, cast=to_boolean)
INTEGER: Final = ValueForm(_integer, cast=to_integer)
NATURAL: Final = ValueForm(_natural, cast=to_integer)
#: A mode as a number; Compose takes no string here.
MODE: Final = ValueForm(_natural)
#: A number of which -1 means that there is no limit.
LIMIT: Final = ValueForm(_integer, lambda value: None if value == -1 else value or None, to_integer)
NUMBER: Final = ValueForm(_number, lambda value: plain_number(value) or None, to_number)
SIZE: Final = ValueForm(read_size, byte_text)
DURATION: Final = ValueForm(read_duration)
#: A duration in whole seconds.
GRACE: Final = ValueForm(read_duration, _grace)
COUNT: Final = ValueForm(_device_count)
COMMAND: Final = ValueForm(_command)
VARIABLES: Final = ValueForm(_variables)
MAPPING: Final = ValueForm(_mapping)
HOSTS: Final = ValueForm(_hosts)
