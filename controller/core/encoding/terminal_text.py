"""Text of strangers on a terminal: containers, engines and files may contain escape sequences."""

from __future__ import annotations

import json
import re
import unicodedata

#: Select Graphic Rendition (ECMA-48): colour and weight, which change nothing but looks.
_COLOUR = re.compile(r"(\x1b\[[0-9;:]*m)")
_RESET = "\x1b[0m"


def printable(value: object) -> str:
    """Return text that can't play tricks on a terminal, on one line."""
    return "".join(
        letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in str(value)
    )


def printable_json(value: object, *, indent: int | None = None) -> str:
    r"""Return JSON that can't play tricks on a terminal either: strings keep their values.

    JSON itself escapes only what is below a space. Terminals also obey C1 controls (``\u009b``).
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return "".join(
        letter if letter == "\n" or letter.isprintable() else json.dumps(letter)[1:-1]
        for letter in text
    )


def printable_output(line: str, *, colours: bool) -> str:
    r"""Return a line of a container's output as it may be shown.

    Tabs and all kinds of spaces stay. Colours stay if *colours* is set, and end with the line; else
    they are left out. Any other control character is written as ``\uNNNN``.
    """
    if line.isprintable():
        return line
    *pairs, last = _COLOUR.split(line)
    shown = []
    for text, colour in zip(pairs[::2], pairs[1::2], strict=True):
        shown.append(_escaped(text))
        if colours:
            shown.append(colour)
    shown.append(_escaped(last))
    if colours and pairs:
        shown.append(_RESET)
    return "".join(shown)


def _escaped(text: str) -> str:
    return "".join(
        letter
        if letter == "\t" or letter.isprintable() or unicodedata.category(letter) == "Zs"
        else f"\\u{ord(letter):04x}"
        for letter in text
    )


def quote_line(line: str, *, limit: int) -> str:
    """Return a line in quotation marks, escaped and cut, to stand within a sentence."""
    text = printable(_COLOUR.sub("", line).replace("\t", " ").strip())
    if len(text) > limit:
        text = f"{text[: limit - 1]}…"
    return f'"{text}"'
