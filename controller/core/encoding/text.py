"""Texts of others inside a message and on a terminal.

Texts, paths and values of requests and documents inside a message.

Untrusted text on a terminal.

Texts of containers, engines and files can contain escape sequences.
"""

from __future__ import annotations

import json
import re
import unicodedata

#: Longest text of one reason, in characters.
REASON_MAX = 600


def quote(text: str) -> str:
    """Return a text of a request in double quotes, with escapes outside printable ASCII."""
    return json.dumps(text)


def shorten(text: str, most: int = REASON_MAX) -> str:
    """Return at most *most* characters of a text, with an ellipsis at the cut."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def path_text(path: tuple[str | int, ...]) -> str:
    """Return the path of a value in a document: ``spec.ports[0].host``; '' for the document."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def kind_of(value: object) -> str:
    """Return the name of a value's kind in a document."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case _:
            return "a mapping"


#: Select Graphic Rendition (ECMA-48): colour and weight only.
_COLOUR = re.compile(r"(\x1b\[[0-9;:]*m)")
_RESET = "\x1b[0m"


def printable(value: object) -> str:
    """Return text on one line, with escapes for characters that control a terminal."""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else _escape_letter(letter) for letter in text)


def printable_name(name: str) -> str:
    """Return a file name with unprintable characters and bytes escaped."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable_json(value: object, *, indent: int | None = None) -> str:
    r"""Return JSON without characters that control a terminal; strings keep their values.

    JSON itself escapes only characters below a space. Terminals also obey C1 controls (``\u009b``).
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    if all(line.isprintable() for line in text.split("\n")):
        return text
    return "".join(
        letter if letter == "\n" or letter.isprintable() else json.dumps(letter)[1:-1]
        for letter in text
    )


def printable_output(line: str, *, colours: bool) -> str:
    r"""Return a line of a container's output for a terminal.

    Tabs and all kinds of spaces stay. With *colours*, colours stay and are reset at the end of the
    line. Any other control character is written as ``\uNNNN``.
    """
    if line.isprintable():
        return line
    if not colours:
        return _escape(_COLOUR.sub("", line))
    return _terminal_line(line) + (_RESET if _COLOUR.search(line) else "")


def _escape(text: str) -> str:
    return "".join(
        letter
        if letter == "\t" or letter.isprintable() or unicodedata.category(letter) == "Zs"
        else _escape_letter(letter)
        for letter in text
    )


def _escape_letter(letter: str) -> str:
    """Return a character as JSON escapes it: beyond U+FFFF as two surrogates."""
    units = letter.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def terminal_text(text: str) -> str:
    r"""Return text of several lines for a terminal.

    Line ends, tabs, all kinds of spaces and colours stay. Any other control character is written
    as in JSON, such as ``\u009b``.
    """
    return text if text.isprintable() else "\n".join(map(_terminal_line, text.split("\n")))


def _terminal_line(line: str) -> str:
    if line.isprintable():
        return line
    *pairs, last = _COLOUR.split(line)
    shown = [_escape(part) if number % 2 == 0 else part for number, part in enumerate(pairs)]
    return "".join([*shown, _escape(last)])


def quote_line(line: str, *, limit: int) -> str:
    """Return a line in quotation marks, escaped and cut, for use in a sentence."""
    text = printable(_COLOUR.sub("", line).replace("\t", " ").strip())
    if len(text) > limit:
        text = f"{text[: limit - 1]}…"
    return f'"{text}"'
