"""Nodes: values of Compose files with their places, and the report of their problems.

A member of a mapping has the place of its key; an item of a list has its own place. Nodes are
mutable and never shared between trees: merging changes nodes in place.

YAML of Compose files to nodes, as Docker Compose reads YAML, within limits.

Every alias becomes nodes of its own. The tags ``!reset`` and ``!override`` are recorded by path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Final, Generic, NoReturn, TypeAlias, TypeVar

import yaml

from controller.core.compose.project import ComposeProject, Place, TreePath
from controller.core.encoding.text import path_text
from controller.core.yaml import loading
from controller.core.yaml.file_limit import MAX_BYTES, too_big
from controller.model.errors import Problem, Severity

NodeValue: TypeAlias = (
    "bool | int | float | str | list[ComposeNode] | dict[str, ComposeNode] | None"
)
#: The path of a node for messages: keys and indexes from the root.
NodePath = tuple[str | int, ...]
NodeRule = TypeVar("NodeRule")


class ComposeNode:
    """A value with a place in a file."""

    __slots__ = ("column", "file", "line", "value")

    def __init__(self, value: NodeValue, file: str, line: int, column: int) -> None:
        self.value = value
        self.file = file
        self.line = line
        self.column = column

    def at(self, value: NodeValue) -> ComposeNode:
        """Return a node for another value at the same place."""
        return ComposeNode(value, self.file, self.line, self.column)

    def get(self, name: str) -> ComposeNode | None:
        """Return a member of a mapping; None without such a member, or for any other value."""
        return self.value.get(name) if isinstance(self.value, dict) else None

    @property
    def members(self) -> dict[str, ComposeNode]:
        """The members of a mapping; none for any other value."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def items(self) -> list[ComposeNode]:
        """The items of a list; none for any other value."""
        return self.value if isinstance(self.value, list) else []

    def members_of(self, name: str) -> dict[str, ComposeNode]:
        """Return the members of a member; none without such a member."""
        found = self.get(name)
        return found.members if found is not None else {}

    def items_of(self, name: str) -> list[ComposeNode]:
        """Return the items of a member; none without such a member."""
        found = self.get(name)
        return found.items if found is not None else []

    @property
    def text(self) -> str | None:
        """The value, if the value is a string."""
        return self.value if isinstance(self.value, str) else None

    @property
    def place(self) -> Place:
        """The place of the node."""
        return Place(self.file, self.line, self.column)


class RootPath(str):
    """A path relative to the root of the source: never resolved again."""

    __slots__ = ()


class Fault(Exception):
    """A problem at a node; the value at the node cannot be used."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def fail(node: ComposeNode, code: str, message: str, remedy: str, path: NodePath = ()) -> NoReturn:
    """Raise the problem of a node.

    Raises:
        Fault: always.
    """
    raise Fault(problem_at(node, code, message, remedy, path))


def problem_at(
    node: ComposeNode, code: str, message: str, remedy: str, path: NodePath = ()
) -> Problem:
    """Return the problem of a node."""
    field = path_text(path)
    message = f"{field}: {message}" if field else message
    return Problem(code, message, node.file, node.line, node.column, remedy=remedy, field=field)


#: The characters that variables and ranges of ports may make in a project.
MAX_MADE = 16 * 1024 * 1024


#: The errors of a project that are kept, and the warnings.
MAX_PROBLEMS = 200


class ReadingReport:
    """The problems of a project, each one once, and the allowance of values that are made.

    Of many problems, the first errors and the first warnings are kept.
    """

    def __init__(self) -> None:
        self.made = 0
        self._left_out = 0
        self._counts: dict[Severity, int] = {}
        self._problems: dict[Problem, None] = {}
        self.failed = False

    def add(self, problem: Problem) -> None:
        """Add a problem."""
        self.failed = self.failed or problem.severity is Severity.ERROR
        if problem in self._problems:
            return
        count = self._counts.get(problem.severity, 0)
        if count < MAX_PROBLEMS:
            self._problems[problem] = None
            self._counts[problem.severity] = count + 1
        else:
            self._left_out += 1

    def make(self, characters: int) -> bool:
        """Count characters that no file contains; return False beyond ``MAX_MADE``."""
        self.made += characters
        return self.made <= MAX_MADE

    def warn(
        self, node: ComposeNode, code: str, message: str, remedy: str, path: NodePath = ()
    ) -> None:
        """Add a warning about a node."""
        found = problem_at(node, code, message, remedy, path)
        self.add(replace(found, severity=Severity.WARNING))

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The problems so far."""
        found = tuple(self._problems)
        if not self._left_out:
            return found
        message = f"{self._left_out} more problems of the project are not listed"
        first = found[0]
        last = Problem("compose.limit", message, first.file, remedy="correct those that are listed")
        return (*found, replace(last, severity=first.severity))


