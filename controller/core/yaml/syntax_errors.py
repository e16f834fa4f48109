"""Syntax errors of libyaml in terms that help the author of a file.

libyaml names tokens and contexts of its parser. The messages here name the mistake: indentation, a
colon without a space, a bracket or quote without its end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from controller.model.errors import Problem

if TYPE_CHECKING:
    import yaml

_OPENED = {"a flow sequence": ("list", "]"), "a flow mapping": ("mapping", "}")}
#: Larger than the indentation of any line.
MAX_INDENT = 2**20
#: A key with no space after its colon.
_TIGHT = re.compile(r" *(?:- )?[\w.-]+:[^\s/]")
#: A variable as far as libyaml reads it where values are in brackets.
_BARE_VARIABLE = re.compile(r"\$\{\w*:?\Z")
_NO_COLON = "could not find expected ':'"
_SPECIAL = {"@": "'@'", "`": "a backtick", "%": "'%'"}


def syntax_problem(error: yaml.MarkedYAMLError, chunk: str, file: str, line: int) -> Problem:
    """Return the problem of a document with invalid YAML; *line* is the first line of *chunk*."""
    lines = chunk.rstrip().split("\n")
    row, column = _place(error, lines)
    message, remedy = _words(error, lines, row, column, line)
    context = error.context_mark
    if context is not None and _starts_before(error):
        row, column = context.line, context.column
    return Problem("yaml.syntax", message, file, line + row, column + 1, remedy=remedy)


def _place(error: yaml.MarkedYAMLError, lines: Sequence[str]) -> tuple[int, int]:
    mark = error.problem_mark or error.context_mark
    row, column = (mark.line, mark.column) if mark is not None else (0, 0)
    if row >= len(lines):
        # A document that ends too early is reported at its end, not in the next document.
        row, column = len(lines) - 1, len(lines[-1])
    return row, column


def _starts_before(error: yaml.MarkedYAMLError) -> bool:
    """Return True if the mistake is at the start of the construct, not where libyaml stopped."""
    problem, context = error.problem or "", error.context or ""
    return _NO_COLON in problem or (
        "unexpected end of stream" in problem and "quoted scalar" in context
    )


def _words(
    error: yaml.MarkedYAMLError, lines: Sequence[str], row: int, column: int, first: int
) -> tuple[str, str]:
    """Return message and remedy."""
    problem, context = error.problem or "", error.context or ""
    if plain := _plain_words(problem, lines[row], column):
        return plain
    if bare := _bare_variable(context, lines[row], column):
        return bare
    if "mapping values are not allowed" in problem:
        return _misplaced_colon(lines, row, column, first)
    if _NO_COLON in problem:
        start = error.context_mark
        if start is not None and _TIGHT.match(lines[start.line]):
            return "no space behind the colon", 'write "KEY: VALUE"'
        return "a line without a colon, where a mapping is expected", 'write "KEY: VALUE"'
    if "unexpected end of stream" in problem and error.context_mark is not None:
        return "a quote that is opened here and never closed", "add the closing quote"
    if "flow node" in context:
        return "a list or mapping that begins before and is never closed", "close it with ] or }"
    if opened := next((o for name, o in _OPENED.items() if name in context), None):
        return _unclosed(error, opened, first)
    if "block mapping" in context or "block collection" in context:
        return _misfit(error, lines, row, column, first)
    message = f"{problem} ({context})" if context else problem or "not YAML"
    return message, "check the indentation, and quote texts that hold special characters"


def _plain_words(problem: str, text: str, column: int) -> tuple[str, str] | None:
    """Return message and remedy of a mistake visible in its own line, None for any other."""
    if "\t" in (text[column : column + 1], *text[:column]) and not text[:column].strip():
        return "a tab in the indentation", "indent with spaces, not with tabs"
    if "undefined alias" in problem:
        remedy = "name an anchor (&NAME) of the same document, or quote the text"
        return "an alias (*NAME) without an anchor of that name", remedy
    if "cannot start any token" in problem:
        character = _SPECIAL.get(text[column : column + 1], "this character")
        return f"a text can't begin with {character} here", "put quotes around the text"
    return None


def _bare_variable(context: str, text: str, column: int) -> tuple[str, str] | None:
    """Return message and remedy of a variable without quotes in [] or {}, None for any other error.

    libyaml takes the brace of ``${NAME}`` for the start of a mapping.
    """
    in_brackets = any(name in context for name in (*_OPENED, "plain scalar"))
    if not in_brackets or not _BARE_VARIABLE.search(text[: column + 1]):
        return None
    return "a variable without quotes between [ and ], or { and }", "put quotes around the value"


def _unclosed(error: yaml.MarkedYAMLError, opened: tuple[str, str], first: int) -> tuple[str, str]:
    kind, closing = opened
    mark = error.context_mark
    where = f" that begins on line {first + mark.line}" if mark is not None else ""
    return f"the {kind}{where} goes on here without ',' or '{closing}'", f"add ',' or '{closing}'"


def _misfit(
    error: yaml.MarkedYAMLError, lines: Sequence[str], row: int, column: int, first: int
) -> tuple[str, str]:
    """Return message and remedy of a line that belongs to none of the blocks around it."""
    start = error.context_mark
    begins = not lines[row][:column].strip()
    if start is None or not begins:
        return "text behind a value that is complete", "quote the whole value, or remove the rest"
    if column == start.column and "collection" in (error.context or ""):
        where = f"the list that begins on line {first + start.line}"
        remedy = "begin it with '- ', or indent it as the key of the list"
        return f"a line without '- ' in {where}", remedy
    fits = [
        f"by {_spaces(indent)}, like line {first + number}"
        for indent, number in _levels(lines, row)
    ]
    message = f"this line is indented by {_spaces(column)}, which fits no line above it"
    return message, f"indent it {' or '.join(fits[:2])}"


def _levels(lines: Sequence[str], row: int) -> Iterator[tuple[int, int]]:
    """Yield the indentations of the open blocks before a line, inner blocks first."""
    least = len(lines[row]) + MAX_INDENT
    for number in range(row - 1, -1, -1):
        text = lines[number]
        if not text.strip() or text.lstrip().startswith("#"):
            continue
        indent = _indent(text)
        inside = indent + 2 if text.lstrip().startswith("- ") else indent
        for level in (inside, indent):
            if level < least:
                least = level
                yield level, number


def _spaces(count: int) -> str:
    return f"{count} space{'' if count == 1 else 's'}"


def _misplaced_colon(lines: Sequence[str], row: int, column: int, first: int) -> tuple[str, str]:
    text = lines[row]
    if ": " in text[:column] or ":" in text[:column].rstrip(" "):
        return "a value that holds ': ' without quotes", "put quotes around the value"
    before = next((n for n in range(row - 1, -1, -1) if lines[n].strip()), None)
    if before is None:
        return "a ': ' where no mapping can begin", "check the indentation"
    number, previous = first + before, lines[before]
    indent, deeper = _indent(previous), _indent(text) > _indent(previous)
    if _TIGHT.match(previous):
        return f"line {number} has no space behind its colon", 'write "KEY: VALUE"'
    if not deeper and ":" not in previous:
        return f"line {number} has no colon", 'write "KEY: VALUE"'
    message = f"this line is indented deeper than line {number}, which has a value already"
    return message, f"indent it by {_spaces(indent)}, like line {number}"


def _indent(text: str) -> int:
    return len(text) - len(text.lstrip(" "))
