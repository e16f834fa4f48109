"""Words of a Dockerfile: variables, quotes and escapes, as the builder expands them.

The expansion differs from a shell's: ``${X:-word}``, ``${X:+word}`` and the forms without the colon exist, patterns
don't, and quotes are removed. A name without a value expands to nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

#: How deep ``${A:-${B:-…}}`` goes.
MAX_DEPTH: Final = 16

_NAME = re.compile(r"[0-9]+|[A-Za-z_][A-Za-z0-9_]*")
_SPACE: Final = " \t"


class ExpansionError(ValueError):
    """A word can't be expanded. The message says why."""


def split_words(text: str, escape: str) -> list[str]:
    """Return the words of *text*, with their quotes and escapes; blanks in quotes split nothing."""
    words, word, quote, index = list[str](), list[str](), "", 0
    while index < len(text):
        letter = text[index]
        if letter == escape and index + 1 < len(text):
            word.append(text[index : index + 2])
            index += 2
            continue
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in _SPACE:
            if word:
                words.append("".join(word))
            word = []
            index += 1
            continue
        word.append(letter)
        index += 1
    return [*words, "".join(word)] if word else words


def expand(word: str, variables: Mapping[str, str], escape: str) -> str:
    """Return *word* with its variables replaced, without quotes and escapes.

    Raises ExpansionError if a quote or a brace isn't closed, if ``${X:?word}`` finds no value, and for substitutions
    by pattern, which the oldest engines lack.
    """
    text, end = _Reader(word, variables, escape).read(0, "", 0)
    assert end == len(word), "a word is read to its end"
    return text


class _Reader:
    """One word, read from left to right."""

    def __init__(self, word: str, variables: Mapping[str, str], escape: str) -> None:
        self._word = word
        self._variables = variables
        self._escape = escape

    def read(self, index: int, stop: str, depth: int) -> tuple[str, int]:
        """Return the text up to the letter *stop*, or up to the end if *stop* is '', and the index behind it."""
        parts: list[str] = []
        while index < len(self._word):
            letter = self._word[index]
            if stop and letter == stop:
                return "".join(parts), index + 1
            if letter == "'":
                end = self._word.find("'", index + 1)
                if end < 0:
                    raise ExpansionError("a single quote isn't closed")
                parts.append(self._word[index + 1 : end])
                index = end + 1
            elif letter == '"':
                text, index = self._double_quoted(index + 1, depth)
                parts.append(text)
            elif letter == "$":
                text, index = self._variable(index + 1, depth)
                parts.append(text)
            elif letter == self._escape:
                parts.append(self._word[index + 1 : index + 2])
                index += 2
            else:
                parts.append(letter)
                index += 1
        if stop:
            raise ExpansionError("a brace isn't closed")
        return "".join(parts), len(self._word)

    def _double_quoted(self, index: int, depth: int) -> tuple[str, int]:
        parts: list[str] = []
        while index < len(self._word):
            letter = self._word[index]
            if letter == '"':
                return "".join(parts), index + 1
            if letter == "$":
                text, index = self._variable(index + 1, depth)
                parts.append(text)
                continue
            if letter == self._escape and self._word[index + 1 : index + 2] in {
                '"',
                "$",
                self._escape,
            }:
                index += 1
                letter = self._word[index]
            parts.append(letter)
            index += 1
        raise ExpansionError("a double quote isn't closed")

    def _variable(self, index: int, depth: int) -> tuple[str, int]:
        """Return the value of the variable whose name begins at *index*, and the index behind it."""
        if depth > MAX_DEPTH:
            raise ExpansionError(f"variables are nested more than {MAX_DEPTH} deep")
        braced = self._word.startswith("{", index)
        index += braced
        name = _NAME.match(self._word, index)
        if name is None:
            if braced:
                raise ExpansionError("${ is followed by no name")
            return "$", index
        index = name.end()
        value = self._variables.get(name[0])
        if not braced:
            return value or "", index
        if self._word.startswith("}", index):
            return value or "", index + 1
        colon = self._word.startswith(":", index)
        index += colon
        sign = self._word[index : index + 1]
        if sign not in {"-", "+", "?"}:
            raise ExpansionError(f"${{{name[0]}…}}: only :-, :+ and :? are supported")
        word, index = self.read(index + 1, "}", depth + 1)
        absent = value is None or (colon and not value)
        if sign == "?" and absent:
            raise ExpansionError(f"{name[0]}: {word or 'has no value'}")
        chosen = (word if absent else value) if sign != "+" else ("" if absent else word)
        return chosen or "", index
