"""The tree of an encrypted document, in one form for all formats.

SOPS encrypts the scalars of a document in their order, each bound to the path of its mapping keys.
Items of a list have the path of the list.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal

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
