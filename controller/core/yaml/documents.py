"""YAML text to values with their places in the file, within limits.

The language is a subset of YAML 1.2 with the core schema's booleans, nulls and numbers: no tags, no
directives, keys are strings. ``no``, ``on``, ``1:30`` and ``010`` are strings. The documents of a
file are independent: a line ``---`` ends a document in any state (YAML 1.2, rule c-forbidden), so a
broken document leaves its neighbours intact.

No function raises for the content of a text. Bytes, depth, documents and nodes are limited. Nodes
are counted after the expansion of aliases, so a few lines of aliases cannot become gigabytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import yaml

from controller.core.yaml import loading
from controller.core.yaml.file_limit import MAX_BYTES, too_big
from controller.model.errors import Problem, SourcePosition, ValuePlaces

MAX_DOCUMENTS = 5_000
MAX_NODES = 100_000  # a file, aliases expanded
MAX_PROBLEMS = 50  # a document
#: The number of levels with recorded lines of keys: spec.resources.memory has three.
LINES_DEPTH = 3

LIMITS = loading.Limits("file", MAX_NODES)
#: The path of a value: keys and indexes from the root of the document.
YamlPath = tuple[str | int, ...]

# All printable characters of YAML 1.2, except the separators that only YAML 1.1 takes for line ends:
# parsers would disagree about line numbers and document ends.
_BAD_CHARACTER = re.compile(
    "[^\t\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_MARKER = re.compile(r"^(?:---|\.\.\.)(?=[ \t\n]|\Z)", re.MULTILINE)
_DIRECTIVE = re.compile(r"^%", re.MULTILINE)
# Possessive, so that a megabyte of comments costs no memory.
_BLANK = re.compile(
    r"(?:---)?[ \t]*+(?:#[^\n]*+)?(?:\n[ \t]*+(?:#[^\n]*+)?)*+(?:\.\.\.[^\n]*\n?)?", re.ASCII
)

_NOWHERE = SourcePosition(0, 0)


@dataclass(frozen=True, slots=True)
class YamlFault:
    """A problem at a path of a document. The value at the path is not reliable; all others are."""

    path: YamlPath
    problem: Problem


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a file."""

    file: str
    text: str = field(repr=False)
    line: int  # of the first character of ``text`` in the file, from 1
    #: Plain JSON (dict, list, str, int, float, bool, None).
    value: object = None
    #: A readable document with faults has all values except those at the faults' paths.
    faults: tuple[YamlFault, ...] = ()
    #: False if there is no value, because of a syntax error or a limit.
    readable: bool = True
    place: SourcePosition = _NOWHERE  # of the first content
    #: The line of each key of the upper levels, by its path.
    lines: Mapping[YamlPath, int] = field(default_factory=dict, repr=False)
    #: The places of a document that was made from other files. None: they are in ``text``.
    places: ValuePlaces | None = field(default=None, repr=False)
    #: The number of values, each alias counted as often as it is used.
    nodes: int = 0

    def locate(self, path: YamlPath) -> SourcePosition:
        """Return the position of the value at *path*, or of its nearest existing ancestor."""
        return self._place(path, key=False)

    def locate_key(self, path: YamlPath) -> SourcePosition:
        """Return the position of the key of the member at *path* (for an item: of the value)."""
        return self._place(path, key=True)

    def _place(self, path: YamlPath, *, key: bool) -> SourcePosition:
        if self.places is not None:
            return self.places.find(path)
        root = tree(self.text) if self.readable else None
        if root is None:
            return self.place
        mark = _mark(root, path, key=key)
        return SourcePosition(self.line + mark.line, mark.column + 1)


def locate(text: str, line: int, path: YamlPath) -> SourcePosition:
    """Return the position of the value at *path* in a document that was readable.

    *text* is the text of the document, and *line* the line of its content in the file. For a
    missing path, return the position of the key of the nearest existing ancestor, whose value lacks
    the member.
    """
    root = tree(text)
    if root is None:
        return SourcePosition(line, 1)
    mark = _mark(root, path, key=not _holds(root, path))
    return SourcePosition(line + mark.line - root.start_mark.line, mark.column + 1)


