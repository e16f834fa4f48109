"""Strict JSON: parses only text that every JSON reader reads alike.

Two readers that disagree are a way past a gate. Go merges duplicate keys and matches keys without
case (U+017F and U+212A included). Python keeps the last duplicate and accepts NaN. Ambiguous text
is refused before any member is read (RFC 8259, section 4).
"""

from __future__ import annotations

import json
import unicodedata
from typing import NoReturn

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


def parse(data: bytes, *, bytes_max: int = BYTES_MAX) -> object:
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
