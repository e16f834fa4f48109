"""Variables of Compose files, in all forms, and the env files that set them.

Interpolation of trees: variables in every string, and strings to numbers and booleans by path.

Compose casts a string at some paths also where the string has no variable.

Variables in strings, in all forms of the Compose Specification.

The forms are ``$NAME``, ``${NAME}``, ``${NAME:-default}``, ``${NAME-default}``, ``${NAME:?error}``,
``${NAME?error}``, ``${NAME:+other}``, ``${NAME+other}``, nested forms, and ``$$`` for a dollar sign.
The reference is ``template/template.go`` of compose-go: a malformed text is read as Compose reads the
text, also where the result surprises.

Env files (``.env``, ``env_file``, ``label_file``) in the grammar of Docker Compose.

The reference is the package ``dotenv`` of compose-go: ``KEY=VALUE`` or ``KEY: VALUE``, ``export``,
comments, quotes over several lines, escapes in double quotes, and variables outside single quotes.
"""

from __future__ import annotations

import re
import typing
from collections import ChainMap
from collections.abc import Callable, Mapping

from controller.core.compose.nodes import (
    ComposeNode,
    Fault,
    NodePath,
    NodeValue,
    PathTable,
    ReadingReport,
    fail,
)

_START = re.compile(
    r"\$(?:(?P<escaped>\$)|(?P<named>[_a-zA-Z][_a-zA-Z0-9]*)"
    r"|\{(?:(?P<braced>[_a-zA-Z][_a-zA-Z0-9]*)(?P<operator>:?[-+?])?)?)"
)
#: The depth of variables inside defaults.
MAX_NESTING = 32
#: The characters of a string with its variables replaced.
MAX_TEXT = 1024 * 1024

Missing = Callable[[str], None]


class InvalidTemplate(Exception):
    """A dollar sign begins a form that does not exist."""


class TextTooLong(Exception):
    """A string exceeds ``MAX_TEXT`` after the replacement of variables."""