def _holds(node: yaml.Node, path: YamlPath) -> bool:
    for part in path:
        member = _child(node, part)
        if member is None:
            return False
        node = member[1]
    return True


def _mark(node: yaml.Node, path: YamlPath, *, key: bool) -> yaml.Mark:
    """Return the mark of the value (or the key) at *path*, or of its nearest existing ancestor."""
    mark = node.start_mark
    for part in path:
        if isinstance(part, str) and not isinstance(node, yaml.MappingNode):
            continue
        member = _child(node, part)
        if member is None:
            # Validators add names of their own to paths (the chosen member of a union).
            continue
        name, node = member
        mark = name.start_mark if key else node.start_mark
    return mark


def decode(content: bytes) -> str:
    """Return the text of a file. ``compose`` reports invalid UTF-8 at its place."""
    return content.decode("utf-8", "surrogateescape").replace("\r\n", "\n")


def compose(text: str, file: str) -> tuple[list[Document], list[Problem]]:
    """Return the readable documents of a text, and the problems of all documents."""
    documents = compose_all(text, file)
    problems = [fault.problem for document in documents for fault in document.faults]
    return [document for document in documents if document.readable], problems


def compose_all(text: str, file: str) -> list[Document]:
    """Return every document of a text except empty ones, unreadable documents included.

    Never raises. A text over ``MAX_BYTES`` is one unreadable document, without parsing.
    """
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        return [_unreadable(file, "", 1, too_big(file))]
    text = text.replace("\r\n", "\n").removeprefix("\ufeff")
    documents: list[Document] = []
    allowance = loading.NodeAllowance(MAX_NODES)
    for line, chunk in _split(text):
        if len(documents) == MAX_DOCUMENTS:
            error = loading.TooManyError(f"more than {MAX_DOCUMENTS} documents in one file")
            documents.append(_unreadable(file, "", line, LIMITS.problem(error, file, line)))
            break
        document = _document(chunk, file, line, allowance)
        if document is not None:
            documents.append(document)
    return documents


def _split(text: str) -> Iterator[tuple[int, str]]:
    """Yield (first line, text) of each document that is not empty."""
    start, line = 0, 1
    ends = []
    for marker in _MARKER.finditer(text):
        if marker[0] == "---":
            ends.append(marker.start())
        else:
            end = text.find("\n", marker.start())
            ends.append(len(text) if end < 0 else end + 1)
    for end in [*ends, len(text)]:
        chunk = text[start:end]
        if not _BLANK.fullmatch(chunk):
            yield line, chunk
        line += chunk.count("\n")
        start = end


def _document(
    chunk: str, file: str, line: int, allowance: loading.NodeAllowance
) -> Document | None:
    """Return the document of one chunk; None if it is empty."""
    problem = _forbidden_character(chunk, file, line)
    if problem is not None:
        return _unreadable(file, chunk, line, problem)
    before = allowance.spent
    reader = _Reader(file, line, allowance)
    try:
        root = tree(chunk)
        value = reader.value(root, ()) if root is not None else None
    except loading.ERRORS as error:
        return _unreadable(file, chunk, line, loading.problem_of(error, chunk, file, line, LIMITS))
    if root is None or (value is None and not reader.faults):
        return None
    faults = tuple(reader.faults[:MAX_PROBLEMS])
    place = SourcePosition(line + root.start_mark.line, root.start_mark.column + 1)
    nodes = allowance.spent - before
    return Document(file, chunk, line, value, faults, place=place, lines=reader.lines, nodes=nodes)


def _unreadable(file: str, text: str, line: int, problem: Problem) -> Document:
    faults = (YamlFault((), problem),)
    return Document(file, text, line, faults=faults, readable=False, place=SourcePosition(line, 1))


