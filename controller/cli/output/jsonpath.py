"""Templates of kubectl's JSONPath, and its custom columns, on JSON values.

Pure. ``{.status.slots[*].container}``, ``{['name']}``, ``[0]``, ``[-1]``, ``[0:2]``, ``[?(@.type=="Ready")]``,
``{range .items[*]}{.metadata.name}{"; "}{end}``. A missing member is no value, and no error.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

_NAME = r"(?:\\.|[^\\\s.\[\]{}()'\"=!<>,:])+"
_QUOTED = r"'[^']*'|\"(?:\\.|[^\"\\])*\""
_STEP = re.compile(
    rf"""\.(?P<name>\*|{_NAME})
    | \[\s*(?P<quoted>{_QUOTED})\s*\]
    | \[(?P<every>\*)\]
    | \[(?P<index>-?\d+)\]
    | \[(?P<start>-?\d*):(?P<stop>-?\d*)\]
    | \[\?\(\s*@(?P<inner>(?:\.{_NAME}|\[\d+\])*)\s*(?:(?P<compare>==|!=|<=|>=|<|>)\s*(?P<wanted>{_QUOTED}|[^\s)]+)\s*)?\)\]
    """,
    re.VERBOSE,
)
_BLOCK = re.compile(rf"\{{((?:{_QUOTED}|[^{{}}'\"])*)\}}")
_COMPARE: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
PathStep = Callable[[Any], list[Any]]
NONE: Final = "<none>"


@dataclass(frozen=True, slots=True)
class JsonPath:
    """A path from a value to the values below it."""

    steps: tuple[PathStep, ...]

    @classmethod
    def parse(cls, text: str) -> JsonPath:
        """Return the path ``.a.b[0]``; ``$`` or ``@`` in front, and a missing first dot, change nothing.

        Raises:
            ValueError: *text* is no path; the message has the part that can't be read.
        """
        rest = text.strip().lstrip("$@") or "."
        rest = rest if rest[0] in ".[" else f".{rest}"
        steps, at = [], 0
        while at < len(rest) and rest != ".":
            found = _STEP.match(rest, at)
            if found is None:
                raise ValueError(f"{rest[at:]!r} can't be read in the path {text.strip()!r}")
            steps.append(_step(found))
            at = found.end()
        return cls(tuple(steps))

    def of(self, value: Any) -> list[Any]:
        """Return the values at the path; empty if a member is missing."""
        values = [value]
        for step in self.steps:
            values = [each for one in values for each in step(one)]
        return values


def _step(found: re.Match[str]) -> PathStep:
    match found.lastgroup:
        case "name" if found["name"] != "*":
            name = re.sub(r"\\(.)", r"\1", found["name"])
            return lambda value: _member(value, name)
        case "quoted":
            name = _unquoted(found["quoted"])
            return lambda value: _member(value, name)
        case "name" | "every":
            return _every
        case "index":
            index = int(found["index"])
            return lambda value: _elements(value, slice(index, index + 1 or None))
        case "start" | "stop":
            start, stop = (int(found[each]) if found[each] else None for each in ("start", "stop"))
            return lambda value: _elements(value, slice(start, stop))
        case _:
            return _filter(JsonPath.parse(found["inner"]), found["compare"], found["wanted"])


def _member(value: Any, name: str) -> list[Any]:
    return [value[name]] if isinstance(value, dict) and name in value else []


def _every(value: Any) -> list[Any]:
    match value:
        case list():
            return value
        case dict():
            return list(value.values())
        case _:
            return []


def _elements(value: Any, part: slice) -> list[Any]:
    return value[part] if isinstance(value, list) else []


def _filter(inner: JsonPath, compare: str | None, wanted: str | None) -> PathStep:
    if compare is None or wanted is None:
        return lambda value: [each for each in _every(value) if inner.of(each)]
    literal = _literal(wanted)

    def holds(value: Any) -> bool:
        try:
            return any(_COMPARE[compare](found, literal) for found in inner.of(value))
        except TypeError:  # a text isn't less than a number
            return False

    return lambda value: [each for each in _every(value) if holds(each)]


def _literal(text: str) -> Any:
    """Return a text in quotes, or a JSON value.

    Raises:
        ValueError: *text* is neither.
    """
    if text[0] in "'\"":
        return _unquoted(text)
    try:
        return json.loads(text)
    except ValueError:
        raise ValueError(f"{text!r} is no text in quotes, and no number") from None


def _unquoted(text: str) -> str:
    return text[1:-1] if text[0] == "'" else str(json.loads(text))


def text_of(value: Any) -> str:
    """Return a value as kubectl prints it: a text as it is, others as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


