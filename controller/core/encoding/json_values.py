"""JSON: a strict parser, typed readers of values without a guaranteed shape, and the canonical text (RFC 8785).

Typed readers of parsed JSON whose shape is not guaranteed, such as answers of an engine.

A missing member, or a value of another type, reads as empty. No reader raises.

A ``Payload`` declares each member of a JSON object once, for readers and writers::

    class Source(Payload):
        file: str = text("file")
        line: int = number("line")

    Source(file="web.yaml", line=3).members    # {"file": "web.yaml", "line": 3}
    Source.read({"file": "web.yaml"}).line     # 0

Strict JSON: parses only text that every JSON reader reads alike.

Two readers that disagree are a way past a gate. Go merges duplicate keys and matches keys without
case (U+017F and U+212A included). Python keeps the last duplicate and accepts NaN. Ambiguous text
is refused before any member is read (RFC 8259, section 4).

Floats are refused, because trimtab needs none. Integers beyond 2^53 are written as strings
(RFC 8785, appendix D), so every JSON reader sees the same number.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NoReturn, Self, TypeVar, cast, dataclass_transform

T = TypeVar("T")
P = TypeVar("P", bound="Payload")


def mapping_of(value: object) -> Mapping[str, Any]:
    """Return a JSON object, or an empty mapping for any other value."""
    # The test of an abstract class takes longer than all else here, and records have dictionaries.
    return value if type(value) is dict or isinstance(value, Mapping) else {}


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


#: Decodes JSON without ``NaN`` and ``Infinity``. Raises ValueError, or RecursionError for deep nesting.
DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def parse_json(data: bytes) -> Any:
    """Return the JSON value in some bytes.

    Raises:
        ValueError: the bytes are no JSON, or nested too deeply.
    """
    try:
        return DECODER.decode(data.decode())
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def parse_object(data: bytes) -> dict[str, Any]:
    """Return the JSON object in some bytes; an empty one for any other content."""
    try:
        value = parse_json(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def list_of(value: object) -> list[Any]:
    """Return a JSON array, or an empty list for any other value."""
    return [*value] if isinstance(value, list | tuple) else []


def texts_of(value: object) -> tuple[str, ...]:
    """Return the items of a JSON array as strings, or () for any other value."""
    return tuple(map(str, list_of(value)))


def text_member(members: Mapping[str, Any], name: str) -> str:
    """Return a member that is a string, or ''."""
    return _text_of(members.get(name))


def mapping_member(members: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a member that is a JSON object, or an empty mapping."""
    return mapping_of(members.get(name))


