"""Env files (``.env``, ``env_file``, ``label_file``) in the grammar of Docker Compose.

The reference is the package ``dotenv`` of compose-go: ``KEY=VALUE`` or ``KEY: VALUE``, ``export``,
comments, quotes over several lines, escapes in double quotes, and variables outside single quotes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from controller.core.compose.text.variables import (
    InvalidTemplate,
    Missing,
    RequiredVariable,
    TextTooLong,
    substitute,
)

_SPACE = "\t\v\f\r \x85\xa0"
#: Space and comments. Possessive: nothing is given back, so long runs take linear time.
_BLANK = re.compile(r"(?:\s++|#[^\n]*+)*+")
_EXPORT = re.compile(r"^export\s+")
_ESCAPE = re.compile(r'\\(?:[abcfnrtv$"\\]|0\d{0,3})', re.ASCII)
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\"}


#: The characters of all values of an env file.
MAX_VALUES = 2 * 1024 * 1024
MAX_NAMES = 10_000


class EnvFileInvalid(Exception):
    """A line of an env file cannot be read."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line
        self.reason = reason


class _Known(Mapping[str, str]):
    """Variables of the caller before variables of earlier lines."""

    def __init__(self, outer: Mapping[str, str], own: Mapping[str, str]) -> None:
        self._outer = outer
        self._own = own

    def __getitem__(self, name: str) -> str:
        return self._outer[name] if name in self._outer else self._own[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**self._own, **self._outer})

    def __len__(self) -> int:
        return len({**self._own, **self._outer})


def read_env(text: str, variables: Mapping[str, str], missing: Missing) -> dict[str, str]:
    """Return the variables of an env file; *variables* are known from elsewhere.

    Raises:
        EnvFileInvalid: a line cannot be read.
    """
    reader = _Reader(text.removeprefix("\ufeff"), variables, missing)
    try:
        return reader.read()
    except TextTooLong:
        raise EnvFileInvalid(reader.line, "the values are too long") from None
    except InvalidTemplate:
        raise EnvFileInvalid(
            reader.line, "an invalid variable; write $$ for a dollar sign"
        ) from None
    except RequiredVariable as error:
        reason = f": {error.reason}" if error.reason else ""
        raise EnvFileInvalid(reader.line, f"{error.name} has no value{reason}") from None


def read_raw_env(text: str, variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of an env file in the format raw, that of ``docker run --env-file``.

    A value is the rest of its line: quotes, comments and variables in it mean nothing. A name without
    ``=`` has its value from *variables*, or is left out.

    Raises:
        EnvFileInvalid: a line has no name, or a name with a space; the file is too large.
    """
    found: dict[str, str] = {}
    length = 0
    for number, each in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        line = each.removesuffix("\r").lstrip()
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not name:
            raise EnvFileInvalid(number, "the line names no variable")
        if any(letter.isspace() for letter in name):
            raise EnvFileInvalid(number, "the name of a variable contains a space")
        if not equals and name not in variables:
            continue
        found[name] = value if equals else variables[name]
        length += len(found[name])
        if length > MAX_VALUES or len(found) > MAX_NAMES:
            raise EnvFileInvalid(number, "the file has too many or too long values")
    return found


class _Reader:
    """A pass over a text."""

    def __init__(self, text: str, variables: Mapping[str, str], missing: Missing) -> None:
        self._text = text
        self._at = 0
        self._length = 0
        self._missing = missing
        self._outer = variables
        self._found: dict[str, str] = {}
        self._known = _Known(variables, self._found)

    @property
    def line(self) -> int:
        """The line of the current position."""
        return self._text.count("\n", 0, self._at) + 1

    def read(self) -> dict[str, str]:
        while self._skip_blank():
            start = self._at
            key, inherited = self._key()
            if " " in key:
                self._at = start
                raise EnvFileInvalid(self.line, "the name of a variable contains a space")
            if not inherited:
                self._found[key] = value = self._value()
                self._length += len(value)
                if self._length > MAX_VALUES or len(self._found) > MAX_NAMES:
                    raise EnvFileInvalid(self.line, "the file has too many or too long values")
            elif key in self._outer:
                self._found[key] = self._outer[key]
        return self._found

    def _skip_blank(self) -> bool:
        """Go to the next statement; return False at the end."""
        blank = _BLANK.match(self._text, self._at)
        assert blank is not None
        self._at = blank.end()
        return self._at < len(self._text)

    def _key(self) -> tuple[str, bool]:
        """Return the key, and True if the key has no value of its own."""
        text = self._text
        exported = _EXPORT.match(text[self._at : self._at + 64])
        if exported:
            self._at += len("export")
            self._skip_space()
            if self._at == len(text):
                raise EnvFileInvalid(self.line, "export names no variable")
        start, end, inherited = self._at, self._at, False
        key = ""
        while end < len(text):
            letter = text[end]
            if letter in "=:\n":
                key, inherited = text[start:end], letter == "\n"
                end += 1
                break
            if letter not in _SPACE and letter not in "_.-[]" and not _is_word(letter):
                raise EnvFileInvalid(self.line, f"the name of a variable contains {letter!r}")
            end += 1
        else:
            # Without a separator in the rest of the file, Compose takes the rest as a value.
            end = start
        self._at = end
        self._skip_space()
        return key.rstrip(), inherited

    def _skip_space(self) -> None:
        while self._at < len(self._text) and self._text[self._at] in _SPACE:
            self._at += 1

    def _value(self) -> str:
        quote = self._text[self._at : self._at + 1]
        if quote in {'"', "'"}:
            return self._quoted(quote)
        end = self._text.find("\n", self._at)
        end = len(self._text) if end < 0 else end
        value = self._text[self._at : end].partition(" #")[0].rstrip()
        expanded = substitute(value, self._known, self._missing)
        self._at = min(end + 1, len(self._text))
        return expanded

    def _quoted(self, quote: str) -> str:
        start, index = self._at, self._at + 1
        letters: list[str] = []
        escaped = False
        while index < len(self._text):
            letter = self._text[index]
            index += 1
            if letter == quote and not escaped:
                value = "".join(letters)
                if quote == '"':
                    value = substitute(_expand(value), self._known, self._missing)
                self._at = index
                return value
            if letter == "\\" and not escaped:
                escaped = True
                continue
            if escaped and letter != quote:
                letters.append("\\")
            escaped = False
            letters.append(letter)
        self._at = start
        raise EnvFileInvalid(self.line, "a quote is opened here and never closed")


def _is_word(letter: str) -> bool:
    return letter.isalpha() or letter.isnumeric()


def _expand(text: str) -> str:
    return _ESCAPE.sub(lambda match: _unescape(match[0]), text)


def _unescape(escape: str) -> str:
    letter = escape[1]
    if letter == "$":
        return "$$"
    if letter == '"':
        return '"'
    if letter == "0":
        digits = escape[2:]
        valid = len(digits) == 3 and all(digit in "01234567" for digit in digits)
        code = int(digits, 8) if valid else 256
        return chr(code) if code < 256 else f"\\{digits}"
    return _ESCAPES.get(letter, escape)
