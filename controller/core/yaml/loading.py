"""The loader of YAML: libyaml's nodes within limits, and a walk that expands aliases and merge keys.

Documents and Compose files are read by subclasses of ``NodeReader``. They differ in tags, in the words of
plain scalars (``plain_scalars``), and in what becomes of a node.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import yaml
from yaml.cyaml import CBaseLoader

from controller.core.yaml.syntax_errors import syntax_problem
from controller.model.errors import Problem

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
