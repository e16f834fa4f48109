"""Unquoted scalars: those of documents, and those of Compose files.

Documents have the words and numbers of YAML 1.2's core schema, except for misleading forms: ``no``, ``on``,
``1:30`` and ``010`` are strings. In Compose files (go-yaml v3), ``yes`` and ``on`` are strings, ``010`` is an
octal number, ``1_000`` is a number, ``2024-01-01`` is a date. A date has no form that Compose files can use,
so a date is an error of the file.
"""

from __future__ import annotations

import re

_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
# Digits after a leading zero are a mode, a date or an account number, not a quantity. Digits beyond
# a 64-bit integer are an identifier.
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})", re.ASCII)
_HEX_OR_OCTAL = re.compile(r"0x[0-9a-fA-F]{1,15}|0o[0-7]{1,20}", re.ASCII)
_FLOAT = re.compile(
    r"(?=.*[.eE])[-+]?(?:\.[0-9]{1,20}|(?:0|[1-9][0-9]{0,19})(?:\.[0-9]{0,20})?)(?:[eE][-+]?[0-9]{1,2})?",
    re.ASCII,
)


def resolve_plain(text: str) -> object:
    """Return the value of an unquoted scalar: a word, a number, or the text itself."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "-+.0123456789":
        return text
    if _INTEGER.fullmatch(text):
        return int(text)
    if _HEX_OR_OCTAL.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


#: Numbers of Compose files that no attribute can have.
_NOT_FINITE = {
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
}
_COMPOSE_INTEGER = re.compile(
    r"[-+]?(?:0[xX](?P<hex>[0-9a-fA-F]+)|0[bB](?P<binary>[01]+)|0[oO]?(?P<octal>[0-7]+)|(?:0|[1-9][0-9]*))",
    re.ASCII,
)
_COMPOSE_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_DATE = re.compile(
    r"[0-9]{4}-(?:0?[1-9]|1[0-2])-(?:0?[1-9]|[12][0-9]|3[01])"
    r"(?:[Tt ][ ]*[0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2}(?:\.[0-9]+)?(?:Z|[-+][0-9]{2}:[0-9]{2})?)?",
    re.ASCII,
)
#: Compose reads larger integers as floating point numbers.
MAX_COMPOSE_INTEGER = 2**64
MIN_COMPOSE_INTEGER = -(2**63)
#: A longer run of digits is a string: no attribute of a Compose file has such a number.
MAX_DIGITS = 40


def resolve_compose(text: str) -> bool | int | float | str | None:
    """Return the value of an unquoted scalar of a Compose file."""
    if text in _WORDS or text in _NOT_FINITE:
        return _WORDS[text] if text in _WORDS else _NOT_FINITE[text]
    if text[0] not in "-+.0123456789" or len(text) > MAX_DIGITS:
        return text
    digits = text.replace("_", "")
    match = _COMPOSE_INTEGER.fullmatch(digits)
    if match is not None:
        number = _integer(digits, match)
        if MIN_COMPOSE_INTEGER <= number < MAX_COMPOSE_INTEGER:
            return number
    if _COMPOSE_FLOAT.fullmatch(digits):
        return float(digits)
    return text


def _integer(digits: str, match: re.Match[str]) -> int:
    for name, base in (("hex", 16), ("binary", 2), ("octal", 8)):
        if match[name] is not None:
            return int(match[name], base) * (-1 if digits[0] == "-" else 1)
    return int(digits)


def is_date(text: str) -> bool:
    """Return True if a scalar without quotes is a date or a time."""
    return text[:1].isdigit() and _DATE.fullmatch(text) is not None