class PathTable(Generic[NodeRule]):
    """Rules by patterns of paths, such as ``services.*.ports``; ``*`` is any key or index."""

    def __init__(self, rules: Mapping[str, NodeRule]) -> None:
        self.rule: NodeRule | None = None
        self._below: dict[str, PathTable[NodeRule]] = {}
        for pattern, rule in rules.items():
            table = self
            for part in pattern.split(".") if pattern else ():
                table = table._below.setdefault(part, PathTable({}))
            table.rule = rule

    @property
    def is_leaf(self) -> bool:
        """True if no rule can match below."""
        return not self._below

    def walk(
        self,
        node: ComposeNode,
        report: ReadingReport,
        act: Callable[[NodeRule, ComposeNode, NodePath], None],
        path: NodePath = (),
    ) -> None:
        """Call *act* for each node with a rule. A problem is reported, and the walk goes on."""
        if self.rule is not None:
            try:
                act(self.rule, node, path)
            except Fault as fault:
                report.add(fault.problem)
            return
        for name, member in node.members.items():
            if (below := self.below(name)) is not None:
                below.walk(member, report, act, (*path, name))
        for number, item in enumerate(node.items):
            if (below := self.below("*")) is not None:
                below.walk(item, report, act, (*path, number))

    def below(self, part: str) -> PathTable[NodeRule] | None:
        """Return the table for a member or an item; None if no rule can match there."""
        return self._below.get(part) or self._below.get("*")


def plain(node: ComposeNode) -> object:
    """Return the value of a node without places."""
    value = node.value
    if isinstance(value, dict):
        return {key: plain(member) for key, member in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def project_of(root: ComposeNode, name: str, report: ReadingReport | None = None) -> ComposeProject:
    """Return the project of a tree whose values are read, with the places of its values."""
    places: dict[TreePath, Place] = {}

    def collect(node: ComposeNode, path: TreePath) -> None:
        places[path] = node.place
        for key, member in node.members.items():
            collect(member, (*path, key))
        for number, item in enumerate(node.items):
            collect(item, (*path, number))

    collect(root, ())
    tree = {key: plain(member) for key, member in root.members.items()}
    problems = report.problems if report is not None else ()
    return ComposeProject(name, ".", tree, places, problems, (root.file,))


def same(one: ComposeNode, other: ComposeNode) -> bool:
    """Return True if two nodes have equal values of equal types."""
    a, b = one.value, other.value
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(member, b[key]) for key, member in a.items())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return isinstance(a, bool) == isinstance(b, bool) and a == b


def scalar_text(value: object) -> str:
    """Return a scalar as Compose prints a value in a string (Go's verb ``%v``)."""
    match value:
        case None:
            return "<nil>"
        case bool():
            return "true" if value else "false"
        case float():
            return _float_text(value)
        case _:
            return str(value)


def _float_text(number: float) -> str:
    sign, digits, exponent = Decimal(repr(number)).normalize().as_tuple()
    assert isinstance(exponent, int), "YAML with numbers that aren't finite has a problem"
    point = len(digits) + exponent
    mark = "-" if sign else ""
    letters = "".join(map(str, digits))
    if -4 <= point - 1 < 6:
        text = f"{Decimal(repr(number)):f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    fraction = f".{letters[1:]}" if len(letters) > 1 else ""
    return f"{mark}{letters[0]}{fraction}e{'-' if point < 1 else '+'}{abs(point - 1):02}"


