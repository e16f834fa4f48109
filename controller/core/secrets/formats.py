"""The formats of SOPS files as trees: YAML, JSON, dotenv and binary.

Plain scalars of YAML get the types that SOPS's own library (go-yaml v3) gives them, because the MAC
covers the typed value of each scalar that is not encrypted.

The tree of an encrypted document, in one form for all formats.

SOPS encrypts the scalars of a document in their order, each bound to the path of its mapping keys.
Items of a list have the path of the list.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from pathlib import PurePosixPath
from typing import assert_never

import yaml
from yaml.cyaml import CBaseLoader

from controller.model.errors import SecretError

#: Bounds of one document: bytes of ciphertext, scalars, and nesting.
SOURCE_MAX = 2 * 1024 * 1024
LEAVES_MAX = 10_000
DEPTH_MAX = 32


@dataclass(frozen=True, slots=True)
class Timestamp:
    """A time, as RFC 3339 text. SOPS has a type of its own for times."""

    text: str


PlainValue = str | int | float | bool | Timestamp | None


@dataclass(frozen=True, slots=True)
class Scalar:
    """A value without parts."""

    value: PlainValue
    #: Where the value stands in the text, in characters; (0, 0) if the format has no places.
    span: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys with their values, in order."""

    items: list[tuple[str, Node]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Sequence:
    """Values in order."""

    items: list[Node] = field(default_factory=list)


Node = Scalar | Mapping | Sequence


@dataclass(frozen=True, slots=True)
class Leaf:
    """A scalar with its path."""

    path: tuple[str, ...]
    scalar: Scalar
    #: The scalar is an item of a list, or below one.
    in_list: bool = False

    @property
    def additional_data(self) -> str:
        """The text that SOPS binds an encrypted value to: ``a:b:`` for ``a: {b: …}``."""
        return ":".join(self.path) + ":"

    @property
    def place(self) -> str:
        """The path for messages."""
        return ".".join(self.path)


def invalid(message: str, remedy: str = "") -> SecretError:
    """Return the error of a document that is not as SOPS writes documents."""
    return SecretError(
        "secret.sops-invalid",
        message,
        remedy=remedy or "encrypt the file with sops or with `trimtab secret encrypt`",
    )


def unsupported(message: str, remedy: str) -> SecretError:
    """Return the error of a valid document with a part that trimtab doesn't read."""
    return SecretError("secret.sops-unsupported", message, remedy=remedy)


def leaves(root: Mapping) -> list[Leaf]:
    """Return the scalars in document order.

    Raises:
        SecretError: too many scalars, or nested too deeply.
    """
    found: list[Leaf] = []
    for leaf in _walk(root, (), in_list=False, depth=0):
        found.append(leaf)
        if len(found) > LEAVES_MAX:
            raise unsupported(
                f"the document has more than {LEAVES_MAX} values", "split it into several Secrets"
            )
    return found


def _walk(node: Node, path: tuple[str, ...], *, in_list: bool, depth: int) -> Iterator[Leaf]:
    if depth > DEPTH_MAX:
        raise unsupported(f"the document is nested deeper than {DEPTH_MAX}", "write it flat")
    match node:
        case Scalar():
            yield Leaf(path, node, in_list)
        case Sequence(items=values):
            for value in values:
                yield from _walk(value, path, in_list=True, depth=depth + 1)
        case Mapping(items=items):
            for key, value in items:
                yield from _walk(value, (*path, key), in_list=in_list, depth=depth + 1)


def plain(node: Node) -> object:
    """Return the node as dicts, lists and scalars."""
    match node:
        case Scalar(value=value):
            return value.text if isinstance(value, Timestamp) else value
        case Sequence(items=values):
            return [plain(value) for value in values]
        case Mapping(items=items):
            return {key: plain(value) for key, value in items}


def value_bytes(value: PlainValue) -> bytes:
    """Return a value as the MAC of SOPS covers it (``ToBytes`` in sops.go)."""
    match value:
        case bool():
            return b"True" if value else b"False"
        case str():
            return _utf8(value)
        case int():
            return str(value).encode()
        case float():
            return go_float(value).encode()
        case Timestamp(text=text):
            return text.encode()
        case None:
            return b""


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise invalid("a value has half a surrogate pair, so is no text") from None


def go_float(value: float) -> str:
    """Return a float as Go's ``FormatFloat(value, 'f', -1, 64)``: shortest, without exponent."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    text = format(Decimal(repr(value)), "f")
    return text.removesuffix(".0") if "." in text else text


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
        raise unsupported(
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
    if len(source) > SOURCE_MAX:
        raise unsupported(
            f"the file has more than {SOURCE_MAX} bytes", "split it into several Secrets"
        )
    try:
        return source.decode()
    except UnicodeDecodeError as error:
        raise invalid(f"the file isn't UTF-8 at byte {error.start}") from None


def read_tree(source: bytes, form: SopsForm) -> Mapping:
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


def split_metadata(root: Mapping, form: SopsForm) -> tuple[Mapping, Mapping | None]:
    """Return a tree without SOPS's metadata, and the metadata; None for a plain file.

    Raises:
        SecretError: the metadata isn't a mapping.
    """
    if form is SopsForm.DOTENV:
        flat = [item for item in root.items if item[0].startswith(_FLAT_METADATA)]
        rest = [item for item in root.items if not item[0].startswith(_FLAT_METADATA)]
        return Mapping(rest), _unflatten(flat) if flat else None
    found = [value for key, value in root.items if key == _METADATA]
    rest = [item for item in root.items if item[0] != _METADATA]
    if not found:
        return root, None
    if not isinstance(found[0], Mapping):
        raise invalid("the entry sops isn't a mapping")
    return Mapping(rest), found[0]


def _unflatten(items: list[tuple[str, Node]]) -> Mapping:
    """Return ``sops_age__list_0__map_enc`` and the like as a tree."""
    root: dict[str, object] = {}
    for name, node in items:
        first, *steps = re.split(r"__(map|list)_", name.removeprefix(_FLAT_METADATA))
        keys = (first, *steps[1::2])
        place: dict[str, object] = root
        for key in keys[:-1]:
            inner = place.setdefault(key, {})
            if not isinstance(inner, dict):
                raise invalid(f"the line {name} contradicts another line")
            place = inner
        place[keys[-1]] = node
    return _as_mapping(root)


def _as_mapping(value: dict[str, object]) -> Mapping:
    result = Mapping()
    for key, inner in value.items():
        node: Node
        if isinstance(inner, dict):
            mapping = _as_mapping(inner)
            is_list = bool(inner) and all(name.isdigit() for name in inner)
            node = Sequence([each for _, each in mapping.items]) if is_list else mapping
        else:
            assert isinstance(inner, Scalar)
            node = inner
        result.items.append((key, node))
    return result


# --- JSON


def _read_json(text: str) -> Mapping:
    try:
        value = json.loads(text, object_pairs_hook=_Pairs, parse_constant=_refuse_constant)
    except RecursionError:
        raise unsupported(
            f"the document is nested deeper than {DEPTH_MAX}", "write it flat"
        ) from None
    except ValueError as error:
        place = f" at line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise invalid(f"the file isn't JSON{place}") from None
    if not isinstance(value, _Pairs):
        raise invalid("the file is JSON, but no object")
    node = _node_of(value, 0)
    assert isinstance(node, Mapping)
    return node


class _Pairs(list[tuple[str, object]]):
    """The members of a JSON object in order."""


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _node_of(value: object, depth: int) -> Node:
    if depth > DEPTH_MAX:
        raise unsupported(f"the document is nested deeper than {DEPTH_MAX}", "write it flat")
    match value:
        case _Pairs():
            _refuse_duplicates([key for key, _ in value])
            return Mapping([(key, _node_of(inner, depth + 1)) for key, inner in value])
        case list():
            return Sequence([_node_of(inner, depth + 1) for inner in value])
        case None | bool() | str() | float():
            return Scalar(value)
        case int():
            # SOPS keeps integers of 64 bits, and makes floats of longer ones.
            return Scalar(value if -(2**63) <= value < 2**63 else float(value))
        case _:
            raise AssertionError(f"json.loads returned {type(value)}")


def _refuse_duplicates(keys: list[str]) -> None:
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            raise invalid(f"the key {key[:100]!r} stands twice in one mapping")
        seen.add(key)


# --- dotenv


def _read_dotenv(text: str) -> Mapping:
    items: list[tuple[str, Node]] = []
    place = 0
    for number, line in enumerate(text.split("\n"), start=1):
        start, place = place, place + len(line) + 1
        if not line or line.startswith("#"):
            continue
        name, found, value = line.partition("=")
        if not found:
            raise invalid(f"line {number} has no `=`")
        span = (start + len(name) + 1, start + len(line))
        items.append((name, Scalar(value.replace("\\n", "\n"), span)))
    _refuse_duplicates([key for key, _ in items])
    return Mapping(items)


# --- YAML


def _read_yaml(text: str) -> Mapping:
    try:
        root = _YamlBuilder(text).build()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}" if mark is not None else ""
        raise invalid(f"the file isn't YAML{place}") from None
    if not isinstance(root, Mapping):
        raise invalid("the file is YAML, but no mapping")
    return root


class _YamlBuilder:
    """Builds the tree from the parser's events, which still know quotes and tags."""

    def __init__(self, text: str) -> None:
        self._loader = CBaseLoader(text)
        self._nodes = 0

    def build(self) -> Node | None:
        """Return the only document; None for an empty file."""
        self._next()  # the stream's start
        root: Node | None = None
        while not self._loader.check_event(yaml.StreamEndEvent):
            if root is not None:
                raise unsupported(
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

    def _node(self, event: yaml.Event, depth: int) -> Node:
        self._nodes += 1
        if depth > DEPTH_MAX or self._nodes > 4 * LEAVES_MAX:
            raise unsupported(
                f"the document is nested deeper than {DEPTH_MAX}, or has too many values",
                "write it flat, or split it",
            )
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise unsupported("the file has an anchor or an alias", "write the value out")
        tag = getattr(event, "tag", None)
        if tag not in (None, "!"):
            raise unsupported(f"the file has the tag {tag[:40]}", "write the value without a tag")
        match event:
            case yaml.ScalarEvent():
                return _yaml_scalar(event)
            case yaml.SequenceStartEvent():
                sequence = Sequence()
                while not isinstance(inner := self._next(), yaml.SequenceEndEvent):
                    sequence.items.append(self._node(inner, depth + 1))
                return sequence
            case _:
                return self._mapping(depth)

    def _mapping(self, depth: int) -> Mapping:
        mapping = Mapping()
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            # A key such as 5 or true is a number or a truth value to SOPS, which refuses such keys.
            if not isinstance(key, Scalar) or not isinstance(key.value, str):
                raise invalid("a key of a mapping isn't a string", "quote the key")
            mapping.items.append((key.value, self._node(self._next(), depth + 1)))
        _refuse_duplicates([key for key, _ in mapping.items])
        return mapping


def _yaml_scalar(event: yaml.ScalarEvent) -> Scalar:
    assert event.start_mark is not None
    assert event.end_mark is not None
    span = (event.start_mark.index, event.end_mark.index)
    if event.tag == "!" or not event.implicit[0]:
        return Scalar(event.value, span)
    return Scalar(resolve(event.value), span)


_WORDS: dict[str, PlainValue] = {
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


def resolve(text: str) -> PlainValue:
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


def _timestamp(text: str) -> Timestamp | None:
    """Return a time as Go marshals the time that go-yaml reads."""
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    year, month, day, mark, hour, minute, second, fraction, zone = match.groups()
    if hour is None:
        return Timestamp(f"{year}-{int(month):02}-{int(day):02}T00:00:00Z")
    # With a T the zone is required, with a space there is none.
    if bool(mark) != bool(zone):
        return None
    fraction = (fraction or "").rstrip("0")
    tail = f".{fraction}" if fraction else ""
    zone = "Z" if zone in (None, "+00:00", "-00:00") else zone
    clock = f"{int(hour):02}:{int(minute):02}:{int(second):02}"
    return Timestamp(f"{year}-{int(month):02}-{int(day):02}T{clock}{tail}{zone}")
