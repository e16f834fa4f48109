"""YAML of Compose files to nodes, as Docker Compose reads YAML, within limits.

Anchors, aliases and merge keys are expanded: every alias becomes nodes of its own, and the nodes are
counted after the expansion. The tags ``!reset`` and ``!override`` are recorded by path.
"""

from __future__ import annotations

import yaml
from yaml.cyaml import CBaseLoader

from controller.core.compose.text.nodes import ComposeNode, NodeValue, ReadingReport
from controller.core.compose.text.scalars import is_date, resolve_plain
from controller.core.yaml.documents import MAX_DEPTH
from controller.core.yaml.file_limit import MAX_BYTES, too_big
from controller.core.yaml.syntax_errors import syntax_problem
from controller.model.errors import Problem

#: The number of nodes in all files of a project, with aliases, extends and includes expanded.
MAX_NODES = 200_000
_IMPLICIT = ""  # the tag of a node that was written without a tag
_STANDARD = "tag:yaml.org,2002:"
_STANDARD_TAGS = frozenset(
    _STANDARD + name for name in ("str", "int", "float", "bool", "null", "map", "seq", "merge")
)
RESET, OVERRIDE = "!reset", "!override"


class NodeAllowance:
    """The remaining allowance of nodes of a project."""

    def __init__(self, nodes: int = MAX_NODES) -> None:
        self.nodes = nodes
        self._first = nodes

    @property
    def spent(self) -> int:
        """The nodes that were taken so far."""
        return self._first - self.nodes

    def spend(self, nodes: int) -> bool:
        """Take nodes from the budget; return False if the budget is exceeded."""
        self.nodes -= nodes
        return self.nodes >= 0


#: A document with content, and the paths that reset values of earlier files.
YamlDocument = tuple[ComposeNode, tuple[tuple[str, ...], ...]]


class _Loader(CBaseLoader):
    """libyaml's parser, with bounds on nodes and depth; written tags differ from implicit ones."""

    nodes = 0
    depth = 0

    def resolve(self, *_node: object) -> str:
        return _IMPLICIT

    def descend_resolver(self, *_node: object) -> None:
        self.nodes += 1
        self.depth += 1
        if self.nodes > MAX_NODES or self.depth > MAX_DEPTH:
            raise _TooManyError

    def ascend_resolver(self) -> None:
        self.depth -= 1


class _TooManyError(Exception):
    """A limit of the text is exceeded."""


