"""Variables in strings, in all forms of the Compose Specification.

The forms are ``$NAME``, ``${NAME}``, ``${NAME:-default}``, ``${NAME-default}``, ``${NAME:?error}``,
``${NAME?error}``, ``${NAME:+other}``, ``${NAME+other}``, nested forms, and ``$$`` for a dollar sign.
The reference is ``template/template.go`` of compose-go: a malformed text is read as Compose reads the
text, also where the result surprises.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

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
