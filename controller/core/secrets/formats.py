"""The formats of SOPS files as trees: YAML, JSON, dotenv and binary.

Plain scalars of YAML get the types that SOPS's own library (go-yaml v3) gives them, because the MAC
covers the typed value of each scalar that is not encrypted.
"""

from __future__ import annotations

import json
import re
from enum import StrEnum
from pathlib import PurePosixPath
from typing import assert_never

import yaml
from yaml.cyaml import CBaseLoader

from controller.core.secrets import tree as trees


class SopsForm(StrEnum):
    """The format of a SOPS file."""

    YAML = "yaml"
    JSON = "json"
    DOTENV = "dotenv"
    BINARY = "binary"


_ENDINGS = {
    ".yaml": SopsForm.YAML,
    ".yml": SopsForm.YAML,
    ".json": SopsForm.JSON,
    ".env": SopsForm.DOTENV,
}
#: The key of a binary document's only value.
BINARY_KEY = "data"
_METADATA = "sops"
_FLAT_METADATA = "sops_"


def form_of(name: str) -> SopsForm:
    """Return the format of a file by its name, as SOPS decides.

    Raises:
        SecretError: a format that trimtab doesn't read.
    """
    ending = PurePosixPath(name).suffix
    if ending == ".ini":
        raise trees.unsupported(
            f"{name} is an INI file", "encrypt it as binary: sops --input-type binary"
        )
    # PurePosixPath(".env") has no suffix.
    return (
        SopsForm.DOTENV
        if PurePosixPath(name).name == ".env"
        else _ENDINGS.get(ending, SopsForm.BINARY)
    )


def decode(source: bytes) -> str:
    """Return the text of a file.

    Raises:
        SecretError: too long, or not UTF-8.
    """
    if len(source) > trees.SOURCE_MAX:
        raise trees.unsupported(
            f"the file has more than {trees.SOURCE_MAX} bytes", "split it into several Secrets"
        )
    try:
        return source.decode()
    except UnicodeDecodeError as error:
        raise trees.invalid(f"the file isn't UTF-8 at byte {error.start}") from None


def read_tree(source: bytes, form: SopsForm) -> trees.Mapping:
    """Return the whole tree of a file.

    Raises:
        SecretError: the file isn't of that format.
    """
    text = decode(source)
    match form:
        case SopsForm.YAML:
            return _read_yaml(text)
        case SopsForm.JSON | SopsForm.BINARY:
            return _read_json(text)
        case SopsForm.DOTENV:
            return _read_dotenv(text)
        case _:
            assert_never(form)


def split_metadata(
    root: trees.Mapping, form: SopsForm
) -> tuple[trees.Mapping, trees.Mapping | None]:
    """Return a tree without SOPS's metadata, and the metadata; None for a plain file.

    Raises:
        SecretError: the metadata isn't a mapping.
    """
    if form is SopsForm.DOTENV:
        flat = [item for item in root.items if item[0].startswith(_FLAT_METADATA)]
        rest = [item for item in root.items if not item[0].startswith(_FLAT_METADATA)]
        return trees.Mapping(rest), _unflatten(flat) if flat else None
    found = [value for key, value in root.items if key == _METADATA]
    rest = [item for item in root.items if item[0] != _METADATA]
    if not found:
        return root, None
    if not isinstance(found[0], trees.Mapping):
        raise trees.invalid("the entry sops isn't a mapping")
    return trees.Mapping(rest), found[0]


def _unflatten(items: list[tuple[str, trees.Node]]) -> trees.Mapping:
    """Return ``sops_age__list_0__map_enc`` and the like as a tree."""
    root: dict[str, object] = {}
    for name, node in items:
        first, *steps = re.split(r"__(map|list)_", name.removeprefix(_FLAT_METADATA))
        keys = (first, *steps[1::2])
        place: dict[str, object] = root
        for key in keys[:-1]:
            inner = place.setdefault(key, {})
            if not isinstance(inner, dict):
                raise trees.invalid(f"the line {name} contradicts another line")
            place = inner
        place[keys[-1]] = node
    return _as_mapping(root)