def fields_of(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass, in order.

    ``asdict`` also copies the values of the fields, and takes more than three times as long.
    """
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def only_set(**members: object) -> dict[str, Any]:
    """Return the members without null, empty, zero and false values."""
    return {name: value for name, value in members.items() if value}


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Payload:
    """A JSON object with a typed attribute for each member.

    The constructor takes the members to write, and writes nothing else. ``read`` copies nothing.
    """

    def __init__(self, **values: object) -> None:
        self.members: dict[str, Any] = {}
        for attribute, value in values.items():
            declared: _Member = getattr(type(self), attribute)
            if value or not declared.optional:
                self.members[declared.name] = declared.write(value)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.members})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.members == other.members

    __hash__ = None  # type: ignore[assignment]

    def __or__(self, other: P) -> P:
        """Return the members of both as the class of *other*, which takes precedence."""
        return other.read(self.members | other.members)

    def __bool__(self) -> bool:
        return bool(self.members)

    @classmethod
    def read(cls, members: object) -> Self:
        """Return a parsed JSON object with types; any other value reads as an empty object."""
        payload = cls.__new__(cls)  # without the search for values to write
        payload.members = cast("dict[str, Any]", mapping_of(members))
        return payload


class _Member:
    """The descriptor of a member."""

    def __init__(
        self,
        name: str,
        read: Callable[[Any], object],
        write: Callable[[Any], object],
        *,
        optional: bool,
    ) -> None:
        self.name = name
        self.read = read
        self.write = write
        self.optional = optional

    def __get__(self, payload: Payload | None, _owner: type[Payload]) -> object:
        return self if payload is None else self.read(payload.members.get(self.name))


def member(
    name: str,
    read: Callable[[object], T],
    write: Callable[[T], object] = lambda value: value,
    *,
    optional: bool = False,
) -> T:
    """Declare a member; an empty value of an *optional* member is not written."""
    return cast("T", _Member(name, read, write, optional=optional))


def text(name: str, *, optional: bool = False) -> str:
    """Declare a string; '' if absent."""
    return member(name, _text_of, optional=optional)


def number(name: str, *, optional: bool = False) -> int | None:
    """Declare an integer; None if absent."""
    return member(name, lambda value: value if type(value) is int else None, optional=optional)


def flag(name: str, *, default: bool = False, optional: bool = False) -> bool:
    """Declare a boolean."""
    return member(
        name, lambda value: value if isinstance(value, bool) else default, optional=optional
    )


def texts(name: str, *, optional: bool = False) -> tuple[str, ...]:
    """Declare an array of strings; () if absent."""
    return member(name, texts_of, list, optional=optional)


def mapping(name: str, *, optional: bool = False) -> Mapping[str, Any]:
    """Declare an object with any members; empty if absent."""
    return member(name, mapping_of, dict, optional=optional)


def nested(name: str, kind: type[P], *, optional: bool = False) -> P:
    """Declare an object with declared members."""
    return member(name, kind.read, lambda value: value.members, optional=optional)


def items(name: str, kind: type[P], *, optional: bool = False) -> tuple[P, ...]:
    """Declare an array of objects with declared members."""
    return member(
        name,
        lambda value: tuple(map(kind.read, list_of(value))),
        lambda value: [item.members for item in value],
        optional=optional,
    )


def _text_of(value: object) -> str:
    return value if isinstance(value, str) else ""


BYTES_MAX = 1024 * 1024
DEPTH_MAX = 64
#: Tokens of a text: strings, brackets that open, commas and colons. A member of an object has four.
TOKENS_MAX = 20_000
#: Characters of all keys that aren't ASCII: NFKC makes up to 18 characters of one.
FOREIGN_KEYS_MAX = 8192
_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1
_DIGITS_MAX = 20
_MARKS = b"[{,:"


class InvalidJson(ValueError):
    """The bytes are not JSON, or are ambiguous; the text has the reason."""


def fold(key: str) -> str:
    """Return the common form of all spellings of a key, without case, width and compatibility."""
    if key.isascii():
        return key.lower()  # the same result, and nearly all keys are ASCII
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", key).casefold())


def parse_strict(data: bytes, *, bytes_max: int = BYTES_MAX) -> object:
    """Return the value: None, bool, int, str, list or dict with distinct keys.

    Raises:
        InvalidJson: too large, not UTF-8, a byte order mark, not one JSON value, nested deeper than
            64, more than 20,000 tokens, a repeated key (case ignored), more than 8192 characters
            of keys that aren't ASCII, a number other than a 64-bit integer, NUL or half a surrogate
            pair in a string.
    """
    if len(data) > bytes_max:
        raise InvalidJson(f"larger than {bytes_max} bytes")
    if data.startswith(b"\xef\xbb\xbf"):
        raise InvalidJson("a byte order mark")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidJson(f"not UTF-8 at byte {error.start}") from error
    if not _has_few_tokens(data):
        raise InvalidJson(f"more than {TOKENS_MAX} strings, brackets, commas and colons")
    try:
        value = json.loads(
            text,
            object_pairs_hook=_ObjectBuilder(),
            parse_int=_parse_integer,
            parse_float=_refuse_number,
            parse_constant=_refuse_number,
        )
    except RecursionError as error:
        raise InvalidJson(f"nested deeper than {DEPTH_MAX}") from error
    except json.JSONDecodeError as error:
        raise InvalidJson(f"not JSON at character {error.pos}: {error.msg}") from error
    # Without escapes, a string of valid JSON has no NUL, and of valid UTF-8 no surrogate.
    _check_value(value, has_escapes=b"\\u" in data)
    return value


def _has_few_tokens(data: bytes) -> bool:
    """Return True if a text has at most ``TOKENS_MAX`` tokens, by few calls of C.

    A token is a string, also without its end, or a bracket, comma or colon outside strings.
    """
    if _count(data, b'"' + _MARKS) <= TOKENS_MAX:
        return True  # even if no mark were inside a string
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    strings = (data.count(b'"') + 1) // 2
    if strings > TOKENS_MAX:
        return False
    outside = b"".join(data.split(b'"')[::2])
    return strings + _count(outside, _MARKS) <= TOKENS_MAX


def _count(data: bytes, characters: bytes) -> int:
    return len(data) - len(data.translate(None, characters))


class _ObjectBuilder:
    """Builds the objects of one text. Counts the characters of keys that cost most to fold."""

    def __init__(self) -> None:
        self._foreign = 0

    def __call__(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        made = dict(pairs)
        if not made:
            return made
        if "".join(made).isascii() and len(set(map(str.lower, made))) == len(pairs):
            return made
        seen: dict[str, str] = {}
        for key, _ in pairs:
            if not key.isascii():
                self._foreign += len(key)
                if self._foreign > FOREIGN_KEYS_MAX:
                    raise InvalidJson(
                        f"keys outside ASCII of more than {FOREIGN_KEYS_MAX} characters in all"
                    )
            folded = fold(key)
            if folded in seen:
                raise InvalidJson(
                    f"the keys {seen[folded]!r:.80} and {key!r:.80} are one to some readers"
                )
            seen[folded] = key
        return made


def _parse_integer(digits: str) -> int:
    number = int(digits) if len(digits) <= _DIGITS_MAX else _INT64_MAX + 1
    if not _INT64_MIN <= number <= _INT64_MAX:
        raise InvalidJson(f"the number {digits:.24} doesn't fit into 64 bits")
    return number


def _refuse_number(text: str) -> NoReturn:
    raise InvalidJson(f"the number {text:.24} isn't an integer")


def _check_value(value: object, *, has_escapes: bool) -> None:
    """Refuse too deep nesting and ambiguous strings, without recursion."""
    level, depth = [value], 0
    while level:
        below: list[object] = []
        nested = False
        for item in level:
            if isinstance(item, str):
                if has_escapes:
                    _check_text(item)
            elif isinstance(item, list):
                nested = True
                below.extend(item)
            elif isinstance(item, dict):
                nested = True
                below.extend(item.values())
                if has_escapes:
                    below.extend(item)
        depth += nested
        if depth > DEPTH_MAX:
            raise InvalidJson(f"nested deeper than {DEPTH_MAX}")
        level = below


def _check_text(text: str) -> None:
    if "\0" in text:
        raise InvalidJson("a NUL in a string")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidJson("half a surrogate pair in a string") from error


MAX_SAFE_INTEGER = 2**53
_SEQUENCES = (list, tuple)
_OBJECTS = (dict, Mapping)
# ``normalize`` builds the value, so there is no cycle to check for.
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False)


def canonical(value: object) -> bytes:
    """Return the canonical bytes of a JSON value.

    Raises:
        TypeError: *value* contains a float, or a value outside JSON.
    """
    return encode(normalize(value))


def canonical_by_item(value: object) -> bytes:
    """Return the same bytes as ``canonical``, encoded item by item.

    The encoder is one call into C. For thousands of items, the call would keep the interpreter from
    all other threads.

    Raises:
        TypeError: as ``canonical``.
    """
    return b"".join(_pieces(value))


def _pieces(value: object) -> Iterator[bytes]:
    """Yield the canonical bytes of a value: lists in objects are encoded item by item."""
    if isinstance(value, _OBJECTS):
        for number, key in enumerate(_sort_keys(value)):
            yield b"%b%b:" % (b"," if number else b"{", canonical(key))
            yield from _pieces(value[key])
        yield b"}" if value else b"{}"
    elif isinstance(value, _SEQUENCES):
        for number, item in enumerate(value):
            yield b"%b%b" % (b"," if number else b"[", canonical(item))
        yield b"]" if value else b"[]"
    else:
        yield canonical(value)


def encode(value: object) -> bytes:
    """Return the canonical bytes of a result of ``normalize``."""
    return _ENCODER.encode(value).encode()


def digest(value: object) -> str:
    """Return the lower-case hex SHA-256 of a value's canonical bytes."""
    return hashlib.sha256(canonical(value)).hexdigest()


def normalize(value: object) -> object:
    """Return a value as a reader of its canonical bytes sees it, with sorted keys.

    Raises:
        TypeError: as ``canonical``.
    """
    # The most frequent types come first, and a plain text costs no call: every record passes here
    # while a request waits.
    if isinstance(value, str):
        return str.__str__(value)  # without the class of an enumeration
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER else str(int(value))
    if isinstance(value, _SEQUENCES):
        return [item if type(item) is str else normalize(item) for item in value]
    if isinstance(value, _OBJECTS):
        members = ((key, value[key]) for key in _sort_keys(value))
        return {
            str.__str__(key): member if type(member) is str else normalize(member)
            for key, member in members
        }
    raise TypeError(f"not a canonical JSON value: {type(value).__name__}")


def _sort_keys(keys: Iterable[str]) -> list[str]:
    """Return keys in the order of RFC 8785: by UTF-16 code units.

    For ASCII keys this is the order by code points.
    """
    ordered = sorted(keys)
    if "".join(ordered).isascii():
        return ordered
    return sorted(ordered, key=lambda key: key.encode("utf-16-be"))