class RequiredVariable(Exception):
    """A variable of the form ``${NAME:?message}`` has no value."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(reason)
        self.name = name
        self.reason = reason


def substitute(text: str, variables: Mapping[str, str], missing: Missing, *, depth: int = 0) -> str:
    """Return the text with all variables replaced; call *missing* with the name of an unset one.

    Raises:
        InvalidTemplate: a form that does not exist, or too many nested forms.
        RequiredVariable: a required variable has no value.
        TextTooLong: the result exceeds ``MAX_TEXT``.
    """
    if "$" not in text:
        return text
    if depth > MAX_NESTING:
        raise InvalidTemplate
    parts: list[str] = []
    at = length = 0
    while match := _START.search(text, at):
        parts.append(text[at : match.start()])
        name = match["named"] or match["braced"]
        if match["escaped"]:
            value, at = "$", match.end()
        elif name is None:
            raise InvalidTemplate
        elif match["operator"]:
            end = _closing_brace(text, match.start())
            argument = substitute(text[match.end() : end], variables, missing, depth=depth + 1)
            value, at = _apply(match["operator"], name, argument, variables), end + 1
        else:
            at = match.end() + _plain_end(text, match)
            value = variables.get(name, "")
            if name not in variables:
                missing(name)
        length += len(value)
        if length > MAX_TEXT:
            raise TextTooLong
        parts.append(value)
    parts.append(text[at:])
    return "".join(parts)


def _plain_end(text: str, match: re.Match[str]) -> int:
    """Return the length of the closing brace of a form without operator."""
    if match["named"]:
        return 0
    if not text.startswith("}", match.end()):
        raise InvalidTemplate
    return 1


def _apply(operator: str, name: str, argument: str, variables: Mapping[str, str]) -> str:
    value = variables.get(name)
    absent = value is None or (operator.startswith(":") and not value)
    match operator[-1]:
        case "-":
            return argument if absent else value or ""
        case "+":
            return value or "" if absent else argument
        case _:
            if absent:
                raise RequiredVariable(name, argument)
            return value or ""


def _closing_brace(text: str, start: int) -> int:
    """Return the index of the brace that closes a form.

    Braces inside count, but the character behind an opening brace never does. In a line with too few
    closing braces, the last brace closes.

    Raises:
        InvalidTemplate: the rest of the line has no closing brace.
    """
    opened, index = 0, start
    while index < len(text) and text[index] != "\n":
        if text[index] == "}":
            opened -= 1
            if opened == 0:
                return index
        elif text[index] == "{":
            opened += 1
            index += 1
        index += 1
    line_end = text.find("\n", start)
    last = text.rfind("}", start, line_end if line_end >= 0 else len(text))
    if last < 0:
        raise InvalidTemplate
    return last


_INTEGER = re.compile(r"[-+]?[0-9]{1,19}", re.ASCII)
_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?", re.ASCII)
_TRUE = frozenset({"true", "y", "yes", "on"})
_FALSE = frozenset({"false", "n", "no", "off"})

Cast = Callable[[ComposeNode, str, NodePath], NodeValue]


def to_integer(node: ComposeNode, text: str, path: NodePath = ()) -> int:
    """Return the integer that a string writes.

    Raises:
        Fault: the string is not an integer.
    """
    if _INTEGER.fullmatch(text):
        return int(text)
    return fail(node, "compose.value", f'"{text}" is not an integer', "write an integer", path)


def to_number(node: ComposeNode, text: str, path: NodePath = ()) -> float:
    """Return the number that a string writes.

    Raises:
        Fault: the string is not a number.
    """
    if _NUMBER.fullmatch(text):
        return float(text)
    return fail(node, "compose.value", f'"{text}" is not a number', "write a number", path)


def to_boolean(node: ComposeNode, text: str, path: NodePath = ()) -> bool:
    """Return the boolean that a string writes.

    Raises:
        Fault: the string is not a boolean.
    """
    word = text.lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    return fail(node, "compose.value", f'"{text}" is not a boolean', "write true or false", path)


def interpolate(
    root: ComposeNode, casts: PathTable[Cast], variables: Mapping[str, str], report: ReadingReport
) -> ComposeNode:
    """Return the tree with all variables replaced. A value with a problem stays as it is.

    *casts* has the places of strings that are numbers or booleans; lists have no part there.
    """
    return _Interpolation(variables, report).node(root, casts, ())


def expand(
    node: ComposeNode, variables: Mapping[str, str], report: ReadingReport, path: NodePath = ()
) -> str:
    """Return a string with all variables replaced, with warnings for unset ones.

    Raises:
        Fault: an invalid form, or a required variable without a value.
    """
    text = node.text or ""

    def missing(name: str) -> None:
        remedy = f"set {name} in the .env file of the project, or write ${{{name}:-}}"
        message = f"the variable {name} is not set; an empty string is used"
        report.warn(node, "compose.variable-unset", message, remedy)

    try:
        expanded = substitute(text, variables, missing)
        is_within = report.make(len(expanded))
    except TextTooLong:
        is_within, expanded = False, ""
    except InvalidTemplate:
        message = "a dollar sign begins no valid variable"  # the text can be a password
        fail(node, "compose.variable", message, "write $$ for a dollar sign", path)
    except RequiredVariable as error:
        reason = f": {error.reason}" if error.reason else ""
        message = f"the variable {error.name} is required{reason}"
        remedy = f"set {error.name} in the .env file of the project"
        fail(node, "compose.variable-required", message, remedy, path)
    if not is_within:
        message = "the values of variables are too long"
        fail(node, "compose.limit", message, "use shorter values, or fewer variables", path)
    return expanded


class _Interpolation:
    """A walk over a tree."""

    def __init__(self, variables: Mapping[str, str], report: ReadingReport) -> None:
        self._variables = variables
        self._report = report

    def node(self, node: ComposeNode, casts: PathTable[Cast] | None, path: NodePath) -> ComposeNode:
        value = node.value
        if isinstance(value, str):
            cast = casts.rule if casts is not None else None
            if cast is not None or "$" in value:
                node.value = self._string(node, value, cast, path)
        elif isinstance(value, dict):
            for name, member in value.items():
                below = casts.below(name) if casts is not None else None
                self.node(member, below, (*path, name))
        elif isinstance(value, list):
            for number, item in enumerate(value):
                self.node(item, casts, (*path, number))
        return node

    def _string(
        self, node: ComposeNode, value: str, cast: Cast | None, path: NodePath
    ) -> NodeValue:
        try:
            text = expand(node, self._variables, self._report, path)
            return text if cast is None else cast(node, text, path)
        except Fault as fault:
            self._report.add(fault.problem)
            return value


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
        # Only read: a variable from outside hides one of the file.
        self._known = ChainMap(typing.cast("dict[str, str]", variables), self._found)

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
            if (
                letter not in _SPACE
                and letter not in "_.-[]"
                and not letter.isalpha()
                and not letter.isnumeric()
            ):
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
                    unescaped = _ESCAPE.sub(lambda match: _unescape(match[0]), value)
                    value = substitute(unescaped, self._known, self._missing)
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