def _as_mapping(value: dict[str, object]) -> trees.Mapping:
    result = trees.Mapping()
    for key, inner in value.items():
        node: trees.Node
        if isinstance(inner, dict):
            mapping = _as_mapping(inner)
            is_list = bool(inner) and all(name.isdigit() for name in inner)
            node = trees.Sequence([each for _, each in mapping.items]) if is_list else mapping
        else:
            assert isinstance(inner, trees.Scalar)
            node = inner
        result.items.append((key, node))
    return result


# --- JSON


def _read_json(text: str) -> trees.Mapping:
    try:
        value = json.loads(text, object_pairs_hook=_Pairs, parse_constant=_refuse_constant)
    except RecursionError:
        raise trees.unsupported(
            f"the document is nested deeper than {trees.DEPTH_MAX}", "write it flat"
        ) from None
    except ValueError as error:
        place = f" at line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise trees.invalid(f"the file isn't JSON{place}") from None
    if not isinstance(value, _Pairs):
        raise trees.invalid("the file is JSON, but no object")
    node = _node_of(value, 0)
    assert isinstance(node, trees.Mapping)
    return node


class _Pairs(list[tuple[str, object]]):
    """The members of a JSON object in order."""


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _node_of(value: object, depth: int) -> trees.Node:
    if depth > trees.DEPTH_MAX:
        raise trees.unsupported(
            f"the document is nested deeper than {trees.DEPTH_MAX}", "write it flat"
        )
    match value:
        case _Pairs():
            _refuse_duplicates([key for key, _ in value])
            return trees.Mapping([(key, _node_of(inner, depth + 1)) for key, inner in value])
        case list():
            return trees.Sequence([_node_of(inner, depth + 1) for inner in value])
        case None | bool() | str() | float():
            return trees.Scalar(value)
        case int():
            # SOPS keeps integers of 64 bits, and makes floats of longer ones.
            return trees.Scalar(value if -(2**63) <= value < 2**63 else float(value))
        case _:
            raise AssertionError(f"json.loads returned {type(value)}")


def _refuse_duplicates(keys: list[str]) -> None:
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            raise trees.invalid(f"the key {key[:100]!r} stands twice in one mapping")
        seen.add(key)


# --- dotenv


def _read_dotenv(text: str) -> trees.Mapping:
    items: list[tuple[str, trees.Node]] = []
    place = 0
    for number, line in enumerate(text.split("\n"), start=1):
        start, place = place, place + len(line) + 1
        if not line or line.startswith("#"):
            continue
        name, found, value = line.partition("=")
        if not found:
            raise trees.invalid(f"line {number} has no `=`")
        span = (start + len(name) + 1, start + len(line))
        items.append((name, trees.Scalar(value.replace("\\n", "\n"), span)))
    _refuse_duplicates([key for key, _ in items])
    return trees.Mapping(items)


# --- YAML


def _read_yaml(text: str) -> trees.Mapping:
    try:
        root = _YamlBuilder(text).build()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}" if mark is not None else ""
        raise trees.invalid(f"the file isn't YAML{place}") from None
    if not isinstance(root, trees.Mapping):
        raise trees.invalid("the file is YAML, but no mapping")
    return root


