"""Unquoted scalars: the words and numbers of YAML 1.2's core schema, except for misleading forms.

``no``, ``on``, ``1:30`` and ``010`` are strings.
"""

from __future__ import annotations

import re

_WORDS: dict[str, object] = {
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
