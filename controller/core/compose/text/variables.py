"""Variables in strings, in all forms of the Compose Specification.

The forms are ``$NAME``, ``${NAME}``, ``${NAME:-default}``, ``${NAME-default}``, ``${NAME:?error}``,
``${NAME?error}``, ``${NAME:+other}``, ``${NAME+other}``, nested forms, and ``$$`` for a dollar sign.
The reference is ``template/template.go`` of compose-go: a malformed text is read as Compose reads the
text, also where the result surprises.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

_PATTERN = re.compile(
    r"\$(?:(?P<escaped>\$)|(?P<named>[_a-zA-Z][_a-zA-Z0-9]*)"
    r"|\{(?:(?P<braced>[_a-zA-Z][_a-zA-Z0-9]*(?::?[-+?](.*))?)\}|(?P<invalid>)))"
)
#: Two-letter operators stand before the operators that they contain.
_OPERATORS = (":?", "?", ":-", "-", ":+", "+")
#: The depth of variables inside defaults.
MAX_NESTING = 32

Missing = Callable[[str], None]


class InvalidTemplate(Exception):
    """A dollar sign begins a form that does not exist."""


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
    """
    if "$" not in text:
        return text
    if depth > MAX_NESTING:
        raise InvalidTemplate
    return _PATTERN.sub(lambda match: _replacement(match[0], variables, missing, depth), text)


def _replacement(text: str, variables: Mapping[str, str], missing: Missing, depth: int) -> str:
    operator = _first_operator(text)
    end = _closing_brace(text)
    rest = ""
    if end >= 0:
        text, rest = text[: end + 1], text[end + 1 :]
    match = _PATTERN.search(text)
    if match is None:
        raise InvalidTemplate
    if match["escaped"]:
        return "$"
    if match["braced"] and operator and operator in match["braced"]:
        name, _, argument = match["braced"].partition(operator)
        argument = substitute(argument, variables, missing, depth=depth + 1)
        value = _apply(operator, name, argument, variables)
        return value + substitute(rest, variables, missing, depth=depth + 1)
    name = match["named"] or match["braced"] or ""
    if not name:
        raise InvalidTemplate
    if name not in variables:
        missing(name)
    return variables.get(name, "")


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


def _first_operator(text: str) -> str | None:
    found = [(text.index(operator), n) for n, operator in enumerate(_OPERATORS) if operator in text]
    return _OPERATORS[min(found)[1]] if found else None


def _closing_brace(text: str) -> int:
    """Return the index of the brace that closes the first form; -1 without one."""
    opened = index = 0
    while index < len(text):
        if text[index] == "}":
            opened -= 1
            if opened == 0:
                return index
        elif text[index] == "{":
            opened += 1
            index += 1
        index += 1
    return -1
