"""YAML of Compose files to nodes, as Docker Compose reads YAML, within limits.

Every alias becomes nodes of its own. The tags ``!reset`` and ``!override`` are recorded by path.
"""

from __future__ import annotations

from typing import Final

import yaml

from controller.core.compose.text.nodes import ComposeNode, NodePath, NodeValue, ReadingReport
from controller.core.yaml.file_limit import MAX_BYTES, too_big
from controller.core.yaml.loading import (
    ERRORS,
    IMPLICIT,
    STANDARD,
    Limits,
    NodeAllowance,
    NodeReader,
    problem_of,
    roots,
)
from controller.core.yaml.plain_scalars import is_date, resolve_compose
from controller.model.errors import Problem

#: The number of nodes in all files of a project, with aliases, extends and includes expanded.
MAX_NODES: Final = 200_000
LIMITS: Final = Limits("project", MAX_NODES)
_STANDARD_TAGS: Final = frozenset(
    STANDARD + name for name in ("str", "int", "float", "bool", "null", "map", "seq", "merge")
)
RESET, OVERRIDE = "!reset", "!override"

#: A document with content, and the paths that reset values of earlier files.
YamlDocument = tuple[ComposeNode, tuple[tuple[str, ...], ...]]


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
    found: list[YamlDocument] = []
    try:
        for root in roots(text, LIMITS):
            reader = _Reader(file, budget, report)
            node = reader.node(root, root, ())
            if node is not None and node.value is not None:
                found.append((node, tuple(reader.resets)))
    except ERRORS as error:
        report.add(problem_of(error, text, file, 1, LIMITS))
        return []
    return found


class _Reader(NodeReader[ComposeNode]):
    """Converts nodes to nodes with places."""

    def __init__(self, file: str, budget: NodeAllowance, report: ReadingReport) -> None:
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
        if tag == f"{STANDARD}str" or (source.style and tag == IMPLICIT):
            return text
        if tag not in _STANDARD_TAGS and tag.startswith(STANDARD):
            name = tag.replace(STANDARD, "!!")
            self.fault((), source, "yaml.tag", f"the tag {name} is not allowed", "remove the tag")
            return text
        if tag != IMPLICIT and tag not in _STANDARD_TAGS:
            return text
        remedy = f'quote the value: "{text}"'
        if is_date(text):
            message = f"{text} without quotes is a date in YAML"
            self.fault((), source, "compose.date", message, remedy)
            return text
        value = resolve_compose(text)
        if isinstance(value, float) and value - value != 0:
            message = f"{text} is no number that a Compose file can use"
            self.fault((), source, "compose.value", message, remedy)
            return text
        return value