@dataclass(frozen=True, slots=True)
class RangeBlock:
    """A part of a template that is printed for each value of a path."""

    path: JsonPath
    body: PathTemplate


@dataclass(frozen=True, slots=True)
class PathTemplate:
    """Texts, paths and ranges, in order."""

    parts: tuple[str | JsonPath | RangeBlock, ...]

    @classmethod
    def parse(cls, text: str) -> PathTemplate:
        """Return a template; a text without braces is a path.

        Raises:
            ValueError: a block can't be read, or a range has no end.
        """
        if "{" not in text:
            return cls((JsonPath.parse(text),))
        return cls(tuple(_parts(_blocks(text), is_range=False)))

    def render(self, value: Any) -> str:
        """Return the template's text for a value."""
        return "".join(self._texts(value))

    def _texts(self, value: Any) -> Iterator[str]:
        for part in self.parts:
            match part:
                case str():
                    yield part
                case JsonPath():
                    yield " ".join(map(text_of, part.of(value)))
                case RangeBlock(path, body):
                    yield from (body.render(each) for each in path.of(value))


def _blocks(text: str) -> Iterator[tuple[bool, str]]:
    """Yield the texts of a template, and the insides of its braces: True and the inside."""
    at = 0
    for found in _BLOCK.finditer(text):
        yield from _plain(text[at : found.start()])
        yield True, found[1].strip()
        at = found.end()
    yield from _plain(text[at:])


def _plain(text: str) -> Iterator[tuple[bool, str]]:
    if "{" in text or "}" in text:
        raise ValueError(f"a brace isn't closed in {text!r}")
    if text:
        yield False, text


def _parts(
    blocks: Iterator[tuple[bool, str]], *, is_range: bool
) -> Iterator[str | JsonPath | RangeBlock]:
    for is_block, text in blocks:
        if not is_block:
            yield text
        elif text == "end":
            if is_range:
                return
            raise ValueError("{end} ends no {range …}")
        elif text.startswith("range "):
            path = JsonPath.parse(text.removeprefix("range "))
            yield RangeBlock(path, PathTemplate(tuple(_parts(blocks, is_range=True))))
        elif text[:1] in ("'", '"'):
            yield _unquoted(text)
        else:
            yield JsonPath.parse(text)
    if is_range:
        raise ValueError("{range …} has no {end}")


@dataclass(frozen=True, slots=True)
class CustomColumns:
    """The columns of ``custom-columns=NAME:.metadata.name,READY:.status.ready``."""

    headers: tuple[str, ...]
    paths: tuple[JsonPath, ...]

    @classmethod
    def parse(cls, text: str) -> CustomColumns:
        """Return the columns.

        Raises:
            ValueError: a column isn't ``HEADER:PATH``, or a path can't be read.
        """
        pairs = [each.partition(":") for each in text.split(",")]
        if not all(header and path for header, _, path in pairs):
            raise ValueError("expected custom-columns=HEADER:PATH,…, such as NAME:.metadata.name")
        paths = tuple(JsonPath.parse(path.strip("{}")) for _, _, path in pairs)
        return cls(tuple(header for header, _, _ in pairs), paths)

    def row(self, value: Any) -> Sequence[str]:
        """Return the cells of a value; several values of a path in one cell."""
        return [",".join(map(text_of, path.of(value))) or NONE for path in self.paths]
