"""Lists of the engine, row by row as they arrive: a list of any length takes the memory of a row.

A row of any length costs that row only: beyond ``ROW_MAX`` its short members are read
(``object_cutter``), and the encoder of the rows makes up for the others.

Pure. The engine answers a list as a JSON array, or as an object that begins with the array
(``{"Volumes": [...], ...``). A list in another form is parsed as a whole, within the limit of
other answers.
"""

from __future__ import annotations

import codecs
import re
from typing import Any

from controller.broker.engine.object_cutter import ObjectCutter
from controller.broker.gate.commands import Rows, encode_list, encode_row
from controller.core.encoding.json_members import DECODER

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
