"""The loader of YAML, within limits: nodes, aliases, merge keys, plain scalars, errors in plain words.

The loader of YAML: libyaml's nodes within limits, and a walk that expands aliases and merge keys.

Documents and Compose files are read by subclasses of ``NodeReader``. They differ in tags, in the words of
plain scalars (``plain_scalars``), and in what becomes of a node.

Unquoted scalars: those of documents, and those of Compose files.

Documents have the words and numbers of YAML 1.2's core schema, except for misleading forms: ``no``, ``on``,
``1:30`` and ``010`` are strings. In Compose files (go-yaml v3), ``yes`` and ``on`` are strings, ``010`` is an
octal number, ``1_000`` is a number, ``2024-01-01`` is a date. A date has no form that Compose files can use,
so a date is an error of the file.

Syntax errors of libyaml in terms that help the author of a file.

libyaml names tokens and contexts of its parser. The messages here name the mistake: indentation, a
colon without a space, a bracket or quote without its end.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import yaml
from yaml.cyaml import CBaseLoader

from controller.model.errors import Problem

_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
# Digits after a leading zero are a mode, a date or an account number, not a quantity. Digits beyond
# a 64-bit integer are an identifier.
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})", re.ASCII)
_HEX_OR_OCTAL = re.compile(r"0x[0-9a-fA-F]{1,15}|0o[0-7]{1,20}", re.ASCII)
_FLOAT = re.compile(
    r"(?=.*[.eE])[-+]?(?:\.[0-9]{1,20}|(?:0|[1-9][0-9]{0,19})(?:\.[0-9]{0,20})?)(?:[eE][-+]?[0-9]{1,2})?",
    re.ASCII,
)


def resolve_plain(text: str) -> object:
    """Return the value of an unquoted scalar: a word, a number, or the text itself."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "-+.0123456789":
        return text
    if _INTEGER.fullmatch(text):
        return int(text)
    if _HEX_OR_OCTAL.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


#: Numbers of Compose files that no attribute can have.
_NOT_FINITE = {
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
}
_COMPOSE_INTEGER = re.compile(
    r"[-+]?(?:0[xX](?P<hex>[0-9a-fA-F]+)|0[bB](?P<binary>[01]+)|0[oO]?(?P<octal>[0-7]+)|(?:0|[1-9][0-9]*))",
    re.ASCII,
)
_COMPOSE_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_DATE = re.compile(
    r"[0-9]{4}-(?:0?[1-9]|1[0-2])-(?:0?[1-9]|[12][0-9]|3[01])"
    r"(?:[Tt ][ ]*[0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2}(?:\.[0-9]+)?(?:Z|[-+][0-9]{2}:[0-9]{2})?)?",
    re.ASCII,
)
#: Compose reads larger integers as floating point numbers.
MAX_COMPOSE_INTEGER = 2**64
MIN_COMPOSE_INTEGER = -(2**63)
#: A longer run of digits is a string: no attribute of a Compose file has such a number.
MAX_DIGITS = 40


def resolve_compose(text: str) -> bool | int | float | str | None:
    """Return the value of an unquoted scalar of a Compose file."""
    if text in _WORDS or text in _NOT_FINITE:
        return _WORDS[text] if text in _WORDS else _NOT_FINITE[text]
    if text[0] not in "-+.0123456789" or len(text) > MAX_DIGITS:
        return text
    digits = text.replace("_", "")
    match = _COMPOSE_INTEGER.fullmatch(digits)
    if match is not None:
        number = _integer(digits, match)
        if MIN_COMPOSE_INTEGER <= number < MAX_COMPOSE_INTEGER:
            return number
    if _COMPOSE_FLOAT.fullmatch(digits):
        return float(digits)
    return text


def _integer(digits: str, match: re.Match[str]) -> int:
    for name, base in (("hex", 16), ("binary", 2), ("octal", 8)):
        if match[name] is not None:
            return int(match[name], base) * (-1 if digits[0] == "-" else 1)
    return int(digits)


def is_date(text: str) -> bool:
    """Return True if a scalar without quotes is a date or a time."""
    return text[:1].isdigit() and _DATE.fullmatch(text) is not None


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


MAX_DEPTH: Final = 64
#: The tag of a node that was written without one.
IMPLICIT: Final = ""
STANDARD: Final = "tag:yaml.org,2002:"
#: The path of a value, as ``documents.YamlPath``.
_Path = tuple[str | int, ...]
Made = TypeVar("Made")


class TooManyError(Exception):
    """A limit is exceeded; ``mark`` is the place, if known."""

    def __init__(self, message: str, mark: yaml.Mark | None = None) -> None:
        super().__init__(message)
        self.mark = mark


#: What ``roots`` and a ``NodeReader`` raise for the content of a text.
ERRORS: Final = (TooManyError, yaml.YAMLError, RecursionError, ValueError)


@dataclass(frozen=True, slots=True)
class Limits:
    """The values of a file or a project, each alias counted as often as it is used."""

    whole: str  # of which the values are counted: file or project
    nodes: int

    def problem(self, error: TooManyError, file: str, line: int) -> Problem:
        """Return the problem of an exceeded limit; *line* is the first line of the text."""
        mark = error.mark
        row, column = (mark.line, mark.column) if mark is not None else (0, 0)
        expected = f"at most {self.nodes} values a {self.whole} with aliases expanded, {MAX_DEPTH} levels deep"
        remedy = f"split the {self.whole}, nest less deeply, or use fewer aliases"
        return Problem("yaml.limit", str(error), file, line + row, column + 1, expected, remedy)


