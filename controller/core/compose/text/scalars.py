"""Plain scalars of YAML as Docker Compose reads them (go-yaml v3).

``yes`` and ``on`` are strings, ``010`` is an octal number, ``1_000`` is a number, ``2024-01-01`` is a
date. A date has no form that Compose files can use, so a date is an error of the file.
"""

from __future__ import annotations

import re

_WORDS: dict[str, object] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
}
_INTEGER = re.compile(
    r"[-+]?(?:0[xX](?P<hex>[0-9a-fA-F]+)|0[bB](?P<binary>[01]+)|0[oO]?(?P<octal>[0-7]+)|(?:0|[1-9][0-9]*))",
    re.ASCII,
)
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_DATE = re.compile(
    r"[0-9]{4}-(?:0?[1-9]|1[0-2])-(?:0?[1-9]|[12][0-9]|3[01])"
    r"(?:[Tt ][ ]*[0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2}(?:\.[0-9]+)?(?:Z|[-+][0-9]{2}:[0-9]{2})?)?",
    re.ASCII,
)
#: Compose reads larger integers as floating point numbers.
MAX_INTEGER = 2**64
MIN_INTEGER = -(2**63)
#: A longer run of digits is a string: no attribute of a Compose file has such a number.
MAX_DIGITS = 40


def resolve_plain(text: str) -> bool | int | float | str | None:
    """Return the value of a scalar without quotes."""
    if text in _WORDS:
        found = _WORDS[text]
        assert found is None or isinstance(found, bool | float), "words are constants"
        return found
    if text[0] not in "-+.0123456789" or len(text) > MAX_DIGITS:
        return text
    digits = text.replace("_", "")
    match = _INTEGER.fullmatch(digits)
    if match is not None:
        number = _integer(digits, match)
        if MIN_INTEGER <= number < MAX_INTEGER:
            return number
    if _FLOAT.fullmatch(digits):
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
