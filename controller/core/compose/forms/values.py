"""Scalar values of Compose files: sizes, durations, commands, numbers.

The references are go-units, Go's ``time.ParseDuration`` and go-shellwords.
"""

from __future__ import annotations

import re
import struct
from decimal import Decimal

from controller.core.compose.text.nodes import ComposeNode, NodePath, fail
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
_SPACE = " \t\r\n"


def parse_size(node: ComposeNode, text: str, path: NodePath = ()) -> int:
    """Return a size in bytes, such as ``64m``.

    Raises:
        Fault: the string is not a size.
    """
    count = quantities.parse_size(text)
    if count is None:
        fail(node, "compose.value", f"{text!r} is not a size", "write bytes, or 64m, or 1g", path)
    return count


def parse_duration(node: ComposeNode, text: str, path: NodePath = ()) -> int:
    """Return a duration in nanoseconds, such as ``1m30s``.

    Raises:
        Fault: the string is not a duration.
    """
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
    return -total if text.startswith("-") else total


def duration_text(nanoseconds: int) -> str:
    """Return a duration as Compose prints durations, such as ``1m30s``."""
    sign, rest = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    if rest == 0:
        return "0s"
    for unit in ("ns", "µs", "ms"):
        if rest < _UNITS[unit] * 1000:
            return f"{sign}{_decimal(rest, _UNITS[unit])}{unit}"
    minutes, rest = divmod(rest, _UNITS["m"])
    hours, minutes = divmod(minutes, 60)
    text = f"{_decimal(rest, _UNITS['s'])}s"
    if hours:
        return f"{sign}{hours}h{minutes}m{text}"
    return f"{sign}{minutes}m{text}" if minutes else f"{sign}{text}"


def _decimal(amount: int, unit: int) -> str:
    whole, rest = divmod(amount, unit)
    if not rest:
        return str(whole)
    digits = len(str(unit)) - 1
    return f"{whole}.{rest:0{digits}}".rstrip("0")


def single_precision(number: float) -> float | int:
    """Return a number as Compose prints a number of single precision."""
    if number.is_integer() and abs(number) < 2**24:
        return int(number)
    try:
        packed = struct.pack("f", number)
    except OverflowError:
        return number
    for digits in range(1, 10):
        text = f"{number:.{digits}g}"
        if struct.pack("f", float(text)) == packed:
            return float(text)
    return float(struct.unpack("f", packed)[0])


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