class NodeAllowance:
    """The nodes that may still be read."""

    def __init__(self, nodes: int) -> None:
        self.nodes = nodes
        self._first = nodes

    @property
    def spent(self) -> int:
        """The nodes that were taken so far."""
        return self._first - self.nodes

    def spend(self, nodes: int) -> bool:
        """Take nodes; return False if there are too few."""
        self.nodes -= nodes
        return self.nodes >= 0


class _Loader(CBaseLoader):
    """libyaml's parser, with bounds on nodes and depth; written tags differ from implicit ones."""

    def __init__(self, text: str, limit: int) -> None:
        super().__init__(text)
        self.limit = limit
        self.nodes = 0
        self.depth = 0

    def resolve(self, *_node: object) -> str:
        return IMPLICIT

    def descend_resolver(self, node: yaml.Node | None, *_index: object) -> None:
        self.nodes += 1
        self.depth += 1
        if self.nodes > self.limit:
            raise TooManyError(f"more than {self.limit} values in one text")
        if self.depth > MAX_DEPTH + 1:
            mark = node.start_mark if node is not None else None
            raise TooManyError(f"nested deeper than {MAX_DEPTH} levels", mark)

    def ascend_resolver(self) -> None:
        self.depth -= 1


def roots(text: str, limits: Limits) -> list[yaml.Node]:
    """Return the root node of each document of a text that isn't empty.

    Raises:
        ERRORS: see ``problem_of``.
    """
    loader = _Loader(text, limits.nodes)
    found = []
    while loader.check_node():
        found.append(loader.get_node())
    return [root for root in found if root is not None]


def problem_of(error: Exception, text: str, file: str, line: int, limits: Limits) -> Problem:
    """Return the problem of one of ``ERRORS``; *line* is the first line of the text."""
    match error:
        case TooManyError():
            return limits.problem(error, file, line)
        case yaml.MarkedYAMLError():
            return syntax_problem(error, text, file, line)
        case _:
            position = getattr(error, "position", 0)
            line += text.count("\n", 0, position if isinstance(position, int) else 0)
            remedy = "remove control characters, or write them as escapes in double quotes"
            return Problem("yaml.syntax", f"not YAML: {error}", file, line, 1, remedy=remedy)


class NodeReader(ABC, Generic[Made]):
    """Converts nodes. A node counts as often as aliases expand it."""

    def __init__(self, file: str, line: int, allowance: NodeAllowance, limits: Limits) -> None:
        self.file = file
        self.line = line  # of the first character of the text
        self.allowance = allowance
        self.limits = limits

    @abstractmethod
    def put(self, members: dict[str, Made], key: yaml.Node, child: yaml.Node, path: _Path) -> None:
        """Add the member at *path* to the members of its mapping."""

    @abstractmethod
    def key(self, key: yaml.Node, path: _Path) -> str | None:
        """Return the key of a member; None, with a problem, for an invalid one."""

    @abstractmethod
    def problem(self, path: _Path, problem: Problem) -> None:
        """Take a problem of the value at a path."""

    def enter(self, node: yaml.Node, path: _Path) -> None:
        """Count a node.

        Raises:
            TooManyError: a limit is exceeded.
        """
        if not self.allowance.spend(1):
            message = (
                f"more than {self.limits.nodes} values, counting each alias as often as it is used"
            )
            raise TooManyError(message, node.start_mark)
        if len(path) > MAX_DEPTH:
            raise TooManyError(f"nested deeper than {MAX_DEPTH} levels", node.start_mark)

    def members(self, node: yaml.Node, path: _Path) -> dict[str, Made]:
        """Return the members of a mapping, with those of ``<<`` that aren't written.

        Raises:
            TooManyError: a limit is exceeded.
        """
        members: dict[str, Made] = {}
        lines: dict[str, int] = {}
        merges: list[tuple[yaml.Node, yaml.Node]] = []
        for key, child in node.value:
            name = self.key(key, path)
            if name is None:
                continue
            if name in lines:
                message = f"key {json.dumps(name)} is repeated; it is first on line {lines[name]}"
                place = (*path, name)
                self.fault(place, key, "yaml.duplicate-key", message, "keep one of them")
                continue
            lines[name] = self.line + key.start_mark.line
            if is_merge(key):
                merges.append((key, child))
            else:
                self.put(members, key, child, (*path, name))
        self.add_lines(path, lines)
        for key, child in merges:
            for name, member in self._merged(key, child, path):
                if name not in lines:
                    members.setdefault(name, member)
        return members

    def _merged(self, key: yaml.Node, child: yaml.Node, path: _Path) -> list[tuple[str, Made]]:
        """Return the members of ``<<``, a mapping or a list of mappings; the first of a name counts."""
        found: list[tuple[str, Made]] = []
        for source in child.value if isinstance(child, yaml.SequenceNode) else [child]:
            if isinstance(source, yaml.MappingNode):
                self.enter(source, path)
                found += self.members(source, (*path, "<<")).items()
            else:
                message = "a merge key (<<) takes a mapping or a list of mappings"
                self.fault(path, key, "yaml.merge", message, "name an anchor of a mapping")
        return found

    def add_lines(self, path: _Path, lines: Mapping[str, int]) -> None:
        """Take the lines of the keys of a mapping."""

    def fault(self, path: _Path, node: yaml.Node, code: str, message: str, remedy: str) -> None:
        """Take a problem at the place of a node."""
        mark = node.start_mark
        place = (self.line + mark.line, mark.column + 1)
        self.problem(path, Problem(code, message, self.file, *place, remedy=remedy))


def is_merge(key: yaml.Node) -> bool:
    """Return True for the key ``<<``."""
    return isinstance(key, yaml.ScalarNode) and key.value == "<<" and not key.style