def _forbidden_character(chunk: str, file: str, line: int) -> Problem | None:
    """Return the problem of the first forbidden character, if any."""
    match = _BAD_CHARACTER.search(chunk)
    code, message, remedy = (
        "yaml.character",
        "",
        "remove it, or write it as an escape in double quotes",
    )
    if match is not None:
        character = match[0]
        if "\udc80" <= character <= "\udcff":
            message = f"byte 0x{ord(character) - 0xDC00:02x} is not valid UTF-8"
            remedy = "save the file as UTF-8"
        else:
            message = f"character U+{ord(character):04X} is not allowed"
    else:
        match = _DIRECTIVE.search(chunk)
        if match is None:
            return None
        code, message = (
            "yaml.directive",
            "a directive (a line that begins with %) is not allowed",
        )
        remedy = "remove the line; where it is content, indent it"
    before = chunk[: match.start()]
    column = match.start() - (before.rfind("\n") + 1) + 1
    return Problem(code, message, file, line + before.count("\n"), column, remedy=remedy)


# Places are needed only for problems: parsing again is cheaper than keeping every tree.
@lru_cache(maxsize=1)
def tree(text: str) -> yaml.Node | None:
    """Return the root node of a document; None if the document is empty.

    Raises:
        ERRORS: as ``roots``.
    """
    return next(iter(loading.roots(text, LIMITS)), None)


def _child(node: yaml.Node, part: str | int) -> tuple[yaml.Node, yaml.Node] | None:
    """Return (key, value) of a member, also a merged member; for an item, its value twice."""
    if isinstance(node, yaml.SequenceNode):
        items: list[yaml.Node] = node.value
        if isinstance(part, int) and part < len(items):
            return items[part], items[part]
        return None
    if not isinstance(node, yaml.MappingNode):
        return None
    pairs: list[tuple[yaml.Node, yaml.Node]] = node.value
    for name, value in pairs:
        if isinstance(name, yaml.ScalarNode) and name.value == part:
            return name, value
    for name, value in pairs:
        if loading.is_merge(name):
            merged = value.value if isinstance(value, yaml.SequenceNode) else [value]
            hits = (_child(source, part) for source in merged)
            return next((hit for hit in hits if hit is not None), None)
    return None


class _Reader(loading.NodeReader[object]):
    """Converts nodes to values and collects faults."""

    def __init__(self, file: str, line: int, allowance: loading.NodeAllowance) -> None:
        super().__init__(file, line, allowance, LIMITS)
        self.faults: list[YamlFault] = []
        self.lines: dict[YamlPath, int] = {}

    def value(self, node: yaml.Node, path: YamlPath) -> object:
        """Return the value of a node.

        Raises:
            TooManyError: a limit is exceeded.
        """
        self.enter(node, path)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        return self.members(node, path)

    def enter(self, node: yaml.Node, path: YamlPath) -> None:
        super().enter(node, path)
        if node.tag != loading.IMPLICIT:
            tag = str(node.tag).replace("tag:yaml.org,2002:", "!!")
            remedy = "remove the tag; quote what is to be a string"
            self.fault(path, node, "yaml.tag", f"the tag {tag} is not allowed", remedy)

    def put(
        self, members: dict[str, object], key: yaml.Node, child: yaml.Node, path: YamlPath
    ) -> None:
        members[str(key.value)] = self.value(child, path)

    def key(self, key: yaml.Node, path: YamlPath) -> str | None:
        self.allowance.spend(1)
        if isinstance(key, yaml.ScalarNode) and key.value and key.tag == loading.IMPLICIT:
            return str(key.value)
        message = "a key must be a string that isn't empty"
        remedy = "write the key as a word; quote a value that begins with { or ["
        self.fault(path, key, "yaml.key", message, remedy)
        return None

    def add_lines(self, path: YamlPath, lines: Mapping[str, int]) -> None:
        if len(path) < LINES_DEPTH:
            self.lines |= {(*path, key): line for key, line in lines.items()}

    def problem(self, path: YamlPath, problem: Problem) -> None:
        self.faults.append(YamlFault(path, problem))

    def _scalar(self, node: yaml.ScalarNode, path: YamlPath) -> object:
        text = str(node.value)
        if "\0" in text:
            self.fault(path, node, "yaml.character", "a string can't hold a NUL", "remove it")
        return text if node.style else loading.resolve_plain(text)
