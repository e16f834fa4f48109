"""Lists of the engine, row by row as they arrive: a list of any length takes the memory of a row.

A row of any length costs that row only: beyond ``ROW_MAX`` its short members are read
(``object_cutter``), and the encoder of the rows makes up for the others.

Pure. The engine answers a list as a JSON array, or as an object that begins with the array
(``{"Volumes": [...], ...``). A list in another form is parsed as a whole, within the limit of
other answers.

The lines of the engine's events, each of bounded length: a longer one costs that line only.

Pure. A line beyond ``LINE_MAX`` is replaced by the event without its long members, and dropped if it
is no JSON object.

One JSON object of the engine, however long: its short members are read, the long ones are skipped.

Pure. An image chooses labels, ports, volumes and variables of its containers, and the engine repeats
them in rows of lists and in events. Memory is that of a member; work is linear in the length.
"""

from __future__ import annotations

import codecs
import json
import re
from typing import Any

from controller.broker.gate.commands import Rows, encode_list, encode_row
from controller.core.encoding.json_values import DECODER

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


#: Characters of a whole row. A row is parsed in one step, and nobody else is served meanwhile.
ROW_MAX = 512 * 1024
#: Characters of a list that is not in one of the two forms.
WHOLE_MAX = 16 * 1024 * 1024
#: Bytes of the encoded rows together.
LIST_BYTES_MAX = 32 * 1024 * 1024
_SPACE = re.compile(r"[ \t\r\n,]*")
_HEAD_MAX = 256


class ListBroken(Exception):
    """The text is no list."""


class ListTooLong(Exception):
    """The encoded rows together exceed a limit, or a list that isn't read row by row."""


class RowParser:
    """Feed the bytes of one answer; ``finish`` returns the encoded list."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""
        #: The next length of ``_text`` for which a row may be complete: each row is tried at
        #: doubled lengths, so that the work is linear in its length.
        self._try_at = 0
        #: Reads the present row, if that is too long.
        self._cutter: ObjectCutter | None = None
        self._begun = False
        self._ended = False
        self._whole = False
        self._encoded: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes, *, final: bool = False) -> None:
        """Parse what arrived.

        Raises:
            ListBroken, ListTooLong.
        """
        self._text += self._decoder.decode(data, final)
        if not self._begun and not self._whole:
            self._begin(final=final)
        if self._whole:
            if len(self._text) > WHOLE_MAX:
                raise ListTooLong(f"it passes {WHOLE_MAX} bytes")
        elif self._begun and not self._ended:
            self._read_rows(final=final)
        if self._ended:
            self._text = ""  # the members after the list

    def finish(self) -> bytes:
        """Return the encoded list.

        Raises:
            ListBroken, ListTooLong.
        """
        self.feed(b"", final=True)
        if self._whole:
            return encode_list(self._rows, self._text.encode())
        if not self._ended:
            raise ListBroken("it broke off")
        return self._rows.joined(self._encoded)

    def _begin(self, *, final: bool) -> None:
        """Find the beginning of the list."""
        member = self._rows.member
        pattern = r"\s*\[" if not member else rf'\s*\{{\s*"{member}"\s*:\s*(?:\[|(null))'
        match = re.match(pattern, self._text)
        if match is not None:
            self._begun = True
            self._ended = bool(member and match[1])
            self._text = self._text[match.end() :]
        elif final or len(self._text) > _HEAD_MAX:
            self._whole = True

    def _read_rows(self, *, final: bool) -> None:
        at = 0
        while True:
            if self._cutter is not None:
                rest = self._cutter.feed(self._text[at:], final=final)
                self._text, at = rest or "", 0
                if rest is None:
                    break
                self._add(self._cutter.members)
                self._cutter = None
            space = _SPACE.match(self._text, at)
            at = space.end() if space is not None else at
            left = len(self._text) - at
            if left == 0 or (left < self._try_at and not final):
                break
            if self._text[at] == "]":
                self._ended = True
                break
            if self._text[at] != "{":
                raise ListBroken("a row is no object")
            try:
                row, at = DECODER.raw_decode(self._text, at)
            except (ValueError, RecursionError):
                if left <= ROW_MAX and not final:
                    self._try_at = min(2 * left, ROW_MAX + 1)
                    break
                self._cutter, at = ObjectCutter(), at + 1
            else:
                self._add(row)
            self._try_at = 0
        self._text = self._text[at:]

    def _add(self, row: dict[str, Any]) -> None:
        encoded = encode_row(self._rows, row)
        if encoded is None:
            return
        self._size += len(encoded) + 1
        if self._size > LIST_BYTES_MAX:
            raise ListTooLong(f"it passes {LIST_BYTES_MAX} bytes")
        self._encoded.append(encoded)


#: Bytes of a whole line. The engine repeats all labels of a container in each of its events.
LINE_MAX = 256 * 1024


class EventLines:
    """Feed the bytes of one stream."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._long: _LongLine | None = None

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that *data* completes, without their ends."""
        lines: list[bytes] = []
        first, *others = data.split(b"\n")
        self._add(first)
        for each in others:
            line = bytes(self._line) if self._long is None else self._long.finish()
            lines += [] if line is None else [line]
            self._line, self._long = bytearray(), None
            self._add(each)
        return lines

    def _add(self, data: bytes) -> None:
        if self._long is None:
            self._line += data
            if len(self._line) <= LINE_MAX:
                return
            data, self._line = bytes(self._line), bytearray()
            self._long = _LongLine()
        self._long.add(data)


class _LongLine:
    """A line that isn't kept."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._cutter: ObjectCutter | None = None
        self._is_ended = self._is_broken = False

    def add(self, data: bytes, *, final: bool = False) -> None:
        text = self._decoder.decode(data, final)
        if self._cutter is None:
            text = text.lstrip()
            self._is_broken = self._is_broken or not text.startswith("{")
            self._cutter, text = ObjectCutter(), text[1:]
        if self._is_broken or self._is_ended:
            self._is_broken = self._is_broken or bool(text.strip())
            return
        try:
            rest = self._cutter.feed(text, final=final)
        except ValueError:
            self._is_broken = True
        else:
            self._is_ended = rest is not None
            self._is_broken = bool((rest or "").strip())

    def finish(self) -> bytes | None:
        """Return the line without its long members; None for no object."""
        self.add(b"", final=True)
        if self._is_broken or not self._is_ended or self._cutter is None:
            return None
        event = self._cutter.members
        event.setdefault("Actor", {"ID": event.get("id", ""), "Attributes": {}})
        return json.dumps(event, separators=(",", ":")).encode()
