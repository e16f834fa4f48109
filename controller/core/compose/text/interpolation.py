"""Interpolation of trees: variables in every string, and strings to numbers and booleans by path.

Compose casts a string at some paths also where the string has no variable.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from controller.core.compose.text.nodes import (
    ComposeNode,
    Fault,
    NodePath,
    NodeValue,
    PathTable,
    ReadingReport,
    fail,
)
from controller.core.compose.text.variables import (
    InvalidTemplate,
    RequiredVariable,
    TextTooLong,
    substitute,
)

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