def read_yaml(
    content: bytes, file: str, budget: NodeAllowance, report: ReadingReport
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
    try:
        roots = [root for root in yaml.compose_all(text, Loader=_Loader) if root is not None]
        return _documents(roots, file, budget, report)
    except _TooManyError:
        report.add(_limit(file, 1, 1))
    except yaml.MarkedYAMLError as error:
        report.add(syntax_problem(error, text, file, 1))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        report.add(_unreadable(error, text, file))
    return []


def _unreadable(error: Exception, text: str, file: str) -> Problem:
    position = getattr(error, "position", 0)
    line = text.count("\n", 0, position if isinstance(position, int) else 0) + 1
    remedy = "remove control characters, or write them as escapes in double quotes"
    return Problem("yaml.syntax", f"not YAML: {error}", file, line, 1, remedy=remedy)


def _limit(file: str, line: int, column: int) -> Problem:
    return Problem(
        "yaml.limit",
        "too many values, or values nested too deeply",
        file,
        line,
        column,
        expected=f"at most {MAX_NODES} values a project with aliases expanded, {MAX_DEPTH} levels deep",
        remedy="split the project, nest less deeply, or use fewer aliases",
    )


def _documents(
    roots: list[yaml.Node], file: str, budget: NodeAllowance, report: ReadingReport
) -> list[YamlDocument]:
    found = []
    for root in roots:
        reader = _Reader(file, budget, report)
        try:
            node = reader.node(root, root, ())
        except _TooManyError:
            report.add(_limit(file, reader.line, 1))
            return []
        if node is not None and node.value is not None:
            found.append((node, tuple(reader.resets)))
    return found


class _Reader:
    """Converts the nodes of libyaml."""

    def __init__(self, file: str, budget: NodeAllowance, report: ReadingReport) -> None:
        self.file = file
        self.budget = budget
        self.report = report
        self.resets: list[tuple[str, ...]] = []
        self.line = 1

    def node(self, source: yaml.Node, key: yaml.Node, path: tuple[str, ...]) -> ComposeNode | None:
        """Return the node with the place of *key*; None for a value that is reset.

        Raises:
            _TooManyError: a limit is exceeded.
        """
        mark = key.start_mark
        self.line = mark.line + 1
        if not self.budget.spend(1) or len(path) > MAX_DEPTH:
            raise _TooManyError
        tag = source.tag
        if tag != _IMPLICIT and tag in {RESET, OVERRIDE}:
            self.resets.append(path)
            if tag == RESET:
                return None
        value: NodeValue
        if isinstance(source, yaml.ScalarNode):
            value = self._scalar(source)
        elif isinstance(source, yaml.SequenceNode):
            items = (self.node(item, item, (*path, str(n))) for n, item in enumerate(source.value))
            value = [item for item in items if item is not None]
        else:
            value = self._mapping(source, path)
        return ComposeNode(value, self.file, mark.line + 1, mark.column + 1)

    def _scalar(self, source: yaml.ScalarNode) -> bool | int | float | str | None:
        text, tag = str(source.value), source.tag
        if tag == f"{_STANDARD}str" or (source.style and tag == _IMPLICIT):
            return text
        if tag not in _STANDARD_TAGS and tag.startswith(_STANDARD):
            name = tag.replace(_STANDARD, "!!")
            self._problem(source, "yaml.tag", f"the tag {name} is not allowed", "remove the tag")
            return text
        if tag != _IMPLICIT and tag not in _STANDARD_TAGS:
            return text
        if is_date(text):
            message = f"{text} without quotes is a date in YAML"
            self._problem(source, "compose.date", message, f'quote the value: "{text}"')
            return text
        value = resolve_plain(text)
        if isinstance(value, float) and value - value != 0:
            message = f"{text} is no number that a Compose file can use"
            self._problem(source, "compose.value", message, f'quote the value: "{text}"')
            return text
        return value

    def _mapping(self, source: yaml.Node, path: tuple[str, ...]) -> dict[str, ComposeNode]:
        members: dict[str, ComposeNode] = {}
        lines: dict[str, int] = {}
        merges: list[tuple[yaml.Node, yaml.Node]] = []
        for key, child in source.value:
            name = self._key(key)
            if name is None:
                continue
            if _is_merge(key):
                merges.append((key, child))
                continue
            if name in lines:
                message = f'the key "{name}" is repeated; the first is on line {lines[name]}'
                self._problem(key, "yaml.duplicate-key", message, "keep one of them")
                continue
            lines[name] = key.start_mark.line + 1
            member = self.node(child, key, (*path, name))
            if member is not None:
                members[name] = member
        for key, child in merges:
            self._merge(members, lines, key, child, path)
        return members

    def _key(self, key: yaml.Node) -> str | None:
        value = self._scalar(key) if isinstance(key, yaml.ScalarNode) else None
        if isinstance(value, str):
            return value
        remedy = "quote the key, or write the key as a word"
        self._problem(key, "yaml.key", "a key must be a string", remedy)
        return None

    def _merge(
        self,
        members: dict[str, ComposeNode],
        written: dict[str, int],
        key: yaml.Node,
        child: yaml.Node,
        path: tuple[str, ...],
    ) -> None:
        """Add the members of ``<<``, a mapping or a list of mappings; members that exist stay."""
        sources = child.value if isinstance(child, yaml.SequenceNode) else [child]
        for source in sources:
            if not isinstance(source, yaml.MappingNode):
                message = "a merge key (<<) takes a mapping or a list of mappings"
                self._problem(key, "yaml.merge", message, "name an anchor of a mapping")
                continue
            merged = self.node(source, source, path)
            for name, member in merged.members.items() if merged is not None else ():
                if name not in written:
                    members.setdefault(name, member)

    def _problem(self, node: yaml.Node, code: str, message: str, remedy: str) -> None:
        mark = node.start_mark
        line, column = mark.line + 1, mark.column + 1
        self.report.add(Problem(code, message, self.file, line, column, remedy=remedy))


def _is_merge(key: yaml.Node) -> bool:
    return isinstance(key, yaml.ScalarNode) and key.value == "<<" and not key.style
