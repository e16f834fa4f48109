"""The lines of the engine's events, each of bounded length: a longer one costs that line only.

Pure. A line beyond ``LINE_MAX`` is replaced by the event without its long members, and dropped if it
is no JSON object.
"""

from __future__ import annotations

import codecs
import json

from controller.broker.engine.object_cutter import ObjectCutter

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