class _YamlBuilder:
    """Builds the tree from the parser's events, which still know quotes and tags."""

    def __init__(self, text: str) -> None:
        self._loader = CBaseLoader(text)
        self._nodes = 0

    def build(self) -> trees.Node | None:
        """Return the only document; None for an empty file."""
        self._next()  # the stream's start
        root: trees.Node | None = None
        while not self._loader.check_event(yaml.StreamEndEvent):
            if root is not None:
                raise trees.unsupported(
                    "the file has more than one document", "write one document in a file"
                )
            self._next()  # the document's start
            root = self._node(self._next(), 0)
            self._next()  # the document's end
        return root

    def _next(self) -> yaml.Event:
        event = self._loader.get_event()
        assert event is not None, "an event after the end of the stream"
        return event

    def _node(self, event: yaml.Event, depth: int) -> trees.Node:
        self._nodes += 1
        if depth > trees.DEPTH_MAX or self._nodes > 4 * trees.LEAVES_MAX:
            raise trees.unsupported(
                f"the document is nested deeper than {trees.DEPTH_MAX}, or has too many values",
                "write it flat, or split it",
            )
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise trees.unsupported("the file has an anchor or an alias", "write the value out")
        tag = getattr(event, "tag", None)
        if tag not in (None, "!"):
            raise trees.unsupported(
                f"the file has the tag {tag[:40]}", "write the value without a tag"
            )
        match event:
            case yaml.ScalarEvent():
                return _yaml_scalar(event)
            case yaml.SequenceStartEvent():
                sequence = trees.Sequence()
                while not isinstance(inner := self._next(), yaml.SequenceEndEvent):
                    sequence.items.append(self._node(inner, depth + 1))
                return sequence
            case _:
                return self._mapping(depth)

    def _mapping(self, depth: int) -> trees.Mapping:
        mapping = trees.Mapping()
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            # A key such as 5 or true is a number or a truth value to SOPS, which refuses such keys.
            if not isinstance(key, trees.Scalar) or not isinstance(key.value, str):
                raise trees.invalid("a key of a mapping isn't a string", "quote the key")
            mapping.items.append((key.value, self._node(self._next(), depth + 1)))
        _refuse_duplicates([key for key, _ in mapping.items])
        return mapping


def _yaml_scalar(event: yaml.ScalarEvent) -> trees.Scalar:
    assert event.start_mark is not None
    assert event.end_mark is not None
    span = (event.start_mark.index, event.end_mark.index)
    if event.tag == "!" or not event.implicit[0]:
        return trees.Scalar(event.value, span)
    return trees.Scalar(resolve(event.value), span)


_WORDS: dict[str, trees.PlainValue] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
}
_INTEGER = re.compile(
    r"([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[oO]?([0-7]+)|0[bB]([01]+)|(0|[1-9][0-9]*))", re.ASCII
)
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_TIME = re.compile(
    r"([0-9]{4})-([0-9]{1,2})-([0-9]{1,2})"
    r"(?:(?:([Tt])| )([0-9]{1,2}):([0-9]{1,2}):([0-9]{1,2})(?:\.([0-9]{1,9}))?"
    r"(Z|[-+][0-9]{2}:[0-9]{2})?)?",
    re.ASCII,
)


def resolve(text: str) -> trees.PlainValue:
    """Return the value of a plain scalar by the rules of go-yaml v3 (``resolve.go``)."""
    if text in _WORDS:
        return _WORDS[text]
    if not text or text[0] not in "+-.0123456789":
        return text
    digits = text.replace("_", "")
    if (time := _timestamp(text)) is not None:
        return time
    if text[0] != "." and (number := _integer(digits)) is not None:
        return number
    return float(digits) if _FLOAT.fullmatch(digits) else text


def _integer(digits: str) -> int | None:
    match = _INTEGER.fullmatch(digits)
    if match is None:
        return None
    sign, *parts = match.groups()
    base, part = next(
        (base, part) for base, part in zip((16, 8, 2, 10), parts, strict=True) if part is not None
    )
    number = int(part, base) if len(part) <= 64 else 2**64
    number = -number if sign == "-" else number
    return number if -(2**63) <= number < 2**63 else None


def _timestamp(text: str) -> trees.Timestamp | None:
    """Return a time as Go marshals the time that go-yaml reads."""
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    year, month, day, mark, hour, minute, second, fraction, zone = match.groups()
    if hour is None:
        return trees.Timestamp(f"{year}-{int(month):02}-{int(day):02}T00:00:00Z")
    # With a T the zone is required, with a space there is none.
    if bool(mark) != bool(zone):
        return None
    fraction = (fraction or "").rstrip("0")
    tail = f".{fraction}" if fraction else ""
    zone = "Z" if zone in (None, "+00:00", "-00:00") else zone
    clock = f"{int(hour):02}:{int(minute):02}:{int(second):02}"
    return trees.Timestamp(f"{year}-{int(month):02}-{int(day):02}T{clock}{tail}{zone}")
