"""The text of a Dockerfile: lines and here-documents, and the variables in its words.

Lines of a Dockerfile: directives, comments, continued lines and here-documents.

The text is cut as the parsers of all supported engines cut it. Text that two of them would cut in different ways
is a problem.

Words of a Dockerfile: variables, quotes and escapes, as the builder expands them.

The expansion differs from a shell's: ``${X:-word}``, ``${X:+word}`` and the forms without the colon exist, patterns
don't, and quotes are removed. A name without a value expands to nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from controller.model.errors import Problem

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


#: The largest Dockerfile, in characters.
MAX_TEXT: Final = 256 * 1024
#: The longest instruction, in characters. The builder reads lines below 64 KiB.
MAX_LINE: Final = 32 * 1024

_DIRECTIVE = re.compile(r"#[ \t]*([a-zA-Z][a-zA-Z0-9]*)[ \t]*=")
#: The syntaxes that say no more than the builder of the engine knows, or what this reader translates.
_SYNTAX = re.compile(
    r"(docker\.io/)?docker/dockerfile(:(1[\w.-]*|latest|experimental))?(@sha256:[0-9a-f]{64})?"
)
_HEREDOC = re.compile(r"\d*<<(-?)([^<]+)")
#: Letters that some parser takes for a blank or the end of a line, or that no editor shows.
_UNSEEN = re.compile(r"[^\S \t]|[\x00-\x08\x0e-\x1f\x7f\ufeff]")


@dataclass(frozen=True, slots=True)
class Heredoc:
    """The lines below an instruction up to their terminator."""

    name: str
    #: The lines, each with its newline, without leading tabs if the here-document was written ``<<-``.
    content: str
    #: The lines as they were written.
    written: str


@dataclass(frozen=True, slots=True)
class DockerfileLine:
    """An instruction, with continued lines joined."""

    #: The number of its first line, from 1.
    number: int
    #: In capitals.
    keyword: str
    #: The rest, without blanks around it.
    rest: str
    heredocs: tuple[Heredoc, ...] = ()


@dataclass(frozen=True, slots=True)
class Lines:
    """The instructions of a Dockerfile."""

    instructions: tuple[DockerfileLine, ...]
    #: The letter that continues lines and escapes letters: ``\\`` or `````.
    escape: str


def cut(text: str) -> Lines | tuple[Problem, ...]:
    """Return the instructions of a Dockerfile's text, or why it can't be cut."""
    if len(text) > MAX_TEXT:
        return (Problem("build.syntax", f"the Dockerfile has more than {MAX_TEXT // 1024} KiB"),)
    physical = [line.removesuffix("\r") for line in text.removeprefix("\ufeff").split("\n")]
    directives = _directives(physical)
    if isinstance(directives, Problem):
        return (directives,)
    escape = directives.get("escape", "\\")
    found: list[DockerfileLine] = []
    index = 0
    while index < len(physical):
        start = index
        joined, index = _joined(physical, index, escape)
        if not joined:
            continue
        line = _instruction(joined, start + 1, escape)
        if isinstance(line, Problem):
            return (line,)
        if line.keyword in {"RUN", "COPY", "ADD"} and not line.rest.startswith("["):
            read = _heredocs(line, physical, index)
            if isinstance(read, Problem):
                return (read,)
            line, index = read
        found.append(line)
    return Lines(tuple(found), escape)


def _directives(physical: list[str]) -> dict[str, str] | Problem:
    """Return the parser directives above the first instruction, comment or empty line."""
    found: dict[str, str] = {}
    for number, line in enumerate(physical, 1):
        stripped = line.lstrip(" \t")
        match = _DIRECTIVE.match(stripped)
        if match is None or (name := match[1].lower()) not in {"syntax", "escape", "check"}:
            break
        if not (value := stripped[match.end() :].strip(" \t")):
            break
        if name in found:
            return Problem("build.syntax", f"the directive {name} is repeated", line=number)
        found[name] = value
        if name == "escape" and value not in {"\\", "`"}:
            return Problem("build.syntax", f"escape={value}: the escape is \\ or `", line=number)
        if name == "syntax" and not _SYNTAX.fullmatch(value):
            return Problem(
                "build.syntax",
                f"syntax={value} names another reader of Dockerfiles",
                line=number,
                remedy="remove the line, or name docker/dockerfile:1",
            )
    return found


def _joined(physical: list[str], index: int, escape: str) -> tuple[str, int]:
    """Return the instruction that begins at *index*, joined, and the index behind it; '' for a comment."""
    first = physical[index].lstrip(" \t")
    if first.startswith("#"):
        return "", index + 1
    joined, more = _continued(first, escape)
    index += 1
    while more and index < len(physical):
        line = physical[index]
        index += 1
        if not (stripped := line.lstrip(" \t")) or stripped.startswith("#"):
            continue
        line, more = _continued(line, escape)
        joined += line
    return joined.strip(" \t"), index


def _continued(line: str, escape: str) -> tuple[str, bool]:
    """Return the line without its escape at the end, and True if it had one."""
    bare = line.rstrip(" \t")
    return (
        (bare[:-1], True)
        if bare.endswith(escape) and not bare.endswith(escape * 2)
        else (line, False)
    )


def _instruction(joined: str, number: int, escape: str) -> DockerfileLine | Problem:
    if _UNSEEN.search(joined):
        return Problem(
            "build.syntax",
            "the instruction has a control character or an unusual blank",
            line=number,
        )
    if len(joined) > MAX_LINE:
        return Problem(
            "build.syntax", f"the instruction has more than {MAX_LINE // 1024} KiB", line=number
        )
    if joined.endswith(escape):
        return Problem(
            "build.syntax", f"the instruction ends with {escape}", line=number, remedy="remove it"
        )
    keyword, *rest = re.split(r"[ \t]+", joined, maxsplit=1)
    return DockerfileLine(number, keyword.upper() if keyword.isascii() else keyword, "".join(rest))


def _heredocs(
    line: DockerfileLine, physical: list[str], index: int
) -> tuple[DockerfileLine, int] | Problem:
    """Return the line with its here-documents, and the index behind them."""
    found: list[Heredoc] = []
    for word in split_words(line.rest, "\\"):
        if (match := _HEREDOC.fullmatch(word)) is None:
            continue
        name = match[2].replace("\\", "").strip("\"'")
        body: list[str] = []
        while index < len(physical):
            written = physical[index]
            index += 1
            if (written.lstrip("\t") if match[1] else written) == name:
                break
            body.append(written)
        else:
            return Problem(
                "build.heredoc", f"no line {name} ends the here-document", line=line.number
            )
        content = [text.lstrip("\t") if match[1] else text for text in body]
        found.append(
            Heredoc(name, *("".join(f"{text}\n" for text in part) for part in (content, body)))
        )
    return DockerfileLine(line.number, line.keyword, line.rest, tuple(found)), index