#: The number of nodes in all files of a project, with aliases, extends and includes expanded.
MAX_NODES: Final = 200_000
LIMITS: Final = loading.Limits("project", MAX_NODES)
_STANDARD_TAGS: Final = frozenset(
    loading.STANDARD + name
    for name in ("str", "int", "float", "bool", "null", "map", "seq", "merge")
)
RESET, OVERRIDE = "!reset", "!override"

#: A document with content, and the paths that reset values of earlier files.
YamlDocument = tuple[ComposeNode, tuple[tuple[str, ...], ...]]


def read_yaml(
    content: bytes, file: str, budget: loading.NodeAllowance, report: ReadingReport
) -> list[YamlDocument]:
    """Return the documents of a file; none, with a problem in the report, of a bad file."""
    if len(content) > MAX_BYTES:
        report.add(too_big(file))
        return []
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        message = f"byte 0x{content[error.start]:02x} is not valid UTF-8"
        remedy = "save the file as UTF-8"
        report.add(Problem("yaml.character", message, file, line, 1, remedy=remedy))
        return []
    found: list[YamlDocument] = []
    try:
        for root in loading.roots(text, LIMITS):
            reader = _Reader(file, budget, report)
            node = reader.node(root, root, ())
            if node is not None and node.value is not None:
                found.append((node, tuple(reader.resets)))
    except loading.ERRORS as error:
        report.add(loading.problem_of(error, text, file, 1, LIMITS))
        return []
    return found


class _Reader(loading.NodeReader[ComposeNode]):
    """Converts nodes to nodes with places."""

    def __init__(self, file: str, budget: loading.NodeAllowance, report: ReadingReport) -> None:
        super().__init__(file, 1, budget, LIMITS)
        self.report = report
        self.resets: list[tuple[str, ...]] = []

    def node(self, source: yaml.Node, key: yaml.Node, path: NodePath) -> ComposeNode | None:
        """Return the node with the place of *key*; None for a value that is reset.

        Raises:
            TooManyError: a limit is exceeded.
        """
        self.enter(source, path)
        if source.tag in {RESET, OVERRIDE}:
            self.resets.append(tuple(str(part) for part in path if part != "<<"))
            if source.tag == RESET:
                return None
        value: NodeValue
        if isinstance(source, yaml.ScalarNode):
            value = self._scalar(source)
        elif isinstance(source, yaml.SequenceNode):
            items = (self.node(item, item, (*path, n)) for n, item in enumerate(source.value))
            value = [item for item in items if item is not None]
        else:
            value = self.members(source, path)
        mark = key.start_mark
        return ComposeNode(value, self.file, mark.line + 1, mark.column + 1)

    def put(
        self, members: dict[str, ComposeNode], key: yaml.Node, child: yaml.Node, path: NodePath
    ) -> None:
        member = self.node(child, key, path)
        if member is not None:
            members[str(path[-1])] = member

    def key(self, key: yaml.Node, path: NodePath) -> str | None:
        value = self._scalar(key) if isinstance(key, yaml.ScalarNode) else None
        if isinstance(value, str):
            return value
        remedy = "quote the key, or write the key as a word"
        self.fault(path, key, "yaml.key", "a key must be a string", remedy)
        return None

    def problem(self, _path: NodePath, problem: Problem) -> None:
        self.report.add(problem)

    def _scalar(self, source: yaml.ScalarNode) -> bool | int | float | str | None:
        text, tag = str(source.value), source.tag
        if tag == f"{loading.STANDARD}str" or (source.style and tag == loading.IMPLICIT):
            return text
        if tag not in _STANDARD_TAGS and tag.startswith(loading.STANDARD):
            name = tag.replace(loading.STANDARD, "!!")
            self.fault((), source, "yaml.tag", f"the tag {name} is not allowed", "remove the tag")
            return text
        if tag != loading.IMPLICIT and tag not in _STANDARD_TAGS:
            return text
        remedy = f'quote the value: "{text}"'
        if loading.is_date(text):
            message = f"{text} without quotes is a date in YAML"
            self.fault((), source, "compose.date", message, remedy)
            return text
        value = loading.resolve_compose(text)
        if isinstance(value, float) and value - value != 0:
            message = f"{text} is no number that a Compose file can use"
            self.fault((), source, "compose.value", message, remedy)
            return text
        return value
