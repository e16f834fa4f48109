"""One JSON object of the engine, however long: its short members are read, the long ones are skipped.

Pure. An image chooses labels, ports, volumes and variables of its containers, and the engine repeats
them in rows of lists and in events. Memory is that of a member; work is linear in the length.
"""

from __future__ import annotations

import json
import re
from typing import Any

from controller.core.encoding.json_members import DECODER

#: Characters of a member of a long object; longer members are left out.
MEMBER_MAX = 64 * 1024
_NAME_MAX = 1024
_BETWEEN = re.compile(r"[ \t\r\n,]*+")
_NAME = re.compile(r'("(?:[^"\\]++|\\.)*+")[ \t\r\n]*+:[ \t\r\n]*+(?=.)', re.DOTALL)
#: Text that opens and closes nothing, with whole strings.
_PLAIN = re.compile(r'(?:[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
_IN_STRING = re.compile(r'(?:[^"\\]++|\\.)*+', re.DOTALL)
_OPENING, _CLOSING = re.compile(r"[{\[]*+"), re.compile(r"[}\]]*+")


class ObjectCutter:
    """Feed the text after the object's first brace. ``members`` are those read so far."""

    def __init__(self) -> None:
        self.members: dict[str, Any] = {}
        self._text = ""
        #: The next length of ``_text`` for which a member may be complete: each is tried at doubled
        #: lengths.
        self._try_at = 0
        #: The value that is being skipped.
        self._skipped: _Skipped | None = None

    def feed(self, text: str, *, final: bool = False) -> str | None:
        """Return the text after the end of the object; None before its end.

        *final*: no more text follows.

        Raises:
            ValueError: the text is no JSON.
        """
        self._text += text
        at = 0
        while True:
            if self._skipped is not None:
                at = self._skipped.find_end(self._text, at)
                if at < 0:
                    self._text = ""
                    return None
                self._skipped = None
            at = _after(_BETWEEN, self._text, at)
            left = len(self._text) - at
            if left and self._text[at] == "}":
                return self._text[at + 1 :]
            if left == 0 or (left < self._try_at and not final):
                break
            end = self._read_member(at, final=final)
            if end == at:
                self._try_at = min(2 * left, MEMBER_MAX + 1)
                break
            at, self._try_at = end, 0
        self._text = self._text[at:]
        return None

    def _read_member(self, at: int, *, final: bool) -> int:
        """Read a member, or begin to skip it. Return the place after what was read."""
        name = _NAME.match(self._text, at)
        if name is None:
            if len(self._text) - at > _NAME_MAX:
                raise ValueError("it has no name of a member")
            return at
        try:
            value, end = DECODER.raw_decode(self._text, name.end())
        except (ValueError, RecursionError):
            end = len(self._text)
        if end < len(self._text):  # a number at the end of the text may go on
            if end - at <= MEMBER_MAX:
                self.members[str(json.loads(name[1]))] = value
            return end
        if not final and end - at <= MEMBER_MAX:
            return at
        if self._text[name.end()] not in '"{[':
            raise ValueError("it has no value of a member")
        self._skipped = _Skipped()
        return name.end()


class _Skipped:
    """A string, object or array that is skipped."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = self._is_escaped = False

    def find_end(self, text: str, at: int) -> int:
        """Return the place after the end, from *at* on; -1 if the text ends before."""
        while at < len(text):
            if self._in_string:
                at = _after(_IN_STRING, text, at + self._is_escaped)
                self._is_escaped = text.startswith("\\", at)  # the last character
                if not text.startswith('"', at):
                    return -1
                self._in_string = False
            else:
                opened = _after(_OPENING, text, at)
                self._depth += opened - at
                closed = _after(_CLOSING, text, opened)
                if 0 < self._depth <= closed - opened:
                    return opened + self._depth
                self._depth -= closed - opened
                at = _after(_PLAIN, text, closed) if self._depth else closed
                if not text.startswith('"', at):
                    continue
                self._in_string = True  # its end isn't there yet
            at += 1
            if self._depth == 0 and not self._in_string:
                return at
        return -1


def _after(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return at if match is None else match.end()
